"""What was asked of a run, as a small file of its own: the settings, and how far it has come.

`<home>/runs/<name>/request.json`, written whole or not at all. Knows no process.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter

from arena.runs.loops import loop_words
from arena.storage.private_files import write_private
from arena.values.refusals import RefusedError

FOLDER = "runs"
FILE = "request.json"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
HALF = 50
"""Per cent of the cores that a run takes unless it is told otherwise; answers need the others."""
FLAGS = {
    "base": "--base",
    "data": "--data",
    "method": "--method",
    "objective": "--objective",
    "name": "--name",
    "training.max_minutes": "--max-minutes",
    "training.max_steps": "--max-steps",
    "training.epochs": "--epochs",
    "training.learning_rate": "--learning-rate",
}
"""Settings that have an option of their own; all others go by `--set`."""

Setting = str | int | float | bool | list[str] | dict[str, str] | None


class RunRefusedError(RefusedError):
    """A run that cannot be asked for, or not now; the message names the reason and the remedy."""


class UnknownRunError(RefusedError):
    """There is no run of this name under home."""

    status = 404


@dataclass(frozen=True)
class RunRequest:
    """One run that was asked for on the page.

    `phase`: waits for its turn, or was started (whether it still runs, its files tell). `stop`:
    somebody asked it to stop. `restart`: an unfinished run of the name is to be forgotten. `kind`:
    the command; a loop makes a reward model and a policy of the votes.
    """

    name: str
    settings: Mapping[str, Setting] = field(default_factory=dict)
    share: int = HALF
    restart: bool = False
    order_ms: int = 0
    phase: Literal["queued", "started"] = "queued"
    stop: bool = False
    pid: int = 0
    kind: Literal["tune", "loop"] = "tune"

    @property
    def words(self) -> list[str]:
        """The arguments of `arena tune` or `arena loop` that make this run, its home left out."""
        if self.kind == "loop":
            words = loop_words(self.name, self.settings)
            return [*words, *(["--restart"] if self.restart else [])]
        given = {"name": self.name, **self.settings}
        words = [word for key in (*FLAGS, *given) for word in _words(key, given.pop(key, None))]
        return [*words, *(["--restart"] if self.restart else [])]

    def command(self, home: Path) -> str:
        """The same for a terminal."""
        return shlex.join(["arena", self.kind, *self.words, "--home", str(home)])


def _words(key: str, value: Setting) -> list[str]:
    if value is None or value in ("", [], {}):
        return []
    flag = FLAGS.get(key)
    if flag is None:
        return ["--set", f"{key}={_text(key, value)}"]
    # One word each, so that a value which begins with a dash is no option.
    several = value if isinstance(value, list) else [value]
    return [f"{flag}={_text(key, one)}" for one in several]


def _text(key: str, value: Setting) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(value)
    parts = value if isinstance(value, list) else []
    if isinstance(value, dict):
        parts = [f"{name}:{told}" for name, told in value.items()]
        if any(":" in name for name in value):
            raise RunRefusedError(f"{key}: a name with a colon can be given in a YAML file only")
    if any("," in part for part in parts):
        raise RunRefusedError(f"{key}: a part with a comma can be given in a YAML file only")
    return ",".join(parts) if isinstance(value, list | dict) else str(value)


def check_name(name: str) -> str:
    """RunRefusedError unless a variant can be called so."""
    if not NAME.fullmatch(name):
        raise RunRefusedError(
            f"name {name[:100]!r}: give up to 96 letters of A to Z, digits, dots, dashes and "
            "underscores, a letter or digit first"
        )
    return name


def folder_of(home: Path, name: str) -> Path:
    """Where the page keeps what it knows of the run."""
    return home / FOLDER / name


def write_request(home: Path, request: RunRequest) -> None:
    """Keep it on disk. Raises RunRefusedError where that fails."""
    try:
        text = json.dumps(asdict(request), ensure_ascii=False)
        write_private(folder_of(home, request.name) / FILE, text + "\n")
    except (OSError, UnicodeError) as error:
        raise RunRefusedError(
            f"run {request.name!r}: could not be noted ({error}); see that there is room"
        ) from error


def read_request(home: Path, name: str) -> RunRequest | None:
    """What was asked; None where the page was not, or the note cannot be read."""
    try:
        content = (folder_of(home, name) / FILE).read_bytes()
        found = TypeAdapter(RunRequest).validate_json(content)
    except (OSError, ValueError):
        return None
    return found if found.name == name else None


def requests(home: Path) -> list[RunRequest]:
    """All that was asked for, the oldest first."""
    names = [path.parent.name for path in (home / FOLDER).glob(f"*/{FILE}")]
    found = [one for name in names if (one := read_request(home, name))]
    return sorted(found, key=lambda one: (one.order_ms, one.name))
