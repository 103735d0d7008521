"""The loss of a batch, or its labels' log-probabilities, computed at label positions only.

Knows tensors and a model's forward; knows neither methods nor runs.
"""

from __future__ import annotations

from typing import Any

import torch

from tuning.data.encode import IGNORED
from tuning.fused.branches import Branches
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
    inputs, keep, targets = _inputs(batch, virtual_tokens)
    if lean is not None:
        with lean.scoring(keep, targets, batch.get("position_ids")):
            return model(**inputs).logits, targets.new_tensor(len(targets))
    logits = _logits(model, inputs, keep)
    loss = torch.nn.functional.cross_entropy(logits, targets, reduction="sum")
    return loss, targets.new_tensor(len(targets))


def label_log_probs(
    model: Any,
    batch: dict[str, torch.Tensor],
    *,
    virtual_tokens: int = 0,
    lean: Lean | None = None,
    temperature: float = 1.0,
) -> torch.Tensor:
    """Log-probability of each label of a batch, shape (labels,), in fp32, row after row.

    `shared` and `branches` in the batch say which rows begin alike and lie there once (see
    `Branches`); such a batch needs lean layers. The logits are divided by `temperature`.
    """
    inputs, keep, targets = _inputs(batch, virtual_tokens)
    if lean is not None:
        branches = Branches.of(batch) if "shared" in batch else None
        positions = batch.get("position_ids")
        with lean.scoring(keep, targets, positions, branches=branches, each=temperature):
            found: torch.Tensor = model(**inputs).logits
            return found
    assert "shared" not in batch
    logits = _logits(model, inputs, keep) / temperature
    return -torch.nn.functional.cross_entropy(logits, targets, reduction="none")


def _inputs(
    batch: dict[str, torch.Tensor], virtual_tokens: int
) -> tuple[dict[str, Any], torch.Tensor, torch.Tensor]:
    """Arguments of the model, the scored positions (batch, width), and their next tokens."""
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
    return inputs, keep, targets[scored]


def _logits(model: Any, inputs: dict[str, Any], keep: torch.Tensor) -> torch.Tensor:
    """Logits of the scored positions, shape (scored, vocabulary), in fp32."""
    logits = model(**inputs).logits
    if logits.dim() == 3 and logits.shape[:2] == keep.shape:  # it knows no `logits_to_keep`
        logits = logits[keep]
    made: torch.Tensor = logits.reshape(-1, logits.shape[-1]).float()
    return made
