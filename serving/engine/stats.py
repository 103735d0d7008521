"""An engine's bounds and its counts: what it may use, and what it did.

Plain data; knows no model and no request.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from serving.engine.pacing import PrefillPacing


@dataclass(frozen=True)
class EngineLimits:
    """Bounds of one engine. `kv_tokens` lines of keys and values are the memory budget.

    `prefill_chunk` is the most prompt tokens that run in a step beside rows that write.
    """

    max_rows: int = 32
    kv_tokens: int = 65_536
    max_total_tokens: int = 2_048
    prefill_chunk: int = 256
    prefix_cache_tokens: int = 0


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

    def note(self, num_rows: int, seconds: float, num_bytes: int, *, tuned: bool) -> None:
        """Add one step."""
        table = self.tuned if tuned else self.plain
        old = table.get(num_rows, StepSum())
        table[num_rows] = StepSum(old.count + 1, old.seconds + seconds, old.num_bytes + num_bytes)


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
    rows_finished: int = 0
    rows_cancelled: int = 0
    rows_failed: int = 0
    rows_preempted: int = 0
    max_rows_together: int = 0
    times: StepTimes = field(default_factory=StepTimes)
    pacing: PrefillPacing = field(default_factory=PrefillPacing)
