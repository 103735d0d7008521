"""Whether what transformers made of a GGUF file is all that the file says, and nothing else.

Its reader takes the tensors and settings it knows and passes over the others, which may change
every answer. What is passed over here is known to change none; anything else is refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gguf

from tuning.models.gguf_header import GgufError, GgufFacts

GEMMA_27B_LAYERS = (46, 62)  # of Gemma 2 and Gemma 3
# Settings by which a tensor has the shape it has, and those that no answer follows from.
SHAPES = {
    "block_count", "context_length", "embedding_length", "feed_forward_length", "vocab_size",
    "attention.head_count", "attention.head_count_kv", "attention.key_length",
    "attention.value_length", "attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon",
    "rope.freq_base", "rope.dimension_count", "attention.causal", "use_parallel_residual",
    "tensor_data_layout", "attention.sliding_window_pattern",
}  # fmt: skip
# Settings that have to be in the config as they are in the file.
SAME = {
    "attention.sliding_window": "sliding_window",
    "attn_logit_softcapping": "attn_logit_softcapping",
    "final_logit_softcapping": "final_logit_softcapping",
    "logit_scale": "logit_scale",
    "expert_used_count": "num_experts_per_tok",
}
EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")


def complete(config: Any, facts: GgufFacts) -> None:
    """Settings that transformers takes from its defaults, where the file or llama.cpp says more.

    Gemma's scale is not in the file: llama.cpp takes the head's size, and for the 27B models,
    which it knows by their layers, the hidden size over the heads (`llama-model.cpp`).
    """
    if hasattr(config, "attention_bias"):
        config.attention_bias = "blk.0.attn_output.bias" in facts.tensors
    head_dim = facts.setting("attention.key_length")
    if head_dim is None:
        return
    if hasattr(config, "head_dim"):
        config.head_dim = int(head_dim)
    if hasattr(config, "query_pre_attn_scalar"):
        is_27b = config.num_hidden_layers in GEMMA_27B_LAYERS
        by_heads = config.hidden_size // config.num_attention_heads
        config.query_pre_attn_scalar = by_heads if is_27b else int(head_dim)


def check_settings(config: Any, facts: GgufFacts) -> None:
    """GgufError for a setting of the file that the config does not hold."""
    start = f"{facts.architecture}."
    for key, value in facts.settings.items():
        name = key.removeprefix(start)
        if not key.startswith(start) or name in SHAPES or not value or value == "none":
            continue
        if name.startswith("rope.scaling."):
            rope = getattr(config, "rope_parameters", None) or {}
            is_held = rope.get("rope_type", "default") != "default"
        elif name == "expert_count":
            is_held = value in [getattr(config, one, None) for one in EXPERTS]
        elif name.startswith("expert_"):
            is_held = any(hasattr(config, one) for one in EXPERTS)
        else:
            is_held = name in SAME and getattr(config, SAME[name], None) == value
        if not is_held:
            raise GgufError(
                f"{facts.path}: setting {key} {value!r} is not taken over by transformers; give "
                "the model as a folder or a hub id"
            )


def check_tensors(model: Any, report: Mapping[str, Any], facts: GgufFacts) -> None:
    """GgufError for weights that the loader made up, or tensors of the file that it left out."""
    for key, what in (
        ("missing_keys", "is not in the file"),
        ("mismatched_keys", "has another shape in the file"),
        ("unexpected_keys", "is in the file and belongs nowhere"),
    ):
        for found in sorted(map(str, report.get(key, ()))):
            raise _refusal(facts, f"tensor {found} {what}")
    size = sum(part.numel() for part in model.parameters())
    if size != facts.num_parameters:
        left = ", ".join(_left_out(model, facts)[:3]) or "some of their values"
        raise _refusal(
            facts,
            f"of {facts.num_parameters:,} weights in the file {size:,} are used, without {left}",
        )
    bad = [name for name, value in model.state_dict().items() if not value.isfinite().all()]
    if bad:
        raise GgufError(f"{facts.path}: {bad[0]} is not finite; download the file again")


def _left_out(model: Any, facts: GgufFacts) -> list[str]:
    """Tensors of the file that no weight of the model is called like."""
    kinds = {name: kind for kind, name in gguf.MODEL_ARCH_NAMES.items()}
    kind = kinds.get(facts.architecture)
    if kind is None:
        return []
    names = gguf.get_tensor_name_map(kind, model.config.num_hidden_layers)
    used = {names.get_name(key, (".weight", ".bias")) for key in model.state_dict()}
    return sorted(set(facts.tensors) - used)


def _refusal(facts: GgufFacts, what: str) -> GgufError:
    return GgufError(
        f"{facts.path}: {what}, as transformers reads architecture {facts.architecture!r}; give "
        "the model as a folder or a hub id"
    )
