"""The arithmetic of a training step in fewer passes over memory, as autograd functions.

On a processor the parts of a step between its matrix products cost as much as a third of it,
nearly all of it waiting for memory. Each function here computes what the layers of transformers
and PEFT compute, with in-place updates and a backward pass of its own. Knows tensors; knows
neither modules nor models (`tuning.fused.model` puts these into one).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn.functional import silu

HEAD_ROWS, HEAD_BYTES = 128, 64 << 20
CACHED = 1 << 17
"""Numbers of a block that is read again while a core's cache still holds it."""


def apply(function: Any, *arguments: Any) -> Tensor:
    """Call an autograd function, whose own `apply` carries no types."""
    out: Tensor = function.apply(*arguments)
    return out


def apply_all(function: Any, *arguments: Any) -> tuple[Tensor, ...]:
    """The same for a function of several results."""
    out: tuple[Tensor, ...] = function.apply(*arguments)
    return out


class SwiGlu(Function):
    """silu(gate) * up (Shazeer 2020), rows of one block at a time so that they stay in cache.

    Keeps its inputs alone for the backward pass, which makes silu anew.
    """

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        out = gate.new_empty(gate.shape)
        for made, a, b in _row_blocks(out, gate, up):
            torch.mul(silu(a), b, out=made)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        gate, up = ctx.saved_tensors
        gate_grad, up_grad = gate.new_empty(gate.shape), up.new_empty(up.shape)
        for of_gate, of_up, g, a, b in _row_blocks(gate_grad, up_grad, grad, gate, up):
            torch.mul(g, silu(a), out=of_up)
            torch.ops.aten.silu_backward.grad_input(g * b, a, grad_input=of_gate)
        return gate_grad, up_grad


def _row_blocks(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The same rows of all `tensors`, a block at a time."""
    rows = max(1, CACHED // tensors[0].shape[-1])
    flat = [tensor.reshape(-1, tensor.shape[-1]) for tensor in tensors]
    return zip(*(torch.split(part, rows) for part in flat), strict=True)


class RmsNorm(Function):
    """weight * y / sqrt(mean(y²) + eps) over the last dimension (Zhang and Sennrich 2019).

    y is x, or x + added where something is added to the residual stream before. Returns y and
    what is made of it, so that the gradients of both meet in one pass.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, added: Tensor | None, weight: Tensor, eps: float
    ) -> tuple[Tensor, Tensor]:
        y = x if added is None else x.new_empty(x.shape)
        scale = x.new_empty(*x.shape[:-1], 1)
        out = x.new_empty(x.shape)
        for rows in _row_blocks(x, y, scale, out, *([] if added is None else [added])):
            of_x, of_y, of_scale, made, *more = rows
            for part in more:
                torch.add(of_x, part, out=of_y)
            square = torch.linalg.vector_norm(of_y, dim=-1, keepdim=True).square_()
            torch.rsqrt(square.div_(x.shape[-1]).add_(eps), out=of_scale)
            torch.mul(of_y, of_scale, out=made).mul_(weight)
        ctx.save_for_backward(y, weight, scale)
        ctx.added_dtype = None if added is None else added.dtype
        return y, out

    @staticmethod
    def backward(ctx: Any, stream_grad: Tensor, grad: Tensor) -> Any:
        y, weight, scale = ctx.saved_tensors
        y_grad = y.new_empty(y.shape)
        weight_grad = torch.zeros_like(weight) if ctx.needs_input_grad[2] else None
        for of_y, value, factor, g, stream in _row_blocks(y_grad, y, scale, grad, stream_grad):
            product = g * value
            if weight_grad is not None:
                weight_grad += (product * factor).sum(0)
            share = product.mul_(weight).sum(-1, keepdim=True)
            share.mul_(factor.pow(3)).div_(-y.shape[-1])
            torch.mul(g, weight, out=of_y).mul_(factor).addcmul_(value, share).add_(stream)
        added_grad = None if ctx.added_dtype is None else y_grad.to(ctx.added_dtype)
        return y_grad, added_grad, weight_grad, None


