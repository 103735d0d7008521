"""What the steps of a run compute: batches, their loss, and what is measured on the way.

Each objective fills these in; the trainer goes by them. Knows tensors only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

Batch = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Measured:
    """The loss of one batch: `total` is the sum over its `items`; so are the `sums` by name.

    Items are what the loss is the mean of: labels, pairs, rows.
    """

    total: torch.Tensor
    items: torch.Tensor | int
    sums: Mapping[str, float] = field(default_factory=dict)
    """What else the history shows of the batch, as its mean over the items."""


Loss = Callable[[Any, Batch], Measured]


@dataclass(frozen=True)
class Steps:
    """How the rows of a run become batches, and batches a loss."""

    collate: Callable[[Sequence[Any]], Batch]
    """The sequences of one batch as tensors: `input_ids`, `examples` (whose rows they are), and
    `labels` of shape (batch, width), in which every place beyond the first of a row that is not
    -100 stands for one item of the loss."""
    loss: Loss
    """The loss that is trained, of a model and a batch of it."""
    heldout: Sequence[Batch]
    heldout_loss: Loss
    """What is measured on them."""
    finish: Callable[[Any, Path], dict[str, float]] | None = None
    """Of the finished model: writes further files into its folder, and gives further metrics."""
