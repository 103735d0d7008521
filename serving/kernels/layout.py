"""What a compiled step reads and writes: arrays of addresses, a step's tokens, working memory.

The words that the compiled runner and the kernels share; knows neither torch nor numba.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

# The kinds of work of a step; the first five are linear layers, as `ModelArrays` numbers them.
QKV, OUT_PROJ, GATE_UP, DOWN, HEAD, ATTEND, EMBED = range(7)
# bf16 is uint16 where loops widen it, int16 where the processor multiplies it.
FP32, BF16, BF16_PRODUCTS = np.dtype(np.float32), np.dtype(np.uint16), np.dtype(np.int16)
LAYER_KINDS = (QKV, ATTEND, OUT_PROJ, GATE_UP, DOWN)


def num_phases(layers: int) -> int:
    """Number of phases of a step: the embedding, those of each layer, the head."""
    return 2 + len(LAYER_KINDS) * layers


class ModelArrays(NamedTuple):
    """What stays the same over steps: addresses per layer, norms, rotations, sizes.

    Linear layers are numbered: 0 q/k/v, 1 o, 2 gate/up, 3 down, 4 the head. `weights` [layers, 4]
    and `biases` [layers] (of q/k/v, or 0); `targets` [layers, 4, 5]: stacked down and up, output
    gain, output shift, input gain, 0 where there is none; `shapes` [5, 3]: outputs, inputs,
    layers joined; `cached` [layers, 2]: keys and values, lines of kv_heads * head numbers.
    `head_norms` [layers, 2, head] is empty where queries and keys are not normalised.
    """

    weights: np.ndarray
    biases: np.ndarray
    targets: np.ndarray
    shapes: np.ndarray
    cached: np.ndarray
    windows: np.ndarray
    norms: np.ndarray
    head_norms: np.ndarray
    last_norm: np.ndarray
    cos: np.ndarray
    sin: np.ndarray
    ends: np.ndarray  # addresses of the embedding and of the head
    sizes: np.ndarray  # heads, kv_heads, head, rank columns, lines
    reals: np.ndarray  # epsilon of the norms, scale of the scores
    like: np.ndarray  # an empty array of the weights' number format, as above


class StepTokens(NamedTuple):
    """The tokens of a step, in packed order; `runs` are the bounds of each row's tokens.

    `firsts` are the first lines of the tokens' slots; [low, high) the rank columns of a token's
    adapter; `owners` its gain row; `all` and `wanted` the places of all tokens, and of those whose
    logits are asked for.
    """

    ids: np.ndarray
    positions: np.ndarray
    firsts: np.ndarray
    runs: np.ndarray
    low: np.ndarray
    high: np.ndarray
    owners: np.ndarray
    all: np.ndarray
    wanted: np.ndarray


class Workspace(NamedTuple):
    """Working memory for so many tokens; what has a first axis of threads is a thread's own."""

    stream: np.ndarray
    normed: np.ndarray
    joint: np.ndarray
    mixed: np.ndarray
    inner: np.ndarray
    output: np.ndarray
    scores: np.ndarray
    stored: (
        np.ndarray
    )  # the tokens' numbers in the weights' format, flat; empty if that is not int16
