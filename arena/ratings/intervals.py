"""How sure the ratings are: sandwich covariance, ranks by intervals, votes still needed.

Pure functions on numpy arrays. The sandwich V = H⁻¹ G H⁻¹ uses the penalised Hessian of
the fit and the scores of single votes (G), summed within a voter when voters are known,
with the factor C/(C-1) for C voters; few of them make the intervals Student's.
"""

from __future__ import annotations

import math

import numpy as np

from arena.ratings.bradley_terry import (
    Fit,
    FitConfig,
    covariance_root,
    design_square,
    design_sum,
    penalty_of,
)
from arena.ratings.vote_table import TIE, Cells, Floats, Ints, VoteTable, summed

Z95 = 1.959964
"""Two-sided 95 % point of the normal distribution."""

POWER_80 = 7.849
"""(z for 5 % two-sided + z for 80 % power)²."""

SCORES_HELD = 8_000_000
"""Numbers held at once: scores of so many voters, one per parameter."""


def covariance(result: Fit, cells: Cells, table: VoteTable, *, clustered: bool) -> Floats:
    """Sandwich covariance of all parameters; `clustered` sums scores within a voter first."""
    root = covariance_root(result)
    if clustered:
        assert table.cluster is not None
        meat = clustered_meat(result, cells, table, table.cluster)
    else:
        meat = plain_meat(result, cells)
    v: Floats = root @ meat @ root
    return v


def plain_meat(result: Fit, cells: Cells) -> Floats:
    """Σ of squared scores over single votes, taken as independent of each other."""
    layout, values = result.layout, result.values
    inner = layout.first_feature + layout.num_features
    meat = np.zeros((layout.size, layout.size))
    by_eta = (cells.square * values.score_eta**2).sum(axis=1)
    meat[:inner, :inner] = design_square(cells, layout, by_eta)
    if layout.davidson:
        cross = (cells.square * values.score_eta * values.score_nu).sum(axis=1)
        meat[:inner, -1] = meat[-1, :inner] = design_sum(cells, layout, cross)
        meat[-1, -1] = float((cells.square * values.score_nu**2).sum())
    return meat


