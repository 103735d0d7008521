"""Causal attention of whole rows, with rotary positions, as one autograd function.

Rows are worked on one after the other, or as many at a time as a core's cache holds, and read in
the order in which they lie in memory. Knows tensors and where rows begin and end in them; knows
neither modules nor models.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function

BLOCK = 64
"""Queries that are put to the keys before them at once."""
PIECE = 192
"""Positions of short rows that are worked on together in fp32, where a core's cache holds them;
products of bf16 cost more to start, and take as many rows as there are."""


class Piece(NamedTuple):
    """Rows of the same length, one after the other in the flattened positions."""

    start: int
    num_rows: int
    length: int

    @property
    def stop(self) -> int:
        """The position after the last."""
        return self.start + self.num_rows * self.length

    @property
    def rows(self) -> slice:
        """The positions."""
        return slice(self.start, self.stop)


class CausalAttention(Function):
    """Rotary positions and causal attention of grouped heads, blocks of queries at a time.

    q of shape (positions, heads, size), k and v (positions, key-value heads, size); cos and sin
    (positions, size), the two halves alike. `lengths` are those of the rows, one after the other,
    each of which sees itself only. Returns (positions, heads, size). A block of queries meets only
    the keys of its own row up to its own end, so that no product is made to be masked away, save
    in the triangle of the block itself.
    """

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        cos: Tensor,
        sin: Tensor,
        lengths: Sequence[int],
        scale: float,
    ) -> Tensor:
        groups = q.shape[1] // k.shape[1]
        cos, sin = cos[:, None], sin[:, None]
        scaled = cos * scale, sin * scale
        triangle = _triangle(groups, q.device)
        pieces = _pieces(lengths, PIECE if q.dtype == torch.float32 else q.shape[0])
        out = torch.empty_like(q)
        kept = []
        for piece in pieces:
            turned_q = _turn(q[piece.rows], scaled[0][piece.rows], scaled[1][piece.rows])
            turned_k = _turn(k[piece.rows], cos[piece.rows], sin[piece.rows])
            heads_q, heads_k = _heads(turned_q, piece, groups), _heads(turned_k, piece, 1)
            heads_v = _heads(v[piece.rows], piece, 1)
            kept += [turned_q, turned_k]
            made = _by_head(out[piece.rows], piece, groups)
            for start, end in _blocks(piece.length):
                block = slice(start * groups, end * groups)
                scores = torch.bmm(heads_q[:, block], heads_k[:, :end].transpose(1, 2)).float()
                scores[:, :, start:].add_(triangle[: scores.shape[1], : end - start])
                share = torch.softmax(scores, -1).to(q.dtype)
                block_out = torch.bmm(share, heads_v[:, :end])
                made[:, :, start:end] = block_out.view(*made.shape[:2], -1, *made.shape[3:])
                kept.append(share)
        ctx.save_for_backward(v, out, cos, sin, *kept)
        ctx.pieces, ctx.groups, ctx.scale = pieces, groups, scale
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        v, out, cos, sin, *kept = ctx.saved_tensors
        groups, rest = ctx.groups, iter(kept)
        q_grad, k_grad, v_grad = torch.empty_like(out), torch.empty_like(v), torch.empty_like(v)
        for piece in ctx.pieces:
            rows = piece.rows
            turned_q, turned_k = next(rest), next(rest)
            shares = list(itertools.islice(rest, len(_blocks(piece.length))))
            delta = (grad[rows].float() * out[rows]).sum(-1, keepdim=True)
            of_q, of_k, of_v = _row_gradients(
                _heads(turned_q, piece, groups),
                _heads(turned_k, piece, 1),
                _heads(v[rows], piece, 1),
                _heads(grad[rows], piece, groups),
                _heads(delta, piece, groups),
                shares,
                groups,
            )
            back = cos[rows], -sin[rows]
            q_back = back[0] * ctx.scale, back[1] * ctx.scale
            _turn(_positions(of_q, piece, groups), *q_back, q_grad[rows])
            _turn(_positions(of_k, piece, 1), *back, k_grad[rows])
            v_grad[rows] = _positions(of_v, piece, 1)
        return q_grad, k_grad, v_grad, None, None, None, None


def _row_gradients(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    grad: Tensor,
    delta: Tensor,
    shares: Sequence[Tensor],
    groups: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients by q, k and v, all by head."""
    length = k.shape[1]
    of_q, of_k, of_v = q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)
    # The last block meets every key, so that nothing has to be made zero before it.
    for (start, end), share in reversed(list(zip(_blocks(length), shares, strict=True))):
        block = slice(start * groups, end * groups)
        scores = torch.bmm(grad[:, block], v[:, :end].transpose(1, 2)).float()
        scores = scores.sub_(delta[:, block]).mul_(share).to(share.dtype)
        of_q[:, block] = torch.bmm(scores, k[:, :end])
        part_k = torch.bmm(scores.transpose(1, 2), q[:, block])
        part_v = torch.bmm(share.transpose(1, 2), grad[:, block])
        if end == length:
            of_k, of_v = part_k, part_v
        else:
            of_k[:, :end] += part_k
            of_v[:, :end] += part_v
    return of_q, of_k, of_v


