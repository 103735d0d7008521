"""The arithmetic of a training step in fewer passes over memory, as autograd functions.

On a processor the parts of a step between its matrix products cost as much as a third of it,
nearly all of it waiting for memory. Each function here computes what the layers of transformers
and PEFT compute, with in-place updates and a backward pass of its own. Knows tensors; knows
neither modules nor models (`tuning.lean` puts these into one).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

ATTENTION_BLOCK = 64
HEAD_BYTES = 4 << 20


def apply(function: Any, *arguments: Any) -> Tensor:
    """Call an autograd function, whose own `apply` carries no types."""
    out: Tensor = function.apply(*arguments)
    return out


class LoraLinear(Function):
    """x W' + bias + scale (x A') B', with W and bias frozen.

    x of shape (..., in), W (out, in), A (rank, in), B (out, rank), all of one dtype. The low-rank
    part is added inside the matrix product, so nothing of shape (..., out) is written twice.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scale: float
    ) -> Tensor:
        flat = x.reshape(-1, x.shape[-1])
        out = flat @ weight.t() if bias is None else torch.addmm(bias, flat, weight.t())
        low = flat @ a.t()
        out.addmm_(low, b.t(), alpha=scale)
        ctx.save_for_backward(flat, low, weight, a, b)
        ctx.scale, ctx.shape = scale, x.shape
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        flat, low, weight, a, b = ctx.saved_tensors
        grad = grad.reshape(-1, grad.shape[-1])
        low_grad = (grad @ b).mul_(ctx.scale)
        a_grad = low_grad.t() @ flat
        b_grad = (low.t() @ grad).mul_(ctx.scale).t()
        x_grad = None
        if ctx.needs_input_grad[0]:
            x_grad = (grad @ weight).addmm_(low_grad, a).view(ctx.shape)
        return x_grad, None, None, a_grad, b_grad, None


