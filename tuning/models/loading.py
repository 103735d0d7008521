"""Loads a variant ready to generate: the checkpoint, or its base with the adapter on it.

Matches adapter and base by the fingerprint of the base's weights, never by a path.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tuning.models.packaged import packaged_models
from tuning.models.peft_adapters import put_on
from tuning.models.resolve import BaseError, resolve_base
from tuning.variant.checkpoint import check_checkpoint, one_line, refuse_missing
from tuning.variant.folder import (
    ADAPTER_CONFIG,
    Variant,
    list_variants,
    read_variant,
    weights_sha256,
)
from tuning.variant.stops import stop_ids


@dataclass(frozen=True)
class Loaded:
    """A model in memory with its tokenizer; `base_folder` is set for adapters."""

    variant: Variant
    model: Any
    tokenizer: Any
    base_folder: Path | None

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """The tokens that end its answers, which are those that serving stops at."""
        folders = [self.variant.folder, *([self.base_folder] if self.base_folder else [])]
        return stop_ids(self.tokenizer, *folders)

    @property
    def speaks_chat(self) -> bool:
        """Whether it answers through a chat template; a base without one continues text."""
        return bool(self.tokenizer.chat_template)


def load_variant(name: str, home: Path, base: str | None = None) -> Loaded:
    """Load the variant called `name` in fp32; `base` names the base of a foreign adapter."""
    import torch

    from tuning.models.tokenizers import load_tokenizer

    folder = resolve_base(name, home, what="model")
    variant = read_variant(folder)
    if variant.kind == "reward":
        raise BaseError(
            f"model {name!r}: is a reward model, which scores answers and writes none; score with "
            "`arena reward score`"
        )
    if not variant.is_adapter:
        model = load_model(folder, dtype=torch.float32)
        return Loaded(variant, model.eval(), load_tokenizer(folder), None)
    base_folder = find_base(variant, home, base)
    model = load_model(base_folder, dtype=torch.float32)
    model = put_on(model, folder)
    return Loaded(variant, model.eval(), load_tokenizer(folder), base_folder)


def find_base(variant: Variant, home: Path, base: str | None = None) -> Path:
    """Folder of the base that an adapter belongs to, by fingerprint.

    `base`, where given, has to be it. Else tried in order: the recorded id, the recorded path seen
    from the variant, the packaged models, every variant under `home`.
    """
    if base is not None:
        return _given_base(variant, home, base)
    if variant.base is None:
        raise BaseError(f"{variant.name}: does not say what its base is; give --base")
    try:
        recorded = resolve_base(variant.base.id, home, local_files_only=True)
    except BaseError:
        recorded = variant.folder / variant.base.id
    for folder in (recorded, *packaged_models().values(), *list_variants(home)):
        if _is_whole(folder) and weights_sha256(folder) == variant.base.sha256:
            return folder
    raise BaseError(
        f"{variant.name}: its base {variant.base.id!r} (weights {variant.base.sha256[:12]}) is not "
        "here; give the same checkpoint with --base"
    )


def _given_base(variant: Variant, home: Path, base: str) -> Path:
    folder = resolve_base(base, home)
    if not _is_whole(folder):
        raise BaseError(f"base {base!r}: is no whole checkpoint; give the base of {variant.name}")
    found = weights_sha256(folder)
    if variant.base is not None and found != variant.base.sha256:
        raise BaseError(
            f"base {base!r}: holds weights {found[:12]}, but {variant.name} was made from "
            f"{variant.base.id!r}, weights {variant.base.sha256[:12]}; leave --base out or give "
            "that one"
        )
    return folder


def _is_whole(folder: Path) -> bool:
    return any(folder.glob("*.safetensors")) and not (folder / ADAPTER_CONFIG).exists()


def load_model(
    folder: Path, *, dtype: torch.dtype, attention: str | None = None, four_bit: bool = False
) -> Any:
    """Load a causal model from `folder` (safetensors only, no code of its own).

    `attention` names an implementation; by default it is the one that transformers picks for the
    architecture. `four_bit` quantises its layers to NF4 for QLoRA (CUDA and bitsandbytes only).
    A checkpoint that does not fill the model exactly is refused.
    """
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    extra: dict[str, Any] = {}
    if four_bit:
        extra["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        )
    model, loading = load_reported(
        AutoModelForCausalLM,
        folder,
        ("as a causal language model", "a folder with config.json, tokenizer and *.safetensors"),
        dtype=dtype,
        attention=attention,
        **extra,
    )
    refuse_missing(folder, loading)
    return model


def load_reported(
    kind: Any,
    folder: Path,
    told: tuple[str, str],
    *,
    dtype: torch.dtype,
    attention: str | None,
    **extra: Any,
) -> tuple[Any, dict[str, Any]]:
    """A checkpoint by an auto class of transformers, and its report of what did not fit.

    `told` says as what it is loaded and what to give instead, in the BaseError of one that fails.
    """
    check_checkpoint(folder)
    if attention is not None:
        extra["attn_implementation"] = attention
    try:
        model, loading = kind.from_pretrained(
            folder,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            **extra,
        )
    except Exception as error:  # what an architecture raises depends on the values of its config
        raise BaseError(
            f"base {folder}: cannot be loaded {told[0]} ({one_line(error)}); give {told[1]}"
        ) from error
    return model, loading
