"""Other programs on the same votes: where they compute the same thing, so do we.

evalica and choix run here. arena-rank needs JAX, which is larger than everything the tests
install, so its results are written down: arena-rank 0.1.1 with JAX 0.8.1,
`BradleyTerry(n, hessian_reg=1e-6, ftol=1e-15, gtol=1e-12)` on these very votes, and
`compute_ratings_and_cis(significance_level=0.05)`. `benchmarks/arena/ratings.py` runs it again.
"""

from __future__ import annotations

import choix
import evalica
import numpy as np
import pytest

from arena.ratings import RatingConfig, rate
from arena.ratings.bradley_terry import FitConfig, Ties, fit
from arena.ratings.leaderboard import POINTS
from arena.ratings.vote_table import LEFT, RIGHT, TIE, VoteTable, table_from_columns, to_cells

CLOSE = 0.01
"""Rating points."""

WINNERS = ("model_a", "tie", "model_b")
PLAIN = FitConfig(ridge=0, position=False)
# Left, right; votes for the left, ties, votes for the right.
FOUR = [("A", "B", 2, 0, 3), ("A", "D", 1, 0, 4), ("B", "C", 5, 0, 3), ("C", "D", 1, 0, 3)]
THREE = [
    *(("0", "1", 30, 10, 20), ("1", "0", 25, 10, 25), ("0", "2", 35, 8, 17)),
    *(("2", "0", 20, 12, 28), ("1", "2", 28, 14, 18), ("2", "1", 22, 12, 26)),
]
TWELVE = [
    (
        f"m{i:02}",
        f"m{(i + k) % 12:02}",
        20 + (7 * i + 5 * k) % 23,
        3 + i * k % 5,
        14 + (11 * i + 3 * k) % 19,
    )
    for i in range(12)
    for k in (1, 3, 5)
]
# Rating, lower and upper bound of arena-rank.
ARENA_RANK = {
    "four": [
        *((922.427, 737.091, 1107.764), (1007.366, 842.352, 1172.38)),
        *((927.768, 747.937, 1107.599), (1142.439, 929.992, 1354.886)),
    ],
    "three": [
        *((1035.141, 1008.119, 1062.163), (1003.905, 977.42, 1030.39)),
        (960.954, 934.311, 987.598),
    ],
    "twelve": [
        *((1009.675, 976.158, 1043.192), (1001.125, 967.581, 1034.669)),
        *((1006.122, 974.153, 1038.09), (970.494, 937.402, 1003.586)),
        *((999.663, 966.818, 1032.509), (1029.153, 995.569, 1062.738)),
        *((974.16, 941.195, 1007.125), (1005.43, 973.325, 1037.535)),
        *((1019.09, 984.798, 1053.382), (1026.326, 994.383, 1058.27)),
        *((973.5, 941.211, 1005.789), (985.262, 951.673, 1018.85)),
    ],
}
GAMES = {"four": FOUR, "three": THREE, "twelve": TWELVE}


def columns(name: str) -> tuple[list[str], list[str], list[str]]:
    """One line a vote: left, right, winner."""
    rows = [
        (left, right, winner)
        for left, right, *counts in GAMES[name]
        for winner, count in zip(WINNERS, counts, strict=True)
        for _ in range(count)
    ]
    left, right, winner = (list(column) for column in zip(*rows, strict=True))
    return left, right, winner


def many() -> VoteTable:
    """20,000 votes on 30 models of known strengths, a fifth of them ties."""
    draw = np.random.default_rng(8)
    theta = draw.normal(scale=0.8, size=30)
    left = draw.integers(30, size=20_000)
    right = (left + draw.integers(1, 30, size=20_000)) % 30
    wins = draw.random(20_000) < 1 / (1 + np.exp(theta[right] - theta[left]))
    outcome = np.where(draw.random(20_000) < 0.2, TIE, np.where(wins, LEFT, RIGHT))
    names = tuple(f"m{i:02}" for i in range(30))
    return VoteTable(names, left, right, outcome, np.ones(20_000))


def points(theta: np.ndarray) -> np.ndarray:
    """Strengths as ratings of mean 1000."""
    return np.asarray(1000 + POINTS * (theta - theta.mean()))


def evalica_winners(table: VoteTable) -> list[evalica.Winner]:
    """The words of evalica."""
    words = (evalica.Winner.X, evalica.Winner.Y, evalica.Winner.Draw, evalica.Winner.Draw)
    return [words[outcome] for outcome in table.outcome]


@pytest.mark.parametrize("name", sorted(GAMES))
def test_arena_rank_has_the_same_ratings_and_intervals(name: str) -> None:
    board = rate(table_from_columns(*columns(name)), RatingConfig(PLAIN))
    lines = sorted(board.ratings, key=lambda line: line.model)
    found = [(line.rating, line.lower, line.upper) for line in lines]
    assert np.array(found) == pytest.approx(np.array(ARENA_RANK[name]), abs=CLOSE)


@pytest.mark.parametrize("name", [*sorted(GAMES), "many"])
def test_evalica_has_the_same_ratings(name: str) -> None:
    table = many() if name == "many" else table_from_columns(*columns(name))
    left = [table.models[i] for i in table.left]
    right = [table.models[i] for i in table.right]
    found = evalica.bradley_terry(
        left, right, evalica_winners(table), tolerance=1e-13, limit=100_000
    )
    scores = np.log(found.scores[list(table.models)].to_numpy())
    ours = points(fit(to_cells(table), PLAIN).theta)
    assert ours == pytest.approx(points(scores), abs=CLOSE)


@pytest.mark.parametrize("name", ["three", "twelve", "many"])
def test_evalica_has_the_same_model_of_ties(name: str) -> None:
    """Newman's iteration maximises Davidson's likelihood."""
    table = many() if name == "many" else table_from_columns(*columns(name))
    left = [table.models[i] for i in table.left]
    right = [table.models[i] for i in table.right]
    found = evalica.newman(left, right, evalica_winners(table), tolerance=1e-13, limit=100_000)
    scores = np.log(found.scores[list(table.models)].to_numpy())
    ours = fit(to_cells(table), FitConfig(ridge=0, position=False, ties=Ties.DAVIDSON))
    assert points(ours.theta) == pytest.approx(points(scores), abs=CLOSE)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*sorted(GAMES), "many"])
def test_choix_has_the_same_ratings_with_and_without_a_penalty(name: str) -> None:
    """choix adds `alpha` times the sum of squares, which is half of our `ridge`."""
    table = many() if name == "many" else table_from_columns(*columns(name))
    table = table.where(table.outcome != TIE)
    wins = [
        (int(left), int(right)) if outcome == LEFT else (int(right), int(left))
        for left, right, outcome in zip(table.left, table.right, table.outcome, strict=True)
    ]
    size, cells = len(table.models), to_cells(table)
    free = choix.ilsr_pairwise(size, wins, tol=1e-11, max_iter=1_000)
    assert points(fit(cells, PLAIN).theta) == pytest.approx(points(free), abs=CLOSE)
    held = choix.opt_pairwise(size, wins, alpha=0.25, tol=1e-10)
    ridge = fit(cells, FitConfig(ridge=0.5, position=False))
    assert points(ridge.theta) == pytest.approx(points(held), abs=CLOSE)
