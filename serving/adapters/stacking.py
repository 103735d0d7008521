"""Stacks the adapters of one place of a model into the matrices that one product needs.

Knows adapters' tensors and layer shapes; does not know steps, rows or modules' wiring.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from serving.adapters.peft_reader import Adapter, LinearDelta
from serving.errors import ModelLoadError


@dataclass(frozen=True)
class AdapterSlot:
    """An adapter's place in the stacks: rank columns [low, high), and its bit number."""

    low: int
    high: int
    bit: int
    has_gain: bool


@dataclass(frozen=True)
class Part:
    """What one adapter does at a place, in the model's number format: its rows of a `Stack`.

    All None where it does nothing.
    """

    down: torch.Tensor | None = None
    up: torch.Tensor | None = None
    out_gain: torch.Tensor | None = None
    in_gain: torch.Tensor | None = None
    out_shift: torch.Tensor | None = None


@dataclass(frozen=True)
class Stack:
    """The stacked adapters of a place of `width` layers.

    down [width * rank, in] and up [width * rank, all outs]: an adapter's columns of all layers
    lie together, and each column reaches its own layer's outputs only. Gain rows are
    [adapters + 1, out or in], row 0 for tokens without one; out_shift gives biases back. In
    `..._bits` is a bit for each adapter that has such a part.
    """

    width: int
    down: torch.Tensor | None
    up: torch.Tensor | None
    out_gain: torch.Tensor | None
    in_gain: torch.Tensor | None
    out_shift: torch.Tensor | None
    low_rank_bits: int
    out_bits: int
    in_bits: int
    shift_bits: int

    def part(self, slot: AdapterSlot) -> Part:
        """The part of the adapter in that slot, as views of the stack."""
        rows = slice(slot.low * self.width, slot.high * self.width)

        def taken(table: torch.Tensor | None, bits: int, at: int | slice) -> torch.Tensor | None:
            return table[at] if table is not None and bits >> slot.bit & 1 else None

        return Part(
            taken(self.down, self.low_rank_bits, rows),
            taken(self.up, self.low_rank_bits, rows),
            taken(self.out_gain, self.out_bits, slot.bit + 1),
            taken(self.in_gain, self.in_bits, slot.bit + 1),
            taken(self.out_shift, self.shift_bits, slot.bit + 1),
        )


def assign_slots(adapters: Sequence[Adapter]) -> dict[str, AdapterSlot]:
    """Slots in the order of the adapters."""
    slots: dict[str, AdapterSlot] = {}
    low = 0
    for bit, adapter in enumerate(adapters):
        slots[adapter.name] = AdapterSlot(low, low + adapter.rank, bit, adapter.has_gain)
        low += adapter.rank
    return slots


def part_of(adapter: Adapter, paths: Sequence[str], layers: Sequence[nn.Module]) -> Part:
    """What an adapter does to `layers` (at `paths`), which share their input."""
    weights = [weight_of(layer) for layer in layers]
    in_size, out_size = weights[0].shape[1], sum(w.shape[0] for w in weights)
    rank, first_out = adapter.rank, 0
    down, up = torch.zeros(len(layers) * rank, in_size), torch.zeros(len(layers) * rank, out_size)
    out_gain, in_gain = torch.ones(out_size), torch.ones(in_size)
    out_shift = torch.zeros(out_size)
    is_low_rank = has_out = has_in = has_shift = False
    for index, (path, layer, weight) in enumerate(zip(paths, layers, weights, strict=True)):
        outs = slice(first_out, first_out + weight.shape[0])
        first_out = outs.stop
        delta = adapter.deltas.get(path)
        if delta is None:
            continue
        gain = dora_gain(weight, delta) if delta.magnitude is not None else delta.out_gain
        if delta.down is not None and delta.up is not None:
            rows = slice(index * rank, index * rank + delta.down.shape[0])
            down[rows] = delta.down
            up[rows, outs] = (delta.up if gain is None else delta.up * gain[:, None]).T
            is_low_rank = True
        if gain is not None:
            out_gain[outs], has_out = gain, True
        bias = layer.bias
        if gain is not None and delta.magnitude is not None and isinstance(bias, torch.Tensor):
            # DoRA scales the weight, not the bias: give back what the gain took from it.
            out_shift[outs], has_shift = (1 - gain) * bias.float().cpu(), True
        if delta.in_gain is not None:
            assert len(layers) == 1, "layers with input gains are not grouped"
            in_gain, has_in = delta.in_gain, True
    found = (is_low_rank, is_low_rank, has_out, has_in, has_shift)
    tensors = [
        tensor.to(weights[0]) if has else None
        for has, tensor in zip(found, (down, up, out_gain, in_gain, out_shift), strict=True)
    ]
    if not all(tensor is None or bool(tensor.isfinite().all()) for tensor in tensors):
        # Scaled by alpha and put into the model's number format, what was finite may not be.
        raise ModelLoadError(
            f"{adapter.label}: {paths[0]}: its scaled values are not finite in {weights[0].dtype}; "
            "lower its lora_alpha, or tune again"
        )
    return Part(*tensors)


def stack_parts(parts: Sequence[tuple[AdapterSlot, Part]], layers: Sequence[nn.Module]) -> Stack:
    """The stack of all adapters' parts at a place, in the order of their slots."""
    weights, width = [weight_of(layer) for layer in layers], len(layers)
    in_size, out_size = weights[0].shape[1], sum(w.shape[0] for w in weights)

    def rows(found: Sequence[torch.Tensor | None], size: int) -> torch.Tensor | None:
        if all(part is None for part in found):
            return None
        pieces = [
            part if part is not None else weights[0].new_zeros((slot.high - slot.low) * width, size)
            for (slot, _), part in zip(parts, found, strict=True)
        ]
        return torch.cat(pieces)

    def gains(found: Sequence[torch.Tensor | None], neutral: torch.Tensor) -> torch.Tensor | None:
        if all(part is None for part in found):
            return None
        return torch.stack([neutral, *(neutral if part is None else part for part in found)])

    def bits(found: Sequence[torch.Tensor | None]) -> int:
        pairs = zip(parts, found, strict=True)
        return sum(1 << slot.bit for (slot, _), part in pairs if part is not None)

    found = [part for _, part in parts]
    return Stack(
        width,
        rows([part.down for part in found], in_size),
        rows([part.up for part in found], out_size),
        gains([part.out_gain for part in found], weights[0].new_ones(out_size)),
        gains([part.in_gain for part in found], weights[0].new_ones(in_size)),
        gains([part.out_shift for part in found], weights[0].new_zeros(out_size)),
        bits([part.down for part in found]),
        bits([part.out_gain for part in found]),
        bits([part.in_gain for part in found]),
        bits([part.out_shift for part in found]),
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
