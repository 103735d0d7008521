"""Reads PEFT adapter folders into plain tensors, and refuses what it would not apply exactly.

Knows PEFT's file format; does not know the engine, nor verify hashes (`tuning.variant` does).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from serving.adapters.patterns import matches
from serving.adapters.plain import require_count, require_plain, require_rank
from serving.errors import ModelLoadError

WEIGHTS_FILE = "adapter_model.safetensors"
CONFIG_FILE = "adapter_config.json"
PEFT_PREFIX = "base_model.model."
HEAD = "score.weight"
# What PEFT notes of a sequence classifier, whose head may be called either.
HEAD_MODULES = {"classifier", "score"}
# Initialisations that rewrite base weights: the adapter alone does not hold the difference.
BASE_CHANGING_INITS = ("pissa", "olora", "corda", "loftq", "lora_ga")


@dataclass(frozen=True)
class LinearDelta:
    """What an adapter does to one linear layer: y = gain * (W x + b2) + up (down x).

    `down` is [rank, in], `up` [out, rank] with the scale folded in. `out_gain` [out] multiplies
    the base output (DoRA, IA3), `in_gain` [in] the input (IA3 feed-forward).
    """

    down: torch.Tensor | None = None
    up: torch.Tensor | None = None
    out_gain: torch.Tensor | None = None
    in_gain: torch.Tensor | None = None
    magnitude: torch.Tensor | None = None


@dataclass(frozen=True)
class Adapter:
    """One adapter's tensors: deltas by module path, or virtual tokens.

    `prefix` is [tokens, 2 * layers, kv_heads, head_size] flattened per token as PEFT saves it;
    `prompt` holds embeddings [tokens, hidden] that the engine turns into keys and values.
    """

    name: str
    deltas: dict[str, LinearDelta] = field(default_factory=dict)
    prefix: torch.Tensor | None = None
    prompt: torch.Tensor | None = None
    head: torch.Tensor | None = None
    """Of a reward model, [hidden]: its score is the product with the last token's state."""

    @property
    def label(self) -> str:
        """What people call it: the engine's key without the number that tells reloads apart."""
        return self.name.rpartition("#")[0] or self.name

    @cached_property
    def rank(self) -> int:
        """The widest rank over the adapter's layers; 0 without low-rank parts."""
        return max((d.down.shape[0] for d in self.deltas.values() if d.down is not None), default=0)

    @cached_property
    def num_values(self) -> int:
        """Numbers in the low-rank parts."""
        parts = [t for d in self.deltas.values() for t in (d.down, d.up) if t is not None]
        return sum(part.numel() for part in parts)

    @cached_property
    def has_gain(self) -> bool:
        """Whether it scales any layer's inputs or outputs."""
        gains = (t for d in self.deltas.values() for t in (d.out_gain, d.in_gain, d.magnitude))
        return any(gain is not None for gain in gains)


def read_adapter(folder: Path, name: str) -> Adapter:
    """Read the adapter in `folder`; ModelLoadError names what cannot be applied, and why."""
    config = read_config(folder)
    path = folder / WEIGHTS_FILE
    if not path.is_file():
        raise ModelLoadError(f"{path}: no such file; save the adapter as safetensors")
    tensors = _read_tensors(path)
    peft_type = config.get("peft_type")
    if peft_type == "LORA":
        head = tensors.pop(PEFT_PREFIX + HEAD, None) if is_scoring(config) else None
        adapter = _read_lora(folder, name, config, tensors)
        return adapter if head is None else replace(adapter, head=as_head(folder, head))
    if peft_type == "IA3":
        return _read_ia3(folder, name, config, tensors)
    if peft_type in ("PREFIX_TUNING", "PROMPT_TUNING"):
        return _read_virtual(folder, name, config, tensors)
    raise ModelLoadError(f"{folder}: peft_type {peft_type!r} is not supported")


def is_scoring(config: Mapping[str, Any]) -> bool:
    """Whether PEFT's settings are those of a sequence classifier, as reward models are."""
    return config.get("task_type") == "SEQ_CLS" and config.get("peft_type") == "LORA"


def as_head(folder: Path, weight: torch.Tensor) -> torch.Tensor:
    """The weight [1, hidden] of a head as [hidden]; ModelLoadError where it gives no one score."""
    if weight.dim() != 2 or weight.shape[0] != 1:
        raise ModelLoadError(
            f"{folder}: {HEAD} has shape {tuple(weight.shape)}; only a head of one score is served"
        )
    return weight[0].float()


