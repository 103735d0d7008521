"""Suspicious votes are kept and marked; honest ones are not marked."""

from __future__ import annotations

import pytest
from store_fixtures import Hand, votes_of

from arena.i18n import languages, words
from arena.storage.quarantine import EVIDENCE, QuarantineRules, evidence, read_evidence
from arena.storage.rating_input import read_rating_input
from arena.storage.store import Store
from arena.values.battle import AnswerOutcome, AnswerStatus
from arena.values.refusals import NotVotedError, UnknownBattleError
from arena.values.vote import Judgement, Winner


def strict(store: Store, **rules: int) -> Hand:
    """The same store with other rules; those not named are off."""
    off = {"votes_per_minute": 0, "same_side": 0, "same_prompt": 0}
    return Hand(Store(store.path, rules=QuarantineRules(**off | rules)))


def flags(hand: Hand) -> list[tuple[str, ...]]:
    """Marks of each vote, newest first."""
    return [found.vote.flags for found in hand.store.flagged_votes()]


def test_too_many_votes_in_a_minute(store: Store) -> None:
    hand = strict(store, votes_per_minute=3)
    for i in range(5):
        hand.vote(prompt=f"p{i}", voter=hand.voter("quick"))
    hand.vote(prompt="calm", voter=hand.voter("calm"))
    assert flags(hand) == [("rate",), ("rate",)]
    assert hand.store.counts()["votes"] == 6
    assert read_rating_input(hand.store).left_out == {"flagged": 2}


def test_always_the_same_side(store: Store) -> None:
    hand = strict(store, same_side=4)
    for i in range(4):
        hand.vote(Winner.MODEL_B, prompt=f"p{i}")
    detail = hand.store.flagged_votes()[0].details[0]
    assert detail == ("same_side", "4 votes in a row for the right side")
    hand.vote(Winner.MODEL_A, prompt="p5")
    assert hand.store.counts()["flagged"] == 1


def test_evidence_is_read_back_to_be_told_in_another_language() -> None:
    values = {"count": "31", "total": "33", "side": "left"}
    for key, text in EVIDENCE.items():
        named = {name: value for name, value in values.items() if f"{{{name}}}" in text}
        assert read_evidence(evidence(key, **named)) == (key, named)
        for language in languages():
            told = words(language)(f"evidence.{key}", **named)
            assert all(value in told for value in named.values()), (language, key)
    assert read_evidence("70 votes <b>within a minute</b>") is None


def test_the_same_prompt_over_and_over(store: Store) -> None:
    hand = strict(store, same_prompt=2)
    for prompt in ("x", "y", "x", "x"):
        hand.vote(prompt=prompt)
    assert flags(hand) == [("same_prompt",)]


def test_an_honest_voter_is_not_marked(hand: Hand) -> None:
    for i, winner in enumerate([Winner.MODEL_A, Winner.MODEL_B, Winner.TIE] * 4):
        hand.vote(winner, prompt=f"p{i}")
    assert flags(hand) == []


def test_a_side_that_fails_after_the_vote(hand: Hand) -> None:
    """Voted early: one side then fails, one is cut off with the program, one ends well."""
    ended = []
    for _ in range(3):
        battle, token = hand.battle(statuses=[AnswerStatus.COMPLETE, AnswerStatus.STREAMING])
        hand.store.cast_vote(battle, Judgement(Winner.TIE), voter=hand.voter(), partial=True)
        answer = hand.store.load_battle(battle, token=token).battle.turns[0].answer(1)
        assert answer is not None
        ended.append((answer.id, battle))
    hand.store.finish_answer(ended[0][0], AnswerOutcome(AnswerStatus.FAILED, error="gone"))
    hand.store.finish_answer(ended[1][0], AnswerOutcome(AnswerStatus.COMPLETE, text="well"))
    hand.store.close_orphans()
    marked = {found.vote.battle_id: found.vote.flags for found in hand.store.flagged_votes()}
    assert marked == {ended[0][1]: ("failed_side",), ended[2][1]: ("failed_side",)}
    assert hand.store.counts()["votes"] == 3
    assert read_rating_input(hand.store).left_out == {"flagged": 2}


def test_an_admin_marks_and_clears(hand: Hand) -> None:
    battle = hand.vote()
    vote = votes_of(hand.store, battle)[0]
    hand.store.flag_vote(vote.id, "odd", "by hand")
    assert hand.store.flagged_votes()[0].details == (("odd", "by hand"),)
    hand.store.clear_flag(vote.id, "odd")
    assert hand.store.flagged_votes() == []
    with pytest.raises(NotVotedError, match="not in quarantine for 'odd'"):
        hand.store.clear_flag(vote.id, "odd")
    with pytest.raises(UnknownBattleError, match="vote 99 is unknown"):
        hand.store.flag_vote(99, "odd")


def test_a_changed_vote_keeps_its_mark(store: Store) -> None:
    hand = strict(store, votes_per_minute=1)
    hand.vote(prompt="1")
    battle = hand.vote(prompt="2")
    hand.store.cast_vote(battle, Judgement(Winner.TIE), voter=hand.voter(), change=True)
    assert flags(hand) == [("rate",)]
