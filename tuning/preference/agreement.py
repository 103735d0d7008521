"""How often repeated votes agree, and what that says of a single vote.

Knows pairs; knows no model.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tuning.data.preferences.pairs import Pair
from tuning.evaluation.statistics import wilson


@dataclass(frozen=True)
class Agreement:
    """Of all pairs of votes on the same two answers, how many say the same."""

    agreed: int
    compared: int

    @property
    def rate(self) -> float:
        """Share of pairs of votes that agree."""
        return self.agreed / self.compared

    @property
    def ceiling(self) -> float:
        """How often a vote is right, if voters err independently and alike: the agreement with
        single votes of a judge without fault. At half, where votes agree no more than by chance.
        """
        return vote_accuracy(self.rate)

    @property
    def flip_rate(self) -> float:
        """Share of votes that are the wrong way round, in [0, 0.5]."""
        return 1 - self.ceiling

    def to_json(self) -> dict[str, Any]:
        """Counts, rate with its Wilson 95 % interval, ceiling and flip rate."""
        lower, upper = wilson(self.agreed, self.compared)
        return {
            "agreed": self.agreed,
            "compared": self.compared,
            "rate": self.rate,
            "lower": lower,
            "upper": upper,
            "ceiling": self.ceiling,
            "flip_rate": self.flip_rate,
        }


def vote_accuracy(agreement: float) -> float:
    """a of p = a² + (1 - a)²: two voters agree when both are right or both are wrong."""
    return 0.5 * (1 + math.sqrt(max(0.0, 2 * agreement - 1)))


def agreement_of(pairs: Sequence[Pair]) -> Agreement | None:
    """The agreement of votes on the same two answers to the same prompt; None without repeats."""
    votes: dict[str, Counter[str]] = {}
    for pair in pairs:
        first, second = (
            json.dumps(answer, sort_keys=True) for answer in (pair.chosen, pair.rejected)
        )
        key = json.dumps([pair.prompt, *sorted([first, second])], sort_keys=True)
        votes.setdefault(key, Counter())[first] += 1
    agreed = sum(n * (n - 1) // 2 for found in votes.values() for n in found.values())
    compared = sum(n * (n - 1) // 2 for n in map(Counter.total, votes.values()))
    return Agreement(agreed, compared) if compared else None
