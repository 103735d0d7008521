"""Which votes can tell the advantage of a side from the strength of the models. Pure numpy.

Where one model always stood left of another, a preference for the left side and a better model
look the same. Such votes, and those whose sides a person chose, do not fit the side effect.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

ModelNumbers = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

FIXED_PAIR = 10
"""From this many votes on, a pair that never changed sides was not shuffled: by chance it would
happen once in 512 pairs."""

LEAST_INFORMATION = 10.0
"""Below this the side effect is left out. 40 votes on two equal models, as often in each order,
have it; then the standard error is 0.3 log odds."""


@dataclass(frozen=True)
class Sides:
    """`told[i]`: row i fits the side effect. `fixed`: pairs (left, right) that never changed sides.

    `information` is what the rows tell about the side effect beside the strengths, between equal
    models: one over its variance.
    """

    told: Mask
    fixed: tuple[tuple[int, int], ...]
    information: float


def sides(
    num_models: int, left: ModelNumbers, right: ModelNumbers, chosen: Mask | None = None
) -> Sides:
    """Look at who stood where. `chosen[i]`: a person chose the sides of row i."""
    told = np.ones(len(left), dtype=bool) if chosen is None else ~chosen
    shown = _counts(num_models, left, right)
    drawn = shown if chosen is None else _counts(num_models, left[told], right[told])
    is_fixed = (drawn >= FIXED_PAIR) & (drawn.T == 0)
    np.fill_diagonal(is_fixed, False)
    used = np.where(is_fixed, 0, drawn)
    information = _information(shown, used)
    if information < LEAST_INFORMATION:
        told = np.zeros(len(left), dtype=bool)
    elif is_fixed.any():
        told &= ~is_fixed[left, right]
    pairs = tuple((int(i), int(j)) for i, j in np.argwhere(is_fixed))
    return Sides(told, pairs, information)


def _counts(num_models: int, left: ModelNumbers, right: ModelNumbers) -> ModelNumbers:
    counts = np.bincount(left * num_models + right, minlength=num_models**2)
    return np.asarray(counts.reshape(num_models, num_models), np.int64)


def _information(shown: ModelNumbers, used: ModelNumbers) -> float:
    """¼ (Σ u - gᵀ L⁻¹ g): g is how much oftener each model stood left than right among the votes
    used, L the Laplacian of all votes with a little on its diagonal, for groups stand alone.
    """
    met = shown + shown.T
    laplacian = np.diag(met.sum(axis=1) + 0.4) - met
    oftener_left = (used - used.T).sum(axis=1).astype(np.float64)
    explained = oftener_left @ np.linalg.solve(laplacian, oftener_left)
    return float(used.sum() - explained) / 4 if len(shown) else 0.0