def _pieces(lengths: Sequence[int], most: int) -> list[Piece]:
    """Neighbouring rows of one length together, of no more than `most` positions if they can."""
    pieces = []
    start = 0
    for length, group in itertools.groupby(lengths):
        left = len(list(group))
        while left:
            count = min(left, max(1, most // length))
            pieces.append(Piece(start, count, length))
            start, left = pieces[-1].stop, left - count
    return pieces


def _blocks(length: int) -> list[tuple[int, int]]:
    """(start, end) of every block of queries of a row."""
    return [(start, min(start + BLOCK, length)) for start in range(0, length, BLOCK)]


def _triangle(groups: int, device: torch.device) -> Tensor:
    """What is added to the scores of a block and itself: a query sees no later key."""
    full = torch.full((BLOCK, BLOCK), float("-inf"), device=device)
    return full.triu_(1).repeat_interleave(groups, 0)


def _by_head(x: Tensor, piece: Piece, groups: int) -> Tensor:
    """(positions, heads, size) seen as (rows, key-value heads, length, group, size)."""
    parted = x.view(piece.num_rows, piece.length, -1, groups, x.shape[-1])
    return parted.permute(0, 2, 1, 3, 4)


def _heads(x: Tensor, piece: Piece, groups: int) -> Tensor:
    """(positions, heads, size) as (rows * key-value heads, length * group, size).

    A view where there is one row and no group, since the products take any order of heads.
    """
    seen = _by_head(x, piece, groups)
    return seen.reshape(seen.shape[0] * seen.shape[1], -1, x.shape[-1])


def _positions(x: Tensor, piece: Piece, groups: int) -> Tensor:
    """The reverse of `_heads`, as a view where there is one."""
    parted = x.view(piece.num_rows, -1, piece.length, groups, x.shape[-1])
    return parted.permute(0, 2, 1, 3, 4).reshape(piece.num_rows * piece.length, -1, x.shape[-1])


def _turn(x: Tensor, cos: Tensor, sin: Tensor, out: Tensor | None = None) -> Tensor:
    """x * cos + (-x2, x1) * sin for the halves x1, x2 of the last dimension, in x's dtype."""
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device) if out is None else out
    half = x.shape[-1] // 2
    if x.dtype == cos.dtype:
        torch.mul(x, cos, out=out)
        out[..., :half].addcmul_(x[..., half:], sin[..., :half], value=-1)
        out[..., half:].addcmul_(x[..., :half], sin[..., half:])
    else:
        wide = x.to(torch.promote_types(x.dtype, cos.dtype))
        swapped = torch.cat([-wide[..., half:], wide[..., :half]], -1)
        out.copy_((wide * cos).addcmul_(swapped, sin))
    return out
