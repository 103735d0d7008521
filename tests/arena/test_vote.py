"""What a judgement says about each pair of sides, and which judgements make no sense."""

from __future__ import annotations

import pytest

from arena.values.vote import Comparison, Judgement, JudgementError, Winner


def test_two_sides_are_one_pair_of_weight_one() -> None:
    assert Judgement(Winner.MODEL_B).pairs(2) == (Comparison(0, 1, Winner.MODEL_B, 1.0),)


def test_a_ranking_of_three_becomes_pairs_that_weigh_as_two_votes() -> None:
    pairs = Judgement(ranking=(2, 1, 2)).pairs(3)
    assert [(p.left, p.right, p.winner) for p in pairs] == [
        (0, 1, Winner.MODEL_B),
        (0, 2, Winner.TIE),
        (1, 2, Winner.MODEL_A),
    ]
    assert sum(p.weight for p in pairs) == pytest.approx(2.0)


@pytest.mark.parametrize("num_sides", [4, 8])
def test_the_pairs_of_k_sides_weigh_k_minus_one(num_sides: int) -> None:
    pairs = Judgement(ranking=tuple(range(1, num_sides + 1))).pairs(num_sides)
    assert len(pairs) == num_sides * (num_sides - 1) // 2
    assert {p.winner for p in pairs} == {Winner.MODEL_A}
    assert sum(p.weight for p in pairs) == pytest.approx(num_sides - 1)


def test_all_bad_holds_for_every_pair() -> None:
    assert {p.winner for p in Judgement(Winner.BOTH_BAD).pairs(3)} == {Winner.BOTH_BAD}


@pytest.mark.parametrize(
    ("judgement", "num_sides", "words"),
    [
        (Judgement(), 2, "winner or a ranking"),
        (Judgement(Winner.TIE, ranking=(1, 1)), 2, "winner or a ranking"),
        (Judgement(Winner.MODEL_A), 3, "cannot judge 3 sides"),
        (Judgement(ranking=(1, 2)), 3, "one rank from 1 to 3"),
        (Judgement(ranking=(0, 1, 2)), 3, "one rank from 1 to 3"),
        (Judgement(Winner.TIE, reasons=("pretty",)), 2, "'pretty' is unknown"),
    ],
)
def test_what_does_not_fit_is_refused(judgement: Judgement, num_sides: int, words: str) -> None:
    with pytest.raises(JudgementError, match=words):
        judgement.pairs(num_sides)
