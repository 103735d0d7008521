"""The products of a step's tokens with the rows of a weight, in each number format.

Weights are fp32, bf16 widened by plain loops (uint16), or bf16 for the processor's own products
(int16); sums are fp32. What bounds the time is reading the weights, and memory is read fastest in
one straight line: so a row meets the first tokens alone, and the rest from the cache in tiles.
Knows arrays; does not know layers. Needs numba.
"""

from __future__ import annotations

import numpy as np
from numba import types
from numba.extending import overload

from serving.kernels.bf16_products import PAIRS, tile
from serving.kernels.intrinsics import compiled, narrow, use_wide_vectors, widen

# Rows of a weight that are multiplied together with several tokens.
STRIP = 4
# Longer rows, in bytes, do not stay where the tiles would find them.
MOST_ROW_BYTES = 3072


@compiled()
def _plain_4x4(x, w, out, t, n):
    """Four tokens times four rows of the weight."""
    use_wide_vectors()
    a00 = a01 = a02 = a03 = a10 = a11 = a12 = a13 = np.float32(0)
    a20 = a21 = a22 = a23 = a30 = a31 = a32 = a33 = np.float32(0)
    for k in range(w.shape[1]):
        w0, w1 = widen(w[n, k]), widen(w[n + 1, k])
        w2, w3 = widen(w[n + 2, k]), widen(w[n + 3, k])
        x0, x1, x2, x3 = x[t, k], x[t + 1, k], x[t + 2, k], x[t + 3, k]
        a00 += w0 * x0
        a01 += w1 * x0
        a02 += w2 * x0
        a03 += w3 * x0
        a10 += w0 * x1
        a11 += w1 * x1
        a12 += w2 * x1
        a13 += w3 * x1
        a20 += w0 * x2
        a21 += w1 * x2
        a22 += w2 * x2
        a23 += w3 * x2
        a30 += w0 * x3
        a31 += w1 * x3
        a32 += w2 * x3
        a33 += w3 * x3
    out[t, n], out[t, n + 1], out[t, n + 2], out[t, n + 3] = a00, a01, a02, a03
    out[t + 1, n], out[t + 1, n + 1], out[t + 1, n + 2], out[t + 1, n + 3] = a10, a11, a12, a13
    out[t + 2, n], out[t + 2, n + 1], out[t + 2, n + 2], out[t + 2, n + 3] = a20, a21, a22, a23
    out[t + 3, n], out[t + 3, n + 1], out[t + 3, n + 2], out[t + 3, n + 3] = a30, a31, a32, a33


@compiled()
def _plain_2x4(x, w, out, t, n):
    """Two tokens times four rows of the weight."""
    use_wide_vectors()
    a00 = a01 = a02 = a03 = a10 = a11 = a12 = a13 = np.float32(0)
    for k in range(w.shape[1]):
        w0, w1 = widen(w[n, k]), widen(w[n + 1, k])
        w2, w3 = widen(w[n + 2, k]), widen(w[n + 3, k])
        x0, x1 = x[t, k], x[t + 1, k]
        a00 += w0 * x0
        a01 += w1 * x0
        a02 += w2 * x0
        a03 += w3 * x0
        a10 += w0 * x1
        a11 += w1 * x1
        a12 += w2 * x1
        a13 += w3 * x1
    out[t, n], out[t, n + 1], out[t, n + 2], out[t, n + 3] = a00, a01, a02, a03
    out[t + 1, n], out[t + 1, n + 1], out[t + 1, n + 2], out[t + 1, n + 3] = a10, a11, a12, a13


@compiled()
def _plain_1x4(x, w, out, t, n):
    """One token times four rows of the weight."""
    use_wide_vectors()
    a0 = a1 = a2 = a3 = np.float32(0)
    for k in range(w.shape[1]):
        x0 = x[t, k]
        a0 += widen(w[n, k]) * x0
        a1 += widen(w[n + 1, k]) * x0
        a2 += widen(w[n + 2, k]) * x0
        a3 += widen(w[n + 3, k]) * x0
    out[t, n], out[t, n + 1], out[t, n + 2], out[t, n + 3] = a0, a1, a2, a3


