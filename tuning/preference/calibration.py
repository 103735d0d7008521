"""Whether the certainty of scores is right, and how much of them is the length of the answers.

All margins are score of the chosen minus score of the rejected answer. Knows numbers only.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from tuning.preference.vote_share import Reals, VoteShare, logistic, vote_share

BINS = 10
SHARPEST = 1e3
"""The largest inverse temperature that is tried: votes that scores part without fault want none."""
ALIKE = 0.1
"""Lengths that differ by no more than this share of the longer are alike."""
LITTLE = 1e-3


def certainty(margins: Reals) -> Reals:
    """The probability of the side that the scores prefer: sigma(|margin|)."""
    result: Reals = 0.5 * (1 + np.tanh(np.abs(margins) / 2))
    return result


def reliability(margins: Reals, bins: int = BINS) -> list[dict[str, Any]]:
    """Bins of equally many pairs by rising certainty: their mean certainty and share agreed."""
    sure = certainty(margins)
    right = (margins > 0) + 0.5 * (margins == 0)
    order = np.argsort(sure, kind="stable")
    parts = np.array_split(order, min(bins, len(order)))
    return [
        {
            "certainty": float(sure[part].mean()),
            "agreement": float(right[part].mean()),
            "num_pairs": len(part),
        }
        for part in parts
        if len(part)
    ]


def expected_calibration_error(margins: Reals, bins: int = BINS) -> float:
    """The mean distance between certainty and agreement over the bins, by pairs (ECE)."""
    found = reliability(margins, bins)
    gaps = [part["num_pairs"] * abs(part["certainty"] - part["agreement"]) for part in found]
    return float(sum(gaps) / len(margins))


def log_loss(margins: Reals) -> float:
    """Mean -log sigma(margin), in nats; a coin has log 2."""
    return float(np.logaddexp(0, -margins).mean())


def brier(margins: Reals) -> float:
    """Mean (1 - sigma(margin))²; a coin has 1/4."""
    return float(((0.5 * (1 - np.tanh(margins / 2))) ** 2).mean())


def temperature(margins: Reals) -> float | None:
    """The T for which sigma(margin / T) has the least log loss; None where no T helps.

    That is where the mean margin is not above 0: the less the scores are trusted, the better.
    """

    def slope(sharp: float) -> float:
        return float((-margins * 0.5 * (1 - np.tanh(sharp * margins / 2))).mean())

    if slope(0.0) >= 0:
        return None
    low, high = 0.0, 1.0
    while slope(high) < 0 and high < SHARPEST:
        low, high = high, high * 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return 1 / high


def calibration(margins: Reals, clusters: Sequence[Hashable]) -> dict[str, Any]:
    """All of it, and what one temperature, fitted on one half of the prompts, does for the other.

    The halves are clusters in turn, each fitted for the other, so that no pair is judged by a
    temperature that has seen it.
    """
    order = {cluster: at for at, cluster in enumerate(dict.fromkeys(clusters))}
    half = np.array([order[cluster] % 2 for cluster in clusters], dtype=bool)
    after = margins.copy()
    for part in (half, ~half):
        fitted = temperature(margins[~part]) if (~part).any() else None
        after[part] = margins[part] / fitted if fitted is not None else 0.0
    return {
        "reliability": reliability(margins),
        "ece": expected_calibration_error(margins),
        "brier": brier(margins),
        "log_loss": log_loss(margins),
        "temperature": temperature(margins),
        "with_temperature": {
            "ece": expected_calibration_error(after),
            "brier": brier(after),
            "log_loss": log_loss(after),
        },
    }


def ranks(values: Reals) -> Reals:
    """Ranks from 1; equal values share the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    mean: Reals = (ends - (counts - 1) / 2)[inverse]
    return mean


def spearman(first: Reals, second: Reals) -> float | None:
    """Spearman's rank correlation; None where one of the two never changes."""
    a, b = ranks(first), ranks(second)
    a, b = a - a.mean(), b - b.mean()
    norm = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / norm if norm else None


def length_analysis(margins: Reals, lengths: Reals, clusters: Sequence[Hashable]) -> dict[str, Any]:
    """How scores and votes go with length; `lengths` (pairs, 2), the chosen answer's first.

    The regression is of the vote on the difference in score and in length together, each divided
    by its root mean square: what remains of the one where the other is known.
    """
    difference = lengths[:, 0] - lengths[:, 1]
    alike = np.abs(difference) <= ALIKE * lengths.max(1)
    groups = {
        "longer_won": ~alike & (difference > 0),
        "shorter_won": ~alike & (difference < 0),
        "alike": alike,
    }
    found: dict[str, VoteShare | None] = {
        name: vote_share(margins[mask], [c for c, m in zip(clusters, mask, strict=True) if m])
        for name, mask in groups.items()
    }
    columns = np.stack([margins, difference], axis=1)
    scale = np.sqrt((columns**2).mean(0))
    design = columns / np.where(scale > 0, scale, 1)
    ones = np.ones(len(margins))
    # A sum of squares with so little weight only keeps what never fails from growing for ever.
    beta, covariance = logistic(design, ones, ones, LITTLE * len(margins))
    errors = np.sqrt(np.diag(covariance))
    return {
        "agreement": {name: item and item.to_json() for name, item in found.items()},
        "correlation": spearman(margins, difference),
        "regression": {
            name: {"coefficient": float(beta[at]), "error": float(errors[at])}
            for at, name in enumerate(("score", "length"))
        },
        "mean_length": {
            "chosen": float(lengths[:, 0].mean()),
            "rejected": float(lengths[:, 1].mean()),
        },
    }


def learning_curve(
    points: Sequence[tuple[int, VoteShare]], ceiling: float | None = None
) -> dict[str, Any]:
    """What more votes brought: agreement by number of votes, the slope of a doubling, and the next.

    The slope is that of a line over log2 of the votes, each point weighed by its inverse variance;
    what the next doubling would bring is that line, and no more than the ceiling.
    """
    told: dict[str, Any] = {
        "points": [{"num_votes": count, **found.to_json()} for count, found in points]
    }
    if len({count for count, _ in points}) < 2:
        return told | {"per_doubling": None, "next": None}
    at = np.log2([count for count, _ in points])
    share = np.array([found.share for _, found in points])
    spread = np.array([found.upper - found.lower for _, found in points])
    weights = 1 / np.maximum(spread, 1e-6) ** 2
    middle, height = np.average(at, weights=weights), np.average(share, weights=weights)
    slope = float(
        (weights * (at - middle) * (share - height)).sum() / (weights * (at - middle) ** 2).sum()
    )
    expected = float(height + slope * (at.max() + 1 - middle))
    return told | {
        "per_doubling": slope,
        "next": {
            "num_votes": 2 * max(count for count, _ in points),
            "agreement": min(max(expected, 0.0), 1.0 if ceiling is None else ceiling),
        },
    }
