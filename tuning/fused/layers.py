"""Reads PEFT's LoRA layers and frozen weights for the functions of `tuning.fused.lora`.

Knows modules one at a time; knows neither models nor what of them is trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tuning.fused.lora import Adapted, lora_linears

TURNED_BYTES = 1 << 30
"""Most memory for copies of frozen weights the other way round; larger models go without."""


def is_plain_lora(layer: Any) -> bool:
    """A linear layer that is frozen, with one adapter without dropout or variant."""
    kind = type(layer)
    if kind.__name__ != "Linear" or kind.__module__ != "peft.tuners.lora.layer":
        return False
    (name, *others) = layer.lora_A
    return (
        not others
        and type(layer.base_layer) is nn.Linear
        and not layer.base_layer.weight.requires_grad
        and isinstance(layer.lora_dropout[name], nn.Identity)
        and not layer.lora_variant
        and not layer.lora_bias[name]
        and not layer.merged
        and not layer.disable_adapters
    )


def together(layers: Sequence[Any], x: Tensor) -> tuple[Tensor, ...]:
    """What each layer makes of x; layers that are plain LoRA share their work."""
    if not all(map(is_plain_lora, layers)):
        return tuple(layer(x) for layer in layers)
    dtype = computing_dtype(x)
    with torch.autocast(x.device.type, enabled=False):
        return lora_linears(x.to(dtype), [adapted(layer, dtype) for layer in layers])


def adapted(layer: Any, dtype: torch.dtype) -> Adapted:
    """The tensors of a plain LoRA layer in `dtype`."""
    (name,) = layer.lora_A
    bias = layer.base_layer.bias
    weight = frozen_as(layer.base_layer, dtype)
    return Adapted(
        weight,
        _turned(layer.base_layer, weight),
        None if bias is None else bias.to(dtype),
        layer.lora_A[name].weight.to(dtype),
        layer.lora_B[name].weight.to(dtype),
        layer.scaling[name],
    )


def computing_dtype(x: Tensor) -> torch.dtype:
    """Autocast's dtype where that is on, else that of x."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def frozen_as(layer: Any, dtype: torch.dtype) -> Tensor:
    """The frozen weight in `dtype`, cast once: autocast would cast it in every step."""
    if layer.weight.dtype == dtype:
        same: Tensor = layer.weight
        return same
    cast: Tensor | None = layer.__dict__.get("frozen_cast")
    if cast is None or cast.dtype != dtype:
        cast = layer.__dict__["frozen_cast"] = layer.weight.detach().to(dtype)
    return cast


def _turned(layer: Any, weight: Tensor) -> Tensor:
    """The frozen weight the other way round: in fp32 as a copy, made once, which is faster."""
    own = vars(layer)
    if weight.dtype != torch.float32 or not own.get("may_turn"):
        return weight.t()
    if "frozen_turned" not in own:
        own["frozen_turned"] = weight.detach().t().contiguous()
    copy: Tensor = own["frozen_turned"]
    return copy


def allow_copies(layers: Sequence[Any]) -> None:
    """Let plain LoRA layers copy their frozen weights, if these are not too large together."""
    frozen = [layer.base_layer for layer in layers if is_plain_lora(layer)]
    if sum(layer.weight.numel() for layer in frozen) * 4 <= TURNED_BYTES:
        for layer in frozen:
            vars(layer)["may_turn"] = True
