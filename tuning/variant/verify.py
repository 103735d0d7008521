"""Looks into the tensors of a variant: keys, shapes, finite values, a delta that is not zero.

`tuning.variant` has checked the hashes before; here torch is loaded.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

import torch
from safetensors import SafetensorError, safe_open

from tuning.variant.checkpoint import one_line, read_model_config
from tuning.variant.folder import ADAPTER_CONFIG, Variant, VariantError, load_json, read_variant
from tuning.variant.folder import weights_sha256 as fingerprint

# Parts that each adapted layer has, by kind; embeddings call theirs `embedding_A`.
PARTS = {"lora": {"A", "B"}, "dora": {"A", "B", "magnitude_vector"}, "ia3": {"l"}}
PEFT_START = "base_model.model."
HEAD = "score.weight"
OTHER_HEADS = ("lm_head.", "score.")
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
    if variant.kind == "reward":
        tensors = _without_head(variant, tensors, base_folder)
    if variant.is_adapter:
        _check_adapter(variant, tensors, base_folder)
    elif base_folder is not None and variant.kind in ("full", "reward"):
        _check_full(variant, tensors, base_folder)
    return variant


def _without_head(
    variant: Variant, tensors: dict[str, torch.Tensor], base_folder: Path | None
) -> dict[str, torch.Tensor]:
    """The tensors of a reward model but its head, which has to be there, of one score."""
    heads = [name for name in tensors if name.removeprefix(PEFT_START) == HEAD]
    if not heads:
        _lacks(variant, HEAD)
    head = tensors[heads[0]]
    width = head.shape[-1]
    if base_folder is not None:
        width = int(read_model_config(base_folder).get_text_config().hidden_size)
    if tuple(head.shape) != (1, width):
        raise VariantError(
            f"{variant.folder}: tensor {heads[0]} has shape {tuple(head.shape)}, expected "
            f"{(1, width)}; tune {variant.name!r} again"
        )
    return {name: tensor for name, tensor in tensors.items() if name != heads[0]}


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
    if variant.kind == "reward":  # it has a head of its own in the place of the base's
        base = {name: part for name, part in base.items() if not name.startswith(OTHER_HEADS)}
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
        expected = (config["num_virtual_tokens"], _virtual_width(variant.kind, base, config))
    if shape != expected:
        raise VariantError(
            f"{variant.folder}: tensor prompt_embeddings has shape {shape}, expected {expected}; "
            f"tune {variant.name!r} again"
        )
    if not tensors["prompt_embeddings"].any():
        _no_delta(variant)


def _virtual_width(kind: str, base_folder: Path, config: dict[str, Any]) -> int:
    """Numbers of one virtual token: PEFT's own for keys and values, an embedding's for prompts."""
    if kind == "prompt":
        return int(_outline(base_folder).get_input_embeddings().embedding_dim)
    return int(2 * config["num_layers"] * config["token_dim"])


def _outline(base_folder: Path) -> Any:
    """The base's modules without numbers in them, whatever its file calls its tensors."""
    from transformers import AutoModelForCausalLM

    config = read_model_config(base_folder)
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


def _check_layers(
    variant: Variant, tensors: dict[str, torch.Tensor], config: dict[str, Any], base: Path | None
) -> None:
    """LoRA, DoRA and IA3: every tensor sits on a layer of the base and fits its sizes."""
    expected = None if base is None else _expected_parts(base, variant.folder)
    moved = False
    for name, tensor in tensors.items():
        match = LAYER_KEY.match(name)
        if match is None:
            raise VariantError(
                f"{variant.folder}: unexpected tensor {name}; tune {variant.name!r} again"
            )
        if expected is not None and expected.get(name) != tensor.shape:
            raise VariantError(
                f"{variant.folder}: tensor {name} of shape {tuple(tensor.shape)} fits no layer of "
                f"{base}; use the base it was made from"
            )
        moved = moved or (match["part"] == "B" and bool(tensor.any()))
        moved = moved or (variant.kind == "ia3" and bool((tensor != 1).any()))
    if not moved:
        _no_delta(variant)
    if config.get("peft_type") == "LORA":
        _check_pairs(variant, tensors)
    _check_complete(variant, tensors, expected or ())


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
    variant: Variant, tensors: dict[str, torch.Tensor], expected: Iterable[str]
) -> None:
    """Every layer has all its parts, and every layer of the base that is adapted has some."""
    parts: dict[str, set[str]] = {}
    for name in tensors:
        if match := LAYER_KEY.match(name):
            parts.setdefault(match["module"], set()).add(match["part"])
    for module, found in parts.items():
        if missing := PARTS[_layers_of(variant)] - found - {part[-1] for part in found}:
            _lacks(variant, f"{min(missing)} of {module}")
    for name in expected:
        if (match := LAYER_KEY.match(name)) and match["module"] not in parts:
            _lacks(variant, f"all of {match['module']}")


def _layers_of(variant: Variant) -> str:
    """Whose parts its layers have; a reward model's adapter may be LoRA or DoRA."""
    if variant.kind != "reward":
        return variant.kind
    return "dora" if load_json(variant.folder / ADAPTER_CONFIG).get("use_dora") else "lora"


def _expected_parts(base_folder: Path, folder: Path) -> dict[str, torch.Size]:
    """The tensors that PEFT puts on the base for the adapter's settings, with their shapes."""
    from peft import PeftConfig, get_peft_model, get_peft_model_state_dict

    settings = PeftConfig.from_pretrained(folder)
    settings.base_model_name_or_path = None  # told by the weights, not by a name
    if settings.task_type == "SEQ_CLS":  # the head is looked at apart; the layers are the base's
        settings.task_type, settings.modules_to_save = "CAUSAL_LM", None
    try:
        tuned = get_peft_model(_outline(base_folder), settings, low_cpu_mem_usage=True)
    except (ValueError, TypeError) as error:
        raise VariantError(
            f"{folder}: its settings fit no layer of {base_folder} ({one_line(error)}); use the "
            "base it was made from"
        ) from error
    parts = get_peft_model_state_dict(tuned, save_embedding_layers=False)
    return {name: part.shape for name, part in parts.items()}


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
