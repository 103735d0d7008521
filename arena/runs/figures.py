"""The figures of a run from its history file, read on as it grows; knows JSON Lines, no process."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

POINTS = 240
"""So many points of a curve are told at most: more than a chart has columns."""
NEWEST_SAMPLES = 12
READ_BYTES = 8 << 20


@dataclass
class Figures:
    """What a history file says so far; `read` goes on where it stopped.

    A file that was made anew is read from its start.
    """

    path: Path
    run: dict[str, Any] = field(default_factory=dict)
    """What is run, as the first line of a live file says it."""
    losses: list[tuple[int, float]] = field(default_factory=list)
    rates: list[tuple[int, float]] = field(default_factory=list)
    heldout: list[tuple[int, float]] = field(default_factory=list)
    samples: list[dict[str, Any]] = field(default_factory=list)
    """Of each evaluation its step, and the answers to some held-out prompts."""
    last: dict[str, Any] = field(default_factory=dict)
    _identity: tuple[int, int] = (0, 0)
    _offset: int = 0

    def read(self) -> Figures:
        """Take in what was added; a last line that is not whole yet waits."""
        try:
            with self.path.open("rb") as stream:
                state = self.path.stat()
                began = self._first_line(stream)
                if (state.st_ino, began) != self._identity or state.st_size < self._offset:
                    self._begin_anew((state.st_ino, began))
                stream.seek(self._offset)
                while whole := stream.read(READ_BYTES).rpartition(b"\n")[0]:
                    self._offset += len(whole) + 1
                    stream.seek(self._offset)
                    for line in whole.split(b"\n"):
                        self._take(line)
        except OSError:
            pass  # not begun, or done and moved: what is known stays
        return self

    @staticmethod
    def _first_line(stream: Any) -> int:
        return hash(stream.readline(1 << 16))

    def _begin_anew(self, identity: tuple[int, int]) -> None:
        self._identity, self._offset, self.run, self.last = identity, 0, {}, {}
        for kept in (self.losses, self.rates, self.heldout, self.samples):
            kept.clear()

    def _take(self, line: bytes) -> None:
        try:
            record = json.loads(line, parse_constant=lambda _: None)  # no answer can say NaN
        except (ValueError, RecursionError):
            return  # a line that a full disk cut off
        if not isinstance(record, dict):
            return
        if isinstance(record.get("run"), dict):
            self.run = record["run"]
        step = record.get("step")
        if not isinstance(step, int):
            return
        for key, kept in (
            ("loss", self.losses),
            ("learning_rate", self.rates),
            ("eval_loss", self.heldout),
        ):
            if (value := _number(record.get(key))) is not None:
                kept.append((step, value))
        if isinstance(record.get("samples"), list):
            self.samples.append({"step": step, "samples": record["samples"]})
        if "loss" in record:
            self.last = record

    @property
    def progress(self) -> float:
        """From 0 to 1."""
        return min(1.0, max(0.0, _number(self.last.get("progress")) or 0.0))

    @property
    def seconds_left(self) -> float | None:
        """By how far it came in the time it took; None before that says anything."""
        seconds = _number(self.last.get("seconds"))
        if seconds is None or self.progress <= 0.01:
            return None
        return round(seconds * (1 / self.progress - 1), 1)

    def summary(self) -> dict[str, Any]:
        """The newest figures, without the curves."""
        return {
            "step": self.last.get("step"),
            "steps": self.run.get("steps"),
            "progress": self.progress,
            "loss": _mean([loss for _, loss in self.losses[-20:]]),
            "heldout_loss": self.heldout[-1][1] if self.heldout else None,
            "learning_rate": self.rates[-1][1] if self.rates else None,
            "tokens_per_second": _number(self.last.get("tokens_per_second")),
            "seconds": _number(self.last.get("seconds")),
            "seconds_left": self.seconds_left,
        }

    def curves(self) -> dict[str, Any]:
        """The curves, thinned out to what a chart can show, and the newest sample answers."""
        return {
            "losses": thinned(self.losses),
            "learning_rates": thinned(self.rates),
            "heldout_losses": [list(point) for point in self.heldout],
            "samples": self.samples[-NEWEST_SAMPLES:],
        }


def thinned(points: list[tuple[int, float]]) -> list[list[float]]:
    """At most `POINTS` points: the mean of each stretch, at its last step."""
    stretch = -(-len(points) // POINTS) or 1
    parts = [points[at : at + stretch] for at in range(0, len(points), stretch)]
    return [[part[-1][0], round(sum(y for _, y in part) / len(part), 6)] for part in parts]


def _number(value: Any) -> float | None:
    """A number that JSON has; None for any other value, also for one past every float."""
    if not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def _mean(values: list[float]) -> float | None:
    return round(sum(values) / len(values), 6) if values else None
