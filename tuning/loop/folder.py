"""The folder of a loop: what every task found, in files that are whole or absent.

A task that has a file is done, so that a loop that was killed goes on with the next one. Knows
names and JSON; knows no model.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from tuning.json_lines import JsonError, load_records
from tuning.loop.settings import LoopError, LoopSettings, PolicyObjective, changed
from tuning.training.checkpoints import locked_run
from tuning.variant.folder import VariantError, weights_sha256
from tuning.variant.manifest import dump_json, write_atomically

SETTINGS_FILE = "loop.json"
FORMAT_VERSION = 1
PARTS = ("rows", "votes", "models", "state")


@dataclass(frozen=True)
class LoopFolder:
    """What is kept in `path`: settings, what each task found, rows, and models of controls."""

    path: Path

    @property
    def models(self) -> Path:
        """The folders of its models; the loop is their home."""
        return self.path / "models"

    @contextmanager
    def opened(self, settings: LoopSettings, *, restart: bool) -> Iterator[None]:
        """Keep others out, and see that it is the same loop; with `restart` begin it anew.

        LoopError where it was begun with other settings, or cannot be read.
        """
        with locked_run(self.path, settings.name):
            if restart:
                self._forget(settings)
            self._begin(settings)
            try:
                yield
            finally:
                if not self._is_begun:  # refused before anything was found
                    self._clear()

    @property
    def _is_begun(self) -> bool:
        return any((self.path / "state").glob("*.json"))

    def _clear(self) -> None:
        for part in PARTS:
            shutil.rmtree(self.path / part, ignore_errors=True)
        (self.path / SETTINGS_FILE).unlink(missing_ok=True)

    def _forget(self, settings: LoopSettings) -> None:
        """Remove all that the loop made, the settings last: killed here, it is begun anew again."""
        for state in (self.path / "state").glob("*.json"):
            made = self._read(state)
            target = settings.home / "models" / str(made.get("model"))
            if made.get("in_home") and _weights(target) == made.get("weights_sha256"):
                shutil.rmtree(target)
        for objective in ("reward", *get_args(PolicyObjective)):
            unfinished = f".{settings.name}-{objective}.run"
            shutil.rmtree(settings.home / "models" / unfinished, ignore_errors=True)
        self._clear()

    def _begin(self, settings: LoopSettings) -> None:
        path, now = self.path / SETTINGS_FILE, settings.to_json()
        if not path.exists() or not self._is_begun:
            for part in PARTS:
                (self.path / part).mkdir(parents=True, exist_ok=True)
            content = {"format_version": FORMAT_VERSION, "settings": now}
            write_atomically(path, dump_json(content))
            return
        before = self._read(path)
        if before.get("format_version") != FORMAT_VERSION:
            raise LoopError(f"{path}: is of another version; give --restart or another --name")
        if not isinstance(before.get("settings"), dict):
            raise _torn(path, ValueError("it has no settings"))
        if told := changed(before["settings"], now):
            raise LoopError(
                f"loop {settings.name!r}: was begun with {'; '.join(told)}; repeat the command "
                "with the settings it had, give another --name, or --restart to begin it anew"
            )

    def found(self, task: str) -> dict[str, Any] | None:
        """What a task found; None where it is not done."""
        path = self.path / "state" / f"{task}.json"
        return self._read(path) if path.exists() else None

    def keep(self, task: str, found: Mapping[str, Any]) -> None:
        """Write what a task found, to the disk."""
        write_atomically(self.path / "state" / f"{task}.json", dump_json(dict(found)))

    def keep_rows(self, name: str, rows: Sequence[Mapping[str, Any]], room: str = "rows") -> Path:
        """Write rows as JSON Lines, to the disk."""
        path = self.path / room / f"{name}.jsonl"
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        write_atomically(path, "".join(lines))
        return path

    def rows(self, name: str) -> list[dict[str, Any]]:
        """The rows called `name`; LoopError where they are gone."""
        path = self.path / "rows" / f"{name}.jsonl"
        try:
            return load_records(path)
        except (OSError, JsonError) as error:
            raise _torn(path, error) from error

    def _read(self, path: Path) -> dict[str, Any]:
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(content, dict):
                raise ValueError("is no JSON object")
        except (OSError, ValueError) as error:
            raise _torn(path, error) from error
        return content


def _weights(folder: Path) -> str | None:
    """The fingerprint of a variant's weights; None where there is no such variant."""
    try:
        return weights_sha256(folder)
    except VariantError:
        return None


def _torn(path: Path, error: Exception) -> LoopError:
    return LoopError(f"{path}: cannot be read ({error}); give --restart to begin the loop anew")
