"""What the votes say about the models: ratings, ranks, effects, pairs, and their limits.

`rate` is a pure function from a `VoteTable` to a `Leaderboard`. Ratings are
`1000 + 400/ln(10) · θ` with mean 1000. What the votes cannot support is said in a note and
marked at the model; its interval then comes from the penalty (wide), not from the votes.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum

import numpy as np
from threadpoolctl import threadpool_limits

from arena.ratings.anchoring import Anchors, anchors
from arena.ratings.bradley_terry import Fit, FitConfig, Ties, covariance_root, fit
from arena.ratings.connectivity import Connectivity, connectivity
from arena.ratings.intervals import (
    Z95,
    confidence,
    covariance,
    few_voters_factor,
    one_vote_more,
    ranks,
    side_uncertainty,
    votes_to_settle,
)
from arena.ratings.leaderboard import (
    EMPTY,
    POINTS,
    Effect,
    Leaderboard,
    PairStanding,
    Rating,
    effect,
    sigmoid,
)
from arena.ratings.notes import MIN_DECIDED, MIN_VOTERS, lost_note, notes, self_note, side_notes
from arena.ratings.resampling import bootstrap, percentiles, share_disconnected
from arena.ratings.vote_table import (
    BOTH_BAD,
    LEFT,
    RIGHT,
    TIE,
    Cells,
    Floats,
    Ints,
    VoteTable,
    pair_counts,
    to_cells,
    without_self,
)

MAX_PAIRED_MODELS = 40
"""Pairs are listed one by one up to this many models."""


class BothBad(StrEnum):
    """What a both-bad vote says about the two models' order."""

    TIE = "tie"
    DROP = "drop"


@dataclass(frozen=True)
class RatingConfig:
    """How votes become ratings; every default of the leaderboard is written here."""

    fit: FitConfig = field(default_factory=FitConfig)
    both_bad: BothBad = BothBad.TIE
    bootstrap: int = 0  # rounds; 0: intervals of ratings from the sandwich


def rate(table: VoteTable, config: RatingConfig | None = None) -> Leaderboard:
    """Fit the votes and say what they support. An empty table gives an empty leaderboard.

    The matrices are small: a second thread for them costs more than it does.
    """
    if not table.models:
        return EMPTY
    table, num_alone = without_self(table)
    if not table.models:
        return replace(EMPTY, notes=(*EMPTY.notes, *self_note(num_alone)))
    with threadpool_limits(1, user_api="blas"):
        board = _rate(table, config or RatingConfig())
    return replace(board, notes=(*board.notes, *self_note(num_alone)))


def _rate(table: VoteTable, config: RatingConfig) -> Leaderboard:
    kept = _kept(table, config)
    cells = to_cells(kept)
    links = connectivity(cells)
    result = fit(cells, config.fit)
    num_voters = _num_voters(kept) or 0
    clustered = num_voters >= MIN_VOTERS
    v = covariance(result, cells, kept, clustered=clustered)
    if clustered:
        v *= few_voters_factor(num_voters)
    beside = side_uncertainty(result, cells, config.fit)
    v = v + beside
    least = one_vote_more(result, config.fit, len(kept))
    counts = pair_counts(table)
    thin = _few_decided(table.models, counts)
    reference = anchors(links, [model in thin for model in table.models])
    wide = (~reference.fixed).tolist()
    theta = reference.shift @ result.theta
    half = Z95 * np.sqrt(np.maximum(_honest_variance(result, v, least, reference), 0))
    bounds = theta - half, theta + half
    lost = 0.0
    if config.bootstrap and len(kept):
        extra = Z95**2 * (_variance(beside, reference) + _variance(least, reference))
        bounds, lost = _resampled_bounds(
            kept, cells, config, result, bounds, reference, clustered, extra
        )
    wins, numbers = win_matrix(counts)
    variances = gap_variances(result, v, least, links, reference)
    own = np.maximum(np.diag(v), np.diag(least))
    return Leaderboard(
        ratings=_ratings(table.models, counts, theta, bounds, links, wide),
        position=_position(result, own),
        style=_style(kept, result, own),
        pairs=_pairs(kept, result, variances, links, thin, numbers),
        gap_variances=tuple(tuple(row) for row in variances.tolist()),
        models=table.models,
        win_matrix=tuple(tuple(row) for row in wins.tolist()),
        count_matrix=tuple(tuple(row) for row in numbers.tolist()),
        num_votes=len(kept),
        num_voters=_num_voters(kept),
        clustered=clustered,
        tie_parameter=result.nu,
        nll=result.nll,
        converged=result.converged,
        notes=(
            *notes(kept, config.fit, result, links, reference, thin, clustered=clustered),
            *side_notes(kept, cells, config.fit, result),
            *lost_note(lost),
        ),
    )


