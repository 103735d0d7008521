"""Looks into the tensors of a variant: keys, shapes, finite values, a delta that is not zero.

`tuning.variant` has checked the hashes before; here torch is loaded.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

import torch
from safetensors import SafetensorError, safe_open

from tuning.variant.folder import ADAPTER_CONFIG, Variant, VariantError, load_json, read_variant
from tuning.variant.folder import weights_sha256 as fingerprint

# Parts that each adapted layer has, by kind; embeddings call theirs `embedding_A`.
PARTS = {"lora": {"A", "B"}, "dora": {"A", "B", "magnitude_vector"}, "ia3": {"l"}}
LAYER_KEY = re.compile(r"base_model\.model\.(?P<module>.+?)\.(?:lora_|ia3_)(?P<part>\w+)")


def verify_variant(folder: Path, base_folder: Path | None = None) -> Variant:
    """Check everything that can be checked of a variant; VariantError names file and tensor.

    With `base_folder` also that it is the base the variant was made from, that every tensor
    fits it, and that something differs from it.
    """
    variant = read_variant(folder)
    tensors = read_tensors(folder)
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise VariantError(
                f"{folder}: tensor {name} holds NaN or infinity; tune {variant.name!r} again"
            )
    if base_folder is not None and variant.base is not None:
        found = fingerprint(base_folder)
        if found != variant.base.sha256:
            raise VariantError(
                f"{folder}: was made from weights {variant.base.sha256[:12]}, but {base_folder} "
                f"holds {found[:12]}; give the base it was made from"
            )
    if variant.is_adapter:
        _check_adapter(variant, tensors, base_folder)
    elif base_folder is not None and variant.kind == "full":
        _check_full(variant, tensors, base_folder)
    return variant


def read_tensors(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of the folder's safetensors files, by name."""
    tensors: dict[str, torch.Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="pt") as stream:
                for name in stream.keys():  # noqa: SIM118 (the handle is no mapping)
                    tensors[name] = stream.get_tensor(name)
        except SafetensorError as error:
            raise VariantError(f"{path}: is no valid safetensors file ({error})") from error
    return tensors


def _check_full(variant: Variant, tensors: dict[str, Any], base_folder: Path) -> None:
    base = read_tensors(base_folder)
    _same_keys(variant, tensors.keys(), base.keys())
    changed = False
    for name, tensor in tensors.items():
        if tensor.shape != base[name].shape:
            raise VariantError(
                f"{variant.folder}: tensor {name} has shape {tuple(tensor.shape)}, in the base "
                f"{tuple(base[name].shape)}; tune {variant.name!r} again"
            )
        changed = changed or not torch.equal(tensor, base[name].to(tensor.dtype))
    if not changed:
        _no_delta(variant)


def _check_adapter(
    variant: Variant, tensors: dict[str, torch.Tensor], base_folder: Path | None
) -> None:
    config = load_json(variant.folder / ADAPTER_CONFIG)
    if variant.kind in ("prefix", "prompt"):
        _check_virtual_tokens(variant, tensors, config, base_folder)
    else:
        _check_layers(variant, tensors, config, base_folder)


def _check_virtual_tokens(
    variant: Variant, tensors: dict[str, torch.Tensor], config: dict[str, Any], base: Path | None
) -> None:
    _same_keys(variant, tensors.keys(), ["prompt_embeddings"])
    shape = tuple(tensors["prompt_embeddings"].shape)
    expected = (config["num_virtual_tokens"], shape[1] if len(shape) == 2 else None)
    if base is not None:
        expected = (config["num_virtual_tokens"], _virtual_width(variant.kind, base))
    if shape != expected:
        raise VariantError(
            f"{variant.folder}: tensor prompt_embeddings has shape {shape}, expected {expected}; "
            f"tune {variant.name!r} again"
        )
    if not tensors["prompt_embeddings"].any():
        _no_delta(variant)


def _virtual_width(kind: str, base_folder: Path) -> int:
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(base_folder, local_files_only=True)
    if kind == "prompt":
        return int(config.hidden_size)
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(2 * config.num_hidden_layers * heads * size)


