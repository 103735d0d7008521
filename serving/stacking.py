"""Stacks the adapters of one place of a model into the matrices that one product needs.

Knows adapters' tensors and layer shapes; does not know steps, rows or modules' wiring.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from serving.adapters import Adapter, LinearDelta


@dataclass(frozen=True)
class Seat:
    """An adapter's place in the stacks: rank columns [low, high), and its bit number."""

    low: int
    high: int
    bit: int
    has_gain: bool


@dataclass
class Stack:
    """The stacked adapters of a place of `width` layers.

    down [width * rank, in] and up [width * rank, all outs]: an adapter's columns of all layers
    lie together, and each column reaches its own layer's outputs only. Gain rows are
    [adapters + 1, out or in], row 0 for tokens without one; out_shift gives biases back.
    """

    width: int
    down: torch.Tensor | None
    up: torch.Tensor | None
    out_gain: torch.Tensor | None
    in_gain: torch.Tensor | None
    out_shift: torch.Tensor | None
    low_rank_bits: int
    gain_bits: int


def assign_seats(adapters: Sequence[Adapter]) -> dict[str, Seat]:
    """Seats in the order of the adapters."""
    seats: dict[str, Seat] = {}
    low = 0
    for bit, adapter in enumerate(adapters):
        gain = any(
            d.out_gain is not None or d.in_gain is not None or d.magnitude is not None
            for d in adapter.deltas.values()
        )
        seats[adapter.name] = Seat(low, low + adapter.rank, bit, gain)
        low += adapter.rank
    return seats


def stack_layers(
    paths: Sequence[str],
    layers: Sequence[nn.Module],
    adapters: Sequence[Adapter],
    seats: dict[str, Seat],
) -> Stack:
    """Stack what `adapters` do to `layers` (at `paths`), which share their input."""
    width, total = len(layers), max((seat.high for seat in seats.values()), default=0)
    weights = [weight_of(layer) for layer in layers]
    in_size, out_size = weights[0].shape[1], sum(w.shape[0] for w in weights)
    down, up = torch.zeros(width * total, in_size), torch.zeros(width * total, out_size)
    out_gain = torch.ones(len(adapters) + 1, out_size)
    in_gain = torch.ones(len(adapters) + 1, in_size)
    out_shift = torch.zeros(len(adapters) + 1, out_size)
    low_rank_bits = gain_bits = 0
    has_out = has_in = has_shift = False
    for adapter in adapters:
        seat = seats[adapter.name]
        first_out = 0
        for index, (path, layer, weight) in enumerate(zip(paths, layers, weights, strict=True)):
            outs = slice(first_out, first_out + weight.shape[0])
            first_out = outs.stop
            delta = adapter.deltas.get(path)
            if delta is None:
                continue
            gain = dora_gain(weight, delta) if delta.magnitude is not None else delta.out_gain
            if delta.down is not None and delta.up is not None:
                first = seat.low * width + index * (seat.high - seat.low)
                rows = slice(first, first + delta.down.shape[0])
                down[rows] = delta.down
                up[rows, outs] = (delta.up if gain is None else delta.up * gain[:, None]).T
                low_rank_bits |= 1 << seat.bit
            if gain is not None:
                out_gain[seat.bit + 1, outs], has_out = gain, True
            bias = layer.bias
            if gain is not None and delta.magnitude is not None and isinstance(bias, torch.Tensor):
                # DoRA scales the weight, not the bias: give back what the gain took from it.
                out_shift[seat.bit + 1, outs] = (1 - gain) * bias.float().cpu()
                has_shift = True
            if delta.in_gain is not None:
                assert width == 1, "layers with input gains are not grouped"
                in_gain[seat.bit + 1], has_in = delta.in_gain, True
            if gain is not None or delta.in_gain is not None:
                gain_bits |= 1 << seat.bit
    model = weights[0]
    return Stack(
        width,
        down.to(model) if low_rank_bits else None,
        up.to(model) if low_rank_bits else None,
        out_gain.to(model) if has_out else None,
        in_gain.to(model) if has_in else None,
        out_shift.to(model) if has_shift else None,
        low_rank_bits,
        gain_bits,
    )


def dora_gain(weight: torch.Tensor, delta: LinearDelta) -> torch.Tensor:
    """Magnitude over the norm of each adapted weight row, [out] (DoRA, eq. 5)."""
    assert delta.magnitude is not None
    assert delta.up is not None
    assert delta.down is not None
    adapted = weight.float().cpu() + delta.up @ delta.down
    norms: torch.Tensor = torch.linalg.norm(adapted, dim=1)
    return delta.magnitude.flatten() / norms


def weight_of(module: nn.Module) -> torch.Tensor:
    """The layer's weight as [out, in], whichever way the module stores it."""
    weight = module.weight
    assert isinstance(weight, torch.Tensor)
    return weight.T if isinstance(module, Conv1D) else weight
