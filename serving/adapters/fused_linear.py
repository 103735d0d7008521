"""Linear layers that read the same input as one product: q/k/v, and gate/up.

Fewer and larger products for the base, and for adapters a third of the small ones. The members'
own weights become views of the joint weight, so nothing is stored twice. Knows modules and
weights; does not know adapters or requests.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

SHARED_INPUTS = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))


class LinearGroup:
    """Several linear layers over one input. `adapt` may add to the joint output in place."""

    def __init__(self, paths: list[str], members: list[nn.Linear]) -> None:
        self.paths = paths
        self.members = members
        self.bounds = [0]
        for member in members:
            self.bounds.append(self.bounds[-1] + member.out_features)
        weight = torch.cat([member.weight for member in members])
        has_bias = members[0].bias is not None
        bias = torch.cat([member.bias for member in members]) if has_bias else None
        for i, member in enumerate(members):
            part = slice(self.bounds[i], self.bounds[i + 1])
            member.weight = nn.Parameter(weight[part], requires_grad=False)
            if bias is not None:
                member.bias = nn.Parameter(bias[part], requires_grad=False)
        self.weight, self.bias = weight, bias
        self.adapt: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None
        self._input: torch.Tensor | None = None
        self._parts: list[torch.Tensor | None] = []

    def member_output(self, inputs: torch.Tensor, index: int) -> torch.Tensor:
        """Member `index` of `inputs`; the first member asked for computes all of them."""
        part = self._parts[index] if self._input is inputs else None
        if part is None:
            self._input = inputs
            output = functional.linear(inputs, self.weight, self.bias)
            if self.adapt is not None:
                output = self.adapt(inputs, output)
            sizes = [high - low for low, high in zip(self.bounds, self.bounds[1:], strict=False)]
            self._parts = list(torch.split(output, sizes, dim=-1))
            part = self._parts[index]
        assert part is not None
        # Each part is handed out once: a repeated call is a new forward and computes anew.
        self._parts[index] = None
        if not any(item is not None for item in self._parts):
            self._input = None
        return part


class SharedLinear(nn.Module):
    """Stands where a member of a group was; `linear` holds the member's weight as a view."""

    def __init__(self, group: LinearGroup, index: int) -> None:
        super().__init__()
        self.linear = group.members[index]
        self.group = group
        self.index = index

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """The member's part of the joint output."""
        return self.group.member_output(inputs, self.index)


def fuse_linears(model: nn.Module) -> list[LinearGroup]:
    """Join what shares its input wherever a module has such children; returns the groups."""
    groups = []
    for parent_path, parent in list(model.named_modules()):
        for names in SHARED_INPUTS:
            members = [getattr(parent, name, None) for name in names]
            if not _can_join(members):
                continue
            linears = [member for member in members if isinstance(member, nn.Linear)]
            prefix = f"{parent_path}." if parent_path else ""
            group = LinearGroup([prefix + name for name in names], linears)
            for index, name in enumerate(names):
                setattr(parent, name, SharedLinear(group, index))
            groups.append(group)
    return groups


def split_group(model: nn.Module, group: LinearGroup) -> None:
    """Put the members back as layers of their own; their weights stay views."""
    for path, member in zip(group.paths, group.members, strict=True):
        parent, _, child = path.rpartition(".")
        setattr(model.get_submodule(parent), child, member)


def _can_join(members: list[nn.Module | None]) -> bool:
    # Exactly nn.Linear: a subclass may do more than multiply.
    linears = [member for member in members if type(member) is nn.Linear]
    if len(linears) != len(members):
        return False
    first = linears[0]
    return all(
        member.in_features == first.in_features
        and (member.bias is None) == (first.bias is None)
        and member.weight.dtype == first.weight.dtype
        and member.weight.device == first.weight.device
        for member in linears
    )
