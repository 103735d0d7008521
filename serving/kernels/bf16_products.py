"""Products of bf16 numbers by the processor's own instruction (AVX-512 BF16), as compiled tiles.

One instruction multiplies 32 pairs and adds them up in fp32, where plain loops need six. Both
sides are bf16: the tokens' numbers are rounded for it, as torch rounds them. Needs numba; knows
arrays, not models.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.registry import cpu_target
from numba.extending import intrinsic

PAIRS = 32  # bf16 numbers in a vector of 512 bits
FLOATS = ir.VectorType(ir.FloatType(), PAIRS // 2)
PRODUCT = "llvm.x86.avx512bf16.dpbf16ps.512"
SUM = f"llvm.vector.reduce.fadd.v{PAIRS // 2}f32"


class _BFloat(ir.Type):  # type: ignore[misc]  # llvmlite has no types
    """The type `bfloat`, for which llvmlite has no word."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _BFloat)

    def __hash__(self) -> int:
        return hash(_BFloat)


HALVES = ir.VectorType(_BFloat(), PAIRS)


@functools.cache
def has_bf16_products() -> bool:
    """Whether numba compiles for a processor that has the instruction."""
    _, _, features = cpu_target.target_context.codegen().magic_tuple()
    return "+avx512bf16" in features.split(",")


def tile(tokens: int, rows: int) -> Callable[..., None]:
    """A compiled function of (x, w, out, t, n): out[t + i, n + j] = x[t + i] . w[n + j].

    For i below `tokens` and j below `rows`, over the inputs in whole vectors: what is left of a
    row is the caller's. x [any, size] and w [any, size] are bf16 as int16, out [any, any] fp32.
    """

    @intrinsic
    def products(_: Any, x: Any, w: Any, out: Any, t: Any, n: Any) -> Any:
        def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            kinds = signature.args
            x, w, out = (
                context.make_array(kind)(context, builder, a)
                for kind, a in zip(kinds[:3], args[:3], strict=True)
            )
            first, row = args[3:]
            size, width = (cgutils.unpack_tuple(builder, a.shape, 2)[1] for a in (w, out))
            sums = _sums(builder, (x, first, tokens), (w, row, rows), size)
            add = _declare(builder, SUM, ir.FloatType(), [ir.FloatType(), FLOATS])
            for i in range(tokens):
                line = builder.mul(builder.add(first, first.type(i)), width)
                for j in range(rows):
                    place = builder.add(line, builder.add(row, row.type(j)))
                    total = builder.load(sums[i][j])
                    total = builder.call(add, [ir.FloatType()(0.0), total], fastmath=("reassoc",))
                    builder.store(total, builder.gep(out.data, [place]))
            return context.get_dummy_value()

        return types.void(x, w, out, types.intp, types.intp), build

    made: Callable[..., None] = products
    return made


def _declare(builder: Any, name: str, result: Any, arguments: list[Any]) -> Any:
    kind = ir.FunctionType(result, arguments)
    return cgutils.get_or_insert_function(builder.module, kind, name)


def _sums(builder: Any, tokens: Any, rows: Any, size: Any) -> list[list[Any]]:
    """Vectors that add up to the products of each token with each row; a loop over the inputs."""
    (x, first, num_tokens), (w, row, num_rows) = tokens, rows
    multiply = _declare(builder, PRODUCT, FLOATS, [FLOATS, HALVES, HALVES])
    zero = ir.Constant(FLOATS, None)
    sums = [
        [cgutils.alloca_once_value(builder, zero) for _ in range(num_rows)]
        for _ in range(num_tokens)
    ]

    def vector(array: Any, line: Any, number: int, k: Any) -> Any:
        place = builder.add(builder.mul(builder.add(line, line.type(number)), size), k)
        value = builder.load(builder.bitcast(builder.gep(array.data, [place]), HALVES.as_pointer()))
        value.align = 2
        return value

    with cgutils.for_range(builder, builder.udiv(size, size.type(PAIRS))) as loop:
        k = builder.mul(loop.index, size.type(PAIRS))
        weights = [vector(w, row, j, k) for j in range(num_rows)]
        for i in range(num_tokens):
            numbers = vector(x, first, i, k)
            for j, weight in enumerate(weights):
                total = builder.load(sums[i][j])
                builder.store(builder.call(multiply, [total, numbers, weight]), sums[i][j])
    return sums
