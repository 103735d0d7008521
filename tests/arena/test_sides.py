"""The advantage of the left side: told from strength where the votes can, left out where not."""

from __future__ import annotations

import importlib.util
import math
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from store_fixtures import BASE, FULL, LORA, Hand

from arena.ratings import RatingConfig, rate
from arena.ratings.bradley_terry import FitConfig
from arena.ratings.leaderboard import POINTS, Leaderboard
from arena.ratings.vote_table import VoteTable, table_from_columns
from arena.storage.rating_input import VoteFilter, read_rating_input
from arena.values.battle import Mode
from arena.values.vote import Judgement, Winner

Votes = list[tuple[str, str, str, int]]
BENCHMARK = Path(__file__).parents[2] / "benchmarks/arena/sides.py"


def table_of(votes: Votes) -> VoteTable:
    """From (left, right, winner, number)."""
    rows = [row[:3] for row in votes for _ in range(row[3])]
    return table_from_columns(*(list(column) for column in zip(*rows, strict=True)))


def order_of(board: Leaderboard) -> list[str]:
    """Models by rating; none of them with an interval of no width."""
    for line in board.ratings:
        assert line.upper - line.lower > 1, line
    for row in board.gap_variances:
        assert sum(value <= 0 for value in row) == 1  # only a model's gap to itself
    return [line.model for line in board.ratings]


def codes(board: Leaderboard) -> set[str]:
    """What is said about the votes."""
    return {note.code for note in board.notes}


@pytest.mark.parametrize(
    ("votes", "better"),
    [
        ([("alpha", "beta", "model_a", 15), ("alpha", "beta", "model_b", 1)], "alpha"),
        ([("new", "old", "model_a", 320), ("new", "old", "model_b", 80)], "new"),
        ([("old", "new", "model_a", 90), ("old", "new", "model_b", 10)], "old"),
        (
            [("a", "b", "model_a", 2), ("a", "b", "model_b", 1), ("a", "b", "tie", 1)],
            "a",
        ),
        ([("b", "a", "model_b", 3), ("b", "a", "model_a", 2), ("b", "a", "both_bad", 4)], "a"),
        ([("a", "b", "model_a", 7), ("a", "b", "model_b", 5), ("b", "a", "model_a", 1)], "a"),
    ],
)
def test_who_won_more_on_a_fixed_side_is_better_and_the_side_is_left_out(
    votes: Votes, better: str
) -> None:
    board = rate(table_of(votes))
    assert order_of(board)[0] == better
    assert board.position is None
    assert "side_left_out" in codes(board)
    if board.pairs[0].supported:
        assert board.pairs[0].p_better > 0.5


@pytest.mark.parametrize("wins", [51, 60, 80, 99])
def test_fixed_sides_leave_room_for_a_side_effect(wins: int) -> None:
    """However many votes: a preference of one prior standard deviation stays possible, by hand."""
    votes = [("a", "b", "model_a", 100 * wins), ("a", "b", "model_b", 100 * (100 - wins))]
    board = rate(table_of(votes))
    prior = FitConfig().side_ridge ** -0.5
    assert math.sqrt(board.gap_variances[0][1]) == pytest.approx(prior, rel=0.02)
    without = rate(table_of(votes), RatingConfig(FitConfig(position=False)))
    assert math.sqrt(without.gap_variances[0][1]) < 0.15
    assert [r.rating for r in without.ratings] == pytest.approx([r.rating for r in board.ratings])


def test_a_pair_of_fixed_sides_among_others_is_named_and_keeps_its_order() -> None:
    """Left wins 70 % among x and y; a beat b 33 to 27 from the left: that is not taken from a."""
    shuffled: Votes = [
        *[("x", "y", "model_a", 70), ("x", "y", "model_b", 30)],
        *[("y", "x", "model_a", 70), ("y", "x", "model_b", 30)],
    ]
    fixed: Votes = [("a", "b", "model_a", 33), ("a", "b", "model_b", 27)]
    joined: Votes = [(m, "x", w, 1) for m in "ab" for w in ("model_a", "model_b")]
    board = rate(table_of([*shuffled, *fixed, *joined]))
    assert board.position is not None
    assert 0.65 < board.position.win_share < 0.7  # the prior draws it a little towards a half
    order = order_of(board)
    assert order.index("a") < order.index("b")
    note = next(note for note in board.notes if note.code == "side_fixed")
    assert note.values["pairs"] == "a – b"


@pytest.mark.parametrize("per_voter", [[0, 1], [1, 0, 0, 1], [2, 2]])
def test_votes_that_cancel_out_have_an_interval(per_voter: list[int]) -> None:
    """Each of twelve voters says as often a as b: the sandwich by voter would be zero."""
    outcome = np.tile(per_voter, 12)
    drawn = VoteTable(
        ("a", "b"),
        *(np.full(len(outcome), i) for i in (0, 1)),
        outcome,
        np.ones(len(outcome)),
        cluster=np.repeat(np.arange(12), len(per_voter)),
    )
    for config in (RatingConfig(), RatingConfig(FitConfig(position=False))):
        for rounds in (0, 200):
            assert order_of(rate(drawn, replace(config, bootstrap=rounds))) == ["a", "b"]


