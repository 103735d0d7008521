"""What is done with a finished variant beside the queue: scored on a suite, exported.

Each job is a process of its own whose words and result lie in `<home>/runs/<name>/`, so it outlives
the page as runs do. Knows processes and the JSON of commands; knows no model.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Any, Literal

from arena.runs.commands import LongCommand
from arena.runs.found import is_locked, last_word
from arena.runs.json_files import read_json
from arena.runs.requests import RunRefusedError, folder_of

JobKind = Literal["score", "export"]
KINDS: tuple[JobKind, ...] = ("score", "export")
JOB_FILES = tuple(f"{kind}.{ending}" for kind in KINDS for ending in ("log", "json"))
TARGETS = ("gguf", "ollama", "folder")
PROMPTS = 120
"""So many prompts of the suite are asked: its whole takes minutes on a processor."""
CARD_CHARS = 40_000


class JobTable:
    """The jobs of one home."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._children: list[LongCommand] = []  # kept until they have ended

    def score(self, name: str, base: str) -> None:
        """Ask a variant and its base the same prompts of the suite `starter`."""
        names = [base, name] if base and base != name else [name]
        suite = ["--suite", "starter", "--limit", str(PROMPTS)]
        self._start(name, "score", ["eval", *names, *suite])

    def export(self, name: str, target: str) -> None:
        """Write a variant below `<home>/exports`."""
        if target not in TARGETS:
            raise RunRefusedError(f"target {target[:40]!r}: give {', '.join(TARGETS)}")
        suffix = "model.gguf" if target == "gguf" else target
        out = self._home / "exports" / f"{name}-{suffix}"
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunRefusedError(f"{out.parent}: cannot be made ({error.strerror})") from error
        self._start(name, "export", ["models", "export", name, "--to", target, "--out", str(out)])

    def is_going(self, name: str) -> bool:
        """Whether any job works on the variant."""
        return any(is_locked(self._log(name, kind)) for kind in KINDS)

    def told(self, name: str) -> dict[str, Any]:
        """Of each job that was started: whether it goes on, its result, or why it failed."""
        found: dict[str, Any] = {}
        for kind in KINDS:
            log = self._log(name, kind)
            if is_locked(log):
                found[kind] = {"state": "running", "result": None, "error": None}
            elif log.is_file():
                result = read_json(self._result(name, kind)) or None
                error = None if result else last_word(log) or "the process ended without a word"
                state = "done" if result else "failed"
                found[kind] = {"state": state, "result": result, "error": error}
        return found

    def _log(self, name: str, kind: JobKind) -> Path:
        return folder_of(self._home, name) / f"{kind}.log"

    def _result(self, name: str, kind: JobKind) -> Path:
        return folder_of(self._home, name) / f"{kind}.json"

    def _start(self, name: str, kind: JobKind, words: list[str]) -> None:
        self._children = [child for child in self._children if child.poll() is None]
        log, result = self._log(name, kind), self._result(name, kind)
        try:
            log.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(log, os.O_WRONLY | os.O_CREAT, 0o600)
        except OSError as error:
            raise RunRefusedError(f"{log.name}: cannot be written ({error.strerror})") from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.truncate(handle, 0)
            with result.open("wb") as sink:
                words = [*words, "--home", str(self._home), "--json"]
                self._children.append(LongCommand(words, sink, handle))
        except BlockingIOError as error:
            raise RunRefusedError(f"{name!r}: this goes on already; wait for it") from error
        except OSError as error:
            raise RunRefusedError(f"{name!r}: could not be started ({error})") from error
        finally:
            os.close(handle)


def card_of(home: Path, name: str) -> str:
    """The model card of a variant as text; "" where it has none."""
    try:
        with (home / "models" / name / "README.md").open(
            encoding="utf-8", errors="replace"
        ) as file:
            return file.read(CARD_CHARS)
    except OSError:
        return ""
