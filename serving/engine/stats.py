"""What an engine did: counts since its start, and the seconds and bytes of its steps.

Plain data; knows no model and no request.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from serving.engine.pacing import PrefillPacing


@dataclass(frozen=True)
class StepSum:
    """Decode steps added up: how many, their seconds, the bytes they had to read."""

    count: int = 0
    seconds: float = 0.0
    num_bytes: int = 0


@dataclass
class StepTimes:
    """Decode steps by number of rows, apart for steps with and without tuned rows."""

    plain: dict[int, StepSum] = field(default_factory=dict)
    tuned: dict[int, StepSum] = field(default_factory=dict)

    def record(self, num_rows: int, seconds: float, num_bytes: int, *, tuned: bool) -> None:
        """Add one step."""
        table = self.tuned if tuned else self.plain
        old = table.get(num_rows, StepSum())
        table[num_rows] = StepSum(old.count + 1, old.seconds + seconds, old.num_bytes + num_bytes)


class StepTimer:
    """Seconds of each part of one step: `with timer("plan"): ...`."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._part = ""
        self._start = 0.0

    def __call__(self, part: str) -> StepTimer:
        """The timer of a part."""
        self._part = part
        return self

    def __enter__(self) -> None:
        self._start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.seconds[self._part] = time.perf_counter() - self._start


@dataclass(frozen=True)
class StepReport:
    """One step: how many rows ran (and were there before, and joined), and its parts' seconds.

    `is_prefill` when any prompt tokens ran beside the rows that write.
    """

    is_prefill: bool
    failed: bool
    num_rows: int
    num_before: int
    num_joined: int
    filter_seconds: float
    join_seconds: float
    forward_seconds: float
    choose_seconds: float

    @property
    def seconds(self) -> float:
        """The whole step."""
        return self.filter_seconds + self.join_seconds + self.forward_seconds + self.choose_seconds


@dataclass
class EngineStats:
    """Counts since start; read by the metrics without a lock (ints are replaced whole)."""

    steps: int = 0
    compiled_steps: int = 0
    decode_tokens: int = 0
    prefill_tokens: int = 0
    rows_cancelled: int = 0
    rows_failed: int = 0
    rows_preempted: int = 0
    times: StepTimes = field(default_factory=StepTimes)
    pacing: PrefillPacing = field(default_factory=PrefillPacing)

    def clear(self) -> None:
        """Forget what was counted and learnt, as of steps that served nobody."""
        vars(self).update(vars(EngineStats()))

    def count_forward(self, num_prompt_tokens: int, num_chosen: int) -> None:
        """Count a forward that worked: the prompt tokens it read, the tokens chosen after it."""
        self.steps += 1
        self.prefill_tokens += num_prompt_tokens
        self.decode_tokens += num_chosen