@pytest.mark.parametrize("seed", range(5))
def test_few_votes_never_turn_who_won_more_into_the_worse(seed: int) -> None:
    """Any split of sides, up to 20 votes on two models."""
    draw = np.random.default_rng(seed)
    for _ in range(60):
        size = int(draw.integers(1, 21))
        left = (draw.random(size) < draw.random()).astype(np.int64)
        outcome = draw.integers(0, 4, size)
        won = np.where(outcome < 2, np.where(outcome == 0, 1, -1) * (1 - 2 * left), 0).sum()
        board = rate(VoteTable(("a", "b"), left, 1 - left, outcome, np.ones(size)))
        rating = {line.model: line.rating for line in board.ratings}
        assert (rating["a"] - rating["b"]) * won >= -1e-6
        order_of(board)


@pytest.mark.parametrize(
    "votes",
    [
        [("a", "a", "model_a", 3)],
        [("a", "a", "tie", 1), ("b", "b", "model_b", 2)],
        [("a", "b", "model_a", 1), ("a", "a", "both_bad", 2)],
    ],
)
def test_a_model_against_itself_does_not_count(votes: Votes) -> None:
    board = rate(table_of(votes))
    number = sum(count for left, right, _, count in votes if left == right)
    assert board.num_votes == sum(row[3] for row in votes) - number
    told = next(note for note in board.notes if note.code == "self")
    assert told.values["count"] == number
    assert sum(line.num_battles for line in board.ratings) == 2 * board.num_votes


@pytest.mark.parametrize("other", [" koala ", "koala\t", "\u00a0koala"])
def test_white_space_around_a_name_makes_no_other_model(hand: Hand, other: str) -> None:
    for name in ("koala", other):
        hand.vote(participants=[replace(BASE, name=name), LORA])
    hand.vote(participants=[replace(BASE, name="koala"), replace(BASE, name=other)])
    board = rate(read_rating_input(hand.store).table)
    assert sorted(board.models) == ["koala", "lora"]
    assert (board.num_votes, "self" in codes(board)) == (2, True)


def test_the_order_of_names_that_a_voter_chose_is_not_fitted(hand: Hand) -> None:
    """By name the sides are as written; those votes count, their side does not."""
    for i in range(12):
        voter, both = hand.voter(f"n{i}"), [LORA, FULL]
        battle, _ = hand.battle(participants=both, mode=Mode.NAMED, propensity=None, voter=voter)
        hand.store.cast_vote(battle, Judgement(Winner.MODEL_A), voter=voter)
    for winner, count in ((Winner.MODEL_A, 15), (Winner.MODEL_B, 10)):
        for participants in ([BASE, LORA], [LORA, BASE]):
            for i in range(count):
                voter = hand.voter(f"{winner}{i}")
                hand.vote(winner, participants=participants, voter=voter)
    table = read_rating_input(hand.store, VoteFilter(named=True)).table
    assert table.sides_chosen is not None
    assert table.sides_chosen.sum() == 12
    board = rate(table)
    assert board.position is not None
    blind = rate(read_rating_input(hand.store).table)
    assert blind.position is not None
    assert board.position.log_odds == pytest.approx(blind.position.log_odds, abs=0.01)
    assert blind.position.win_share > 0.55
    assert order_of(board)[0] == "lora"
    assert "side_chosen" in codes(board)
    assert "side_chosen" not in codes(blind)


@pytest.fixture(scope="module")
def simulation() -> ModuleType:
    """The program that draws votes of two models with known gap and side effect."""
    spec = importlib.util.spec_from_file_location("sides_simulation", BENCHMARK)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.parametrize("sides", ["fixed", "half", "shuffled"])
@pytest.mark.parametrize("num_votes", [5, 10, 20, 50, 100, 1_000, 10_000])
def test_intervals_cover_and_the_order_is_no_worse_than_counting(
    simulation: ModuleType, sides: str, num_votes: int
) -> None:
    """150 rounds with a side effect drawn from the prior: 95 % are covered (three standard errors
    of 150 rounds below are 90 %), and wins are never worse used than by counting them.
    """
    line = simulation.told(simulation.rounds_of(sides, num_votes, 150, None, 0.0))
    assert line["covered"] >= 0.9
    assert line["better first"] >= line["by count"] - 0.02
    assert line["surely wrong"] <= 0.03
    if num_votes <= 20 or sides == "fixed":
        assert line["turned"] == 0
    if num_votes >= 1_000 and sides == "shuffled":
        assert line["width"] < 60


def test_a_gap_is_told_in_points(simulation: ModuleType) -> None:
    """The simulation itself: 75 % of wins from shuffled sides are ln 3."""
    draw = np.random.default_rng(0)
    table = simulation.simulated(draw, "shuffled", 20_000, math.log(3), 0.4, 0.0)
    found = simulation.rated(table, math.log(3))
    assert found.truth == pytest.approx(POINTS * math.log(3))
    assert found.gap == pytest.approx(found.truth, abs=2 * found.half)
    assert set(np.unique(table.left)) == {0, 1}
