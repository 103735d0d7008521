"""Answers that may not end yet: end tokens are kept from being chosen for so many tokens.

A mask over a row of scores, as that of a grammar. Knows tokens; does not know requests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

import torch


class TokenMask(Protocol):
    """What rewrites a row of scores in place, and is told of each token that was chosen."""

    def mask(self, scores: torch.Tensor) -> None: ...

    def accept(self, token: int) -> None: ...


@dataclass
class NoEndBefore:
    """Forbids `eos_ids` until `count` tokens are written, unless nothing else is possible."""

    count: int
    eos_ids: frozenset[int]
    written: int = 0

    def mask(self, scores: torch.Tensor) -> None:
        """Set the scores of end tokens to -inf, in place."""
        if self.written >= self.count:
            return
        ends = sorted(self.eos_ids)
        before = scores[ends]
        scores[ends] = float("-inf")
        if not bool(scores.isfinite().any()):
            scores[ends] = before

    def accept(self, token: int) -> None:
        """Count a token."""
        self.written += 1


def all_of(
    masks: Iterable[TokenMask],
) -> tuple[Callable[[torch.Tensor], None] | None, Callable[[int], None] | None]:
    """`mask` and `accept` of several, one after the other; None and None of none."""
    found = list(masks)
    if not found:
        return None, None

    def mask(scores: torch.Tensor) -> None:
        for part in found:
            part.mask(scores)

    def accept(token: int) -> None:
        for part in found:
            part.accept(token)

    return mask, accept
