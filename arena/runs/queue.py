"""Starts the runs that were asked for, one at a time, each as a process that outlives the page.

The process is `arena tune` itself; its words go into `<home>/runs/<name>/`. Of several pages on one
home the one that holds the queue's lock starts runs. Knows processes; knows no training.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import signal
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from arena.runs import challengers
from arena.runs.commands import LongCommand, run_command
from arena.runs.found import (
    GOING,
    LOCK,
    LOG,
    RESULT,
    RESUMABLE,
    FoundRun,
    RunFinder,
    unfinished_of,
)
from arena.runs.jobs import JOB_FILES, JobTable
from arena.runs.loops import folder_of_loop
from arena.runs.requests import (
    FOLDER,
    RunRefusedError,
    RunRequest,
    UnknownRunError,
    check_name,
    folder_of,
    requests,
    write_request,
)

log = logging.getLogger(__name__)

QUEUE_LOCK = ".queue.lock"
MOST_WAITING = 50


class RunQueue:
    """The runs of one home: asked for, started in their order, stopped, gone on with, removed."""

    def __init__(self, home: Path) -> None:
        self.home = home.resolve()
        self.finder = RunFinder(self.home)
        self.jobs = JobTable(self.home)
        self._lock = threading.Lock()
        self._children: dict[str, LongCommand] = {}
        self._holds: int | None = None

    def add(self, request: RunRequest) -> FoundRun:
        """Let a run wait for its turn. Raises RunRefusedError."""
        check_name(request.name)
        assert request.words  # refuses what no command line can say
        with self._lock:
            found = self.finder.find(request.name)
            if found is not None and found.state in (*GOING, "queued"):
                raise RunRefusedError(
                    f"run {request.name!r} is {found.state} already; stop or remove it first, or "
                    "choose another name"
                )
            if found is not None and found.state == "done":
                self._check_may_replace(request)
            if len([one for one in requests(self.home) if one.phase == "queued"]) >= MOST_WAITING:
                raise RunRefusedError(
                    f"{MOST_WAITING} runs are waiting already; remove some of them first"
                )
            self._clear(request)
            now = time.time_ns() // 1_000_000
            write_request(self.home, replace(request, phase="queued", stop=False, order_ms=now))
        self.tick()
        return self.get(request.name)

    def _check_may_replace(self, request: RunRequest) -> None:
        """What a finished run left is forgotten only for a run that may take its place."""
        if str(request.settings.get("overwrite")).lower() != "true":
            raise RunRefusedError(
                f"{request.name!r} is a variant already; choose another name, remove it first, or "
                "set overwrite"
            )
        if self.jobs.is_going(request.name):
            raise RunRefusedError(f"{request.name!r} is being scored or exported; wait for the end")

    def _clear(self, request: RunRequest) -> None:
        """Remove what the page kept of an earlier run of the name.

        A run that goes on goes on with its tracker's files, too, which lie there.
        """
        folder = folder_of(self.home, request.name)
        if request.restart:
            shutil.rmtree(folder, ignore_errors=True)
        for name in (LOG, RESULT, *JOB_FILES):
            with suppress(OSError):
                (folder / name).unlink()

    def get(self, name: str) -> FoundRun:
        """The run as it is now. Raises UnknownRunError."""
        found = self.finder.find(check_name(name))
        if found is None:
            raise UnknownRunError(f"run {name!r} is unknown; start it first")
        return found

    def stop(self, name: str) -> FoundRun:
        """Let a run save and end after its step; one that waits leaves the queue."""
        with self._lock:
            found = self.get(name)
            request = found.request
            if found.state == "queued" and request is not None:
                write_request(self.home, replace(request, phase="started", stop=True))
            elif found.state in GOING:
                if not found.pid:
                    raise RunRefusedError(f"run {name!r} is just starting; try again in a moment")
                if request is not None:
                    write_request(self.home, replace(request, stop=True))
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(found.pid, signal.SIGTERM)
            else:
                raise RunRefusedError(f"run {name!r} does not go on: it is {found.state}")
        return self.get(name)

    def resume(self, name: str, *, restart: bool = False) -> FoundRun:
        """Go on with a run that ended early, or (with `restart`) begin it anew."""
        found = self.get(name)
        if found.state not in RESUMABLE:
            raise RunRefusedError(f"run {name!r} cannot go on: it is {found.state}")
        request = found.request or self._of_terminal(name)
        return self.add(replace(request, restart=restart))

    def _of_terminal(self, name: str) -> RunRequest:
        """The same run as a request, for one that a terminal began."""
        noted = self.finder.settings_of(name)
        settings = {key: value for key, value in noted.items() if value is not None}
        settings.pop("name", None)
        if not {"base", "data"} <= settings.keys():
            raise RunRefusedError(
                f"run {name!r} has noted no settings yet; repeat its command, or remove it"
            )
        return RunRequest(name, settings)

    def remove(self, name: str) -> None:
        """Forget a run that does not go on, and its checkpoints; if it is done, its variant."""
        with self._lock:
            found = self.get(name)
            if found.state in GOING:
                raise RunRefusedError(f"run {name!r} is {found.state}; stop it first")
            if self.jobs.is_going(name):
                raise RunRefusedError(f"{name!r} is being scored or exported; wait for the end")
            if found.request is not None and found.request.kind == "loop":
                _discard(folder_of_loop(self.home, name))
            elif found.state == "done":
                run_command(["models", "remove", name, "--yes", "--home", str(self.home)])
            else:
                _discard(unfinished_of(self.home, name))
            challengers.remove(self.home, name)
            shutil.rmtree(folder_of(self.home, name), ignore_errors=True)

    def score(self, name: str) -> None:
        """Score a finished variant beside its base."""
        self.jobs.score(name, self._done(name).base)

    def export(self, name: str, target: str) -> None:
        """Write a finished variant for another program."""
        self.jobs.export(self._done(name).name, target)

    def _done(self, name: str) -> FoundRun:
        found = self.get(name)
        is_loop = found.request is not None and found.request.kind == "loop"
        if is_loop or found.state != "done":
            raise RunRefusedError(f"run {name!r} has made no variant yet: it is {found.state}")
        return found

    def tick(self) -> None:
        """Start the next run if none goes on, and serve no checkpoints of runs that are over.

        Called now and then, and after each act.

        Raises RunRefusedError where files cannot be written.
        """
        try:
            self._start_next()
            challengers.sweep(self.finder)
        except OSError as error:
            raise RunRefusedError(
                f"no run can be started ({error}); see that home can be written to and has room"
            ) from error

    def _start_next(self) -> None:
        with self._lock:
            for name, child in list(self._children.items()):
                if child.poll() is not None:
                    del self._children[name]
            waiting = [one for one in requests(self.home) if one.phase == "queued"]
            if not waiting or not self._is_ours():
                return
            if any(run.state in GOING for run in self.finder.all()):
                return
            self._start(waiting[0])

    def close(self) -> None:
        """Let another page have the queue; runs go on."""
        with self._lock:
            if self._holds is not None:
                os.close(self._holds)
                self._holds = None

    def _is_ours(self) -> bool:
        if self._holds is not None:
            return True
        (self.home / FOLDER).mkdir(parents=True, exist_ok=True)
        handle = os.open(self.home / FOLDER / QUEUE_LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(handle)
            return False
        self._holds = handle
        return True

    def _start(self, request: RunRequest) -> None:
        """Start the process; its log is locked as long as it, or a child of it, has it open."""
        folder = folder_of(self.home, request.name)
        words = [*request.words, "--home", str(self.home), "--json"]
        request = replace(request, phase="started", pid=0)
        write_request(self.home, request)  # before it starts: no run is ever started twice
        (folder / RESULT).unlink(missing_ok=True)
        handle = os.open(folder / LOG, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)  # who looks lets go at once
            with (folder / RESULT).open("wb") as result:
                child = LongCommand([request.kind, *words], result, handle, share=request.share)
        except OSError as error:
            os.write(handle, f"arena: the run could not be started ({error})\n".encode())
            return
        finally:
            os.close(handle)
        self._children[request.name] = child
        write_request(self.home, replace(request, pid=child.pid))
        log.info("run %s is process %d", request.name, child.pid)


def _discard(folder: Path) -> None:
    """Delete an unfinished run, unless a process has begun to train in it meanwhile."""
    if folder.is_symlink() or not folder.is_dir():
        return
    handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder)
    except BlockingIOError as error:
        raise RunRefusedError(
            f"{folder.name}: a run has just begun in it; stop it first"
        ) from error
    finally:
        os.close(handle)
