"""Ratings: published worked examples, known truths, and votes that support nothing."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from arena.ratings import BothBad, RatingConfig, rate
from arena.ratings.anchoring import anchors
from arena.ratings.bradley_terry import FitConfig, Ties, fit
from arena.ratings.connectivity import connectivity
from arena.ratings.intervals import (
    Z95,
    confidence,
    covariance,
    few_voters_factor,
    ranks,
    votes_to_settle,
)
from arena.ratings.leaderboard import POINTS
from arena.ratings.resampling import bootstrap, percentiles
from arena.ratings.vote_table import (
    LEFT,
    RIGHT,
    TIE,
    Cells,
    TableError,
    VoteTable,
    table_from_columns,
    to_cells,
)

Games = list[tuple[str, str, int, int, int]]
OUTCOMES = ("model_a", "tie", "model_b")

# 22 games of four players, a worked example of the model with published strengths.
PUBLISHED: Games = [
    ("A", "B", 2, 0, 3),
    ("A", "D", 1, 0, 4),
    ("B", "C", 5, 0, 3),
    ("C", "D", 1, 0, 3),
]
# 360 votes with ties and an advantage of the left side; values computed independently.
THREE: Games = [
    ("0", "1", 30, 10, 20),
    ("1", "0", 25, 10, 25),
    ("0", "2", 35, 8, 17),
    ("2", "0", 20, 12, 28),
    ("1", "2", 28, 14, 18),
    ("2", "1", 22, 12, 26),
]
NO_RIDGE = FitConfig(ridge=0, side_ridge=0)


def table_of(games: Games) -> VoteTable:
    """A vote per game: (left, right, left wins, ties, right wins)."""
    rows = [
        (left, right, outcome)
        for left, right, *counts in games
        for outcome, count in zip(OUTCOMES, counts, strict=True)
        for _ in range(count)
    ]
    return table_from_columns(*(list(column) for column in zip(*rows, strict=True)))


def simulated(
    num_models: int,
    num_votes: int,
    *,
    seed: int,
    side: float = 0.0,
    style: float = 0.0,
    nu: float = 0.0,
    spread: float = 0.7,
) -> tuple[VoteTable, np.ndarray]:
    """Votes of models with known strengths (mean zero), by Davidson's model.

    Strength, side and style act on P(left)/P(right); `nu` sets how many ties there are.
    """
    draw = np.random.default_rng(seed)
    theta = draw.normal(scale=spread, size=num_models)
    theta -= theta.mean()
    left = draw.integers(num_models, size=num_votes)
    right = (left + draw.integers(1, num_models, size=num_votes)) % num_models
    # Style goes with strength, as in life: the stronger model writes longer answers.
    z = draw.normal(size=num_votes) + theta[left] - theta[right]
    z /= z.std()
    eta = theta[left] - theta[right] + side + style * z
    weights = np.stack([np.exp(eta / 2), np.exp(-eta / 2), np.full(num_votes, nu)])
    shares = np.cumsum(weights / weights.sum(axis=0), axis=0)
    outcome = (draw.random(num_votes) > shares).sum(axis=0)
    table = VoteTable(
        models=tuple(f"m{i:03}" for i in range(num_models)),
        left=left,
        right=right,
        outcome=outcome,
        weight=np.ones(num_votes),
        features=z[:, None] if style else None,
        feature_names=("length",) if style else (),
    )
    return table, theta


def counted(
    num_models: int, num_votes: int, seed: int, spread: float = 0.7
) -> tuple[Cells, np.ndarray]:
    """As `simulated` with a side effect of 0.2 and no ties, drawn as numbers of wins of each
    ordered pair: as many votes as one likes.
    """
    draw = np.random.default_rng(seed)
    theta = draw.normal(scale=spread, size=num_models)
    theta -= theta.mean()
    left, right = np.nonzero(~np.eye(num_models, dtype=bool))
    votes = draw.multinomial(num_votes, np.full(len(left), 1 / len(left)))
    wins = draw.binomial(votes, 1 / (1 + np.exp(theta[right] - theta[left] - 0.2)))
    weight = np.stack([wins, votes - wins, np.zeros_like(wins)], axis=1).astype(float)
    features, rows = np.zeros((len(left), 0)), np.zeros(0, dtype=np.int64)
    side = np.ones(len(left))
    return Cells(num_models, left, right, weight, weight, features, rows, side), theta


def test_the_published_example() -> None:
    cells = to_cells(table := table_of(PUBLISHED))
    result = fit(cells, replace(NO_RIDGE, position=False))
    assert np.exp(result.theta) == pytest.approx([0.640, 1.043, 0.660, 2.270], abs=6e-4)
    ratings = 1000 + POINTS * result.theta
    assert ratings == pytest.approx([922.427, 1007.366, 927.768, 1142.439], abs=1e-3)
    assert result.nll == pytest.approx(13.42845, abs=1e-5)
    v = covariance(result, cells, table, clustered=False)
    errors = POINTS * np.sqrt(np.diag(v))
    assert errors == pytest.approx([94.562, 84.193, 91.753, 108.395], abs=1e-3)
    gap = result.theta[3] - result.theta[0]
    variance = v[3, 3] + v[0, 0] - 2 * v[0, 3]
    assert confidence(gap, variance) == pytest.approx(0.9220, abs=1e-4)
    half = Z95 * np.sqrt(np.diag(v))
    assert ranks(result.theta - half, result.theta + half)[0].tolist() == [1, 1, 1, 1]


def test_the_penalty_belongs_to_the_sum_of_losses() -> None:
    result = fit(to_cells(table_of(PUBLISHED)), FitConfig(ridge=0.5, position=False))
    ratings = 1000 + POINTS * result.theta
    assert ratings == pytest.approx([931.573, 1014.516, 937.496, 1116.415], abs=1e-3)
    for ridge, points in ((0.5, 459.83), (1.0, 369.68)):
        theta = fit(to_cells(table_of([("A", "B", 10, 0, 0)])), FitConfig(ridge=ridge)).theta
        assert POINTS * (theta[0] - theta[1]) == pytest.approx(points, abs=0.01)


def test_ties_as_half_wins_with_a_side_effect() -> None:
    cells = to_cells(table := table_of(THREE))
    result = fit(cells, NO_RIDGE)
    ratings = 1000 + POINTS * result.theta
    assert ratings == pytest.approx([1035.331, 1003.926, 960.743], abs=1e-3)
    assert result.position == pytest.approx(0.14805, abs=1e-5)
    v = covariance(result, cells, table, clustered=False)
    assert POINTS * np.sqrt(np.diag(v))[:3] == pytest.approx([13.807, 13.549, 13.632], abs=1e-3)
    assert math.sqrt(v[3, 3]) == pytest.approx(0.09634, abs=1e-5)


def test_ties_after_davidson_with_a_side_effect() -> None:
    result = fit(to_cells(table_of(THREE)), replace(NO_RIDGE, ties=Ties.DAVIDSON))
    ratings = 1000 + POINTS * result.theta
    assert ratings == pytest.approx([1043.499, 1004.834, 951.668], abs=1e-3)
    assert result.position == pytest.approx(0.1824, abs=1e-4)
    assert result.nu == pytest.approx(0.45866, abs=1e-5)
    assert result.nll == pytest.approx(369.118281, abs=1e-6)


def test_sixty_twenty_twenty_by_hand() -> None:
    """60 wins, 20 ties, 20 losses: half-win gap ln(7/3), Davidson ln 3 with ν = 20/√1200."""
    table = table_of([("A", "B", 60, 20, 20)])
    config = replace(NO_RIDGE, position=False)
    cells = to_cells(table)
    half = fit(cells, config)
    assert half.theta[0] - half.theta[1] == pytest.approx(math.log(7 / 3))
    v = covariance(half, cells, table, clustered=False)
    assert math.sqrt(v[0, 0] + v[1, 1] - 2 * v[0, 1]) == pytest.approx(0.19048, abs=1e-5)
    davidson = fit(cells, replace(config, ties=Ties.DAVIDSON))
    assert davidson.theta[0] - davidson.theta[1] == pytest.approx(math.log(3))
    assert davidson.nu == pytest.approx(20 / math.sqrt(1200))
    dropped = rate(table, RatingConfig(replace(config, ties=Ties.DROP)))
    assert dropped.pairs[0].gap == pytest.approx(POINTS * math.log(3))
    assert dropped.num_votes == 80


def test_seventy_left_and_fifty_right_is_a_side_effect() -> None:
    """A wins 70 % on the left and 50 % on the right: gap and side effect are half of logit .7."""
    table = table_of([("A", "B", 70, 0, 30), ("B", "A", 50, 0, 50)])
    board = rate(table, RatingConfig(NO_RIDGE))
    assert board.position is not None
    assert board.position.log_odds == pytest.approx(math.log(0.7 / 0.3) / 2)
    assert board.position.win_share == pytest.approx(0.6044, abs=1e-4)
    assert board.pairs[0].gap == pytest.approx(73.6, abs=0.05)


def test_swapping_all_sides_flips_the_side_effect_only() -> None:
    table = table_of(THREE)
    other = np.array([1, 0, 2, 3])[table.outcome]  # a win of the left is one of the right
    one = rate(table)
    two = rate(replace(table, left=table.right, right=table.left, outcome=other))
    assert one.position is not None
    assert two.position is not None
    assert two.position.log_odds == pytest.approx(-one.position.log_odds)
    assert [r.rating for r in two.ratings] == pytest.approx([r.rating for r in one.ratings])


def test_repeating_votes_within_voters_does_not_narrow_the_intervals() -> None:
    table, _ = simulated(4, 400, seed=1)
    voters = np.arange(400) // 4
    once = rate(replace(table, cluster=voters))
    twice = rate(
        VoteTable(
            table.models,
            *(np.concatenate([c, c]) for c in (table.left, table.right, table.outcome)),
            weight=np.ones(800),
            cluster=np.concatenate([voters, voters]),
        )
    )
    assert once.clustered
    for first, second in zip(once.ratings, twice.ratings, strict=True):
        width = second.upper - second.lower
        assert width == pytest.approx(first.upper - first.lower, rel=0.01)


def test_clusters_equal_the_plain_sum_over_voters() -> None:
    """Against the definition, voter by voter, with dense matrices."""
    table, _ = simulated(5, 300, seed=2, side=0.3, style=0.2, nu=0.5)
    table = replace(table, cluster=np.random.default_rng(0).integers(40, size=300))
    cells = to_cells(table)
    result = fit(cells, FitConfig(ties=Ties.DAVIDSON))
    design = np.zeros((300, result.layout.size))
    design[np.arange(300), table.left] = 1
    design[np.arange(300), table.right] = -1
    design[:, 5] = 1
    design[:, 6] = table.features[:, 0]  # type: ignore[index]
    scores = np.zeros_like(design)
    for i in range(300):
        outcome = table.outcome[i]
        scores[i] = design[i] * result.values.score_eta[i, outcome]
        scores[i, 7] = result.values.score_nu[i, outcome]
    sums = np.stack([scores[table.cluster == c].sum(axis=0) for c in range(40)])
    inverse = np.linalg.pinv(result.hessian)
    expected = inverse @ (sums.T @ sums * 40 / 39) @ inverse
    assert covariance(result, cells, table, clustered=True) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("num_models", "num_votes"), [(2, 100), (2, 2_000), (20, 20_000), (200, 1_000_000)]
)
def test_strengths_and_side_effect_are_found(num_models: int, num_votes: int) -> None:
    table, theta = simulated(num_models, num_votes, seed=num_votes, side=0.2)
    board = rate(table)
    found = {line.model: line for line in board.ratings}
    inside = [
        found[model].lower <= 1000 + POINTS * theta[i] <= found[model].upper
        for i, model in enumerate(table.models)
    ]
    assert np.mean(inside) >= 0.9
    assert board.position is not None
    error = (board.position.upper - board.position.log_odds) / Z95
    assert abs(board.position.log_odds - 0.2) < 2 * error
    assert board.converged


def test_the_error_shrinks_with_the_root_of_the_number_of_votes() -> None:
    def error(num_votes: int) -> float:
        squares = []
        for seed in range(20):
            table, theta = simulated(6, num_votes, seed=seed)
            squares.append(((fit(to_cells(table), FitConfig()).theta - theta) ** 2).mean())
        return math.sqrt(np.mean(squares))

    assert error(1_000) / error(16_000) == pytest.approx(4, rel=0.25)


@pytest.mark.parametrize(
    ("num_models", "fewest", "rounds"), [(2, 100, 300), (20, 1_000, 40), (200, 10_000, 6)]
)
def test_a_hundred_times_the_votes_make_a_tenth_of_the_error(
    num_models: int, fewest: int, rounds: int
) -> None:
    def error(num_votes: int) -> float:
        squares = []
        for seed in range(rounds):
            # Of two unlike models, a hundred votes may hold no loss of the better.
            cells, theta = counted(num_models, num_votes, seed, spread=0.35)
            squares.append(((fit(cells, FitConfig()).theta - theta) ** 2).mean())
        return math.sqrt(np.mean(squares))

    errors = [error(num_votes) for num_votes in (fewest, 100 * fewest)]
    assert errors[0] / errors[1] == pytest.approx(10, rel=0.25)
    if num_models == 2:
        assert errors[1] / error(1_000_000) == pytest.approx(10, rel=0.25)


@pytest.mark.slow
@pytest.mark.parametrize("num_models", [2, 20, 200])
def test_intervals_of_a_million_votes_cover_the_truth(num_models: int) -> None:
    """400 repetitions: 93 to 97 % of the intervals hold the true strengths and side effect."""
    nobody = table_from_columns([], [], [])
    inside, beside = [], []
    for seed in range(400):
        cells, theta = counted(num_models, 1_000_000, seed)
        result = fit(cells, FitConfig())
        v = covariance(result, cells, nobody, clustered=False)
        half = Z95 * np.sqrt(np.diag(v))
        inside.append(np.mean(np.abs(result.theta - theta) <= half[:num_models]))
        assert result.position is not None
        beside.append(abs(result.position - 0.2) <= half[num_models])
    assert 0.93 <= np.mean(inside) <= 0.97
    assert 0.93 <= np.mean(beside) <= 0.97


def test_style_and_side_are_found_within_their_errors() -> None:
    """Of 40 estimates each, 95 % lie within two standard errors; 5 out of 40 may miss."""
    boards = [rate(simulated(8, 5_000, seed=i, style=0.25, side=0.1)[0]) for i in range(40)]
    for effects, truth in (
        ([board.style[0] for board in boards], 0.25),
        ([board.position for board in boards], 0.1),
    ):
        errors = [(e.log_odds - truth) / ((e.upper - e.log_odds) / Z95) for e in effects if e]
        assert len(errors) == 40
        assert np.mean(np.abs(errors) < 2) >= 0.875
        assert abs(np.mean(errors)) < 0.6


def test_style_is_told_from_strength() -> None:
    table, theta = simulated(8, 40_000, seed=4, style=0.25, side=0.1)
    controlled = rate(table)
    plain = rate(replace(table, features=None, feature_names=()))

    def error(board: object) -> float:
        found = {line.model: line.rating for line in board.ratings}  # type: ignore[attr-defined]
        gaps = [found[m] - 1000 - POINTS * theta[i] for i, m in enumerate(table.models)]
        return float(np.sqrt(np.mean(np.square(gaps))))

    assert error(controlled) < 8 < error(plain)


@pytest.mark.slow
@pytest.mark.parametrize("ties", [Ties.HALF, Ties.DAVIDSON])
@pytest.mark.parametrize(
    ("num_models", "num_votes", "num_voters"),
    [(2, 100, 20), (5, 1_000, 100), (20, 10_000, 100), (100, 10_000, 100)],
)
def test_intervals_cover_the_truth(
    num_models: int, num_votes: int, num_voters: int, ties: Ties
) -> None:
    """400 repetitions: 93 to 97 % of the intervals hold the true strengths and side effect."""
    nu = 0.6 if ties is Ties.DAVIDSON else 0.0
    config = RatingConfig(FitConfig(ties=ties))
    voters = np.arange(num_votes) % num_voters
    inside, beside = [], []
    for seed in range(400):
        table, theta = simulated(num_models, num_votes, seed=seed, side=0.2, nu=nu)
        board = rate(replace(table, cluster=voters), config)
        lines = {line.model: line for line in board.ratings}
        for i, model in enumerate(table.models):
            truth = 1000 + POINTS * theta[i]
            inside.append(lines[model].lower <= truth <= lines[model].upper)
        assert board.position is not None
        beside.append(board.position.lower <= 0.2 <= board.position.upper)
    assert 0.93 <= np.mean(inside) <= 0.97
    # The middle of its prior is near the truth: with few votes it is held more often than 95 %.
    most = 0.99 if num_votes == 100 else 0.97
    assert 0.93 <= np.mean(beside) <= most


@pytest.mark.parametrize(("voters", "t"), [(10, 2.262), (20, 2.093), (30, 2.045), (101, 1.984)])
def test_few_voters_widen_by_students_distribution(voters: int, t: float) -> None:
    """Against the printed table of Student's distribution, 97.5 %."""
    assert Z95 * math.sqrt(few_voters_factor(voters)) == pytest.approx(t, abs=6e-4)


