"""Lays prompts and their completions out as tensors, and sums what is found of each completion.

Knows ids and lengths; knows neither rows of data nor losses.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tuning.data.encode import IGNORED
from tuning.fused.loss import label_log_probs
from tuning.fused.model import Lean

Group = tuple[Sequence[int], Sequence[Sequence[int]]]
"""The ids of a prompt, and those of each of its completions."""


def collate_completions(groups: Sequence[Group], pad_id: int, *, shared: bool) -> dict[str, Tensor]:
    """Tensors of all completions of `groups`, padded on the right.

    `input_ids` and `labels` of shape (sequences, width); `owner` of the same shape says whose
    label it is, counted over all completions; `lengths` (completions,). With `shared` a sequence
    is a whole group, whose prompt lies there once, but for its last token, which predicts the
    first of each completion; else it is prompt and completion.
    """
    sequences = (
        [_folded(prompt, parts) for prompt, parts in groups]
        if shared
        else [_folded(prompt, [part]) for prompt, parts in groups for part in parts]
    )
    width = max(len(ids) for ids, _, _ in sequences)
    shape = (len(sequences), width)
    ids = np.full(shape, pad_id, dtype=np.int64)
    labels, owner = np.full(shape, IGNORED, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    positions = np.zeros(shape, dtype=np.int64)
    most = max(len(parts) for _, _, parts in sequences)
    branches = np.zeros((len(sequences), most), dtype=np.int64)
    number = 0
    for at, (row, start, parts) in enumerate(sequences):
        ids[at, : len(row)] = row
        positions[at, :start] = np.arange(start)
        for part, length in enumerate(parts):
            end = start_of(parts, start, part) + length
            first = end - length
            labels[at, first + 1 : end] = row[first + 1 : end]
            owner[at, first + 1 : end] = number
            positions[at, first:end] = np.arange(start, start + length)
            branches[at, part] = length
            number += 1
    batch = {"input_ids": ids, "labels": labels, "owner": owner}
    if shared:
        batch["position_ids"] = positions
        batch["branches"] = branches
        batch["shared"] = np.array([start for _, start, _ in sequences])
    lengths = [len(part) for _, parts in groups for part in parts]
    made = {name: torch.from_numpy(part) for name, part in batch.items()}
    return {**made, "lengths": torch.tensor(lengths)}


def _folded(
    prompt: Sequence[int], completions: Sequence[Sequence[int]]
) -> tuple[list[int], int, list[int]]:
    """Ids of one sequence, the length of its beginning, and those of its branches."""
    start = len(prompt) - 1
    assert start >= 0
    ids = list(prompt[:start])
    for completion in completions:
        ids += [prompt[start], *completion]
    return ids, start, [1 + len(completion) for completion in completions]


def start_of(parts: Sequence[int], start: int, part: int) -> int:
    """Where a branch begins in its sequence."""
    return start + sum(parts[:part])


def completion_log_probs(
    model: Any,
    batch: dict[str, Tensor],
    *,
    virtual_tokens: int = 0,
    lean: Lean | None = None,
    temperature: float = 1.0,
) -> Tensor:
    """Log-probability of each completion of a batch, summed over its tokens: (completions,)."""
    each = label_log_probs(
        model, batch, virtual_tokens=virtual_tokens, lean=lean, temperature=temperature
    )
    return sum_by_completion(each, batch)


def sum_by_completion(each: Tensor, batch: dict[str, Tensor]) -> Tensor:
    """Numbers of all labels, in their order, summed for each completion."""
    owner = batch["owner"][batch["labels"] != IGNORED]
    return each.new_zeros(len(batch["lengths"])).index_add(0, owner, each)
