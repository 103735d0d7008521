"""The loss of a batch, computed at label positions only.

Knows tensors and a model's forward; knows neither methods nor runs.
"""

from __future__ import annotations

from typing import Any

import torch

from tuning.data.encode import IGNORED
from tuning.fused.model import Lean


def label_loss(
    model: Any,
    batch: dict[str, torch.Tensor],
    *,
    virtual_tokens: int = 0,
    lean: Lean | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(sum of cross entropies, number of labels) of one batch.

    Only the positions whose next token is a label reach the output head, which for short answers
    is most of the work saved. `virtual_tokens` are hidden states that precede the ids (prompt
    tuning puts its own there). `lean` is what `tuning.fused.model` made of the model.
    """
    labels = batch["labels"]
    targets = torch.full_like(labels, IGNORED)
    targets[:, :-1] = labels[:, 1:]
    scored = targets != IGNORED
    keep = scored
    if virtual_tokens:
        keep = torch.nn.functional.pad(scored, (virtual_tokens, 0), value=False)
    inputs: dict[str, Any] = {"input_ids": batch["input_ids"]}
    if "position_ids" in batch:
        inputs["position_ids"] = batch["position_ids"]
    inputs |= {"logits_to_keep": keep, "use_cache": False}
    if lean is not None:
        with lean.scoring(keep, targets[scored], batch.get("position_ids")):
            return model(**inputs).logits, scored.sum()
    logits = model(**inputs).logits
    if logits.dim() == 3 and logits.shape[:2] == keep.shape:  # it knows no `logits_to_keep`
        logits = logits[keep]
    logits = logits.reshape(-1, logits.shape[-1]).float()
    loss = torch.nn.functional.cross_entropy(logits, targets[scored], reduction="sum")
    return loss, scored.sum()
