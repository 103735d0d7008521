"""Lets work beside running streams take small turns.

Threads share the interpreter's lock: one that always has work makes every other wait for it
many times a step. Knows the interpreter; does not know what the work is.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

WORK_SECONDS = 0.0005
SLEEP_SECONDS = 0.002


@contextmanager
def throttled(is_busy: Callable[[], bool]) -> Iterator[None]:
    """While `is_busy`, have this thread sleep after each small piece of what it does meanwhile.

    The interpreter's profiling hook, which is a thread's own, is asked at every call, so that
    libraries take turns too. Hold no lock in here that streams need.
    """
    turn_ends = time.monotonic() + WORK_SECONDS

    def look(_frame: FrameType, _event: str, _argument: Any) -> None:
        nonlocal turn_ends
        now = time.monotonic()
        if now < turn_ends:
            return
        if is_busy():
            time.sleep(SLEEP_SECONDS)
            now = time.monotonic()
        turn_ends = now + WORK_SECONDS

    before = sys.getprofile()
    sys.setprofile(look)
    try:
        yield
    finally:
        sys.setprofile(before)
