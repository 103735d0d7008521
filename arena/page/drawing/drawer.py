"""Has foreign texts drawn by processes beside the page, and kills one that does not answer.

Each text has a share of processor time and memory; what takes more is shown plain, and is not
tried again. The page's loop only waits. Knows processes and frames; knows no battle and no HTML.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import sys
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from arena.page.drawing.jobs import Job
from arena.page.drawing.process import LENGTH, MOST_BYTES

log = logging.getLogger(__name__)

MOST_KEPT = 20_000_000  # characters of HTML that are kept, of whole texts and of what took long
MOST_AT_ONCE = 8  # jobs of one frame: a long talk does not keep a process from others
START_SECONDS = 60.0
KEPT_VARIABLES = (
    "PATH",
    "PYTHONPATH",
    "PYTHONHOME",
    "LD_LIBRARY_PATH",
    "LANG",
    "LC_ALL",
    "SYSTEMROOT",
)
"""All of the environment that the process is given: keys of servers are not its business."""


@dataclass(frozen=True)
class DrawingLimits:
    """What drawing may take. Wall time ends only what the process cannot end itself."""

    processes: int = 2
    cpu_seconds: float = 0.5  # of one way to draw one text
    wall_seconds: float = 10.0  # of one text, from when the process got it
    memory_bytes: int = 1_000_000_000  # address space of a process


class DrawerLostError(Exception):
    """The process ended, or had to be ended, before it replied."""


class NoDrawerError(DrawerLostError):
    """No process could be started; no text is to blame."""


class _Process:
    """One drawing process and the pipe to it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, limits: DrawingLimits) -> _Process:
        """A process that has loaded all it needs. DrawerLostError when it does not get there."""
        words = [str(limits.cpu_seconds), str(limits.memory_bytes)]
        try:
            process = cls(
                await asyncio.create_subprocess_exec(
                    *(sys.executable, "-P", "-m", "arena.page.drawing.process", *words),
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    env={name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ},
                )
            )
        except OSError as error:
            raise NoDrawerError(str(error)) from error
        try:
            await process.ask([], START_SECONDS)
        except DrawerLostError as error:
            await process.end()
            raise NoDrawerError(str(error)) from error
        except BaseException:
            await process.end()
            raise
        return process

    @property
    def pid(self) -> int:
        return self._process.pid

    async def ask(self, jobs: Sequence[Job], seconds: float) -> list[tuple[Any, str]]:
        """What the jobs become. DrawerLostError when nothing sensible came in time."""
        body = json.dumps(jobs, separators=(",", ":")).encode()
        source, sink = self._process.stdout, self._process.stdin
        assert source is not None
        assert sink is not None
        try:
            async with asyncio.timeout(seconds):
                sink.write(LENGTH.pack(len(body)) + body)
                await sink.drain()
                (length,) = LENGTH.unpack(await source.readexactly(LENGTH.size))
                if length > MOST_BYTES:
                    raise DrawerLostError(f"a reply of {length} bytes")
                return [tuple(one) for one in json.loads(await source.readexactly(length))]
        except (TimeoutError, OSError, asyncio.IncompleteReadError) as error:
            raise DrawerLostError(type(error).__name__) from error

    async def end(self) -> None:
        """Kill it and take its exit status."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        if self._process.stdin is not None:
            self._process.stdin.close()
        await self._process.wait()


class Drawer:
    """A few drawing processes, started when they are needed, of one loop."""

    def __init__(self, limits: DrawingLimits | None = None) -> None:
        self.limits = limits or DrawingLimits()
        self._idle: list[_Process] = []
        self._busy: set[_Process] = set()
        self._places = asyncio.Semaphore(self.limits.processes)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._kept: OrderedDict[int, Any] = OrderedDict()
        self._num_kept = 0  # characters

    @property
    def pids(self) -> list[int]:
        """The processes that stand now."""
        return sorted(process.pid for process in (*self._idle, *self._busy))

    async def draw(self, jobs: Sequence[Job]) -> list[Any]:
        """What each job becomes (see `jobs`), or None for what is to be shown plain."""
        known = {job: self._kept[hash(job)] for job in jobs if hash(job) in self._kept}
        wanted = [job for job in dict.fromkeys(jobs) if job not in known]
        if not wanted:
            return [known[job] for job in jobs]
        for start in range(0, len(wanted), MOST_AT_ONCE):
            # A page that leaves does not take the process with it.
            task = asyncio.create_task(self._drawn(wanted[start : start + MOST_AT_ONCE]))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            known |= await asyncio.shield(task)
        return [known[job] for job in jobs]

    async def close(self) -> None:
        """End all processes; nothing is drawn any more."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(process.end() for process in (*self._idle, *self._busy)))
        self._idle.clear()

    async def _drawn(self, jobs: Sequence[Job]) -> dict[Job, Any]:
        try:
            return self._judged(jobs, await self._asked(jobs))
        except DrawerLostError:
            pass  # one of them may be to blame, and the others must not be shown plain for it
        drawn: dict[Job, Any] = {}
        for job in jobs:
            try:
                drawn |= self._judged([job], await self._asked([job]))
            except NoDrawerError as error:
                log.error("texts are shown plain, for none can be drawn: %s", error)
                drawn[job] = None
            except DrawerLostError as error:
                drawn |= self._judged([job], [(None, str(error))])
        return drawn

    async def _asked(self, jobs: Sequence[Job]) -> list[tuple[Any, str]]:
        async with self._places:
            process = self._idle.pop() if self._idle else await _Process.start(self.limits)
            self._busy.add(process)
            try:
                replies = await process.ask(jobs, self.limits.wall_seconds * len(jobs))
                self._idle.append(process)
                return replies
            except BaseException:  # also when the page ends: a reply may be under way
                await process.end()
                raise
            finally:
                self._busy.discard(process)

    def _judged(self, jobs: Sequence[Job], replies: Sequence[tuple[Any, str]]) -> dict[Job, Any]:
        """What came out by job; what took too long is remembered, for it would again."""
        for job, (drawn, told) in zip(jobs, replies, strict=True):
            if told:
                shown = "plain" if drawn is None else "simpler"
                text = str(job[1])
                log.warning("a text of %d characters is shown %s: %s", len(text), shown, told)
            if told or job[0] != "step":  # a step of a text that grows does not come again
                self._keep(job, drawn)
        return {job: drawn for job, (drawn, _) in zip(jobs, replies, strict=True)}

    def _keep(self, job: Job, drawn: Any) -> None:
        if hash(job) not in self._kept:
            self._num_kept += _size(drawn)
        self._kept[hash(job)] = drawn
        while self._num_kept > MOST_KEPT:
            _, oldest = self._kept.popitem(last=False)
            self._num_kept -= _size(oldest)


def _size(drawn: Any) -> int:
    """Characters of what is kept of one text, and a little for its place."""
    return 200 + (len(drawn) if isinstance(drawn, str) else 0)
