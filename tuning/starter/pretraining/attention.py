"""Measures attention: how many keys the heads of a model look at, and how large their logits are.

Heads whose logits are in the hundreds look at one key alone: no gradient reaches any other, and
no later tuning can make them look elsewhere. Knows a model and rows of ids; knows no run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, PreTrainedModel

IMPLEMENTATION = "starter_measured"
_RECORDS = "attention_records"


@dataclass(frozen=True)
class HeadAttention:
    """One head over the rows that were read. Entropies in nats, over queries that see two keys or
    more; `uniform` is what a head that weighs all its keys alike would have. `largest_logit` is
    the largest size of a scaled product of query and key before the softmax.
    """

    layer: int
    head: int
    entropy: float
    uniform: float
    largest_logit: float


@dataclass
class _Sums:
    """Per head of one layer: sums over queries, shape `(heads,)`."""

    entropy: list[Tensor] = field(default_factory=list)
    uniform: float = 0.0
    num_queries: int = 0
    largest: list[Tensor] = field(default_factory=list)


@torch.no_grad()
def measure_attention(model: PreTrainedModel, rows: Sequence[Sequence[int]]) -> list[HeadAttention]:
    """Every head of a causal `model`, over `rows` of token ids; a prefix's keys are seen by all."""
    AttentionInterface.register(IMPLEMENTATION, _attend)
    records: dict[int, _Sums] = {}
    layers = [module for module in model.modules() if hasattr(module, "layer_idx")]
    usual = model.config._attn_implementation
    for module in layers:
        setattr(module, _RECORDS, records)
    model.set_attn_implementation(IMPLEMENTATION)
    try:
        for row in rows:
            model(input_ids=torch.tensor([list(row)], device=model.device), use_cache=False)
    finally:
        model.set_attn_implementation(usual)
        for module in layers:
            delattr(module, _RECORDS)
    return [
        HeadAttention(layer, head, float(entropy) / sums.num_queries,
                      sums.uniform / sums.num_queries, float(largest))
        for layer, sums in sorted(records.items())
        for head, (entropy, largest) in enumerate(
            zip(torch.stack(sums.entropy).sum(0), torch.stack(sums.largest).amax(0), strict=True)
        )
    ]  # fmt: skip


def _attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    **extra: Any,
) -> tuple[Tensor, None]:
    """Causal attention of `(1, heads, length, size)`, which notes what the heads do.

    Keys may be more than queries: those before the first query's own are seen by every query.
    """
    groups = query.shape[1] // key.shape[1]
    key, value = (part.repeat_interleave(groups, dim=1) for part in (key, value))
    logits = (query.float() @ key.float().transpose(2, 3) * scaling)[0]
    length, past = logits.shape[1], logits.shape[2] - logits.shape[1]
    visible = torch.ones(logits.shape[1:], dtype=torch.bool, device=logits.device).tril(past)
    weights = torch.softmax(logits.masked_fill(~visible, float("-inf")), -1)
    first = 0 if past else 1  # the first query that sees two keys or more
    sums = getattr(module, _RECORDS).setdefault(int(module.layer_idx), _Sums())
    sums.entropy.append(torch.special.entr(weights)[:, first:].sum((1, 2)))
    sums.uniform += sum(torch.arange(first + past + 1, length + past + 1).log().tolist())
    sums.num_queries += length - first
    sums.largest.append(logits.masked_fill(~visible, 0.0).abs().amax((1, 2)))
    out = weights.to(value.dtype)[None] @ value
    return out.transpose(1, 2).contiguous(), None
