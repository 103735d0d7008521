"""The few machine instructions and number formats that compiled loops need and Python lacks.

Addresses, counters that threads share, bf16 kept as uint16 or int16, e^x; and how all loops are
compiled and kept on disk. Needs numba.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llvmlite
import numpy as np
from llvmlite import ir
from numba import carray, njit, types
from numba.core import cgutils
from numba.extending import intrinsic, overload

# Sums may be reordered, as every library of products does; NaN and infinity keep their meaning.
FAST = {"reassoc", "contract", "nsz", "arcp"}
OPTIONS: dict[str, Any] = {"fastmath": FAST, "nogil": True, "error_model": "numpy", "cache": True}
# What is compiled into each other, constants included.
SOURCES = ("layout.py", "intrinsics.py", "bf16_products.py", "products.py", "step.py")


def compiled(**more: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A function to be compiled, and kept on disk for as long as no source of any changes.

    Numba's cache looks at the file of a function, not at those of the functions it calls; a name
    of its own for each state of the sources leads it to the right one.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        function.__qualname__ += f"_{_state_of_sources()}"
        made: Callable[..., Any] = njit(**OPTIONS, **more)(function)
        return made

    return decorate


@functools.cache
def _state_of_sources() -> str:
    digest = hashlib.sha256(llvmlite.__version__.encode())
    for name in SOURCES:
        digest.update(Path(__file__).with_name(name).read_bytes())
    return digest.hexdigest()[:16]


@intrinsic
def pointer(_: Any, address: Any) -> Any:
    """An address as a pointer."""

    def build(_: Any, builder: Any, __: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], cgutils.voidptr_t)

    return types.voidptr(address), build


@intrinsic
def use_wide_vectors(_: Any) -> Any:
    """Let the function around it use vectors of 512 bits, which compilers avoid unless told.

    No effect where the processor has none.
    """

    def build(context: Any, builder: Any, _: Any, __: Any) -> Any:
        # llvmlite knows no attributes with values; it writes out what is in the set.
        set.add(builder.function.attributes, '"prefer-vector-width"="512"')
        return context.get_dummy_value()

    return types.void(), build


@intrinsic
def increment_atomic(_: Any, counter: Any, place: Any) -> Any:
    """Add 1 to counter[place], an int64, for all threads to see; returns what it was."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, args[0])
        one = ir.Constant(ir.IntType(64), 1)
        return builder.atomic_rmw("add", builder.gep(array.data, [args[1]]), one, "seq_cst")

    return types.int64(counter, place), build


@intrinsic
def load_atomic(_: Any, counter: Any, place: Any) -> Any:
    """counter[place] as other threads left it."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, args[0])
        return builder.load_atomic(builder.gep(array.data, [args[1]]), "seq_cst", 8)

    return types.int64(counter, place), build


def widen(value):
    """A stored number as fp32."""
    raise NotImplementedError


@overload(widen, inline="always")
def _widen_by_type(value):
    if value in (types.uint16, types.int16):
        return lambda value: np.uint32(np.uint32(value) << np.uint32(16)).view(np.float32)
    return lambda value: value


def narrow(value, like):
    """An fp32 number in the stored format, to nearest, ties to even."""
    raise NotImplementedError


@overload(narrow, inline="always")
def _narrow_by_type(value, like):
    if like.dtype not in (types.uint16, types.int16):
        return lambda value, like: value

    def to_bf16(value, like):
        bits = np.float32(value).view(np.uint32)
        odd = (bits >> np.uint32(16)) & np.uint32(1)
        return np.uint16(np.uint32(bits + np.uint32(0x7FFF) + odd) >> np.uint32(16))

    return to_bf16


@compiled()
def at(address, rows, columns, like):
    return carray(pointer(address), (rows, columns), like.dtype)


@compiled(inline="always")
def exp(x):
    """e^x to 2e-7, within -87 and 88: 2^n times a Taylor polynomial within half a ln 2 of 0."""
    x = min(max(np.float32(-87), x), np.float32(88))
    n = np.floor(x * np.float32(1.44269504) + np.float32(0.5))
    r = x - n * np.float32(0.693359375) + n * np.float32(2.12194440e-4)
    p = np.float32(1 / 720) * r + np.float32(1 / 120)
    p = p * r + np.float32(1 / 24)
    p = p * r + np.float32(1 / 6)
    p = p * r + np.float32(0.5)
    p = p * r * r + r + np.float32(1)
    return p * np.int32(np.int32(np.int32(n) + np.int32(127)) << np.int32(23)).view(np.float32)
