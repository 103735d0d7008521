"""The store keeps every act, refuses what cannot be judged, and never doubles a vote."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from store_fixtures import BASE, FULL, LORA, Hand, votes_of

from arena.storage.database import DatabaseConfig, StoreBusyError, StoreError, StoreFullError, write
from arena.storage.migrations import ForeignDatabaseError, NewerDatabaseError
from arena.storage.rating_input import read_rating_input
from arena.storage.store import Store
from arena.values.battle import AnswerOutcome, AnswerStatus, BattleError, Mode, Participant
from arena.values.refusals import (
    AlreadyVotedError,
    NotVotedError,
    SideFailedError,
    UnfinishedError,
    UnknownBattleError,
    WrongTokenError,
)
from arena.values.texts import TextError
from arena.values.vote import Judgement, Strength, Winner


def rows(store: Store, sql: str) -> list[tuple[object, ...]]:
    """What a plain SQLite client reads from the file."""
    with sqlite3.connect(store.path) as conn:
        found = conn.execute(sql).fetchall()
    conn.close()
    return found


def test_a_battle_comes_back_after_the_program_is_gone(hand: Hand) -> None:
    battle, token = hand.battle(["one", "two"], prompt="Zähl: 𝄞\r\n\tx")
    loaded = Store(hand.store.path).load_battle(battle, token=token).battle
    assert loaded.participants == (BASE, LORA)
    assert loaded.turns[0].prompt == "Zähl: 𝄞\r\n\tx"
    answer = loaded.turns[0].answer(1)
    assert answer is not None
    assert (answer.text, answer.status, answer.num_tokens) == ("two", AnswerStatus.COMPLETE, 3)
    assert (answer.sampling.temperature, answer.sampling.seed) == (0.5, 7)
    assert loaded.propensity == 0.5
    assert loaded.is_blind


def test_only_the_link_or_the_owner_opens_a_battle(hand: Hand) -> None:
    battle, _ = hand.battle(voter=hand.voter("owner"))
    assert hand.store.load_battle(battle, voter=hand.voter("owner")).battle.id == battle
    for token, voter in ((None, None), ("guess", None), (None, hand.voter("thief"))):
        with pytest.raises(WrongTokenError, match=battle):
            hand.store.load_battle(battle, token=token, voter=voter)
    with pytest.raises(UnknownBattleError, match="'nope' is unknown"):
        hand.store.load_battle("nope", token="x")


def test_neither_token_nor_cookie_is_in_the_file(hand: Hand) -> None:
    _, token = hand.battle()
    content = b"".join(path.read_bytes() for path in hand.store.path.parent.glob("arena.db*"))
    assert token.encode() not in content
    assert b"secret of somebody" not in content
    assert b"Say a number." in content  # the search itself works


def test_a_vote_sent_twice_is_one_vote(hand: Hand) -> None:
    battle, token = hand.battle()
    voter = hand.voter()
    first = hand.store.cast_vote(battle, Judgement(Winner.TIE), voter=voter, token=token)
    assert hand.store.cast_vote(battle, Judgement(Winner.TIE), voter=voter) == first
    assert hand.store.counts()["votes"] == 1
    with pytest.raises(AlreadyVotedError, match="turn 1 is already judged"):
        hand.store.cast_vote(battle, Judgement(Winner.MODEL_A), voter=voter)


def test_fifty_parallel_identical_votes_are_one_row(hand: Hand) -> None:
    battle, token = hand.battle()
    voter = hand.voter()

    def cast(_: int) -> int:
        vote = Store(hand.store.path).cast_vote(
            battle, Judgement(Winner.MODEL_B), voter=voter, token=token
        )
        return vote.votes[0].id

    with ThreadPoolExecutor(50) as pool:
        ids = list(pool.map(cast, range(50)))
    assert len(set(ids)) == 1
    assert rows(hand.store, "SELECT winner FROM votes") == [("model_b",)]
    assert rows(hand.store, "SELECT count(*) FROM comparisons") == [(1,)]
    assert rows(hand.store, "SELECT action FROM vote_history") == [("cast",)]


def test_change_and_undo_are_kept_as_history(hand: Hand) -> None:
    battle, _ = hand.battle()
    voter = hand.voter()
    cast = hand.store.cast_vote
    cast(battle, Judgement(Winner.MODEL_A, strength=Strength.MUCH), voter=voter)
    changed = cast(battle, Judgement(Winner.TIE, reasons=("style",)), voter=voter, change=True)
    assert changed.votes[0].judgement == Judgement(Winner.TIE, reasons=("style",))
    assert rows(hand.store, "SELECT winner FROM comparisons") == [("tie",)]
    hand.store.undo_vote(battle, voter=voter)
    assert votes_of(hand.store, battle) == []
    history = rows(
        hand.store, "SELECT action, json_extract(body, '$.winner') FROM vote_history ORDER BY id"
    )
    assert history == [("cast", "model_a"), ("change", "tie"), ("undo", "tie")]
    with pytest.raises(NotVotedError, match="no vote of yours"):
        hand.store.undo_vote(battle, voter=voter)


def test_a_skip_is_no_vote_and_gives_way_to_one(hand: Hand) -> None:
    battle, _ = hand.battle()
    voter = hand.voter()
    hand.store.skip_turn(battle, voter=voter)
    hand.store.skip_turn(battle, voter=voter)
    assert (hand.store.counts()["skips"], hand.store.counts()["votes"]) == (1, 0)
    hand.store.cast_vote(battle, Judgement(Winner.MODEL_A), voter=voter)
    assert (hand.store.counts()["skips"], hand.store.counts()["votes"]) == (0, 1)
    with pytest.raises(AlreadyVotedError, match="before skipping"):
        hand.store.skip_turn(battle, voter=voter)


def test_a_failed_side_cannot_be_judged(hand: Hand) -> None:
    statuses = [AnswerStatus.COMPLETE, AnswerStatus.FAILED]
    battle, _ = hand.battle(statuses=statuses)
    with pytest.raises(SideFailedError, match="side b has no answer"):
        hand.store.cast_vote(battle, Judgement(Winner.MODEL_A), voter=hand.voter(), partial=True)
    assert hand.store.counts()["votes"] == 0


def test_a_side_never_asked_cannot_be_judged(hand: Hand) -> None:
    battle, _ = hand.battle(["only a"])
    with pytest.raises(SideFailedError, match="side b"):
        hand.store.cast_vote(battle, Judgement(Winner.MODEL_A), voter=hand.voter())


def test_a_vote_before_the_end_is_marked_partial(hand: Hand) -> None:
    battle, _ = hand.battle(statuses=[AnswerStatus.COMPLETE, AnswerStatus.STREAMING])
    voter = hand.voter()
    with pytest.raises(UnfinishedError, match="side b is writing"):
        hand.store.cast_vote(battle, Judgement(Winner.MODEL_A), voter=voter)
    cast = hand.store.cast_vote(battle, Judgement(Winner.MODEL_A), voter=voter, partial=True)
    assert cast.votes[0].partial


def test_a_vote_on_a_stopped_answer_is_partial_by_itself(hand: Hand) -> None:
    battle, _ = hand.battle(statuses=[AnswerStatus.STOPPED, AnswerStatus.COMPLETE])
    assert hand.store.cast_vote(battle, Judgement(Winner.TIE), voter=hand.voter()).votes[0].partial


def test_a_vote_after_the_reveal_is_not_blind_and_never_becomes_so(hand: Hand) -> None:
    battle, _ = hand.battle()
    voter = hand.voter()
    assert hand.store.cast_vote(battle, Judgement(Winner.TIE), voter=voter).votes[0].blind
    judgement = Judgement(Winner.MODEL_B)
    assert not hand.store.cast_vote(battle, judgement, voter=voter, change=True).votes[0].blind
    named, _ = hand.battle(mode=Mode.NAMED)
    assert not hand.store.cast_vote(named, Judgement(Winner.TIE), voter=voter).votes[0].blind


@pytest.mark.parametrize(
    "more",
    [
        {"reasons": ("correct",)},
        {"comment": "The other one made it up."},
        {"strength": Strength.MUCH},
        {"edited_answer": "Paris."},
    ],
)
def test_what_is_added_to_a_blind_vote_leaves_it_blind(hand: Hand, more: dict[str, Any]) -> None:
    """Reasons are given when the names are shown; which side is better was said before."""
    battle, _ = hand.battle()
    voter = hand.voter()
    vote = Judgement(Winner.MODEL_A)
    hand.store.cast_vote(battle, vote, voter=voter)
    added = hand.store.cast_vote(battle, replace(vote, **more), voter=voter, change=True).votes[0]
    assert added.blind
    assert len(read_rating_input(hand.store).table) == 1
    other = Judgement(Winner.MODEL_B, **more)
    assert not hand.store.cast_vote(battle, other, voter=voter, change=True).votes[0].blind
    back = replace(vote, **more)
    assert not hand.store.cast_vote(battle, back, voter=voter, change=True).votes[0].blind


def test_asking_again_keeps_the_earlier_attempt(hand: Hand) -> None:
    battle, token = hand.battle(["first", "other"])
    hand.again(battle, 0, "second")
    turn = hand.store.load_battle(battle, token=token).battle.turns[0]
    assert [(a.attempt, a.text, a.superseded) for a in turn.attempts if a.side == 0] == [
        (1, "first", True),
        (2, "second", False),
    ]
    hand.store.cast_vote(battle, Judgement(Winner.MODEL_A), voter=hand.voter())
    with pytest.raises(AlreadyVotedError, match="undo the vote to ask again"):
        hand.again(battle, 0, "third")


def test_only_the_first_end_of_an_answer_counts(hand: Hand) -> None:
    battle, token = hand.battle(statuses=[AnswerStatus.STREAMING, AnswerStatus.COMPLETE])
    answer = hand.store.load_battle(battle, token=token).battle.turns[0].answer(0)
    assert answer is not None
    hand.store.finish_answer(answer.id, AnswerOutcome(AnswerStatus.STOPPED, text="so far"))
    ended = hand.store.finish_answer(answer.id, AnswerOutcome(AnswerStatus.COMPLETE, text="late"))
    assert (ended.status, ended.text) == (AnswerStatus.STOPPED, "so far")
    assert hand.store.load_battle(battle, token=token).battle.turns[0].answer(0) == ended


def test_answers_of_a_dead_program_become_failed(hand: Hand) -> None:
    battle, token = hand.battle(statuses=[AnswerStatus.STREAMING, AnswerStatus.COMPLETE])
    assert hand.store.close_orphans() == 1
    assert hand.store.close_orphans() == 0
    answer = hand.store.load_battle(battle, token=token).battle.turns[0].answer(0)
    assert answer is not None
    assert answer.status is AnswerStatus.FAILED
    assert "program was stopped" in (answer.error or "")


def test_contexts_of_later_turns(hand: Hand) -> None:
    battle, token = hand.battle(["a1", "b1"], prompt="p1")
    hand.turn(battle, "p2", ["a2", "b2"])
    hand.turn(battle, "p3", ["a3", "b3"], shared_side=1)
    loaded = hand.store.load_battle(battle, token=token).battle
    assert [loaded.is_diverged(turn) for turn in range(3)] == [False, True, False]
    contents = [message["content"] for message in loaded.context(2, 0)]
    assert contents == ["p1", "b1", "p2", "b2", "p3"]
    assert [message["content"] for message in loaded.context(1, 0)] == ["p1", "a1", "p2"]


def test_an_identity_leak_puts_the_vote_in_quarantine(hand: Hand) -> None:
    battle, _ = hand.battle(leaks=[False, True])
    (vote,) = hand.store.cast_vote(battle, Judgement(Winner.MODEL_A), voter=hand.voter()).votes
    assert vote.flags == ("identity_leak",)
    assert hand.store.counts()["flagged"] == 1


def test_eight_sides_are_ranked_in_one_vote(hand: Hand) -> None:
    people = [Participant(f"m{i}", f"m{i}") for i in range(8)]
    battle, _ = hand.battle([f"t{i}" for i in range(8)], participants=people)
    judgement = Judgement(ranking=(1, 2, 3, 4, 5, 6, 7, 8))
    hand.store.cast_vote(battle, judgement, voter=hand.voter())
    assert rows(hand.store, "SELECT count(*), round(sum(weight), 9) FROM comparisons") == [(28, 7)]
    with pytest.raises(BattleError, match="2 to 8 sides, not 9"):
        hand.battle(participants=[*people, FULL])


def test_texts_that_no_export_can_carry(hand: Hand) -> None:
    for prompt in ("a\0b", "a\ud800b"):
        with pytest.raises(TextError, match="prompt holds"):
            hand.battle(prompt=prompt)
    with pytest.raises(BattleError, match="prompt is empty"):
        hand.battle(prompt=" \n")
    battle, token = hand.battle(["nul\0 half\ud800 whole𝄞", "x"])
    answer = hand.store.load_battle(battle, token=token).battle.turns[0].answer(0)
    assert answer is not None
    assert answer.text == "nul� half� whole𝄞"
    judgement = Judgement(Winner.TIE, comment="\0")
    with pytest.raises(TextError, match="comment holds a null"):
        hand.store.cast_vote(battle, judgement, voter=hand.voter())


def test_every_connection_writes_through_to_the_disk(store: Store) -> None:
    found = write(
        store.path,
        store.config,
        lambda db: [
            db.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("journal_mode", "synchronous", "foreign_keys")
        ],
    )
    assert found == ["wal", 2, 1]  # 2 is FULL


def test_a_locked_database_is_waited_for_then_named(store: Store) -> None:
    slow = Store(store.path, DatabaseConfig(wait_s=0.2, busy_s=0.05))
    blocker = sqlite3.connect(store.path)
    blocker.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreBusyError, match="in use by another process"):
        slow.ensure_voter("x")
    blocker.rollback()
    blocker.close()
    slow.ensure_voter("x")
    assert store.counts()["voters"] == 1


def test_a_full_disk_loses_nothing_and_recovers(hand: Hand) -> None:
    hand.vote()
    before = hand.store.counts()

    def fill(limit: int) -> None:
        def body(db: object) -> None:
            db.execute(f"PRAGMA max_page_count = {limit}")  # type: ignore[attr-defined]
            db["voters"].insert(  # type: ignore[index]
                {"pseudonym": "x" * 2_000_000, "created_ms": 0}
            )

        write(hand.store.path, hand.store.config, body)

    with pytest.raises(StoreFullError, match="no space left"):
        fill(100)
    assert hand.store.counts() == before
    assert rows(hand.store, "PRAGMA integrity_check") == [("ok",)]
    hand.vote()
    assert hand.store.counts()["votes"] == before["votes"] + 1


def test_a_newer_a_foreign_and_a_damaged_file_are_refused(tmp_path: Path, store: Store) -> None:
    with sqlite3.connect(store.path) as conn:
        conn.execute(
            "INSERT INTO _sqlite_migrations (migration_set, name, applied_at)"
            " VALUES ('instruct-arena', 'm999_future', 'later')"
        )
    conn.close()
    with pytest.raises(NewerDatabaseError, match="m999_future"):
        Store(store.path)
    with sqlite3.connect(tmp_path / "other.db") as conn:
        conn.execute("CREATE TABLE recipes (id INTEGER)")
    conn.close()
    with pytest.raises(ForeignDatabaseError, match=r"other\.db is not an arena database"):
        Store(tmp_path / "other.db")
    (tmp_path / "broken.db").write_bytes(b"no database at all, " * 100)
    with pytest.raises(StoreError, match=r"broken\.db is damaged"):
        Store(tmp_path / "broken.db")
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="writable folder"):
        Store.at_home(tmp_path / "file" / "home")
