"""Threads that do one compiled step together; knows no model and no step."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from typing import Any

Kernel = Callable[..., None]


class ThreadTeam:
    """Threads that do a step together: the caller's own, and helpers that sleep between steps.

    Helpers end when nobody holds the team any more.
    """

    def __init__(self, work: Kernel, num_threads: int) -> None:
        self._work = work
        self._queues = [SimpleQueue[Any]() for _ in range(num_threads - 1)]
        for i, queue in enumerate(self._queues):
            helper = Thread(target=_help, args=(work, i + 1, queue), daemon=True)
            helper.start()
            weakref.finalize(self, _dismiss, helper, queue)

    def run(self, parts: int, *arrays: Any) -> None:
        """Do one step."""
        for queue in self._queues:
            queue.put((parts, *arrays))
        self._work(0, parts, *arrays)


def _help(work: Kernel, number: int, queue: SimpleQueue[Any]) -> None:
    while (job := queue.get()) is not None:
        work(number, *job)


def _dismiss(helper: Thread, queue: SimpleQueue[Any]) -> None:
    queue.put(None)
    helper.join()
