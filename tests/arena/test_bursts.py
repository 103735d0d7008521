"""A burst of new voters for one model is put in quarantine; honest crowds are not."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from store_fixtures import BASE, Hand

from arena.storage.rating_input import read_rating_input
from arena.values.vote import Winner

MODELS = [replace(BASE, name=f"m{i}", weights_sha256=f"{i}" * 64) for i in range(4)]


def cast(hand: Hand, number: int, pair: list[int], winner: Winner) -> None:
    """A vote of a voter of their own."""
    voter = hand.voter(f"voter {number}")
    hand.vote(winner, prompt=f"p{number}", participants=[MODELS[i] for i in pair], voter=voter)


def flagged(hand: Hand) -> int:
    return hand.store.counts()["flagged"]


def test_fresh_cookies_for_one_model_are_flagged_from_the_first_on(hand: Hand) -> None:
    """75 votes for one of four models, whichever side it stands on."""
    for i in range(75):
        rival, swapped = 1 + i % 3, i % 2
        pair = [rival, 0] if swapped else [0, rival]
        cast(hand, i, pair, Winner.MODEL_B if swapped else Winner.MODEL_A)
    assert flagged(hand) == 75
    assert read_rating_input(hand.store).left_out == {"flagged": 75}
    assert "burst" in {reason for one in hand.store.flagged_votes() for reason, _ in one.details}


@pytest.mark.parametrize("seed", range(3))
def test_an_honest_crowd_is_not_flagged(hand: Hand, seed: int) -> None:
    """Sixty new voters at once; one of four models wins 90 % of its battles."""
    draw = random.Random(seed)
    for i in range(60):
        pair = draw.sample(range(4), 2)
        chance = 0.9 if pair[0] == 0 else 0.1 if pair[1] == 0 else 0.5
        cast(hand, i, pair, Winner.MODEL_A if draw.random() < chance else Winner.MODEL_B)
    assert flagged(hand) == 0


def test_of_two_models_one_may_win_nearly_all(hand: Hand) -> None:
    for i in range(30):
        cast(hand, i, [0, 1], Winner.MODEL_A)
    assert flagged(hand) == 0


def test_a_sudden_favourite_of_two_is_flagged(hand: Hand) -> None:
    """It won half before, an hour ago and by others; now new voters want nothing else."""
    for i in range(40):
        cast(hand, i, [0, 1], Winner.MODEL_A if i % 2 else Winner.MODEL_B)
    hand.store.write(lambda db: db.execute("UPDATE votes SET created_ms = created_ms - 7200000"))
    hand.store.write(lambda db: db.execute("UPDATE voters SET created_ms = created_ms - 9200000"))
    for i in range(40, 70):
        cast(hand, i, [0, 1], Winner.MODEL_A)
    assert flagged(hand) == 30


def test_known_voters_make_no_burst(hand: Hand) -> None:
    for i in range(40):
        hand.voter(f"voter {i}")
    hand.store.write(lambda db: db.execute("UPDATE voters SET created_ms = created_ms - 7200000"))
    for i in range(40):
        cast(hand, i, [0, 1 + i % 3], Winner.MODEL_A)
    assert flagged(hand) == 0
