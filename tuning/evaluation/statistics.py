"""Intervals and tests of accuracies; knows counts only."""

from __future__ import annotations

import math


def wilson(passed: float, total: float) -> tuple[float, float]:
    """Wilson 95 % interval of a share (E. B. Wilson, JASA 22, 1927)."""
    share, square = passed / total, Z95 * Z95
    middle = share + square / (2 * total)
    spread = Z95 * math.sqrt(share * (1 - share) / total + square / (4 * total * total))
    scale = 1 + square / total
    return max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)


def mcnemar(first: int, second: int) -> float:
    """Two-sided exact p value of `first` against `second` discordant pairs."""
    total = first + second
    tail = sum(math.comb(total, k) for k in range(min(first, second) + 1))
    return float(min(1.0, 2 * tail / 2**total))


Z95 = 1.959963984540054
