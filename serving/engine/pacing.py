"""How many prompt tokens a step may have beside rows that decode: the prefill budget.

Learns from the seconds that steps took; knows no row, no tensor and no clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field

# Weight of a new step in the moving means.
NEW_SHARE = 0.2
FORGETTING = 0.99
MIN_PREFILL = 16
MAX_STEPS_HELD_UP = 2.0


@dataclass
class PrefillPacing:
    """How long steps take, to bound the prompt tokens that run beside rows that decode.

    Moving means: `steps` holds seconds of steps without prompt tokens by number of rows, `extra`
    how many prompt tokens a step had and the seconds that they added, by their number's bits. A
    few tokens may cost hardly less than many, where they are read in another way.
    """

    steps: dict[int, float] = field(default_factory=dict)
    extra: dict[int, tuple[float, float]] = field(default_factory=dict)

    def record(self, seconds: float, num_prompt_tokens: int, num_decoding: int) -> None:
        """Learn from a step; a few prompt tokens say nothing about many."""
        if not num_prompt_tokens:
            old = self.steps.get(num_decoding, seconds)
            self.steps[num_decoding] = old + (seconds - old) * NEW_SHARE
        elif num_prompt_tokens >= MIN_PREFILL and num_decoding and self.steps:
            added = max(seconds - self._step(num_decoding), seconds / 10)
            size = num_prompt_tokens.bit_length()
            tokens, old = self.extra.get(size, (float(num_prompt_tokens), added))
            tokens += (num_prompt_tokens - tokens) * NEW_SHARE
            self.extra[size] = (tokens, old + (added - old) * NEW_SHARE)
            for larger in self.extra:  # A bad moment must not forbid a size for ever.
                if larger > size:
                    tokens, old = self.extra[larger]
                    self.extra[larger] = (tokens, max(old * FORGETTING, self.extra[size][1]))

    def budget(self, most: int, num_prefilling: int = 1, num_decoding: int = 1) -> int:
        """Prompt tokens for a step: at most `most`, and few enough to hold a stream up no longer
        than `MAX_STEPS_HELD_UP` steps, or so many times as long as more rows wait for their first
        token than decode. But not so few that each costs over twice what it would among many,
        since the streams would lose more in all, if twice that time pays for them.
        """
        if not (self.steps and self.extra):
            return most
        steps = MAX_STEPS_HELD_UP * max(1.0, num_prefilling / max(1, num_decoding))
        seconds = steps * self._step(num_decoding)
        budget, worthwhile = self._fitting(seconds), self._worthwhile(most)
        if budget < worthwhile <= self._fitting(2 * seconds):
            budget = worthwhile
        # Libraries prepare products for each size: few sizes are better.
        return min(most, MIN_PREFILL * max(1, round(budget / MIN_PREFILL)))

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