def _check_layers(
    variant: Variant, tensors: dict[str, torch.Tensor], config: dict[str, Any], base: Path | None
) -> None:
    """LoRA, DoRA and IA3: every tensor sits on a layer of the base and fits its sizes."""
    sizes = {} if base is None else _layer_sizes(base)
    moved = False
    for name, tensor in tensors.items():
        match = LAYER_KEY.match(name)
        if match is None:
            raise VariantError(
                f"{variant.folder}: unexpected tensor {name}; tune {variant.name!r} again"
            )
        module, part = match["module"], match["part"]
        if base is not None and not _fits(module, part, tensor, sizes):
            raise VariantError(
                f"{variant.folder}: tensor {name} of shape {tuple(tensor.shape)} fits no layer of "
                f"{base}; use the base it was made from"
            )
        moved = moved or (part == "B" and bool(tensor.any()))
        moved = moved or (variant.kind == "ia3" and bool((tensor != 1).any()))
    if not moved:
        _no_delta(variant)
    if config.get("peft_type") == "LORA":
        _check_pairs(variant, tensors)
    _check_complete(variant, tensors, config, sizes)


def _check_pairs(variant: Variant, tensors: dict[str, torch.Tensor]) -> None:
    for name, tensor in tensors.items():
        if ".lora_A." not in name:
            continue
        other = tensors.get(name.replace(".lora_A.", ".lora_B."))
        if other is None or other.shape[1] != tensor.shape[0]:
            raise VariantError(
                f"{variant.folder}: tensor {name} has no lora_B of its rank; tune "
                f"{variant.name!r} again"
            )


def _check_complete(
    variant: Variant,
    tensors: dict[str, torch.Tensor],
    config: dict[str, Any],
    sizes: dict[str, tuple[int, int]],
) -> None:
    """Every layer has all its parts, and every layer of the base that is named has some."""
    parts: dict[str, set[str]] = {}
    for name in tensors:
        if match := LAYER_KEY.match(name):
            parts.setdefault(match["module"], set()).add(match["part"])
    for module, found in parts.items():
        if missing := PARTS[variant.kind] - found - {part[-1] for part in found}:
            _lacks(variant, f"{min(missing)} of {module}")
    targets = config.get("target_modules")
    partly = any(config.get(key) for key in ("layers_to_transform", "exclude_modules"))
    if not isinstance(targets, list) or partly:
        return
    for name in sizes:
        named = any(name == target or name.endswith(f".{target}") for target in targets)
        if named and not any(module == name or module.endswith(f".{name}") for module in parts):
            _lacks(variant, f"all of {name}")


def _layer_sizes(base_folder: Path) -> dict[str, tuple[int, int]]:
    """Layer name to the two sizes of its weight matrix, from the base's safetensors headers."""
    sizes: dict[str, tuple[int, int]] = {}
    for path in sorted(base_folder.glob("*.safetensors")):
        with path.open("rb") as stream:
            header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
        for name, entry in header.items():
            if name.endswith(".weight") and len(entry["shape"]) == 2:
                sizes[name.removesuffix(".weight")] = (entry["shape"][0], entry["shape"][1])
    return sizes


def _fits(module: str, part: str, tensor: torch.Tensor, sizes: dict[str, tuple[int, int]]) -> bool:
    found = [size for name, size in sizes.items() if module == name or module.endswith(f".{name}")]
    if not found:
        return False
    # A and B carry one side of the matrix besides the rank; which one depends on whether the
    # layer stores (out, in), as Linear does, or (in, out), as GPT-2's Conv1D does.
    sides = {"A": tensor.shape[-1:], "B": tensor.shape[:1]}.get(part, torch.Size([tensor.numel()]))
    return all(side in found[0] for side in sides)


def _same_keys(variant: Variant, found: Iterable[str], expected: Iterable[str]) -> None:
    missing, extra = set(expected) - set(found), set(found) - set(expected)
    if missing or extra:
        if missing:
            _lacks(variant, min(missing))
        raise VariantError(
            f"{variant.folder}: has unexpected {min(extra)} among its tensors; tune "
            f"{variant.name!r} again"
        )


def _lacks(variant: Variant, what: str) -> NoReturn:
    raise VariantError(
        f"{variant.folder}: lacks {what} among its tensors; tune {variant.name!r} again"
    )


def _no_delta(variant: Variant) -> None:
    raise VariantError(
        f"{variant.folder}: changes nothing of its base; tune {variant.name!r} again"
    )