def clustered_meat(result: Fit, cells: Cells, table: VoteTable, cluster: Ints) -> Floats:
    """C/(C-1) · Σ over voters of the squared sum of their scores; needs two voters or more.

    Voters are numbered from 0 without a gap.
    """
    size = result.layout.size
    count = int(cluster.max()) + 1
    chunk = max(1, SCORES_HELD // size)
    if count <= chunk:
        scores = _scores_by_cluster(result, cells, table, slice(None), cluster, count)
        return np.asarray(scores.T @ scores * (count / (count - 1)), np.float64)
    order = np.argsort(cluster, kind="stable")
    bounds = np.searchsorted(cluster[order], np.arange(count + 1))
    meat = np.zeros((size, size))
    for first in range(0, count, chunk):
        last = min(first + chunk, count)
        rows = order[bounds[first] : bounds[last]]
        scores = _scores_by_cluster(result, cells, table, rows, cluster[rows] - first, last - first)
        meat += scores.T @ scores
    return meat * (count / (count - 1))


def _scores_by_cluster(
    result: Fit,
    cells: Cells,
    table: VoteTable,
    rows: Ints | slice,
    local: Ints,
    num_clusters: int,
) -> Floats:
    """Sums of row scores, one line per cluster: num_clusters x number of parameters."""
    layout, values = result.layout, result.values
    cell, weight = cells.row_cell[rows], table.weight[rows]
    place = cell * 3 + np.minimum(table.outcome[rows], TIE)
    by_eta = weight * values.score_eta.ravel()[place]
    shape = (num_clusters, layout.num_models)
    count = shape[0] * shape[1]
    slot = local * layout.num_models
    theta = summed(slot + table.left[rows], by_eta, count)
    theta -= summed(slot + table.right[rows], by_eta, count)
    parts = [theta.reshape(shape)]
    if layout.position:
        parts.append(summed(local, by_eta * cells.side[cell], num_clusters)[:, None])
    for index in range(layout.num_features):
        column = by_eta * cells.features[cell, index]
        parts.append(summed(local, column, num_clusters)[:, None])
    if layout.davidson:
        by_nu = weight * values.score_nu.ravel()[place]
        parts.append(summed(local, by_nu, num_clusters)[:, None])
    return np.concatenate(parts, axis=1)


def side_uncertainty(result: Fit, cells: Cells, config: FitConfig) -> Floats:
    """What the side effect adds to the covariance of all parameters, by its prior alone.

    Where it is fitted, the prior counts as one more observation of it. Votes that do not fit it
    may have one all the same, of that prior: it moves every strength together.
    """
    root, layout = covariance_root(result), result.layout
    added = np.zeros_like(root)
    if not config.position or config.side_ridge <= 0:
        return added
    if layout.position:
        pulled = root[:, layout.num_models]
        added += config.side_ridge * np.outer(pulled, pulled)
    untold = 1 - cells.side
    if untold.any():
        total = cells.weight.sum(axis=1) * untold
        cross = np.zeros(layout.size)
        inner = layout.first_feature + layout.num_features
        cross[:inner] = design_sum(cells, layout, total * result.values.h_eta)
        if layout.davidson:
            cross[-1] = float(total @ result.values.h_cross)
        moved = root @ cross
        added += np.outer(moved, moved) / config.side_ridge
    return added


def one_vote_more(result: Fit, config: FitConfig, num_votes: int) -> Floats:
    """By how much one more vote like those given would move the parameters, squared: the least
    variance told. Votes that cancel out within each voter have a sandwich of zero.
    """
    root = covariance_root(result)
    votes = result.hessian - np.diag(penalty_of(result.layout, config))
    return np.asarray(root @ votes @ root / max(1, num_votes), np.float64)


def few_voters_factor(count: int) -> float:
    """(t/z)²: as much wider the variance is taken when `count` voters tell it.

    t is the 97.5 % point of Student's distribution with count - 1 degrees of freedom (Cameron
    and Miller, 2015, section VI.D), by its expansion about the normal's (Abramowitz and Stegun,
    26.7.5). Needs three voters or more.
    """
    z, free = Z95, count - 1
    terms = (
        (z**2 + 1) / 4,
        (5 * z**4 + 16 * z**2 + 3) / 96,
        (3 * z**6 + 19 * z**4 + 17 * z**2 - 15) / 384,
        (79 * z**8 + 776 * z**6 + 1482 * z**4 - 1920 * z**2 - 945) / 92160,
    )
    over_z = 1 + sum(term / math.pow(free, power) for power, term in enumerate(terms, 1))
    return over_z * over_z


def ranks(lower: Floats, upper: Floats, group: Ints | None = None) -> tuple[Ints, Ints]:
    """Best and worst rank that intervals allow: 1 + the number surely above, and M - surely
    below. The first is the rank to show. Only models of the same `group` are held against each
    other; without one all are.
    """
    group = np.zeros(len(lower), np.int64) if group is None else group
    same = group[None, :] == group[:, None]
    best = 1 + (same & (lower[None, :] > upper[:, None])).sum(axis=1)
    worst = (same & (upper[None, :] >= lower[:, None])).sum(axis=1)
    return best, worst


def confidence(gap: float, variance: float) -> float:
    """Probability that the true gap is positive, from a normal of this mean and variance."""
    if variance <= 0:
        return 0.5 if gap == 0 else float(gap > 0)
    return 0.5 * math.erfc(-gap / math.sqrt(2 * variance))


def votes_to_settle(gap: float, variance: float, tie_share: float) -> int | None:
    """Further votes on this pair that settle who is better, if the gap is as estimated.

    0 when the votes already do (two-sided 5 %). Else as many as give 80 % power together with
    those given. None when the gap is so small that more than a million would be needed.
    """
    if gap**2 >= Z95**2 * variance and gap != 0:
        return 0
    p = 1 / (1 + math.exp(-gap))
    information = p * (1 - p) * (1 - tie_share)
    if information <= 0 or gap == 0:
        return None
    have = 1 / variance if variance > 0 else 0.0
    needed = math.ceil(max(0.0, POWER_80 / gap**2 - have) / information)
    return needed if needed <= 1_000_000 else None
