"""What repeated votes say of single ones."""

from __future__ import annotations

import pytest

from tuning.data.preferences.pairs import Origin, Pair
from tuning.preference.agreement import agreement_of, vote_accuracy


def vote(prompt: str, better: str, worse: str, voter: str) -> Pair:
    return Pair(
        ({"role": "user", "content": prompt},),
        ({"role": "assistant", "content": better},),
        ({"role": "assistant", "content": worse},),
        Origin("votes", 1, voter=voter),
    )


@pytest.mark.parametrize(
    ("agreement", "accuracy"), [(0.63, 0.755), (0.726, 0.836), (0.77, 0.867), (1.0, 1.0)]
)
def test_ceiling_is_the_published_one(agreement: float, accuracy: float) -> None:
    assert vote_accuracy(agreement) == pytest.approx(accuracy, abs=1e-3)


def test_votes_that_agree_less_than_by_chance_say_nothing() -> None:
    assert vote_accuracy(0.3) == 0.5


def test_only_votes_on_the_same_two_answers_are_compared() -> None:
    """Of three votes on a and b one pair of three agrees; that on another prompt is alone."""
    votes = [
        vote("x", "a", "b", "1"),
        vote("x", "a", "b", "2"),
        vote("x", "b", "a", "3"),
        vote("y", "a", "b", "1"),
    ]
    found = agreement_of(votes)
    assert found is not None
    assert (found.agreed, found.compared) == (1, 3)
    assert found.flip_rate == 0.5
    assert agreement_of(votes[2:]) is None
