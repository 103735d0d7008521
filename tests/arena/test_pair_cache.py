"""The array of judged pairs follows every change of the store, however it was read."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from store_fixtures import BASE, FULL, LORA, Hand, votes_of

from arena.exports.dataset import ExportOptions, export
from arena.imports.importer import import_file
from arena.ratings import rate
from arena.storage.backup import backup, restore
from arena.storage.pair_cache import PairCache, PairColumns
from arena.storage.rating_input import read_rating_input
from arena.storage.store import Store
from arena.values.vote import Judgement, Winner


def read_at_once(hand: Hand) -> PairColumns:
    """All pairs, by a reader that knows nothing yet and has no copy."""
    copy = hand.store.path.with_name("arena.db-pairs")
    copy.unlink(missing_ok=True)
    return PairCache(hand.store).refresh()


@pytest.mark.slow
def test_every_kind_of_change_is_seen(hand: Hand) -> None:
    """A hundred random acts; after each the refreshed rows are those read at once."""
    draw = random.Random(3)
    pair_cache = PairCache(hand.store)
    voter = hand.voter()
    votes: dict[int, str] = {}

    def cast() -> None:
        battle = hand.vote(draw.choice(list(Winner)))
        votes[votes_of(hand.store, battle)[0].id] = battle

    def rank() -> None:
        ranking = Judgement(ranking=tuple(draw.choices((1, 2, 3), k=3)))
        battle, _ = hand.battle(["a", "b", "c"], participants=[BASE, LORA, FULL])
        votes[hand.store.cast_vote(battle, ranking, voter=voter).votes[0].id] = battle

    def change() -> None:
        battle = draw.choice(list(votes.values()))
        sides = len(hand.store.load_battle(battle, voter=voter).battle.participants)
        judgement = Judgement(draw.choice([Winner.TIE, Winner.BOTH_BAD]))
        if sides == 2:
            judgement = Judgement(draw.choice(list(Winner)))
        hand.store.cast_vote(battle, judgement, voter=voter, change=True)

    def undo() -> None:
        number = draw.choice([max(votes), draw.choice(list(votes))])
        hand.store.undo_vote(votes.pop(number), voter=voter)

    def flag() -> None:
        hand.store.flag_vote(draw.choice(list(votes)), "odd")

    def clear() -> None:
        for found in hand.store.flagged_votes(limit=1):
            hand.store.clear_flag(found.vote.id, found.vote.flags[0])

    for _ in range(4):
        cast()
    for _ in range(100):
        draw.choice([cast, rank, change, undo, flag, clear])()
        if not votes:
            cast()
        found = pair_cache.refresh()
        assert np.array_equal(found.rows(), read_at_once(hand).rows())
    assert {0, 1} == set(found["flagged"].tolist())


def test_what_was_handed_out_stays_as_it_was(hand: Hand) -> None:
    """New pairs are written behind those that somebody may still be counting."""
    pair_cache = PairCache(hand.store)
    earlier = []
    for winner in (Winner.MODEL_A, Winner.TIE, Winner.MODEL_B, Winner.BOTH_BAD):
        hand.vote(winner)
        pairs = pair_cache.refresh()
        earlier.append((pairs, pairs.rows()))
    assert [len(pairs) for pairs, _ in earlier] == [1, 2, 3, 4]
    assert all(np.array_equal(pairs.rows(), rows) for pairs, rows in earlier)
    assert earlier[-1][0]["outcome"].tolist() == [0, 2, 1, 3]


def test_the_next_program_starts_from_the_copy(hand: Hand) -> None:
    for i in range(6):
        hand.vote(prompt=f"p{i}")
    PairCache(hand.store, many=5).refresh()
    copy = hand.store.path.with_name("arena.db-pairs")
    with copy.open("r+b") as file:  # a mark that only a reader of the copy sees
        mark, rows = np.load(file), np.load(file)
        rows["weight"][0] = 3.0
        file.seek(0)
        np.save(file, mark)
        np.save(file, rows)
    hand.vote(prompt="one more")
    found = PairCache(hand.store).refresh()
    assert found["weight"].tolist() == [3.0, *[1.0] * 6]


def test_a_copy_of_another_database_or_none_is_not_believed(hand: Hand, tmp_path: Path) -> None:
    for i in range(4):
        hand.vote(prompt=f"p{i}")
    old = backup(hand.store, tmp_path / "old.db")
    for i in range(4):
        hand.vote(Winner.TIE, prompt=f"q{i}")
    pair_cache = PairCache(hand.store, many=2)
    assert len(pair_cache.refresh()) == 8
    copy = hand.store.path.with_name("arena.db-pairs")
    shutil.copy(copy, tmp_path / "later-pairs")
    restore(old, hand.store.path, overwrite=True)
    for i in range(5):
        hand.vote(Winner.BOTH_BAD, prompt=f"r{i}")
    expected = [0] * 4 + [3] * 5
    assert PairCache(hand.store).refresh()["outcome"].tolist() == expected
    assert pair_cache.refresh()["outcome"].tolist() == expected
    for content in (b"", b"nonsense", copy.read_bytes()[:150]):
        copy.write_bytes(content)
        assert PairCache(hand.store).refresh()["outcome"].tolist() == expected


def test_an_import_is_seen_by_a_running_page(hand: Hand, tmp_path: Path) -> None:
    for i in range(3):
        hand.vote(prompt=f"p{i}")
    export(hand.store, tmp_path / "out", ExportOptions(format="lmsys"))
    second = Hand(Store.at_home(tmp_path / "second"))
    second.vote()
    pair_cache = PairCache(second.store)
    assert len(pair_cache.refresh()) == 1
    import_file(second.store, tmp_path / "out", "lmsys")
    assert len(pair_cache.refresh()) == 4
    assert rate(read_rating_input(pair_cache).table) == rate(read_rating_input(second.store).table)
