"""A voter's own battles: what the search finds, and what it must not tell."""

from __future__ import annotations

import pytest
from store_fixtures import BASE, LORA, Hand

from arena.values.battle import Mode
from arena.values.vote import Judgement, Winner


def found(hand: Hand, wanted: str, name: str = "somebody") -> list[str]:
    return [past.battle_id for past in hand.store.history(hand.voter(name), wanted)]


def test_words_are_found_in_prompts_and_answers_of_one_voter(hand: Hand) -> None:
    first, _ = hand.battle(("Paris is nice.", "Rome"), prompt="Where is the Eiffel tower?")
    second, _ = hand.battle(("eins", "zwei"), prompt='Zähle ÄPFEL: 100% "sicher" OR not*')
    hand.battle(("Paris", "Paris"), voter=hand.voter("else"), prompt="Eiffel")
    assert found(hand, "") == [second, first]
    assert found(hand, "eiffel PARIS") == [first]
    assert found(hand, "iffel") == [first], "a part of a word"
    assert found(hand, "äpfel zwei") == [second]
    assert found(hand, "eiffel zwei") == []
    assert found(hand, "is") == [first], "a short word"
    assert found(hand, "o") == [second, first]


@pytest.mark.parametrize(
    "wanted", ['"', '"sicher"', "OR", "not*", "100%", "a OR", "NEAR(", "-x", "'"]
)
def test_signs_mean_themselves(hand: Hand, wanted: str) -> None:
    battle, _ = hand.battle(prompt='Zähle: 100% "sicher" OR not* a OR NEAR( -x \'')
    other, _ = hand.battle(prompt="Nichts davon")
    assert found(hand, wanted)[-1] == battle
    assert other not in found(hand, wanted)


def test_other_scripts_are_found_without_spaces(hand: Hand) -> None:
    battle, _ = hand.battle(("北京是中国的首都", "x"), prompt="中国的首都是哪里?")
    assert found(hand, "中国的首都") == [battle]
    assert found(hand, "北京") == [battle]
    assert found(hand, "东京") == []


def test_names_are_found_only_once_they_may_be_shown(hand: Hand) -> None:
    voter = hand.voter()
    blind, _ = hand.battle()
    named, _ = hand.battle(mode=Mode.NAMED)
    assert found(hand, "starter") == [named]
    assert found(hand, "starter lora") == [named]
    (line,) = (past for past in hand.store.history(voter) if past.battle_id == blind)
    assert line.names == ()
    hand.store.cast_vote(blind, Judgement(Winner.MODEL_A), voter=voter)
    assert found(hand, "starter") == [named, blind]
    (line,) = (past for past in hand.store.history(voter) if past.battle_id == blind)
    assert line.names == (BASE.name, LORA.name)
    assert line.is_judged


def test_later_turns_and_attempts_are_found(hand: Hand) -> None:
    battle, _ = hand.battle()
    hand.turn(battle, "And further?", ("third", "fourth"))
    hand.again(battle, 0, "fifth try")
    assert found(hand, "further fourth fifth") == [battle]
    assert found(hand, "third") == [battle], "a superseded answer is kept and found"
    hand.store.skip_turn(battle, voter=hand.voter())
    (line,) = hand.store.history(hand.voter())
    assert (line.num_turns, line.is_judged, line.is_skipped) == (2, False, True)


def test_store_of_before_is_searched_too(hand: Hand) -> None:
    """The step that brings the search reads what was there before it."""
    from sqlite_utils import Database

    from arena.storage.store import Store

    battle, _ = hand.battle(prompt="An old prompt")
    db = Database(hand.store.path)
    db.execute("DROP TABLE battle_texts")
    db.execute("DROP TABLE participants_off")
    db.execute("DELETE FROM _sqlite_migrations WHERE name = 'm004_search_and_switches'")
    db.conn.commit()
    db.close()
    again = Hand(Store(hand.store.path))
    assert found(again, "old") == [battle]
    assert found(again, "lora") == []