def test_bootstrap_agrees_with_the_sandwich() -> None:
    table, _ = simulated(6, 6_000, seed=5, side=0.2, nu=0.4)
    table = replace(table, cluster=np.arange(6_000) % 300)
    cells = to_cells(table)
    for ties in (Ties.HALF, Ties.DAVIDSON):
        config = FitConfig(ties=ties)
        result = fit(cells, config)
        for clustered in (True, False):
            errors = np.sqrt(np.diag(covariance(result, cells, table, clustered=clustered)))[:6]
            rounds = bootstrap(cells, table, config, result, num_rounds=600, clustered=clustered)
            assert rounds.std(axis=0) == pytest.approx(errors, rel=0.15)
            lower, upper = percentiles(rounds)
            assert np.all((lower < result.theta) & (result.theta < upper))


def test_a_bootstrap_round_is_the_exact_refit() -> None:
    """One round, solved again by Newton's method from nothing."""
    table, _ = simulated(4, 200, seed=6, side=0.3)
    cells = to_cells(table)
    config = FitConfig()
    rounds = bootstrap(cells, table, config, fit(cells, config), num_rounds=20, clustered=False)
    draw = np.random.default_rng(0)
    for theta in rounds:
        weight = draw.poisson(cells.weight).astype(float)
        refit = fit(replace(cells, weight=weight), config)
        assert theta == pytest.approx(refit.theta, abs=1e-5)


