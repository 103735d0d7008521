"""Pair probabilities against hand-made values, and draws against their own probabilities."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arena.config.arena_toml import LEAST_WEIGHT, MOST_WEIGHT
from arena.ratings.pair_probabilities import (
    PairingError,
    draw_pair,
    information_seeking,
    under_voted_first,
    uniform,
    weighted,
    with_required,
)


def test_uniform_over_four_models() -> None:
    chances = uniform(["d", "c", "b", "a"])
    assert len(chances) == 6
    assert set(chances.values()) == {1 / 6}
    assert all(one < other for one, other in chances)


def test_weights_by_hand() -> None:
    """w = 2, 1, 1: a first (1/2), then b or c (1/2); b first (1/4), then a (2/3) or c (1/3)."""
    chances = weighted(["a", "b", "c"], {"a": 2})
    assert chances["a", "b"] == pytest.approx(1 / 4 + 1 / 6)
    assert chances["a", "c"] == pytest.approx(1 / 4 + 1 / 6)
    assert chances["b", "c"] == pytest.approx(1 / 12 + 1 / 12)


def test_weight_zero_leaves_a_model_out() -> None:
    assert set(weighted(["a", "b", "c"], {"c": 0})) == {("a", "b")}


def test_fewer_votes_are_likelier_but_never_more_than_three_to_one() -> None:
    chances = under_voted_first(["a", "b", "c"], {("a", "b"): 0, ("a", "c"): 50, ("b", "c"): 10**6})
    assert chances["a", "b"] > chances["a", "c"] > chances["b", "c"]
    assert chances["a", "b"] / chances["a", "c"] == pytest.approx(2**0.4)
    assert chances["a", "b"] / chances["b", "c"] == pytest.approx(3)


def test_information_goes_to_the_uncertain_and_close_pair() -> None:
    """Gain q v²/(1 + q v), q = p(1 - p) = 1/4: 1/(1 + 1/2) = 2/3 against (1/4)/(5/4) = 1/5."""
    gaps = {("a", "b"): (2.0, 0.5), ("a", "c"): (1.0, 0.5), ("b", "c"): (1.0, 0.5)}
    sharp = information_seeking(["a", "b", "c"], gaps, share_uniform=0)
    assert sharp["a", "b"] / sharp["a", "c"] == pytest.approx((2 / 3) / (1 / 5))
    mixed = information_seeking(["a", "b", "c"], gaps, share_uniform=0.3)
    assert min(mixed.values()) >= 0.1


def test_required_pairs_get_their_share_whatever_order_they_are_written_in() -> None:
    chances = with_required(uniform(["a", "b", "c"]), [("c", "a"), ("a", "gone")], 0.5)
    assert chances["a", "c"] == pytest.approx(0.5 / 3 + 0.5)


@pytest.mark.parametrize("names", [[], ["a"], ["a", "a"]])
def test_too_few_models_is_an_error_with_a_remedy(names: list[str]) -> None:
    with pytest.raises(PairingError, match="a battle needs two models"):
        uniform(names)


@pytest.mark.parametrize("bad", [-1.0, float("nan"), float("inf")])
def test_impossible_weight_is_named(bad: float) -> None:
    with pytest.raises(PairingError, match="'a'"):
        weighted(["a", "b"], {"a": bad})


@given(
    st.lists(st.sampled_from("abcdefg"), min_size=2, unique=True),
    st.dictionaries(
        st.sampled_from("abcdefg"), st.sampled_from((LEAST_WEIGHT, 0.01, 2, MOST_WEIGHT))
    ),
)
def test_probabilities_sum_to_one(names: list[str], weights: dict[str, float]) -> None:
    assert sum(weighted(names, weights).values()) == pytest.approx(1)


def test_draws_follow_the_stored_propensity_and_sides_are_fair() -> None:
    """Chi-square of 6,000 draws over 6 ordered outcomes; 25.7 is its 0.01 % tail at 5 degrees."""
    rng = random.Random(4)
    chances = weighted(["a", "b", "c"], {"a": 3})
    seen = Counter()
    for _ in range(6000):
        drawn = draw_pair(chances, rng)
        assert drawn.propensity == chances[tuple(sorted((drawn.left, drawn.right)))]
        seen[drawn.left, drawn.right] += 1
    expected = {side: p * 3000 for (i, j), p in chances.items() for side in ((i, j), (j, i))}
    assert sum((seen[k] - e) ** 2 / e for k, e in expected.items()) < 25.7
