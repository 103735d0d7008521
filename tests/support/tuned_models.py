"""Tiny models with adapters moved off their start, and a batch of labels for them."""

from __future__ import annotations

from typing import Any

import torch
from tuning_fixtures import make_model

VOCABULARY = 120


def make_batch(packed: bool) -> dict[str, torch.Tensor]:
    """Three rows of 150 tokens, the first third and some more masked; packed: two texts in each."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(3, VOCABULARY, (3, 150), generator=generator)
    labels = torch.where(torch.rand(ids.shape, generator=generator) < 0.5, ids, -100)
    labels[:, :50] = -100
    batch = {"input_ids": ids, "labels": labels}
    if packed:
        batch["position_ids"] = torch.cat([torch.arange(90), torch.arange(60)]).expand(3, -1)
    return batch


def make_tuned(kind: str, method: str) -> Any:
    """A tiny model with the adapter of a method, its weights moved off their starting values."""
    import peft

    model = make_model(kind, VOCABULARY)
    model.set_attn_implementation("eager")
    common: dict[str, Any] = {"task_type": "CAUSAL_LM", "fan_in_fan_out": kind == "gpt2"}
    if method in ("lora", "dora", "dropout"):
        config: Any = peft.LoraConfig(
            r=4,
            target_modules="all-linear",
            use_dora=method == "dora",
            lora_dropout=0.1 if method == "dropout" else 0.0,
            **common,
        )
        model = peft.get_peft_model(model, config)
    elif method == "ia3":
        model = peft.get_peft_model(model, peft.IA3Config(**common))
    elif method == "prefix":
        config = peft.PrefixTuningConfig(num_virtual_tokens=4, task_type="CAUSAL_LM")
        model = peft.get_peft_model(model, config)
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    return model