def win_matrix(counts: Ints) -> tuple[Floats, Ints]:
    """Wins of row over column (ties and both-bad votes half each), and numbers of votes.

    `counts` as of `pair_counts`.
    """
    wins = counts @ np.array([1.0, 0.0, 0.5, 0.5]) + (counts @ np.array([0.0, 1.0, 0.5, 0.5])).T
    numbers = counts.sum(axis=2)
    return wins, numbers + numbers.T


def _kept(table: VoteTable, config: RatingConfig) -> VoteTable:
    """The rows that the fit uses, weights scaled to mean one, voters numbered densely."""
    mask = np.ones(len(table), dtype=bool)
    if config.both_bad is BothBad.DROP:
        mask &= table.outcome != BOTH_BAD
    if config.fit.ties is Ties.DROP:
        mask &= table.outcome < TIE
    kept = table if mask.all() else table.where(mask)
    if len(kept):
        kept = replace(kept, weight=kept.weight / kept.weight.mean())
    if kept.cluster is not None:
        seen = np.bincount(kept.cluster) > 0
        kept = replace(kept, cluster=(np.cumsum(seen) - 1)[kept.cluster])
    return kept


def _num_voters(table: VoteTable) -> int | None:
    if table.cluster is None:
        return None
    return int(table.cluster.max(initial=-1)) + 1


def _few_decided(models: tuple[str, ...], counts: Ints) -> list[str]:
    """Models with fewer than MIN_DECIDED votes for or against them."""
    decided = _count(counts, LEFT, RIGHT) + _count(counts, RIGHT, LEFT)
    return [model for i, model in enumerate(models) if decided[i] < MIN_DECIDED]


def _variance(v: Floats, reference: Anchors) -> Floats:
    """Variance of each rating's strength, from the covariance of all parameters."""
    count = len(reference.fixed)
    return reference.variance(v[:count, :count])


def _honest_variance(result: Fit, v: Floats, least: Floats, reference: Anchors) -> Floats:
    """Variance of each rating's strength, `least` or more; where the votes do not fix it, at least
    the penalty's.
    """
    variance = np.maximum(_variance(v, reference), _variance(least, reference))
    if reference.fixed.all():
        return variance
    penalty = _variance(covariance_root(result), reference)
    return np.where(reference.fixed, variance, np.maximum(variance, penalty))


def _resampled_bounds(
    table: VoteTable,
    cells: Cells,
    config: RatingConfig,
    result: Fit,
    sandwich: tuple[Floats, Floats],
    reference: Anchors,
    clustered: bool,
    extra: Floats,
) -> tuple[tuple[Floats, Floats], float]:
    """Percentiles of refits, and the share of resamples that no longer fix all gaps. A model that
    the votes do not fix keeps the wider of both intervals. `extra`: squares of half widths that
    no resample shows.
    """
    rounds = bootstrap(
        cells, table, config.fit, result, num_rounds=config.bootstrap, clustered=clustered
    )
    lower, upper = percentiles(rounds @ reference.shift.T)
    middle = reference.shift @ result.theta
    lower = middle - np.sqrt((middle - np.minimum(lower, middle)) ** 2 + extra)
    upper = middle + np.sqrt((np.maximum(upper, middle) - middle) ** 2 + extra)
    lower = np.where(reference.fixed, lower, np.minimum(lower, sandwich[0]))
    upper = np.where(reference.fixed, upper, np.maximum(upper, sandwich[1]))
    lost = share_disconnected(
        cells, table, num_rounds=config.bootstrap, seed=0, clustered=clustered
    )
    return (lower, upper), lost


