"""An engine's bounds and its counts: what it may use, and what it did.

Plain data; knows no model and no request.
"""

from __future__ import annotations

from dataclasses import dataclass, field

PACE_SHARE = 0.2
FORGETTING = 0.99
LEAST_DOSE = 16
MOST_STEPS = 2.0


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


@dataclass
class Pace:
    """How long steps take, to dose the prompt tokens that run beside rows that write.

    Moving means: `steps` holds seconds of steps without prompt tokens by number of rows, `extra`
    how many prompt tokens a step had and the seconds that they added, by their number's bits. A
    few tokens may cost hardly less than many, where they are read in another way.
    """

    steps: dict[int, float] = field(default_factory=dict)
    extra: dict[int, tuple[float, float]] = field(default_factory=dict)

    def note(self, seconds: float, num_prompt_tokens: int, num_writing: int) -> None:
        """Learn from a step; a few prompt tokens say nothing about many."""
        if not num_prompt_tokens:
            old = self.steps.get(num_writing, seconds)
            self.steps[num_writing] = old + (seconds - old) * PACE_SHARE
        elif num_prompt_tokens >= LEAST_DOSE and num_writing and self.steps:
            added = max(seconds - self._step(num_writing), seconds / 10)
            size = num_prompt_tokens.bit_length()
            tokens, old = self.extra.get(size, (float(num_prompt_tokens), added))
            tokens += (num_prompt_tokens - tokens) * PACE_SHARE
            self.extra[size] = (tokens, old + (added - old) * PACE_SHARE)
            for larger in self.extra:  # A bad moment must not forbid a size for ever.
                if larger > size:
                    tokens, old = self.extra[larger]
                    self.extra[larger] = (tokens, max(old * FORGETTING, self.extra[size][1]))

    def dose(self, most: int, num_reading: int = 1, num_writing: int = 1) -> int:
        """Prompt tokens for a step: at most `most`, and few enough to hold a stream up no longer
        than `MOST_STEPS` steps, or so many times as long as more rows wait for their first token
        than write. But not so few that each costs over twice what it would among many, since the
        streams would lose more in all, if twice that time pays for them.
        """
        if not (self.steps and self.extra):
            return most
        steps = MOST_STEPS * max(1.0, num_reading / max(1, num_writing))
        seconds = steps * self._step(num_writing)
        dose, worthwhile = self._fitting(seconds), self._worthwhile(most)
        if dose < worthwhile <= self._fitting(2 * seconds):
            dose = worthwhile
        # Libraries prepare products for each size: few sizes are better.
        return min(most, LEAST_DOSE * max(1, round(dose / LEAST_DOSE)))

    def _step(self, num_rows: int) -> float:
        """Seconds of a step of as many rows, or of the next fewer that was seen."""
        fewer = [number for number in self.steps if number <= num_rows]
        return self.steps[max(fewer) if fewer else min(self.steps)]

    def _worthwhile(self, most: int) -> float:
        """The fewest prompt tokens that cost at most twice the least for each, on lines through
        what was seen and on to `most`; half of the fewest seen where those do.
        """
        seen = sorted(self.extra.values())
        if len(seen) > 1 and seen[-1][0] < most:
            (tokens, added), (more, cost) = seen[-2:]
            slope = max(0.0, (cost - added) / (more - tokens))
            seen.append((most, cost + slope * (most - more)))
        limit = 2 * min(added / tokens for tokens, added in seen)
        dear: tuple[float, float] | None = None
        for tokens, added in seen:
            if added <= limit * tokens:
                break
            dear = tokens, added
        if dear is None:
            return tokens / 2
        slope = (added - dear[1]) / (tokens - dear[0])
        return (dear[1] - dear[0] * slope) / (limit - slope)

    def _fitting(self, seconds: float) -> float:
        """How many prompt tokens add so many seconds: between what was seen, and little beyond."""
        tokens, added = 0.0, 0.0
        for size in sorted(self.extra):
            more, cost = self.extra[size]
            cost = max(cost, added + 1e-9)
            if cost > seconds:
                return tokens + (more - tokens) * (seconds - added) / (cost - added)
            tokens, added = more, cost
        return tokens * min(2.0, seconds / added)


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
    pace: Pace = field(default_factory=Pace)
