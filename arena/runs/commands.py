"""Commands of `arena` as processes: short ones for somebody who waits, long ones that outlive us.

Knows their JSON alone. So the page shows what `arena tune` and `arena models` say, without a line
of their code.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import IO, Any

from arena.runs.requests import HALF, RunRefusedError

PROGRAM = (sys.executable, "-m", "arena.cli")
SECONDS = 120.0
TOLD = "arena: "
NICENESS = 10
"""Of what runs beside the answers: they go first."""


class CommandRefusedError(RunRefusedError):
    """A command ended with an error; the message is its own."""

    status = 422


class LongCommand(subprocess.Popen[bytes]):
    """`arena WORDS` at a lower priority, as a process that goes on when the page ends.

    Raises OSError where it cannot be started.
    """

    def __init__(
        self, words: Sequence[str], stdout: IO[bytes], stderr: int, *, share: int = HALF
    ) -> None:
        super().__init__(
            [*PROGRAM, *words],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
            env=environment(share),
        )
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, self.pid, NICENESS)

    def __del__(self) -> None:
        """Say nothing of a process that still runs, unlike the class above: it is meant to."""


def run_command(words: Sequence[str], seconds: float = SECONDS) -> str:
    """What `arena WORDS` prints. Raises CommandRefusedError with what it says is wrong."""
    try:
        done = subprocess.run(
            [*PROGRAM, *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=seconds,
            env=environment(HALF),
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise _refused(f"it took more than {seconds:.0f} s; use a terminal") from error
    except (OSError, ValueError) as error:
        raise _refused(f"it could not be started ({error})") from error
    if done.returncode:
        lines = done.stderr.decode("utf-8", "replace").splitlines()
        told = [line.removeprefix(TOLD) for line in lines if line.startswith(TOLD)]
        raise _refused(told[-1] if told else f"it ended with status {done.returncode}")
    return done.stdout.decode("utf-8", "replace")


def ask_command(words: Sequence[str], seconds: float = SECONDS) -> Any:
    """The JSON that `arena WORDS --json` prints. Raises CommandRefusedError."""
    printed = run_command([*words, "--json"], seconds)
    try:
        return json.loads(printed)
    except ValueError as error:
        raise _refused("it printed no JSON") from error


def environment(share: int) -> Mapping[str, str]:
    """Ours, with threads for a share of the cores, in per cent."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = max(1, round((cores or 1) * share / 100))
    return {**os.environ, "OMP_NUM_THREADS": str(threads), "TQDM_DISABLE": "1"}


def _refused(told: str) -> CommandRefusedError:
    return CommandRefusedError(told)