def _ratings(
    models: tuple[str, ...],
    votes: Ints,
    theta: Floats,
    bounds: tuple[Floats, Floats],
    links: Connectivity,
    wide: list[bool],
) -> tuple[Rating, ...]:
    lower, upper = bounds
    best, worst = ranks(lower, upper, links.component)
    counts = {
        "num_wins": _count(votes, LEFT, RIGHT),
        "num_losses": _count(votes, RIGHT, LEFT),
        "num_ties": _count(votes, TIE, TIE),
        "num_both_bad": _count(votes, BOTH_BAD, BOTH_BAD),
    }
    lines = [
        Rating(
            model=model,
            rating=1000 + POINTS * float(theta[i]),
            lower=1000 + POINTS * float(lower[i]),
            upper=1000 + POINTS * float(upper[i]),
            rank=int(best[i]),
            worst_rank=int(worst[i]),
            num_battles=sum(int(column[i]) for column in counts.values()),
            component=int(links.component[i]),
            determined=not wide[i],
            **{name: int(column[i]) for name, column in counts.items()},
        )
        for i, model in enumerate(models)
    ]
    size = np.bincount(links.component, weights=[line.num_battles for line in lines])
    return tuple(
        sorted(
            lines,
            key=lambda line: (-size[line.component], line.component, -line.rating, line.model),
        )
    )


def _count(votes: Ints, as_left: int, as_right: int) -> Ints:
    """Votes per model with this outcome seen from the left, or that one from the right."""
    return np.asarray(votes[:, :, as_left].sum(axis=1) + votes[:, :, as_right].sum(axis=0))


def _position(result: Fit, variance: Floats) -> Effect | None:
    if result.position is None:
        return None
    return effect("left side", result.position, float(variance[result.layout.num_models]))


def _style(table: VoteTable, result: Fit, variance: Floats) -> tuple[Effect, ...]:
    first = result.layout.first_feature
    return tuple(
        effect(name, float(result.gamma[i]), float(variance[first + i]))
        for i, name in enumerate(table.feature_names)
    )


def _pairs(
    table: VoteTable,
    result: Fit,
    variances: Floats,
    links: Connectivity,
    thin: list[str],
    counts: Ints,
) -> tuple[PairStanding, ...]:
    """Pairs that the votes connect, better model first; none when there are too many."""
    size = len(table.models)
    if size > MAX_PAIRED_MODELS:
        return ()
    tie_share = float((table.outcome >= TIE).mean()) if len(table) else 0.0
    pairs = []
    for i in range(size):
        for j in range(size):
            gap = float(result.theta[i] - result.theta[j])
            if i == j or gap < 0 or (gap == 0 and i > j):
                continue
            if links.component[i] != links.component[j]:
                continue
            variance = float(variances[i, j])
            pairs.append(
                PairStanding(
                    model=table.models[i],
                    other=table.models[j],
                    gap=POINTS * gap,
                    p_better=confidence(gap, variance),
                    win_rate=sigmoid(gap),
                    num_battles=int(counts[i, j]),
                    more_votes=votes_to_settle(gap, variance, tie_share),
                    supported=table.models[i] not in thin and table.models[j] not in thin,
                )
            )
    return tuple(sorted(pairs, key=lambda pair: -pair.gap))


def gap_variances(
    result: Fit, v: Floats, least: Floats, links: Connectivity, reference: Anchors
) -> Floats:
    """Variance of θ_i - θ_j, shape (models, models): Var i + Var j - 2 Cov(i, j).

    `v` is the covariance that the votes give, and `least` what it never falls below. Where they do
    not fix a gap, since one of the two is held by the penalty or no chain of votes joins them, it
    is at least what the penalty leaves.
    """
    given, prior, floor = (_differences(m) for m in (v, covariance_root(result), least))
    given = np.maximum(given, floor)
    apart = links.component[:, None] != links.component[None, :]
    loose = apart | ~reference.fixed[:, None] | ~reference.fixed[None, :]
    size = len(links.component)
    given, prior = given[:size, :size], prior[:size, :size]
    return np.asarray(np.where(loose, np.maximum(given, prior), given))


def _differences(v: Floats) -> Floats:
    own = np.diag(v)
    return np.asarray(own[:, None] + own[None, :] - 2 * v)
