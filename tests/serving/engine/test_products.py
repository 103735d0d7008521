"""Products of tokens with rows of a weight, in each number format, against numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.kernels.bf16_products import has_bf16_products
from serving.kernels.intrinsics import compiled
from serving.kernels.layout import BF16, BF16_PRODUCTS, FP32
from serving.kernels.products import as_stored, matmul

needs_products = pytest.mark.skipif(
    not has_bf16_products(), reason="this processor has no products of bf16"
)
FORMATS = [FP32, BF16, pytest.param(BF16_PRODUCTS, marks=needs_products)]
GUARD = np.float32(-7.5)


@compiled()
def multiply(x, w, low, high, space, like, out):  # type: ignore[no-untyped-def]
    matmul(as_stored(x, len(x), space, True, like), len(x), w, low, high, out)


def bf16(numbers: Any) -> torch.Tensor:
    return torch.from_numpy(numbers).to(torch.bfloat16)


@pytest.mark.slow
@pytest.mark.parametrize("stored", FORMATS, ids=["fp32", "bf16", "bf16 products"])
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_any_size_is_what_numpy_says(stored: np.dtype[Any], data: st.DataObject) -> None:
    """Odd sizes and bounds too, and nothing outside the rows asked for is written."""
    rows, size = (data.draw(st.integers(1, most)) for most in (19, 1700))
    tokens = data.draw(st.integers(0, 11))
    low = data.draw(st.integers(0, rows))
    high = data.draw(st.integers(low, rows))
    random = np.random.default_rng(data.draw(st.integers(0, 99)))
    x = random.standard_normal((tokens, size), dtype=np.float32)
    exact = random.standard_normal((rows, size), dtype=np.float32)
    left, w = x, exact
    if stored != FP32:
        w = bf16(exact).view(torch.int16).numpy().view(stored)
        exact = bf16(exact).float().numpy()
    if stored == BF16_PRODUCTS:
        left = bf16(x).float().numpy()
    out = np.full((tokens, rows), GUARD)
    space = np.zeros(x.size, dtype=stored)
    multiply(x, w, low, high, space, np.empty(0, dtype=stored), out)
    wanted = left.astype(np.float64) @ exact.astype(np.float64).T
    np.testing.assert_allclose(out[:, low:high], wanted[:, low:high], atol=2e-3)
    assert (out[:, :low] == GUARD).all()
    assert (out[:, high:] == GUARD).all()


@pytest.mark.parametrize("stored", FORMATS, ids=["fp32", "bf16", "bf16 products"])
def test_a_row_is_the_same_beside_any_others(stored: np.dtype[Any]) -> None:
    """What is not finite in one token reaches no other."""
    x = np.ones((6, 64), dtype=np.float32)
    x[2, 5], x[4, 7] = np.nan, np.inf
    w = np.ones((8, 64), dtype=np.float32)
    if stored != FP32:
        w = bf16(w).view(torch.int16).numpy().view(stored)
    out = np.zeros((6, 8), dtype=np.float32)
    space = np.zeros(x.size, dtype=stored)
    multiply(x, w, 0, 8, space, np.empty(0, dtype=stored), out)
    assert np.isnan(out[2]).all()
    assert np.isposinf(out[4]).all()
    assert (out[[0, 1, 3, 5]] == 64).all()
