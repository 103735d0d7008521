"""How often scores and votes agree, with intervals, and how strong the authors of answers are.

Knows numbers, pairs and ties; knows neither models nor tokens.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuning.data.preferences.pairs import Pair, Tie
from tuning.evaluation.statistics import wilson

Reals = NDArray[np.float64]
RIDGE = 0.1
"""Weight of the penalty on the strengths of authors, in votes: few votes decide nothing."""


@dataclass(frozen=True)
class VoteShare:
    """The share of votes that scores agree with, and its 95 % interval; equal scores are a half."""

    share: float
    lower: float
    upper: float
    num_pairs: int

    def to_json(self) -> dict[str, Any]:
        """Its fields."""
        return asdict(self)


def vote_share(
    margins: Sequence[float] | Reals,
    clusters: Sequence[Hashable] | None = None,
    weights: Sequence[float] | Reals | None = None,
) -> VoteShare | None:
    """The share of `margins` (chosen minus rejected, shape (pairs,)) above 0; None without any.

    The interval is Wilson's with as many votes as the rows are worth: those of one cluster, such
    as a prompt, are not independent, and their variance is that of sums over clusters.
    """
    values = np.asarray(margins, dtype=np.float64)
    if not len(values):
        return None
    assert np.isfinite(values).all(), "a score is no number"
    weight = np.ones(len(values)) if weights is None else np.asarray(weights, dtype=np.float64)
    right = (values > 0) + 0.5 * (values == 0)
    share = float((weight * right).sum() / weight.sum())
    sums: dict[Hashable, float] = defaultdict(float)
    for at, residual in enumerate(weight * (right - share)):
        sums[at if clusters is None else clusters[at]] += float(residual)
    count = len(sums)
    variance = sum(value**2 for value in sums.values()) / weight.sum() ** 2
    worth = float(count)
    if variance > 0:
        worth = share * (1 - share) / variance
    worth = max(1.0, min(float(worth), len(values)))
    lower, upper = wilson(share * worth, worth)
    return VoteShare(share, float(lower), float(upper), len(values))


def author_strengths(lessons: Iterable[Pair | Tie]) -> dict[str, float]:
    """Bradley-Terry strengths of the models that wrote the answers, 0 on average; ties are halves.

    With a ridge of RIDGE on their sum of squares, so that a model that never lost is finite. Votes
    on two answers of one model, or of one that nobody names, say nothing.
    """
    rows: list[tuple[str, str, float, float]] = []
    for lesson in lessons:
        first, second = lesson.models
        if first is not None and second is not None and first != second:
            won = 0.5 if isinstance(lesson, Tie) else 1.0
            rows.append((first, second, won, lesson.weight))
    names = sorted({name for row in rows for name in row[:2]})
    if not names:
        return {}
    place = {name: at for at, name in enumerate(names)}
    design = np.zeros((len(rows), len(names)))
    for at, (first, second, _, _) in enumerate(rows):
        design[at, place[first]], design[at, place[second]] = 1, -1
    strengths = logistic(
        design, np.array([row[2] for row in rows]), np.array([row[3] for row in rows]), RIDGE
    )[0]
    return dict(zip(names, map(float, strengths - strengths.mean()), strict=True))


def logistic(design: Reals, outcome: Reals, weights: Reals, ridge: float) -> tuple[Reals, Reals]:
    """Coefficients of a logistic regression without a constant, and their covariance.

    Minimises sum w (log(1 + e^eta) - y eta) + ridge/2 |beta|² by Newton's method with halved steps;
    `design` (rows, columns), `outcome` and `weights` (rows,).
    """

    def loss(beta: Reals) -> float:
        eta = design @ beta
        return float(weights @ (np.logaddexp(0, eta) - outcome * eta) + ridge / 2 * beta @ beta)

    beta = np.zeros(design.shape[1])
    hessian = np.eye(design.shape[1])
    for _ in range(100):
        share = 0.5 * (1 + np.tanh(design @ beta / 2))
        slope = design.T @ (weights * (share - outcome)) + ridge * beta
        hessian = (design.T * (weights * share * (1 - share))) @ design
        hessian += ridge * np.eye(len(beta))
        step = np.linalg.solve(hessian, slope)
        length = 1.0
        while loss(beta - length * step) > loss(beta) and length > 1e-6:
            length /= 2
        beta = beta - length * step
        if np.abs(slope).max() < 1e-9 * max(1.0, float(weights.sum())):
            break
    covariance: Reals = np.asarray(np.linalg.inv(hessian), dtype=np.float64)
    return beta, covariance
