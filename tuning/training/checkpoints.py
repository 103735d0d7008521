"""Checkpoints of an unfinished run: whole or absent, verified before use, never mixed up.

A run keeps them in `<home>/models/.<name>.run/`: `run.json` says which run it is, each
`step-<n>/` holds weights, optimizer, schedule, random states, history and a manifest of hashes;
`live.jsonl` holds the figures so far for who watches.
One process at a time holds the folder's `lock`. Knows files; does not know what is trained.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from tuning.errors import TuningError
from tuning.training.live import LIVE_FILE
from tuning.variant.folder import file_sha256
from tuning.variant.manifest import dump_json, publish, write_atomically

MANIFEST = "manifest.json"
RUN_FILE = "run.json"
LOCK_FILE = "lock"
DAY = "day"
KEPT = 2
# Settings that may change between the two halves of a run without changing its weights.
FREE_CHECKS = ("save_every", "save_steps", "samples", "report_to", "challengers")
FREE_SETTINGS = frozenset(
    {"overwrite", "restart", "home", *(f"checks.{name}" for name in FREE_CHECKS)}
)


class CheckpointError(TuningError):
    """A run that cannot go on or cannot save; names the folder, the difference, the remedy."""


@dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint: after how many steps and how many seconds of the run."""

    folder: Path
    step: int
    seconds: float


class RunFolder:
    """The folder of one unfinished run."""

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        self.folder = folder
        self.identity = dict(identity)
        self.skipped: list[str] = []
        """Checkpoints that were not whole, each with the reason, after `newest` was asked."""

    @property
    def saving(self) -> Path:
        """Where a checkpoint is written before it is whole."""
        return self.folder / "saving.tmp"

    def newest(self) -> Checkpoint | None:
        """The newest checkpoint that verifies; CheckpointError when it is of another run."""
        if not (self.folder / RUN_FILE).is_file():
            return None
        self._refuse_other_run()
        for folder in sorted(self.folder.glob("step-*"), reverse=True):
            problem = _problem(folder)
            if problem is None:
                manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
                return Checkpoint(folder, manifest["step"], manifest["seconds"])
            self.skipped.append(f"{folder.name}: {problem}")
        return None

    def begin(self) -> None:
        """Make the folder and say whose it is; done before the first checkpoint."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if not (self.folder / RUN_FILE).is_file():
            write_atomically(self.folder / RUN_FILE, dump_json(self.identity))

    def at(self, step: int) -> Path | None:
        """The checkpoint after so many steps; None where there is no whole one."""
        folder = self.folder / _folder_name(step)
        return folder if _problem(folder) is None else None

    def commit(
        self, written: Path, step: int, seconds: float, spare: int | None = None
    ) -> Checkpoint:
        """Give the files in `written` a manifest, flush them, rename; drop checkpoints before.

        The one after `spare` steps stays.
        """
        # A model that is spread over the processes is written into folders of its own.
        paths = sorted(path for path in written.rglob("*") if path.is_file())
        files = {path.relative_to(written).as_posix(): file_sha256(path) for path in paths}
        manifest = {"step": step, "seconds": seconds, "files": files}
        write_atomically(written / MANIFEST, dump_json(manifest))
        final = self.folder / _folder_name(step)
        publish(written, final, replace=True)
        for old in sorted(self.folder.glob("step-*"))[:-KEPT]:
            if spare is None or old.name != _folder_name(spare):
                shutil.rmtree(old)
        return Checkpoint(final, step, seconds)

    def discard(self) -> None:
        """Remove the run; its variant is finished or the user starts anew. The lock stays.

        Each checkpoint is renamed before it is removed, so that none is taken half removed.
        """
        doomed = self.folder / "discarded.tmp"
        shutil.rmtree(doomed, ignore_errors=True)  # of a run that was killed right here
        left = [path for path in self.folder.glob("*") if path.name != LOCK_FILE]
        if left:
            doomed.mkdir()
            for path in sorted(left, key=lambda path: path.name == RUN_FILE):
                path.rename(doomed / path.name)
            shutil.rmtree(doomed)

    def _refuse_other_run(self) -> None:
        try:
            stored = json.loads((self.folder / RUN_FILE).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise CheckpointError(
                f"{self.folder / RUN_FILE}: cannot be read ({error}); start anew with --restart"
            ) from error
        ours, theirs = flatten(self.identity), flatten(stored)
        for key in sorted({*ours, *theirs}, key=lambda key: (not key.startswith("settings."), key)):
            if ours.get(key) != theirs.get(key):
                raise CheckpointError(
                    f"{self.folder}: an unfinished run of this name has {key} "
                    f"{_short(theirs.get(key))}, now it is {_short(ours.get(key))}; repeat its "
                    "command to go on, or start anew with --restart"
                )


@contextmanager
def locked_run(folder: Path, name: str) -> Iterator[None]:
    """Keep other processes from running `name` in the run folder `folder`.

    The lock ends with the process, however it ends. CheckpointError when another one has it. A
    folder in which no checkpoint came to be goes with the lock.
    """
    with _locked(folder, name):
        try:
            yield
        finally:
            if all(path.name in (LOCK_FILE, LIVE_FILE) for path in folder.glob("*")):
                shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _locked(folder: Path, name: str) -> Iterator[None]:
    path = folder / LOCK_FILE
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except FileNotFoundError:
            continue  # its last holder removed the folder just now
        try:
            _lock(handle, folder, name)
            if path.exists() and os.path.samestat(os.fstat(handle), path.stat()):
                os.truncate(handle, 0)
                os.write(handle, str(os.getpid()).encode())
                yield
                return
        finally:
            os.close(handle)


def _lock(handle: int, folder: Path, name: str) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EAGAIN):
            raise CheckpointError(
                f"{folder}: cannot be locked ({error.strerror}); choose a --home on a local disk"
            ) from error
        holder = os.pread(handle, 20, 0).decode(errors="replace")
        raise CheckpointError(
            f"name {name!r}: a run of this name is going on (process {holder}, {folder}); wait for "
            "it, stop it, or choose another --name"
        ) from error


def first_day(folder: Path) -> date | None:
    """The day on which the unfinished run in `folder` began; None where none is recorded."""
    try:
        return date.fromisoformat(json.loads((folder / RUN_FILE).read_text("utf-8"))[DAY])
    except (OSError, ValueError, KeyError, TypeError):
        return None  # `RunFolder.newest` says what is wrong with the file


def identity_of(
    settings: Mapping[str, Any], data_sha256: str, base_sha256: str, template: str, processes: int
) -> dict[str, Any]:
    """What must be the same for a run to go on: settings, data, base, template, processes."""
    kept = {key: value for key, value in flatten(settings).items() if key not in FREE_SETTINGS}
    return {
        "settings": kept,
        "data": data_sha256,
        "base": base_sha256,
        "template": template,
        "processes": processes,
    }


def flatten(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested maps as one map with dotted keys; sequences as lists."""
    flat: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = list(value) if isinstance(value, tuple) else value
    return flat


def _folder_name(step: int) -> str:
    return f"step-{step:09d}"


def _problem(folder: Path) -> str | None:
    """Why a checkpoint cannot be used; None when every file is as its manifest says."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        files = dict(manifest["files"])
        int(manifest["step"]), float(manifest["seconds"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"{MANIFEST} cannot be read ({type(error).__name__})"
    for name, expected in files.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if file_sha256(path) != expected:
            return f"{name} is torn"
    return None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
