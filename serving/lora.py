"""Low-rank adapters on shared linear layers: every row of a batch gets its own, in one product.

The adapters' down-projections are stacked into one matrix and likewise the up-projections; a
mask per token zeroes what is not its own. One base copy, two extra small products per layer and
none where no row is tuned. Knows linear layers and masks; does not know requests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

from serving.adapters import Adapter, LinearDelta
from serving.errors import ModelLoadError


@dataclass(frozen=True)
class StepMask:
    """Which adapters the tokens of one step use.

    `columns` [tokens, hi - lo] is 1 where a stacked rank column belongs to the token's adapter,
    None when all tokens use all columns; `bits` has one bit per adapter in use; `owners` [tokens]
    is each token's gain row (0: none), None when no adapter in use scales outputs or inputs.
    """

    low: int
    high: int
    columns: torch.Tensor | None
    bits: int
    owners: torch.Tensor | None


@dataclass
class Stack:
    """One layer's stacked adapters: down [rank, in], up [rank, out], gain rows [adapters + 1]."""

    down: torch.Tensor | None
    up: torch.Tensor | None
    out_gain: torch.Tensor | None
    in_gain: torch.Tensor | None
    out_shift: torch.Tensor | None
    low_rank_bits: int
    gain_bits: int


class AdaptedLinear(nn.Module):
    """A linear layer (nn.Linear or GPT-2's Conv1D) followed by what the step's adapters add."""

    def __init__(self, base: nn.Module, bank: LoraBank) -> None:
        super().__init__()
        self.base = base
        self._bank = [bank]  # In a list, so that the bank is not taken for a child or a buffer.
        self.stack: Stack | None = None

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Apply to [1, tokens, in]; rows without an adapter come out as the base gives them."""
        step, stack = self._bank[0].step, self.stack
        if step is None or stack is None:
            return self.base(inputs)  # type: ignore[no-any-return]
        if stack.in_gain is not None and stack.gain_bits & step.bits:
            assert step.owners is not None
            inputs = inputs * stack.in_gain[step.owners]
        output: torch.Tensor = self.base(inputs)
        if stack.out_gain is not None and stack.gain_bits & step.bits:
            assert step.owners is not None
            output = output * stack.out_gain[step.owners]
            if stack.out_shift is not None:
                output += stack.out_shift[step.owners]
        if stack.low_rank_bits & step.bits:
            assert stack.down is not None
            assert stack.up is not None
            shrunk = functional.linear(inputs[0], stack.down[step.low : step.high])
            if step.columns is not None:
                shrunk *= step.columns
            output[0].addmm_(shrunk, stack.up[step.low : step.high])
        return output


@dataclass(frozen=True)
class Seat:
    """An adapter's place in the stacks: rank columns [low, high), and its bit number."""

    low: int
    high: int
    bit: int
    has_gain: bool