@compiled()
def _plain_2x1(x, w, out, t, n):
    """Two tokens times a row of the weight."""
    use_wide_vectors()
    a0 = a1 = np.float32(0)
    for k in range(w.shape[1]):
        weight = widen(w[n, k])
        a0 += weight * x[t, k]
        a1 += weight * x[t + 1, k]
    out[t, n], out[t + 1, n] = a0, a1


@compiled()
def _plain_1x1(x, w, out, t, n):
    """One token times a row of the weight."""
    use_wide_vectors()
    total = np.float32(0)
    for k in range(w.shape[1]):
        total += widen(w[n, k]) * x[t, k]
    out[t, n] = total


@compiled()
def _add_rest(x, w, out, t, n, tokens, rows):
    """Add the products of the inputs that fill no whole vector."""
    size = w.shape[1]
    whole = size // PAIRS * PAIRS
    if whole < size:
        for i in range(t, t + tokens):
            for j in range(n, n + rows):
                total = np.float32(0)
                for k in range(whole, size):
                    total += widen(x[i, k]) * widen(w[j, k])
                out[i, j] += total


def times(x, w, out, t, n, tokens, rows):
    """out[t + i, n + j] = x[t + i] . w[n + j] for one of the five sizes that there are."""
    raise NotImplementedError


_PLAIN = _plain_1x1, _plain_2x1, _plain_1x4, _plain_2x4, _plain_4x4
_WIDE = tile(1, 1), tile(2, 1), tile(1, 4), tile(2, 4), tile(4, 4)


@overload(times, inline="always")
def _times_by_type(x, w, out, t, n, tokens, rows):
    is_wide = w.dtype == types.int16
    t1x1, t2x1, t1x4, t2x4, t4x4 = _WIDE if is_wide else _PLAIN

    def times_by_size(x, w, out, t, n, tokens, rows):
        if rows == 1:
            if tokens == 1:
                t1x1(x, w, out, t, n)
            else:
                t2x1(x, w, out, t, n)
        elif tokens == 4:
            t4x4(x, w, out, t, n)
        elif tokens == 2:
            t2x4(x, w, out, t, n)
        else:
            t1x4(x, w, out, t, n)
        if is_wide:
            _add_rest(x, w, out, t, n, tokens, rows)

    return times_by_size


@compiled()
def matmul(x, num_tokens, w, low, high, out):
    """out[t, n] = x[t] . w[n] for the first tokens and rows n of the weight in [low, high)."""
    if num_tokens == 0:
        return
    is_short = w.shape[1] * w.itemsize <= MOST_ROW_BYTES
    for n in range(low, high, STRIP):
        rows, t = min(STRIP, high - n), 0
        if is_short or num_tokens <= 2 or rows < STRIP:
            t = min(2, num_tokens)
            for row in range(n, n + rows):
                times(x, w, out, 0, row, t, 1)
        if rows < STRIP:
            for row in range(n, n + rows):
                for i in range(t, num_tokens):
                    times(x, w, out, i, row, 1, 1)
        else:
            while t < num_tokens:
                tokens = 4 if t + 4 <= num_tokens else 2 if t + 2 <= num_tokens else 1
                times(x, w, out, t, n, tokens, STRIP)
                t += tokens


def as_stored(x, count, space, is_first, like):
    """The tokens' numbers [count, size] as `matmul` wants them, made anew if `is_first`.

    Where the processor multiplies bf16 they are rounded into `space`, which is flat.
    """
    raise NotImplementedError


@overload(as_stored, inline="always")
def _as_stored_by_type(x, count, space, is_first, like):
    if like.dtype != types.int16:
        return lambda x, count, space, is_first, like: x

    def rounded(x, count, space, is_first, like):
        size = x.shape[1]
        made = space[: count * size].reshape(count, size)
        if is_first:
            for t in range(count):
                for k in range(size):
                    made[t, k] = narrow(x[t, k], like)
        return made

    return rounded
