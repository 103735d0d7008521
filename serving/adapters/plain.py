"""Whether an adapter is plain: PEFT would apply its tensors and nothing else.

Settings that are not known here may change the answer, and are refused by name. Knows PEFT's
settings; does not know tensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from serving.adapters.patterns import matches
from serving.errors import ModelLoadError

# What PEFT notes of every adapter, and settings of training or of the start values.
NOTES = {
    "task_type", "peft_type", "auto_mapping", "peft_version", "base_model_name_or_path",
    "revision", "inference_mode", "target_modules", "exclude_modules", "fan_in_fan_out",
}  # fmt: skip
KNOWN = {
    "LORA": {
        "r", "lora_alpha", "lora_dropout", "bias", "use_rslora", "init_lora_weights",
        "layers_to_transform", "layers_pattern", "rank_pattern", "alpha_pattern", "megatron_core",
        "eva_config", "corda_config", "use_dora", "qalora_group_size", "runtime_config",
        "modules_to_save", "lora_bias", "target_parameters", "trainable_token_indices",
    },
    "IA3": {"feedforward_modules", "init_ia3_weights", "modules_to_save"},
    "PREFIX_TUNING": {
        "num_virtual_tokens", "token_dim", "num_transformer_submodules", "num_attention_heads",
        "num_layers", "init_weights", "encoder_hidden_size", "prefix_projection",
        "modules_to_save",
    },
    "PROMPT_TUNING": {
        "num_virtual_tokens", "token_dim", "num_transformer_submodules", "num_attention_heads",
        "num_layers", "prompt_tuning_init", "prompt_tuning_init_text", "tokenizer_name_or_path",
        "tokenizer_kwargs", "modules_to_save",
    },
}  # fmt: skip
REASONS = {
    "alora_invocation_tokens": "an activated LoRA works on a part of the tokens only",
    "layer_replication": "layers of the base would have to be repeated",
}
DEFAULT_RANK = 8


def require_plain(folder: Path, config: Mapping[str, Any]) -> None:
    """ModelLoadError for a setting that is on and not known to leave the answer alone."""
    known = KNOWN.get(str(config.get("peft_type")))
    if known is None:
        return  # Its type is refused, by name.
    for key, value in config.items():
        if value and key not in NOTES and key not in known:
            reason = REASONS.get(key, "this setting is not applied")
            raise ModelLoadError(
                f"{folder}: {key[:80]} is {str(value)[:80]}: {reason}; merge the adapter"
            )


def require_rank(folder: Path, config: Mapping[str, Any], module: str, rank: int) -> None:
    """ModelLoadError where a layer's tensors have another rank than the settings say."""
    patterns = config.get("rank_pattern") or {}
    if not isinstance(patterns, dict):
        raise ModelLoadError(f"{folder}: rank_pattern is {patterns!r}, no table of numbers")
    found = (patterns[key] for key in patterns if matches(rf"(.*\.)?({key})", module))
    told = next(found, config.get("r", DEFAULT_RANK))
    if told != rank:
        raise ModelLoadError(
            f"{folder}: the settings say rank {told!r} and the tensors of {module} have {rank}; "
            "mend r or rank_pattern"
        )


def require_count(folder: Path, config: Mapping[str, Any], count: int) -> None:
    """ModelLoadError where there are more or fewer virtual tokens than the settings say."""
    told = config.get("num_virtual_tokens", count)
    if told != count:
        raise ModelLoadError(
            f"{folder}: num_virtual_tokens is {told!r} and there are {count}; mend it"
        )
