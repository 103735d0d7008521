"""The runs of a home folder and the state of each, told by files alone, so that no page is needed.

A run that the page started holds a lock on its log as long as it lives; every run holds the lock
of its folder `models/.<name>.run` while it trains. Runs of a terminal are found by the latter.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from arena.runs.figures import Figures
from arena.runs.json_files import read_json
from arena.runs.requests import NAME, RunRequest, folder_of, read_request, requests

LOG = "log.txt"
RESULT = "result.json"
LOCK = "lock"
LIVE = "live.jsonl"
SETTINGS = "run.json"
HISTORY = "history.jsonl"
VARIANT = "variant.json"
TOLD = "arena: "
LOG_BYTES = 16_384

RunState = Literal[
    "queued", "starting", "running", "stopping", "stopped", "cut_off", "failed", "done"
]
GOING = frozenset({"starting", "running", "stopping"})
RESUMABLE = frozenset({"stopped", "cut_off", "failed"})


@dataclass(frozen=True)
class FoundRun:
    """One run as its files tell it.

    `cut_off`: its process ended without a word, as by kill -9. `pid`: of the process that trains,
    0 where none does. `told`: the line in which `arena tune` said why it ended.
    """

    name: str
    state: RunState
    request: RunRequest | None = None
    pid: int = 0
    told: str = ""
    base: str = ""
    method: str = ""
    objective: str = ""
    changed_ms: int = 0


@dataclass
class RunFinder:
    """Finds the runs under one home; remembers how far it has read each history."""

    home: Path
    _figures: dict[Path, Figures] = field(default_factory=dict)
    _reading: threading.Lock = field(default_factory=threading.Lock)

    def names(self) -> list[str]:
        """Every name that a run has, or had."""
        models = self.home / "models"
        found = {one.name for one in requests(self.home)}
        found |= {path.name[1:-4] for path in models.glob(".*.run") if path.is_dir()}
        found |= {path.parent.name for path in models.glob(f"*/{HISTORY}")}
        return sorted(name for name in found if NAME.fullmatch(name))

    def all(self) -> list[FoundRun]:
        """Those that go on first, then those that wait, then the newest."""
        runs = [run for name in self.names() if (run := self.find(name))]
        order = {"running": 0, "stopping": 0, "starting": 0, "queued": 1}
        return sorted(
            runs,
            key=lambda run: (
                order.get(run.state, 2),
                (run.request.order_ms if run.request else 0)
                if run.state == "queued"
                else -run.changed_ms,
            ),
        )

    def find(self, name: str) -> FoundRun | None:
        """The run of this name; None where there is none."""
        request = read_request(self.home, name)
        state, pid, told = self._state(name, request)
        if state is None:
            return None
        about = self._about(name, request, state)
        return FoundRun(name, state, request, pid, told, *about, self._changed(name))

    def _state(self, name: str, request: RunRequest | None) -> tuple[RunState | None, int, str]:
        if request is not None and request.kind == "loop":
            return self._loop_state(name, request)
        folder = unfinished_of(self.home, name)
        trainer = holder_of(folder / LOCK)
        if request is not None and is_locked(folder_of(self.home, name) / LOG):
            if request.stop:
                return "stopping", trainer or request.pid, ""
            began = self._read(folder / LIVE).run.get("began_ms", 0)
            is_training = bool(trainer) and isinstance(began, int) and began >= request.order_ms
            return ("running" if is_training else "starting"), trainer or request.pid, ""
        if trainer:
            return "running", trainer, ""
        if request is not None and request.phase == "queued":
            return "queued", 0, ""
        if request is not None:
            return self._ended(name, request)
        if any(folder.glob("step-*")) or (folder / LIVE).exists():
            return "cut_off", 0, ""
        is_variant = (self.home / "models" / name / VARIANT).is_file()
        return ("done" if is_variant else None), 0, ""

    def _loop_state(self, name: str, request: RunRequest) -> tuple[RunState | None, int, str]:
        folder = folder_of(self.home, name)
        if is_locked(folder / LOG):
            return ("stopping" if request.stop else "running"), request.pid, ""
        if request.phase == "queued":
            return "queued", 0, ""
        if "folder" in read_json(folder / RESULT):
            return "done", 0, ""
        told = last_word(folder / LOG)
        if request.stop:
            return "stopped", 0, told
        return ("failed" if told else "cut_off"), 0, told

    def _ended(self, name: str, request: RunRequest) -> tuple[RunState | None, int, str]:
        """What became of a run that the page started."""
        folder, variant = folder_of(self.home, name), self.home / "models" / name / VARIANT
        told = last_word(folder / LOG)
        if "folder" in read_json(folder / RESULT):
            return ("done" if variant.is_file() else None), 0, ""
        if _time(variant) > _time(folder / LOG):  # a terminal went on with it to its end
            return "done", 0, ""
        if request.stop:
            return "stopped", 0, told
        return ("failed" if told else "cut_off"), 0, told

    def figures(self, run: FoundRun) -> Figures:
        """What its history says so far."""
        path = self.home / "models" / run.name / HISTORY
        if run.state != "done":
            path = unfinished_of(self.home, run.name) / LIVE
        return self._read(path)

    def _read(self, path: Path) -> Figures:
        with self._reading:  # two who look at once would take the same lines twice
            return self._figures.setdefault(path, Figures(path)).read()

    def _about(
        self, name: str, request: RunRequest | None, state: RunState
    ) -> tuple[str, str, str]:
        """Base, method and objective: as asked, else as the run or the variant says."""
        if request is not None:
            defaults = {"method": "lora", "objective": "sft"}
            if request.kind == "loop":
                defaults = {"method": "", "objective": "loop"}
            told = {**defaults, **{k: v for k, v in request.settings.items() if v is not None}}
        elif state == "done":
            variant = read_json(self.home / "models" / name / VARIANT)
            run = variant.get("run")
            config = run.get("config") if isinstance(run, dict) else None
            told = config if isinstance(config, dict) else {}
        else:
            told = self.settings_of(name)
        base, method, objective = (
            str(told.get(key) or "") for key in ("base", "method", "objective")
        )
        return base, method, objective

    def settings_of(self, name: str) -> dict[str, Any]:
        """The settings of an unfinished run, as it noted them with its first checkpoint."""
        folder = unfinished_of(self.home, name)
        settings = read_json(folder / SETTINGS).get("settings")
        if isinstance(settings, dict):
            return settings
        return self._read(folder / LIVE).run

    def _changed(self, name: str) -> int:
        places = (
            folder_of(self.home, name) / LOG,
            unfinished_of(self.home, name) / LIVE,
            self.home / "models" / name / VARIANT,
        )
        return max(map(_time, places))


def unfinished_of(home: Path, name: str) -> Path:
    """Where `arena tune` keeps an unfinished run."""
    return home / "models" / f".{name}.run"


def is_locked(path: Path) -> bool:
    """Whether a living process holds the file."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False


def holder_of(path: Path) -> int:
    """The process that trains in the folder of this lock; 0 where none does.

    The lock itself is tried only where a process of the noted number lives, so that a run which is
    just starting does not find it taken by who looks.
    """
    try:
        pid = int(path.read_text(encoding="ascii"))
        if pid <= 1:
            return 0
        os.kill(pid, 0)
    except PermissionError:
        pass  # it lives, and is somebody else's
    except (OSError, ValueError, OverflowError):
        return 0
    return pid if is_locked(path) else 0


def last_word(path: Path) -> str:
    """The last line that the command said of an error; "" where it said none."""
    try:
        with path.open("rb") as stream:
            stream.seek(max(0, path.stat().st_size - LOG_BYTES))
            lines = stream.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return ""
    found = (line.removeprefix(TOLD) for line in reversed(lines) if line.startswith(TOLD))
    return next(found, "")


def _time(path: Path) -> int:
    """When the file was last written, in milliseconds since 1970; 0 where there is none."""
    with contextlib.suppress(OSError):
        return path.stat().st_mtime_ns // 1_000_000
    return 0
