"""Linear layers with low-rank adapters, and the gated MLP made of them, as autograd functions.

The backward passes go through the positions a block at a time: what they make between two matrix
products is then still in a core's cache when the second one reads it. Knows tensors; knows
neither modules nor models.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from tuning.fused.functions import apply, apply_all

ROWS = 128
"""Positions of a block in fp32; products of bf16 cost more to start, and take them all at once."""


@dataclass(frozen=True)
class Adapted:
    """A frozen linear layer and its adapter: x W' + bias + scale (x A') B'.

    weight of shape (out, in), a (rank, in), b (out, rank), all of one dtype. `turned` is W', which
    products of few positions read fastest when it is a copy and no view.
    """

    weight: Tensor
    turned: Tensor
    bias: Tensor | None
    a: Tensor
    b: Tensor
    scale: float


def lora_linears(x: Tensor, layers: Sequence[Adapted]) -> tuple[Tensor, ...]:
    """What each of `layers` makes of x, which they share; x of shape (..., in)."""
    parts = [
        part
        for layer in layers
        for part in (layer.weight, layer.turned, layer.bias, layer.a, layer.b)
    ]
    return apply_all(LoraLinears, x, tuple(layer.scale for layer in layers), *parts)


def gated_mlp(x: Tensor, gate: Adapted, up: Adapted, down: Adapted) -> Tensor:
    """down(silu(gate(x)) * up(x)) (Shazeer 2020), of layers without bias; x of shape (..., in)."""
    layers = (gate, up, down)
    parts = [part for layer in layers for part in (layer.weight, layer.turned, layer.a, layer.b)]
    return apply(GatedMlp, x, tuple(layer.scale for layer in layers), *parts)


class LoraLinears(Function):
    """Linear layers with adapters on one input, whose low-rank parts are made together.

    The low-rank parts are added inside the matrix products, so nothing of the size of an output
    or of the input is written twice, neither forward nor backward.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, scales: tuple[float, ...], *parts: Any) -> tuple[Tensor, ...]:
        flat = x.reshape(-1, x.shape[-1])
        weights, turned, biases, downs, ups = (parts[index::5] for index in range(5))
        down = torch.cat(downs) if len(downs) > 1 else downs[0]
        low = flat @ down.t()
        ctx.ranks = [len(part) for part in downs]
        outs = [flat.new_empty(len(flat), len(weight)) for weight in weights]
        for rows in _blocks(flat):
            for out, wide, bias, up, scale, share in zip(
                outs, turned, biases, ups, scales, torch.split(low[rows], ctx.ranks, 1), strict=True
            ):
                torch.mm(flat[rows], wide, out=out[rows])
                out[rows].addmm_(share, up.t(), alpha=scale)
                if bias is not None:
                    out[rows].add_(bias)
        ctx.save_for_backward(flat, low, down, *weights, *ups)
        ctx.scales, ctx.shape = scales, x.shape
        return tuple(out.view(*x.shape[:-1], -1) for out in outs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        flat, low, down, *rest = ctx.saved_tensors
        weights, ups = rest[: len(grads)], rest[len(grads) :]
        flats = [grad.reshape(-1, grad.shape[-1]) for grad in grads]
        low_grad = torch.empty_like(low)
        up_grads = [_accumulator(up.t()) for up in ups]
        x_grad = torch.empty_like(flat) if ctx.needs_input_grad[0] else None
        for rows in _blocks(flat):
            shares = zip(
                torch.split(low[rows], ctx.ranks, 1),
                torch.split(low_grad[rows], ctx.ranks, 1),
                strict=True,
            )
            for index, (share, of_share) in enumerate(shares):
                grad = flats[index][rows]
                of_share.copy_((grad @ ups[index]).mul_(ctx.scales[index]))
                up_grads[index] += share.t() @ grad
                if x_grad is not None and index == 0:
                    torch.mm(grad, weights[0], out=x_grad[rows])
                elif x_grad is not None:
                    x_grad[rows].addmm_(grad, weights[index])
            if x_grad is not None:
                x_grad[rows].addmm_(low_grad[rows], down)
        down_grads = torch.split(low_grad.t() @ flat, ctx.ranks)
        of_parts = [
            part
            for down_grad, up_grad, scale in zip(down_grads, up_grads, ctx.scales, strict=True)
            for part in (None, None, None, down_grad, up_grad.mul_(scale).t().to(down.dtype))
        ]
        return None if x_grad is None else x_grad.view(ctx.shape), None, *of_parts


class GatedMlp(Function):
    """`gated_mlp`; keeps what gate and up made for the backward pass, and makes the rest anew."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scales: tuple[float, ...], *parts: Tensor) -> Tensor:
        flat = x.reshape(-1, x.shape[-1])
        (_, gate_turned, gate_a, gate_b), (_, up_turned, up_a, up_b), (_, turned, a, b) = (
            parts[start : start + 4] for start in (0, 4, 8)
        )
        rank = len(gate_a)
        joint_a = torch.cat([gate_a, up_a])
        low = flat @ joint_a.t()
        gate = flat.new_empty(len(flat), gate_turned.shape[1])
        up = torch.empty_like(gate)
        down_low = flat.new_empty(len(flat), len(a))
        out = flat.new_empty(len(flat), turned.shape[1])
        for rows in _blocks(flat):
            for made, wide, to_wide, share, scale in (
                (gate[rows], gate_turned, gate_b, low[rows, :rank], scales[0]),
                (up[rows], up_turned, up_b, low[rows, rank:], scales[1]),
            ):
                torch.mm(flat[rows], wide, out=made)
                made.addmm_(share, to_wide.t(), alpha=scale)
            inner = torch.nn.functional.silu(gate[rows]).mul_(up[rows])
            torch.mm(inner, a.t(), out=down_low[rows])
            torch.mm(inner, turned, out=out[rows])
            out[rows].addmm_(down_low[rows], b.t(), alpha=scales[2])
        kept = [part for index, part in enumerate(parts) if index % 4 != 1]
        ctx.save_for_backward(flat, low, joint_a, gate, up, down_low, *kept)
        ctx.scales, ctx.shape = scales, x.shape
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        flat, low, joint_a, gate, up, down_low, *parts = ctx.saved_tensors
        (gate_weight, gate_a, gate_b), (up_weight, _, up_b), (weight, a, b) = (
            parts[start : start + 3] for start in (0, 3, 6)
        )
        rank, scales = len(gate_a), ctx.scales
        grad = grad.reshape(-1, grad.shape[-1])
        x_grad, low_grad = torch.empty_like(flat), torch.empty_like(low)
        gate_b_grad, up_b_grad = _accumulator(gate_b.t()), _accumulator(up_b.t())
        a_grad, b_grad = _accumulator(a), _accumulator(b.t())
        for rows in _blocks(flat):
            of_out = grad[rows]
            of_low = (of_out @ b).mul_(scales[2])
            of_inner = (of_out @ weight).addmm_(of_low, a)
            inner, of_gate, of_up = _gated_backward(gate[rows], up[rows], of_inner)
            a_grad += of_low.t() @ inner
            b_grad += down_low[rows].t() @ of_out
            low_grad[rows, :rank] = (of_gate @ gate_b).mul_(scales[0])
            low_grad[rows, rank:] = (of_up @ up_b).mul_(scales[1])
            gate_b_grad += low[rows, :rank].t() @ of_gate
            up_b_grad += low[rows, rank:].t() @ of_up
            torch.mm(of_gate, gate_weight, out=x_grad[rows])
            x_grad[rows].addmm_(of_up, up_weight).addmm_(low_grad[rows], joint_a)
        joint_a_grad = low_grad.t() @ flat
        gate_b_grad, up_b_grad, b_grad = (
            part.mul_(scale).t().to(flat.dtype)
            for part, scale in zip((gate_b_grad, up_b_grad, b_grad), scales, strict=True)
        )
        return (
            x_grad.view(ctx.shape),
            None,
            *(None, None, joint_a_grad[:rank], gate_b_grad),
            *(None, None, joint_a_grad[rank:], up_b_grad),
            *(None, None, a_grad.to(flat.dtype), b_grad),
        )


def _gated_backward(gate: Tensor, up: Tensor, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """silu(gate) * up, and its gradients by gate and by up."""
    silu = torch.nn.functional.silu(gate)
    inner = silu * up
    of_gate = torch.ops.aten.silu_backward(grad * up, gate)
    return inner, of_gate, silu.mul_(grad)


def _accumulator(like: Tensor) -> Tensor:
    """Where a gradient is summed over blocks, in fp32."""
    return torch.zeros(like.shape, dtype=torch.float32, device=like.device)


def _blocks(flat: Tensor) -> Iterator[slice]:
    step = ROWS if flat.dtype == torch.float32 else max(1, len(flat))
    return (slice(start, start + step) for start in range(0, len(flat), step))