def _read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a file, one by one: reading all in one call would hold up other threads."""
    tensors: dict[str, torch.Tensor] = {}
    try:
        with safe_open(path, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118 - not a mapping
                tensors[key] = file.get_tensor(key)
    except Exception as error:
        raise ModelLoadError(f"{path}: not readable as safetensors ({error})") from error
    for key, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise ModelLoadError(f"{path}: {key} holds values that are not finite; tune again")
    return tensors


def read_config(folder: Path) -> dict[str, Any]:
    """PEFT's settings; ModelLoadError names what in them cannot be applied."""
    path = folder / CONFIG_FILE
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelLoadError(f"{path}: cannot be read as JSON ({error})") from error
    if not isinstance(config, dict):
        raise ModelLoadError(f"{path}: not a JSON object")
    refused = {
        "modules_to_save": "whole modules cannot share a batch; merge the adapter",
        "lora_bias": "biases in adapters are not applied; merge the adapter",
        "target_parameters": "parameter targets are not applied; merge the adapter",
        "trainable_token_indices": "token rows are not applied; merge the adapter",
    }
    if is_scoring(config) and set(config.get("modules_to_save") or ()) <= HEAD_MODULES:
        del refused["modules_to_save"]
    for key, reason in refused.items():
        if config.get(key):
            raise ModelLoadError(f"{folder}: {key} is {config[key]!r}: {reason}")
    if config.get("bias", "none") != "none":
        raise ModelLoadError(f"{folder}: bias is {config['bias']!r}: merge the adapter")
    init = config.get("init_lora_weights")
    if isinstance(init, str) and init.lower().startswith(BASE_CHANGING_INITS):
        raise ModelLoadError(
            f"{folder}: init_lora_weights {init!r} changed the base; convert it to plain LoRA"
        )
    require_plain(folder, config)
    return config


def _read_lora(
    folder: Path,
    name: str,
    config: dict[str, Any],
    tensors: dict[str, torch.Tensor],
) -> Adapter:
    parts: dict[str, dict[str, torch.Tensor]] = {}
    names = re.compile(
        re.escape(PEFT_PREFIX)
        + r"(.+)\.(lora_A|lora_B|lora_magnitude_vector)(?:\.default)?(?:\.weight)?"
    )
    for key, tensor in tensors.items():
        match = names.fullmatch(key)
        if match is None:
            raise ModelLoadError(f"{folder}: tensor {key} is not applied; merge the adapter")
        parts.setdefault(match[1], {})[match[2]] = tensor.float()
    deltas = {}
    for module, part in parts.items():
        if not {"lora_A", "lora_B"} <= part.keys() or part["lora_A"].dim() != 2:
            raise ModelLoadError(f"{folder}: {module} lacks a lora_A / lora_B pair of matrices")
        down, up = part["lora_A"], part["lora_B"]
        if down.shape[0] != up.shape[1]:
            raise ModelLoadError(f"{folder}: {module}: lora_A and lora_B differ in rank")
        alpha = _alpha(folder, config, module)
        rank = down.shape[0]
        require_rank(folder, config, module, rank)
        scale = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
        deltas[module] = LinearDelta(down, up * scale, magnitude=part.get("lora_magnitude_vector"))
    if not any(bool(d.up.count_nonzero()) for d in deltas.values() if d.up is not None):
        raise ModelLoadError(f"{folder}: the adapter changes nothing (every lora_B is 0)")
    return Adapter(name, deltas)


def _alpha(folder: Path, config: dict[str, Any], module: str) -> float:
    """The lora_alpha of a layer: that of the first pattern that fits the end of its path."""
    patterns = config.get("alpha_pattern") or {}
    if not isinstance(patterns, dict):
        raise ModelLoadError(f"{folder}: alpha_pattern is {patterns!r}, no table of numbers")
    found = (patterns[key] for key in patterns if matches(rf"(.*\.)?({key})", module))
    alpha = next(found, config.get("lora_alpha", 8))
    if not isinstance(alpha, int | float) or isinstance(alpha, bool) or not math.isfinite(alpha):
        raise ModelLoadError(f"{folder}: lora_alpha {alpha!r} of {module} is no number; mend it")
    return float(alpha)


