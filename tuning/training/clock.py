"""How far a run is, and the learning rate that follows from it; knows no weights."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping

from tuning.training.distributed import from_main


class Clock:
    """How far a run is, by steps and by time; the larger of the two drives the learning rate.

    Each step's answer is given once and kept, and rank 0's clock counts for all processes, so
    that schedule, stop and history agree. `replayed` holds the answers of an earlier run.
    """

    def __init__(
        self,
        total_steps: int,
        max_seconds: float | None,
        started: float,
        replayed: Mapping[int, float] | None = None,
    ) -> None:
        self.total_steps = total_steps
        self.max_seconds = max_seconds
        self.started = started
        """`time.monotonic()` at the start; moved back on resume by the seconds spent before."""
        self._answers: dict[int, float] = dict(replayed or {})

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.started

    def resume(self, seconds: float, answers: Mapping[int, float]) -> None:
        """Go on with a run that had come as far as `answers` in `seconds`."""
        self.started = time.monotonic() - seconds
        self._answers.update(answers)

    def progress(self, step: int) -> float:
        """From 0 to 1 after `step` steps; 1 means that the run is over."""
        if step not in self._answers:
            share = step / self.total_steps
            if self.max_seconds is not None and step > 0:
                share = max(share, from_main(self.elapsed) / self.max_seconds)
            self._answers[step] = round(min(1.0, share), 6)
        return self._answers[step]


def schedule_factor(progress: float, schedule: str, warmup: float) -> float:
    """Share of the peak learning rate at `progress` (0 to 1) of the run."""
    if progress < warmup:
        return max(progress / warmup, 0.01)
    rest = (progress - warmup) / max(1e-9, 1 - warmup)
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * rest))
    return 1 - rest if schedule == "linear" else 1.0
