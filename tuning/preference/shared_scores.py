"""Scores of pairs of rows whose beginning, which both share, goes through the model once.

Knows ids, models with a scalar head and their lean layers; knows neither votes nor losses.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tuning.data.preferences.encode import Ids
from tuning.fused.branches import Branches
from tuning.fused.model import Lean
from tuning.models.scorer import score_ids
from tuning.training.distributed import num_processes

SAME = 1e-4
"""Of the largest score: what another order of sums makes."""


def fold_pairs(pairs: Sequence[tuple[Ids, Ids]], pad_id: int, step: int = 1) -> dict[str, Tensor]:
    """Pairs of rows as one sequence each: what both begin with, the rest of one, of the other.

    `input_ids` and `position_ids` of shape (pairs, width), the width a multiple of `step`;
    `shared` and `branches` as of `tuning.fused.branches`; `ends` (2 × pairs,) are the flattened
    positions of the last tokens, those of all first rows before those of all second ones.
    """
    starts = [_shared(*pair) for pair in pairs]
    lengths = [
        [len(row) - start for row in pair] for pair, start in zip(pairs, starts, strict=True)
    ]
    widest = max(start + sum(parts) for start, parts in zip(starts, lengths, strict=True))
    width = -(-widest // step) * step
    ids = np.full((len(pairs), width), pad_id, dtype=np.int64)
    positions = np.zeros((len(pairs), width), dtype=np.int64)
    ends = np.zeros((2, len(pairs)), dtype=np.int64)
    for at, (pair, start) in enumerate(zip(pairs, starts, strict=True)):
        ids[at, :start], positions[at, :start] = pair[0][:start], np.arange(start)
        place = start
        for side, row in enumerate(pair):
            end = place + len(row) - start
            ids[at, place:end], positions[at, place:end] = row[start:], np.arange(start, len(row))
            ends[side, at] = at * width + end - 1
            place = end
    return {
        "input_ids": torch.from_numpy(ids),
        "position_ids": torch.from_numpy(positions),
        "shared": torch.tensor(starts),
        "branches": torch.tensor(lengths),
        "ends": torch.from_numpy(ends.reshape(-1)),
    }


def folded_scores(model: Any, batch: dict[str, Tensor], lean: Lean) -> Tensor:
    """Scores of shape (2 × pairs,) in fp32, in the order of `ends`."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    body = getattr(base, base.base_model_prefix)
    ids, ends = batch["input_ids"], batch["ends"]
    keep = torch.zeros(ids.numel(), dtype=torch.bool)
    keep[ends] = True
    with lean.scoring(keep.view(ids.shape), ids.new_empty(0), branches=Branches.of(batch)):
        hidden = body(
            input_ids=ids, position_ids=batch["position_ids"], use_cache=False
        ).last_hidden_state
    scores: Tensor = base.score(hidden.reshape(-1, hidden.shape[-1]).index_select(0, ends))
    return scores[:, 0].float()


@torch.no_grad()
def can_fold(
    model: Any, lean: Lean | None, pairs: Sequence[tuple[Ids, Ids]], apart: Tensor, pad_id: int
) -> bool:
    """Whether folded pairs get the scores that they get apart, as ids `apart` (2 × pairs, width).

    Only lean layers know of rows that begin alike, and only in one process: what joins the
    gradients of several looks at the whole model's forward.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    known = hasattr(base, getattr(base, "base_model_prefix", "")) and hasattr(base, "score")
    if lean is None or not known or num_processes() > 1 or not lean.keeps_branches(model):
        return False
    was_training = model.training
    model.eval()
    try:
        usual = score_ids(model, apart, pad_id, lean)
        ours = folded_scores(model, fold_pairs(pairs, pad_id), lean)
    finally:
        model.train(was_training)
    return bool((ours - usual).abs().max() <= SAME * usual.abs().max().clamp(min=SAME))


def _shared(first: Ids, second: Ids) -> int:
    """How many ids both rows begin with, but for the last of either, which is scored."""
    most = min(len(first), len(second)) - 1
    differs = np.flatnonzero(first[:most] != second[:most])
    return int(differs[0]) if len(differs) else most