def _read_ia3(
    folder: Path, name: str, config: dict[str, Any], tensors: dict[str, torch.Tensor]
) -> Adapter:
    deltas = {}
    for key, tensor in tensors.items():
        match = re.fullmatch(re.escape(PEFT_PREFIX) + r"(.+)\.ia3_l(?:\.default)?", key)
        if match is None:
            raise ModelLoadError(f"{folder}: tensor {key} is not applied; merge the adapter")
        module, gain = match[1], tensor.float().flatten()
        is_input = _scales_input(folder, config, module)
        deltas[module] = LinearDelta(in_gain=gain) if is_input else LinearDelta(out_gain=gain)
    return Adapter(name, deltas)


def _scales_input(folder: Path, config: dict[str, Any], module: str) -> bool:
    forward = config.get("feedforward_modules") or []
    if isinstance(forward, str):
        return matches(forward, module)
    if not isinstance(forward, list) or not all(isinstance(item, str) for item in forward):
        raise ModelLoadError(f"{folder}: feedforward_modules is {forward!r}, no list of layers")
    return any(module == item or module.endswith(f".{item}") for item in forward)


def _read_virtual(
    folder: Path, name: str, config: dict[str, Any], tensors: dict[str, torch.Tensor]
) -> Adapter:
    if set(tensors) != {"prompt_embeddings"}:
        names = sorted(tensors)
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        raise ModelLoadError(
            f"{folder}: tensors {', '.join(names[:3])}{more} where only prompt_embeddings "
            "is expected; save the adapter in inference form"
        )
    table = tensors["prompt_embeddings"].float()
    if table.dim() != 2 or not len(table):
        raise ModelLoadError(f"{folder}: prompt_embeddings has shape {tuple(table.shape)}")
    require_count(folder, config, len(table))
    if config["peft_type"] == "PREFIX_TUNING":
        return Adapter(name, prefix=table)
    return Adapter(name, prompt=table)


def exact_settings(folder: Path, adapter: Adapter) -> dict[str, Any]:
    """What PEFT has to be told to load the same adapter: whole paths, and no expressions."""
    config = read_config(folder)
    kept: dict[str, Any] = {"peft_type": config["peft_type"], "task_type": "CAUSAL_LM"}
    paths = list(adapter.deltas)
    if adapter.prefix is not None or adapter.prompt is not None:
        table = adapter.prefix if adapter.prefix is not None else adapter.prompt
        assert table is not None
        layers, width = config.get("num_layers"), config.get("token_dim")
        sizes_fit = isinstance(layers, int) and isinstance(width, int)
        if adapter.prefix is not None and not (
            sizes_fit and 2 * int(layers) * int(width) == table.shape[1]  # type: ignore[arg-type]
        ):
            raise ModelLoadError(
                f"{folder}: num_layers {layers!r} and token_dim {width!r} are not those of "
                f"prompt_embeddings {tuple(table.shape)}; tune again"
            )
        if adapter.prompt is not None:
            layers, width = 1, table.shape[1]
        heads = config.get("num_attention_heads", 1)
        sizes = {"token_dim": width, "num_layers": layers, "num_attention_heads": heads}
        return {**kept, **sizes, "num_virtual_tokens": len(table), "num_transformer_submodules": 1}
    kept |= {"target_modules": paths, "fan_in_fan_out": bool(config.get("fan_in_fan_out"))}
    if config["peft_type"] == "IA3":
        inputs = [path for path, delta in adapter.deltas.items() if delta.in_gain is not None]
        return {**kept, "feedforward_modules": inputs}
    alphas = {path: _alpha(folder, config, path) for path in paths}
    ranks = {p: d.down.shape[0] for p, d in adapter.deltas.items() if d.down is not None}
    alpha, rank = alphas[paths[0]], ranks[paths[0]]
    return {
        **kept,
        "r": rank,
        "lora_alpha": alpha,
        "use_rslora": bool(config.get("use_rslora")),
        "use_dora": any(delta.magnitude is not None for delta in adapter.deltas.values()),
        "rank_pattern": {re.escape(p): r for p, r in ranks.items() if r != rank},
        "alpha_pattern": {re.escape(p): a for p, a in alphas.items() if a != alpha},
    }
