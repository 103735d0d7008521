"""The drawing process: reads jobs, draws each within its time and memory, writes what came out.

One frame each way: four bytes of length, then JSON. What cannot be drawn in time becomes `null`,
with a word why beside it; the process lives on. It ends with its standard input, so it outlives
nobody. Knows no page and no socket; holds nothing of anybody but the texts it was given last.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import struct
import sys
from collections.abc import Callable
from typing import Any, BinaryIO

from arena.page.drawing.jobs import ways

LENGTH = struct.Struct(">I")
MOST_BYTES = 32_000_000  # of a frame
MOST_HTML = 4_000_000  # characters of one text's HTML
AGAIN_SECONDS = 0.05
"""After the first signal the next: one that arrives where Python cannot raise is lost."""


class OutOfTimeError(BaseException):
    """The time of a job is over. No `Exception`, so that no library's handler takes it."""


def main(seconds: float, memory: int) -> None:
    """Serve until the input ends. `seconds` of processor time a way, `memory` in bytes at most."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the page, which closes our input
    signal.signal(signal.SIGPROF, _out_of_time)
    with contextlib.suppress(ValueError, OSError):  # not every system can bound it
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    while (body := _read(source)) is not None:
        drawn = [_draw(job, seconds) for job in json.loads(body)]
        reply = json.dumps(drawn, separators=(",", ":")).encode()
        try:
            sink.write(LENGTH.pack(len(reply)) + reply)
            sink.flush()
        except BrokenPipeError:  # a page that died leaves nobody to tell, at the exit neither
            os.dup2(os.open(os.devnull, os.O_WRONLY), sink.fileno())
            return


def _draw(job: Any, seconds: float) -> tuple[Any, str]:
    """What the job becomes, or None; and what went wrong on the way, by the error's name."""
    told = ""
    for way in ways(job):
        try:
            drawn = _within(seconds, way)
        except OutOfTimeError:
            told = "out of time"
            continue
        except (Exception, MemoryError) as error:  # parsers of others on a stranger's text
            return None, type(error).__name__
        if (
            sum(
                len(part)
                for part in (drawn if isinstance(drawn, tuple) else [drawn])
                if part and isinstance(part, str)
            )
            > MOST_HTML
        ):
            return None, "too long"
        return drawn, told
    return None, told


def _within(seconds: float, way: Callable[[], Any]) -> Any:
    signal.setitimer(signal.ITIMER_PROF, seconds, AGAIN_SECONDS)
    try:
        return way()
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _out_of_time(*_: object) -> None:
    raise OutOfTimeError


def _read(source: BinaryIO) -> bytes | None:
    head = source.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    return source.read(LENGTH.unpack(head)[0])


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]))