class LoraBank:
    """All adapters of one model that change linear layers; `step` is set around each forward."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._adapters: dict[str, Adapter] = {}
        self._layers: dict[str, AdaptedLinear] = {}
        self.seats: dict[str, Seat] = {}
        self.step: StepMask | None = None

    def check(self, adapter: Adapter) -> None:
        """ModelLoadError when a delta has no layer here or does not fit its shape."""
        for path, delta in adapter.deltas.items():
            weight = _weight(self._linear(path, adapter.name))
            wrong = [
                f"{label} {tuple(tensor.shape)}"
                for label, tensor, axis, size in (
                    ("lora_A", delta.down, 1, weight.shape[1]),
                    ("lora_B", delta.up, 0, weight.shape[0]),
                    ("magnitude", delta.magnitude, 0, weight.shape[0]),
                    ("gain", delta.out_gain, 0, weight.shape[0]),
                    ("gain", delta.in_gain, 0, weight.shape[1]),
                )
                if tensor is not None and tensor.shape[axis] != size
            ]
            if wrong:
                raise ModelLoadError(
                    f"{adapter.name}: {path}: {wrong[0]} does not fit a layer of shape "
                    f"{tuple(weight.shape)}; it was tuned from another base"
                )

    def prepare(self, adapters: Sequence[Adapter]) -> PreparedBank:
        """Stack `adapters` anew without touching what runs; safe in any thread."""
        seats: dict[str, Seat] = {}
        low = 0
        for bit, adapter in enumerate(adapters):
            gain = any(
                d.out_gain is not None or d.in_gain is not None or d.magnitude is not None
                for d in adapter.deltas.values()
            )
            seats[adapter.name] = Seat(low, low + adapter.rank, bit, gain)
            low += adapter.rank
        paths = sorted({path for adapter in adapters for path in adapter.deltas})
        stacks = {path: self._stack(path, adapters, seats, low) for path in paths}
        return PreparedBank({a.name: a for a in adapters}, seats, stacks)

    def install(self, prepared: PreparedBank) -> None:
        """Swap the prepared stacks in; call between two steps only."""
        for path in prepared.stacks:
            if path not in self._layers:
                parent, _, child = path.rpartition(".")
                layer = AdaptedLinear(self._linear(path, path), self)
                setattr(self._model.get_submodule(parent), child, layer)
                self._layers[path] = layer
        for path, layer in self._layers.items():
            layer.stack = prepared.stacks.get(path)
        self._adapters, self.seats = prepared.adapters, prepared.seats

    @property
    def adapters(self) -> list[Adapter]:
        """The adapters that are installed, in seat order."""
        return list(self._adapters.values())

    def mask(self, names: Sequence[str | None], counts: Sequence[int]) -> StepMask | None:
        """The mask of a step whose row i has `counts[i]` tokens of adapter `names[i]`.

        None when no row uses an adapter of this bank: the base runs bare.
        """
        used = {name for name in names if name in self.seats}
        if not used:
            return None
        parameter = next(self._model.parameters())
        seats = [self.seats[name] for name in used if name is not None]
        low, high = min(s.low for s in seats), max(s.high for s in seats)
        bits = sum(1 << s.bit for s in seats)
        columns = None
        if len(used) > 1 or any(name not in used for name in names):
            rows = torch.zeros(len(names), high - low)
            for row, name in enumerate(names):
                if name in used and name is not None:
                    seat = self.seats[name]
                    rows[row, seat.low - low : seat.high - low] = 1
            columns = _spread(rows, counts).to(parameter)
        owners = None
        if any(s.has_gain for s in seats):
            gain_rows = [self.seats[n].bit + 1 if n in used and n else 0 for n in names]
            owners = _spread(torch.tensor(gain_rows), counts).to(parameter.device)
        return StepMask(low, high, columns, bits, owners)

    def _linear(self, path: str, name: str) -> nn.Module:
        try:
            module = self._model.get_submodule(path)
        except AttributeError as error:
            raise ModelLoadError(
                f"{name}: the base has no layer {path}; it was tuned from another base"
            ) from error
        if isinstance(module, AdaptedLinear):
            module = module.base
        if not isinstance(module, nn.Linear | Conv1D):
            raise ModelLoadError(
                f"{name}: {path} is {type(module).__name__}, only linear layers are adapted; "
                "merge the adapter"
            )
        return module

    def _stack(
        self, path: str, adapters: Sequence[Adapter], seats: dict[str, Seat], total: int
    ) -> Stack:
        linear = self._linear(path, path)
        base, bias = _weight(linear), linear.bias
        out_size, in_size = base.shape
        down, up = torch.zeros(total, in_size), torch.zeros(total, out_size)
        out_gain = torch.ones(len(adapters) + 1, out_size)
        in_gain = torch.ones(len(adapters) + 1, in_size)
        out_shift = torch.zeros(len(adapters) + 1, out_size)
        low_rank_bits = gain_bits = 0
        has_out = has_in = has_shift = False
        for adapter in adapters:
            delta = adapter.deltas.get(path)
            if delta is None:
                continue
            seat = seats[adapter.name]
            gain = _dora_gain(base, delta) if delta.magnitude is not None else delta.out_gain
            if delta.down is not None and delta.up is not None:
                rows = slice(seat.low, seat.low + delta.down.shape[0])
                down[rows] = delta.down
                up[rows] = (delta.up if gain is None else delta.up * gain[:, None]).T
                low_rank_bits |= 1 << seat.bit
            if gain is not None:
                out_gain[seat.bit + 1], has_out = gain, True
            if gain is not None and delta.magnitude is not None and bias is not None:
                # DoRA scales the weight, not the bias: give back what the gain took from it.
                out_shift[seat.bit + 1] = (1 - gain) * bias.float().cpu()  # type: ignore[operator]
                has_shift = True
            if delta.in_gain is not None:
                in_gain[seat.bit + 1], has_in = delta.in_gain, True
            if gain is not None or delta.in_gain is not None:
                gain_bits |= 1 << seat.bit
        return Stack(
            down.to(base) if low_rank_bits else None,
            up.to(base) if low_rank_bits else None,
            out_gain.to(base) if has_out else None,
            in_gain.to(base) if has_in else None,
            out_shift.to(base) if has_shift else None,
            low_rank_bits,
            gain_bits,
        )


@dataclass(frozen=True)
class PreparedBank:
    """Stacks ready to be swapped in by `LoraBank.install`."""

    adapters: dict[str, Adapter]
    seats: dict[str, Seat]
    stacks: dict[str, Stack]


def _dora_gain(weight: torch.Tensor, delta: LinearDelta) -> torch.Tensor:
    """Magnitude over the norm of each adapted weight row, [out] (DoRA, eq. 5)."""
    assert delta.magnitude is not None
    assert delta.up is not None
    assert delta.down is not None
    adapted = weight.float().cpu() + delta.up @ delta.down
    norms: torch.Tensor = torch.linalg.norm(adapted, dim=1)
    return delta.magnitude.flatten() / norms


def _weight(module: nn.Module) -> torch.Tensor:
    """The layer's weight as [out, in], whichever way the module stores it."""
    weight = module.weight
    assert isinstance(weight, torch.Tensor)
    return weight.T if isinstance(module, Conv1D) else weight


def _spread(rows: torch.Tensor, counts: Sequence[int]) -> torch.Tensor:
    """Repeat row i `counts[i]` times."""
    if all(count == 1 for count in counts):
        return rows
    return rows.repeat_interleave(torch.tensor(counts), dim=0)