class RmsNorm(Function):
    """weight * x / sqrt(mean(x²) + eps) over the last dimension (Zhang and Sennrich 2019)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        scale = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        scale = scale.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, scale)
        out: Tensor = (x * scale).mul_(weight)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, weight, scale = ctx.saved_tensors
        product = grad * x
        weight_grad = None
        if ctx.needs_input_grad[1]:
            weight_grad = (product * scale).reshape(-1, x.shape[-1]).sum(0)
        share = product.mul_(weight).sum(-1, keepdim=True)
        share.mul_(scale.pow(3)).div_(-x.shape[-1])
        x_grad = torch.mul(grad, weight, out=product).mul_(scale).addcmul_(x, share)
        return x_grad, weight_grad, None


class CausalAttention(Function):
    """Rotary positions and causal attention of grouped heads, blocks of queries at a time.

    q of shape (batch, length, heads, size), k and v (batch, length, key-value heads, size); cos
    and sin (1 or batch, length, size), the two halves alike; mask to add, (1 or batch, 1, length,
    length). Returns (batch, length, heads * size). A block of queries meets only the keys up to
    its own end, which leaves out nearly half of the products; the causal mask does the rest.
    """

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        cos: Tensor,
        sin: Tensor,
        mask: Tensor,
        scale: float,
    ) -> Tensor:
        batch, length, heads, _ = q.shape
        groups = heads // k.shape[2]
        cos, sin = cos[:, None, :, None], sin[:, None, :, None]
        turned_q = _rotate(_by_head(q, groups), cos * scale, sin * scale)
        turned_k = _rotate(_by_head(k, 1), cos, sin)
        flat_q, flat_k = turned_q.flatten(0, 1).flatten(1, 2), turned_k.flatten(0, 1).flatten(1, 2)
        flat_v = _by_head(v, 1).contiguous().flatten(0, 1).flatten(1, 2)
        out = torch.empty_like(flat_q)
        shares = []
        for start in range(0, length, ATTENTION_BLOCK):
            end = min(start + ATTENTION_BLOCK, length)
            rows = slice(start * groups, end * groups)
            scores = torch.bmm(flat_q[:, rows], flat_k[:, :end].transpose(1, 2)).float()
            view = scores.view(batch, -1, end - start, groups, end)
            view.add_(mask[:, :, start:end, None, :end])
            share = torch.softmax(scores, -1).to(q.dtype)
            torch.bmm(share, flat_v[:, :end], out=out[:, rows])
            shares.append(share)
        ctx.save_for_backward(flat_q, flat_k, flat_v, out, cos, sin, *shares)
        ctx.shape, ctx.groups, ctx.scale = q.shape, groups, scale
        return _by_position(out, q.shape).flatten(2)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        flat_q, flat_k, flat_v, out, cos, sin, *shares = ctx.saved_tensors
        batch, length, heads, size = ctx.shape
        groups, scale = ctx.groups, ctx.scale
        grad = _by_head(grad.view(ctx.shape), groups).contiguous().flatten(0, 1).flatten(1, 2)
        delta = (grad.float() * out).sum(-1, keepdim=True)
        q_grad, k_grad = torch.empty_like(flat_q), torch.zeros_like(flat_k)
        v_grad = torch.zeros_like(flat_v)
        for index, share in enumerate(shares):
            start = index * ATTENTION_BLOCK
            end = min(start + ATTENTION_BLOCK, length)
            rows = slice(start * groups, end * groups)
            v_grad[:, :end].baddbmm_(share.transpose(1, 2), grad[:, rows])
            scores = torch.bmm(grad[:, rows], flat_v[:, :end].transpose(1, 2)).float()
            scores = scores.sub_(delta[:, rows]).mul_(share).to(share.dtype)
            torch.bmm(scores, flat_k[:, :end], out=q_grad[:, rows])
            k_grad[:, :end].baddbmm_(scores.transpose(1, 2), flat_q[:, rows])
        narrow = (batch, length, heads // groups, size)
        q_grad = _rotate(_by_position(q_grad, ctx.shape), *_back(cos, sin, scale))
        k_grad = _rotate(_by_position(k_grad, narrow), *_back(cos, sin, 1.0))
        return q_grad, k_grad, _by_position(v_grad, narrow), None, None, None, None


def _by_head(x: Tensor, groups: int) -> Tensor:
    """(batch, length, heads, size) seen as (batch, key-value heads, length, group, size)."""
    return x.reshape(*x.shape[:2], -1, groups, x.shape[-1]).permute(0, 2, 1, 3, 4)


def _by_position(flat: Tensor, shape: tuple[int, ...]) -> Tensor:
    """(batch * key-value heads, length * group, size) as (batch, length, heads, size)."""
    batch, length, _, size = shape
    parted = flat.view(batch, flat.shape[0] // batch, length, -1, size)
    return parted.permute(0, 2, 1, 3, 4).reshape(shape)


def _back(cos: Tensor, sin: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Factors that turn a gradient back, shaped for (batch, length, heads, size)."""
    return cos[:, 0] * scale, sin[:, 0] * -scale


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x * cos + (-x₂, x₁) * sin for the halves x₁, x₂ of the last dimension; contiguous."""
    half = x.shape[-1] // 2
    dtype = torch.promote_types(x.dtype, cos.dtype)
    out = torch.empty(x.shape, dtype=dtype, device=x.device)
    torch.mul(x, cos, out=out)
    wide = x.to(dtype)
    out[..., :half].addcmul_(wide[..., half:], sin[..., :half], value=-1)
    out[..., half:].addcmul_(wide[..., :half], sin[..., half:])
    return out.to(x.dtype)


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
        step = max(16, HEAD_BYTES // (4 * weight.shape[0]))
        for start in range(0, len(hidden), step):
            rows = hidden[start : start + step]
            wanted = targets[start : start + step, None]
            logs = torch.log_softmax(rows @ weight.t(), -1, dtype=torch.float32)
            total -= logs.gather(1, wanted).sum()
            if hidden_grad is None and weight_grad is None:
                continue
            slope = logs.exp_()
            slope.scatter_add_(1, wanted, slope.new_full((1, 1), -1.0).expand_as(wanted))
            slope = slope.to(hidden.dtype)
            if hidden_grad is not None:
                torch.mm(slope, weight, out=hidden_grad[start : start + step])
            if weight_grad is not None:
                weight_grad.addmm_(slope.t(), rows)
        ctx.save_for_backward(hidden_grad, weight_grad)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        hidden_grad, weight_grad = ctx.saved_tensors
        scaled = [None if part is None else part * grad for part in (hidden_grad, weight_grad)]
        return scaled[0], scaled[1], None
