"""Bootstrap of the ratings: refits on resampled voters or votes, many rounds at once.

Each round weighs every voter (or vote) by an independent Poisson(1) number, which for many
votes is the same as drawing them with replacement. A round starts at the fit and is solved
with the fit's Hessian (a chord method: only gradients are computed, for a batch of rounds
together); a round that does not arrive is solved by Newton's method from the start.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from arena.ratings.bradley_terry import (
    Fit,
    FitConfig,
    choose_layout,
    covariance_root,
    fit,
    null_shift,
    penalty_of,
)
from arena.ratings.connectivity import connectivity
from arena.ratings.vote_table import TIE, Cells, Floats, VoteTable, summed

BATCH_CELLS = 200_000
"""Cells times rounds held at once: what fits into the processor's cache."""

CHORD_STEPS = 30
TOLERANCE = 1e-6
"""Largest step in natural units at which a round has arrived (0.0002 rating points)."""


def bootstrap(
    cells: Cells,
    table: VoteTable,
    config: FitConfig,
    result: Fit,
    *,
    num_rounds: int = 500,
    seed: int = 0,
    clustered: bool,
) -> Floats:
    """Strengths of refits on resampled data: num_rounds x num_models, each with mean zero.

    Single votes are resampled by the counts of a cell at once, whose weights must be equal.
    """
    draw = np.random.default_rng(seed)
    batch = max(1, BATCH_CELLS // max(1, len(cells.left)))
    parts = []
    for first in range(0, num_rounds, batch):
        size = min(batch, num_rounds - first)
        weights = np.stack(
            [_resampled(cells, table, draw, clustered=clustered) for _ in range(size)]
        )
        parts.append(_refits(cells, config, result, weights))
    return np.concatenate(parts)


def percentiles(rounds: Floats, level: float = 0.95) -> tuple[Floats, Floats]:
    """Lower and upper percentile of each model over the rounds."""
    tail = (1 - level) / 2
    lower, upper = np.quantile(rounds, [tail, 1 - tail], axis=0)
    return lower, upper


def share_disconnected(
    cells: Cells, table: VoteTable, *, num_rounds: int, seed: int, clustered: bool
) -> float:
    """Share of resamples in which the votes no longer fix all gaps between models."""
    draw = np.random.default_rng(seed)
    lost = 0
    for _ in range(num_rounds):
        weight = _resampled(cells, table, draw, clustered=clustered)
        lost += len(np.unique(connectivity(replace(cells, weight=weight)).strong)) > 1
    return lost / num_rounds


def _resampled(
    cells: Cells, table: VoteTable, draw: np.random.Generator, *, clustered: bool
) -> Floats:
    if clustered:
        assert table.cluster is not None
        times = draw.poisson(1.0, int(table.cluster.max()) + 1)
        slot = cells.row_cell * 3 + np.minimum(table.outcome, TIE)
        weight = summed(slot, table.weight * times[table.cluster], cells.weight.size)
        return weight.reshape(cells.weight.shape)
    sums = cells.weight
    blank = np.zeros_like(sums)
    counts = np.divide(sums**2, cells.square, out=blank.copy(), where=sums > 0)
    each = np.divide(sums, counts, out=blank, where=sums > 0)
    return np.asarray(draw.poisson(counts) * each, dtype=np.float64)


def _refits(cells: Cells, config: FitConfig, result: Fit, weights: Floats) -> Floats:
    """Strengths of the refit of each of R weightings (R x n x 3)."""
    inverse = covariance_root(result) + null_shift(result.layout)
    penalty = penalty_of(result.layout, config)
    params = np.tile(result.params, (len(weights), 1))
    arrived = np.zeros(len(weights), dtype=bool)
    for _ in range(CHORD_STEPS):
        gradient = _gradients(cells, result, weights, params) + penalty * params
        step = gradient @ inverse
        params -= step
        arrived = np.abs(step).max(axis=1) < TOLERANCE
        if arrived.all():
            break
    theta = params[:, : result.layout.num_models]
    for index in range(len(weights)):
        sample = replace(cells, weight=weights[index])
        if not arrived[index] or choose_layout(sample, config) != result.layout:
            theta[index] = fit(sample, config).theta
    return np.asarray(theta - theta.mean(axis=1, keepdims=True), np.float64)


def _gradients(cells: Cells, result: Fit, weights: Floats, params: Floats) -> Floats:
    """Gradients of R losses at R parameter vectors: R x size."""
    layout = result.layout
    rounds, count = len(weights), layout.num_models
    eta = params.take(cells.left, axis=1)  # faster than params[:, cells.left]
    eta -= params.take(cells.right, axis=1)
    if layout.position:
        eta += params[:, [count]] * cells.side
    first = layout.first_feature
    if layout.num_features:
        eta += params[:, first : first + layout.num_features] @ cells.features.T
    left, right, tie = weights[:, :, 0], weights[:, :, 1], weights[:, :, 2]
    total = left + right + tie
    gradient = np.empty((rounds, layout.size))
    if layout.davidson:
        top = np.exp(np.clip(eta / 2, -350, 350))
        nu = np.exp(params[:, [-1]])
        scale = top + 1 / top + nu
        by_eta = (total * (top - 1 / top) / scale - (left - right)) / 2
        gradient[:, -1] = (total * nu / scale - tie).sum(axis=1)
    else:
        by_eta = total / (1 + np.exp(np.clip(-eta, -700, 700))) - left - tie / 2
    base = (np.arange(rounds) * count)[:, None]
    size, flat = rounds * count, by_eta.ravel()
    theta = summed((base + cells.left).ravel(), flat, size)
    theta -= summed((base + cells.right).ravel(), flat, size)
    gradient[:, :count] = theta.reshape(rounds, count)
    if layout.position:
        gradient[:, count] = by_eta @ cells.side
    if layout.num_features:
        gradient[:, first : first + layout.num_features] = by_eta @ cells.features
    return gradient