def test_ranks_by_intervals() -> None:
    lower, upper = np.array([1040, 1030, 990, 900.0]), np.array([1080, 1060, 1035, 985.0])
    best, worst = ranks(lower, upper)
    assert best.tolist() == [1, 1, 2, 4]
    assert worst.tolist() == [2, 3, 3, 4]


@pytest.mark.parametrize(("points", "votes"), [(10, 9482), (20, 2376), (50, 387), (100, 103)])
def test_votes_needed_for_a_gap(points: int, votes: int) -> None:
    assert votes_to_settle(points / POINTS, 1e12, 0.0) == pytest.approx(votes, abs=1)
    assert votes_to_settle(points / POINTS, 1e12, 0.5) == pytest.approx(2 * votes, abs=2)


def test_votes_needed_are_none_for_equals_and_zero_when_settled() -> None:
    assert votes_to_settle(0.0, 1.0, 0.0) is None
    assert votes_to_settle(1e-4, 1.0, 0.0) is None
    assert votes_to_settle(1.0, 0.01, 0.0) == 0


@pytest.mark.parametrize(
    "votes",
    [
        {("h", "a"): 400, ("h", "b"): 100},  # a star; a and b never met
        {("a", "b"): 400, ("b", "c"): 100, ("c", "d"): 300},  # a chain
        {
            ("a", "b"): 600,
            ("b", "c"): 200,
            ("a", "c"): 200,
            ("c", "d"): 100,
        },  # a circle with a tail
    ],
)
def test_variance_of_a_gap_counts_what_moves_together(votes: dict[tuple[str, str], int]) -> None:
    """Equals won half each: the effective resistance between them, n votes conducting n / 4."""
    games = [(i, j, n // 4, 0, n // 4) for i, j in votes for n in [votes[i, j]]]
    games += [(j, i, n // 4, 0, n // 4) for i, j in votes for n in [votes[i, j]]]
    board = rate(table_of(games))
    place = {name: number for number, name in enumerate(board.models)}
    laplacian = np.zeros((len(place), len(place)))
    for (i, j), n in votes.items():
        edge = np.zeros(len(place))
        edge[place[i]], edge[place[j]] = 1, -1
        laplacian += n / 4 * np.outer(edge, edge)
    inverse = np.linalg.pinv(laplacian)
    own = np.diag(inverse)
    expected = own[:, None] + own[None, :] - 2 * inverse
    # The weak penalty of every strength takes a little off.
    assert np.asarray(board.gap_variances) == pytest.approx(expected, rel=0.02, abs=1e-9)


def test_groups_never_compared_are_said_not_ranked() -> None:
    board = rate(table_of([("A", "B", 30, 0, 20), ("C", "D", 30, 0, 20)]))
    assert {line.component for line in board.ratings} == {0, 1}
    assert {line.rank for line in board.ratings} == {1}
    assert {frozenset((pair.model, pair.other)) for pair in board.pairs} == {
        frozenset("AB"),
        frozenset("CD"),
    }
    assert any("2 groups that were never compared" in note for note in board.notes)


def test_a_group_apart_changes_nothing_of_the_others() -> None:
    """Two models that met only each other, once: the others keep their intervals and ranks."""
    games = [("A", "B", 60, 0, 20), ("B", "C", 60, 0, 20), ("C", "A", 15, 0, 65)]
    config = RatingConfig(FitConfig(position=False))
    alone = rate(table_of(games), config)
    beside = rate(table_of([("X", "Y", 1, 0, 0), *games]), config)
    assert [line.model for line in beside.ratings] == ["A", "B", "C", "X", "Y"], "by group"
    for one, two in zip(alone.ratings, beside.ratings, strict=False):
        assert (two.rating, two.lower, two.upper) == pytest.approx(
            (one.rating, one.lower, one.upper), abs=1e-6
        )
        assert (two.rank, two.worst_rank, two.determined) == (one.rank, one.worst_rank, True)
    assert [line.rank for line in alone.ratings] == [1, 2, 3]
    apart = beside.ratings[3:]
    assert [(line.rank, line.worst_rank, line.determined) for line in apart] == [(1, 2, False)] * 2
    assert all(line.upper - line.lower > 400 for line in apart)


@pytest.mark.parametrize("newcomer", [("X", "A", 1, 0, 0), ("X", "A", 0, 0, 40)])
def test_a_model_that_the_votes_do_not_fix_leaves_the_others_as_they_are(
    newcomer: tuple[str, str, int, int, int],
) -> None:
    """One that won its only vote; one that never won. 1000 is the mean of those that are fixed."""
    games = [("A", "B", 60, 0, 20), ("B", "C", 60, 0, 20), ("C", "A", 15, 0, 65)]
    config = RatingConfig(FitConfig(position=False))
    alone = {line.model: line for line in rate(table_of(games), config).ratings}
    board = rate(table_of([*games, newcomer]), config)
    beside = {line.model: line for line in board.ratings}
    for model, line in alone.items():
        found = beside[model]
        assert found.determined
        assert (found.rating, found.lower, found.upper) == pytest.approx(
            (line.rating, line.lower, line.upper), abs=6
        )
    assert np.mean([beside[model].rating for model in alone]) == pytest.approx(1000)
    assert not beside["X"].determined
    assert beside["X"].upper - beside["X"].lower > 300
    (note,) = (note for note in board.notes if note.code == "loose")
    assert note.values["models"] == "X"


def test_an_undefeated_model_stays_finite_wide_and_marked() -> None:
    board = rate(table_of([("A", "B", 10, 0, 0), ("B", "C", 6, 0, 5)]))
    best = board.ratings[0]
    assert (best.model, best.determined) == ("A", False)
    assert 1000 < best.rating < 2000
    assert best.upper - best.lower > 400
    assert any("do not determine the rating of A" in note for note in board.notes)


def test_ties_alone_give_no_narrow_interval() -> None:
    board = rate(table_of([("A", "B", 0, 20, 0)]))
    assert [line.rating for line in board.ratings] == [1000, 1000]
    assert all(line.upper - line.lower > 50 for line in board.ratings)
    assert any("Fewer than 5 decisive votes" in note for note in board.notes)


def test_one_vote_one_model_and_none() -> None:
    one = rate(table_of([("A", "B", 1, 0, 0)]))
    assert [line.rank for line in one.ratings] == [1, 1]
    assert one.position is None
    alone = rate(table_of([("A", "A", 2, 1, 1)]))
    assert alone.ratings == ()  # a model against itself
    empty = rate(table_from_columns([], [], []))
    assert empty.ratings == ()
    assert empty.notes


def test_both_bad_is_counted_apart_and_may_be_dropped() -> None:
    table = table_from_columns(["A"] * 4, ["B"] * 4, ["model_a", "both_bad", "both_bad", "tie"])
    line = rate(table).ratings[0]
    assert (line.num_wins, line.num_ties, line.num_both_bad, line.num_battles) == (1, 1, 2, 4)
    dropped = rate(table, RatingConfig(both_bad=BothBad.DROP))
    assert dropped.num_votes == 2
    assert dropped.ratings[0].num_both_bad == 2


def test_unknown_winners_and_bad_weights_are_errors() -> None:
    with pytest.raises(TableError, match="winner 'left' is unknown"):
        table_from_columns(["A"], ["B"], ["left"])
    with pytest.raises(TableError, match="None is no name"):
        table_from_columns(["A", None], ["B", "A"], ["tie", "tie"])  # type: ignore[list-item]
    with pytest.raises(TableError, match="differ in length"):
        table_from_columns(["A"], ["B", "C"], ["tie"])
    with pytest.raises(TableError, match="zero, negative"):
        table_from_columns(["A"], ["B"], ["tie"], weight=np.zeros(1))


def test_columns_may_come_from_arrow() -> None:
    columns = ["B", "A", "B"], ["A", "C", "C"], ["tie", "model_a", "model_b"]
    one = table_from_columns(*columns, voter=["y", "x", "y"])
    arrays = [pa.array(column) for column in columns]
    two = table_from_columns(*arrays, voter=pa.array(["y", "x", "y"]).dictionary_encode())
    for table in (one, two):
        assert table.models == ("A", "B", "C")
        assert (table.left.tolist(), table.right.tolist()) == ([1, 0, 1], [0, 2, 2])
        assert table.outcome.tolist() == [TIE, LEFT, RIGHT]
        assert table.cluster is not None
        assert table.cluster.tolist() == [0, 1, 0]
    assert len(table_from_columns(*([pa.array([], pa.string())] * 3))) == 0


def test_many_models_keep_their_names() -> None:
    """More names than a byte can number."""
    names = [f"model {i}" for i in range(300)]
    table = table_from_columns(names[:-1] * 2, names[1:] * 2, ["model_a"] * 598)
    assert table.models == tuple(sorted(names))
    assert [table.models[i] for i in table.left] == names[:-1] * 2
    assert [table.models[i] for i in table.right] == names[1:] * 2


def test_connectivity_of_a_chain_of_wins() -> None:
    links = connectivity(to_cells(table_of([("A", "B", 1, 0, 0), ("B", "C", 1, 1, 0)])))
    assert links.component.tolist() == [0, 0, 0]
    assert links.strong.tolist() == [0, 1, 1]
    held = anchors(links, [False, False, False])
    assert held.fixed.tolist() == held.connected.tolist() == [False, True, True]
    assert (held.shift @ np.array([5.0, 1.0, 3.0])).tolist() == [3.0, -1.0, 1.0], "from their mean"
    assert anchors(links, [False, True, False]).fixed.tolist() == [False] * 3
