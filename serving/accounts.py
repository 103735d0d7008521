"""An engine's bounds and its counts: what it may use, and what it did.

Plain data; knows no model and no request.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class EngineLimits:
    """Bounds of one engine. `kv_tokens` lines of keys and values are the memory budget."""

    max_rows: int = 32
    kv_tokens: int = 65_536
    max_total_tokens: int = 2_048
    prefill_chunk: int = 256
    prefix_cache_tokens: int = 0


@dataclass
class StepTimes:
    """Seconds of decode steps by number of rows, apart for steps with and without tuned rows."""

    plain: dict[int, tuple[int, float]] = field(default_factory=dict)
    tuned: dict[int, tuple[int, float]] = field(default_factory=dict)

    def note(self, num_rows: int, seconds: float, *, tuned: bool) -> None:
        """Add one step."""
        table = self.tuned if tuned else self.plain
        count, total = table.get(num_rows, (0, 0.0))
        table[num_rows] = (count + 1, total + seconds)


@dataclass
class EngineStats:
    """Counts since start; read by the metrics without a lock (ints are replaced whole)."""

    steps: int = 0
    decode_tokens: int = 0
    prefill_tokens: int = 0
    rows_finished: int = 0
    rows_cancelled: int = 0
    rows_failed: int = 0
    max_rows_together: int = 0
    times: StepTimes = field(default_factory=StepTimes)
