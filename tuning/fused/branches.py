"""Rows that begin alike, such as a prompt with several completions, of which the beginning lies
in a batch once.

All layers but attention look at one position at a time, so they see a shared beginning once.
Attention is that of the whole rows, which are laid out for it. Knows tensors and lengths.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Branches:
    """Where the rows of a batch lie in its flattened positions.

    A sequence is a shared beginning and the branches that go on from it, each of which attends to
    the beginning and to itself.
    """

    positions: Tensor
    """Of all rows, one after the other; those of a beginning once for each of its branches."""
    lengths: Sequence[int]
    """Of the rows."""
    once: Tensor
    """Places in `positions` that name every position of the batch once, but for padding."""

    @classmethod
    def of(cls, batch: dict[str, Tensor]) -> Branches:
        """From `shared`, the length of each sequence's beginning, and `branches`, the lengths of
        what follows: shapes (sequences,) and (sequences, branches), 0 for none.
        """
        width = batch["input_ids"].shape[1]
        positions: list[Tensor] = []
        once: list[Tensor] = []
        lengths: list[int] = []
        at = 0
        shared = batch["shared"].tolist()
        for index, (start, parts) in enumerate(
            zip(shared, batch["branches"].tolist(), strict=True)
        ):
            origin, end = index * width, index * width + start
            for number, part in enumerate(part for part in parts if part):
                positions += [torch.arange(origin, origin + start), torch.arange(end, end + part)]
                once.append(torch.arange(at if number == 0 else at + start, at + start + part))
                lengths.append(start + part)
                end, at = end + part, at + start + part
        return cls(torch.cat(positions), lengths, torch.cat(once))

    def laid_out(self, x: Tensor) -> Tensor:
        """Numbers of shape (positions of the batch, …) as those of whole rows."""
        return x.index_select(0, self.positions)

    def folded(self, x: Tensor, size: int) -> Tensor:
        """The reverse: numbers of whole rows at the `size` positions of the batch, 0 at padding."""
        kept = x.index_select(0, self.once)
        return x.new_zeros(size, *x.shape[1:]).index_copy(0, self.positions[self.once], kept)