class LabelLoss(Function):
    """Sum of cross entropies of an output head, a block of positions at a time.

    hidden of shape (positions, size), weight (vocabulary, size), targets (positions,). The
    gradient is made with the loss, so the logits of no more than a block are ever in memory.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        needs_hidden, needs_weight = ctx.needs_input_grad[0], ctx.needs_input_grad[1]
        hidden_grad = torch.empty_like(hidden) if needs_hidden else None
        weight_grad = torch.zeros_like(weight) if needs_weight else None
        for rows in _head_blocks(hidden, weight):
            logs, wanted = _log_softmax(hidden, weight, targets, rows)
            total -= logs.gather(1, wanted).sum()
            if hidden_grad is None and weight_grad is None:
                continue
            slope = logs.exp_()
            slope.scatter_add_(1, wanted, slope.new_full((1, 1), -1.0).expand_as(wanted))
            slope = slope.to(hidden.dtype)
            if hidden_grad is not None:
                torch.mm(slope, weight, out=hidden_grad[rows])
            if weight_grad is not None:
                weight_grad.addmm_(slope.t(), hidden[rows])
        ctx.save_for_backward(hidden_grad, weight_grad)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        hidden_grad, weight_grad = ctx.saved_tensors
        scaled = [None if part is None else part * grad for part in (hidden_grad, weight_grad)]
        return scaled[0], scaled[1], None


class LabelLogProbs(Function):
    """Log-probability of each target under an output head, a block of positions at a time.

    hidden of shape (positions, size), weight (vocabulary, size), targets (positions,); returns
    (positions,) in fp32. Where the weight is frozen the slope by `hidden` is made with the values,
    so that the logits are made once; else the backward pass makes them again, block by block.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        out = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
        needs_hidden, needs_weight = ctx.needs_input_grad[0], ctx.needs_input_grad[1]
        slope = torch.empty_like(hidden) if needs_hidden and not needs_weight else None
        for rows in _head_blocks(hidden, weight):
            logs, wanted = _log_softmax(hidden, weight, targets, rows)
            out[rows] = logs.gather(1, wanted)[:, 0]
            if slope is not None:
                torch.mm(_towards(logs, wanted).to(hidden.dtype), weight, out=slope[rows])
        ctx.save_for_backward(slope, *((hidden, weight, targets) if needs_weight else ()))
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        slope, *made_of = ctx.saved_tensors
        if slope is not None:
            return slope * grad[:, None].to(slope.dtype), None, None
        hidden, weight, targets = made_of
        hidden_grad = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        weight_grad = torch.zeros_like(weight)
        for rows in _head_blocks(hidden, weight):
            logs, wanted = _log_softmax(hidden, weight, targets, rows)
            slope = _towards(logs, wanted).mul_(grad[rows, None]).to(hidden.dtype)
            if hidden_grad is not None:
                torch.mm(slope, weight, out=hidden_grad[rows])
            weight_grad.addmm_(slope.t(), hidden[rows])
        return hidden_grad, weight_grad, None


def _head_blocks(hidden: Tensor, weight: Tensor) -> list[slice]:
    """Positions whose logits are in memory together."""
    step = max(16, min(HEAD_ROWS, HEAD_BYTES // (4 * weight.shape[0])))
    return [slice(start, start + step) for start in range(0, len(hidden), step)]


def _log_softmax(
    hidden: Tensor, weight: Tensor, targets: Tensor, rows: slice
) -> tuple[Tensor, Tensor]:
    """Log-probabilities of shape (rows, vocabulary) in fp32, and the targets as a column."""
    logs = torch.log_softmax(hidden[rows] @ weight.t(), -1, dtype=torch.float32)
    return logs, targets[rows, None]


def _towards(logs: Tensor, wanted: Tensor) -> Tensor:
    """Gradient of the targets' log-probabilities by the logits, in the place of `logs`."""
    slope = logs.exp_().neg_()
    return slope.scatter_add_(1, wanted, slope.new_ones((1, 1)).expand_as(wanted))
