"""Low-rank adapters on shared linear layers: every row of a batch gets its own, in one product.

The adapters' down-projections are stacked into one matrix and likewise the up-projections; a
mask per token zeroes what is not its own. One base copy, two extra small products per layer (or
group of layers that share their input) and none where no row is tuned. Knows linear layers and
masks; does not know requests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

from serving.adapters.fused_linear import LinearGroup, SharedLinear, fuse_linears, split_group
from serving.adapters.peft_reader import Adapter
from serving.adapters.stacking import (
    AdapterSlot,
    Part,
    Stack,
    assign_slots,
    part_of,
    stack_parts,
    weight_of,
)
from serving.errors import ModelLoadError


@dataclass
class StepMask:
    """Which adapters the tokens of one step use.

    `others` [tokens, high - low] is true where a rank column is not of the token's adapter, None
    when all tokens use all columns; `bits` has one bit per adapter in use; `owners` [tokens] is
    each token's gain row (0: none), None when no adapter in use scales outputs or inputs.
    """

    low: int
    high: int
    others: torch.Tensor | None
    bits: int
    owners: torch.Tensor | None
    _widened: dict[int, torch.Tensor] = field(default_factory=dict)

    def widened(self, width: int) -> torch.Tensor | None:
        """`others` for a group of `width` layers, each of which has its own rank columns."""
        if width == 1 or self.others is None:
            return self.others
        if width not in self._widened:
            self._widened[width] = self.others.repeat_interleave(width, dim=1)
        return self._widened[width]


class AdapterTarget:
    """A place where adapters act: one linear layer, or a group that shares its input."""

    def __init__(self, stacks: AdapterStacks) -> None:
        self._stacks = stacks
        self.stack: Stack | None = None

    def scale_input(self, inputs: torch.Tensor) -> torch.Tensor:
        """Apply input gains (IA3) of the step's rows."""
        step, stack = self._stacks.step, self.stack
        if step is None or stack is None or stack.in_gain is None:
            return inputs
        if not stack.in_bits & step.bits:
            return inputs
        assert step.owners is not None
        return inputs * stack.in_gain[step.owners]

    def add(self, inputs: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        """What the step's adapters make of the base output, [1, tokens, out] or [tokens, out]."""
        step, stack = self._stacks.step, self.stack
        if step is None or stack is None:
            return output
        if stack.out_gain is not None and stack.out_bits & step.bits:
            assert step.owners is not None
            output = output * stack.out_gain[step.owners]
            if stack.out_shift is not None:
                output += stack.out_shift[step.owners]
        if stack.low_rank_bits & step.bits:
            down, up = stack.down, stack.up
            assert down is not None
            assert up is not None
            first, last = step.low * stack.width, step.high * stack.width
            if first or last != down.shape[0]:
                down, up = down[first:last], up[first:last]
            shrunk = functional.linear(inputs.reshape(-1, inputs.shape[-1]), down)
            others = step.widened(stack.width)
            if others is not None:
                # Filled, not multiplied: another adapter's infinity times 0 would be NaN.
                shrunk.masked_fill_(others, 0)
            output.view(-1, output.shape[-1]).addmm_(shrunk, up)
        return output


class AdaptedLinear(nn.Module):
    """A linear layer (nn.Linear or GPT-2's Conv1D) followed by what the step's adapters add."""

    def __init__(self, base: nn.Module, target: AdapterTarget) -> None:
        super().__init__()
        self.base = base
        self.target = target

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Apply to [1, tokens, in] or [tokens, in]; other rows come out as the base gives them."""
        inputs = self.target.scale_input(inputs)
        return self.target.add(inputs, self.base(inputs))


@dataclass(frozen=True)
class PreparedStacks:
    """Stacks ready to be swapped in by `AdapterStacks.install`; `splits`: groups to take apart."""

    adapters: dict[str, Adapter]
    slots: dict[str, AdapterSlot]
    stacks: dict[tuple[str, ...], Stack]
    splits: list[LinearGroup]


class AdapterStacks:
    """All adapters of one model that change linear layers; `step` is set around each forward."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._groups = fuse_linears(model)
        self._targets: dict[tuple[str, ...], AdapterTarget] = {}
        self._adapters: dict[str, Adapter] = {}
        self._bytes: dict[str, int] = {}
        self.slots: dict[str, AdapterSlot] = {}
        self.step: StepMask | None = None
        self.installed: PreparedStacks | None = None
        self.is_split = False
        self._linears: dict[str, nn.Module] = {}
        self._last_key: tuple[tuple[str | None, ...], tuple[int, ...]] | None = None
        self._last_mask: StepMask | None = None

    def num_bytes(self, name: str | None) -> int:
        """Bytes of the low-rank parts of an installed adapter, in the model's number format."""
        return self._bytes.get(name, 0) if name is not None else 0

    def stack_at(self, place: tuple[str, ...]) -> Stack | None:
        """What is stacked now on the layer, or the group of layers, of these paths."""
        target = self._targets.get(place)
        return target.stack if target is not None else None

    def check(self, adapter: Adapter) -> None:
        """ModelLoadError when a delta has no layer here or does not fit its shape."""
        if adapter.name in self._adapters:
            return  # It was checked when it came.
        # Where a model names its body otherwise, nothing is known of what lies behind it.
        body = str(getattr(self._model, "base_model_prefix", ""))
        body = f"{body}." if body and hasattr(self._model, body) else ""
        for path, delta in adapter.deltas.items():
            weight = weight_of(self._linear(path, adapter.label))
            if not path.startswith(body):
                raise ModelLoadError(
                    f"{adapter.label}: {path} lies behind the last hidden state, where a step "
                    "keeps only the tokens that are read; merge the adapter"
                )
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
                    f"{adapter.label}: {path}: {wrong[0]} does not fit a layer of shape "
                    f"{tuple(weight.shape)}; it was tuned from another base"
                )

    def prepare(self, adapters: Sequence[Adapter]) -> PreparedStacks:
        """Stack `adapters` without touching what runs; safe in any thread.

        What is stacked already is copied: a change costs what is new, and reading the rest.
        """
        slots = assign_slots(adapters)
        # Members of a group share one input: an adapter that scales it for one of them only
        # (IA3 on a layer of a group) takes the group apart.
        scaled = {
            p for a in adapters if a.has_gain for p, d in a.deltas.items() if d.in_gain is not None
        }
        splits = [g for g in self._groups if scaled.intersection(g.paths)]
        paths = {path for adapter in adapters for path in adapter.deltas}
        places: list[tuple[str, ...]] = [
            tuple(g.paths) for g in self._groups if g not in splits and paths.intersection(g.paths)
        ]
        grouped = {path for place in places for path in place}
        places += [(path,) for path in sorted(paths - grouped)]
        stacks = {}
        for place in places:
            layers = [self._linear(path, path) for path in place]
            parts = [(slots[a.name], self._part(a, place, layers)) for a in adapters]
            stacks[place] = stack_parts(parts, layers)
        return PreparedStacks({a.name: a for a in adapters}, slots, stacks, splits)

    def _part(self, adapter: Adapter, place: tuple[str, ...], layers: Sequence[nn.Module]) -> Part:
        """What an adapter does at a place: from the stack that is installed, if it is in there."""
        if not any(path in adapter.deltas for path in place):
            return Part()
        old = self.installed
        if old is not None and adapter.name in old.slots and place in old.stacks:
            return old.stacks[place].part(old.slots[adapter.name])
        return part_of(adapter, place, layers)

    def install(self, prepared: PreparedStacks) -> None:
        """Swap the prepared stacks in; call between two steps only."""
        for group in prepared.splits:
            split_group(self._model, group)
            self._groups.remove(group)
            self._targets.pop(tuple(group.paths), None)
            self.is_split = True
        for place in prepared.stacks:
            if place not in self._targets:
                self._targets[place] = self._make_target(place)
        for place, target in self._targets.items():
            target.stack = prepared.stacks.get(place)
        self._adapters, self.slots = prepared.adapters, prepared.slots
        self.installed = prepared
        size = next(self._model.parameters()).element_size()
        self._last_key = None
        self._bytes = {name: size * a.num_values for name, a in prepared.adapters.items()}

    def mask(self, names: Sequence[str | None], counts: Sequence[int]) -> StepMask | None:
        """The mask of a step whose row i has `counts[i]` tokens of adapter `names[i]`.

        None when no row uses an adapter of this stacks: the base runs bare. The last one is kept,
        since the same rows mostly write for many steps.
        """
        key = (tuple(names), tuple(counts))
        if key != self._last_key:
            self._last_key, self._last_mask = key, self._new_mask(names, counts)
        return self._last_mask

    def _new_mask(self, names: Sequence[str | None], counts: Sequence[int]) -> StepMask | None:
        used = {name for name in names if name in self.slots}
        if not used:
            return None
        parameter = next(self._model.parameters())
        slots = [self.slots[name] for name in used if name is not None]
        low, high = min(s.low for s in slots), max(s.high for s in slots)
        bits = sum(1 << s.bit for s in slots)
        others = None
        if len(used) > 1 or any(name not in used for name in names):
            rows = torch.ones(len(names), high - low, dtype=torch.bool)
            for row, name in enumerate(names):
                if name in used and name is not None:
                    slot = self.slots[name]
                    rows[row, slot.low - low : slot.high - low] = False
            others = _spread(rows, counts).to(parameter.device)
        owners = None
        if any(s.has_gain for s in slots):
            gain_rows = [self.slots[n].bit + 1 if n in used and n else 0 for n in names]
            owners = _spread(torch.tensor(gain_rows), counts).to(parameter.device)
        return StepMask(low, high, others, bits, owners)

    def _make_target(self, place: tuple[str, ...]) -> AdapterTarget:
        target = AdapterTarget(self)
        for group in self._groups:
            if tuple(group.paths) == place:
                group.adapt = target.add
                return target
        (path,) = place
        parent, _, child = path.rpartition(".")
        layer = AdaptedLinear(self._linear(path, path), target)
        setattr(self._model.get_submodule(parent), child, layer)
        return target

    def _linear(self, path: str, name: str) -> nn.Module:
        """The layer at a path, as the base has it; looked for once."""
        if path not in self._linears:
            self._linears[path] = self._find_linear(path, name)
        return self._linears[path]

    def _find_linear(self, path: str, name: str) -> nn.Module:
        try:
            module = self._model.get_submodule(path)
        except AttributeError as error:
            raise ModelLoadError(
                f"{name}: the base has no layer {path}; it was tuned from another base"
            ) from error
        if isinstance(module, AdaptedLinear):
            module = module.base
        if isinstance(module, SharedLinear):
            module = module.linear
        if not isinstance(module, nn.Linear | Conv1D):
            raise ModelLoadError(
                f"{name}: {path} is {type(module).__name__}, only linear layers are adapted; "
                "merge the adapter"
            )
        return module


def _spread(rows: torch.Tensor, counts: Sequence[int]) -> torch.Tensor:
    """Repeat row i `counts[i]` times."""
    if all(count == 1 for count in counts):
        return rows
    return rows.repeat_interleave(torch.tensor(counts), dim=0)
