"""Writes votes inside a transaction that the store has opened; knows every rule of voting.

One vote per turn and voter, and one voter per turn but where programs judge. Models and texts
come from the database only. The same vote
sent twice is one vote; a different one is a change and needs to be asked for; every act
is appended to `vote_history`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sqlite_utils import Database

from arena.storage.bursts import burst_of
from arena.storage.database import SqlRow
from arena.storage.identities import voter_row
from arena.storage.quarantine import QuarantineRules, evidence, suspicions
from arena.storage.rows import (
    VOTE_SQL,
    StoredBattle,
    judgement_columns,
    stored_from,
    vote_from,
)
from arena.values.battle import SIDES, SYNTHETIC, Answer, AnswerStatus, Battle, Mode, Turn
from arena.values.refusals import (
    AlreadyVotedError,
    NotVotedError,
    SideFailedError,
    UnfinishedError,
    UnknownBattleError,
)
from arena.values.texts import canonical_json, check_text
from arena.values.vote import FlaggedVote, Judgement, Vote

Decide = Callable[[StoredBattle], Judgement]
"""Makes a judgement from what is stored; it may run again, so it only computes."""


def cast(
    db: Database,
    battle: SqlRow,
    voter: str,
    judgement: Judgement | Decide,
    *,
    partial: bool,
    change: bool,
    now: int,
    rules: QuarantineRules,
) -> None:
    """Store one judgement of the last turn; see `Store.cast_vote`."""
    stored = stored_from(db, battle)
    judgement = judgement if isinstance(judgement, Judgement) else judgement(stored)
    check_text("comment", judgement.comment)
    check_text("edited answer", judgement.edited_answer)
    sides = participant_ids(db, battle["id"])
    judgement.pairs(len(sides))  # refuse what does not fit before anything else
    judged, voter_id = last_turn(stored.battle), voter_row(db, voter)
    old = own_vote(stored, voter)
    of_program = stored.battle.source == SYNTHETIC
    if (
        old is None
        and not of_program
        and any(vote.turn == judged.position for vote in stored.votes)
    ):
        raise AlreadyVotedError("this battle has been judged from another device").coded(
            "other_device"
        )
    if old is not None:
        if old.judgement == judgement:
            return
        if not change:
            raise AlreadyVotedError(
                f"turn {judged.position + 1} is already judged; undo or change that vote"
            )
    answers = judged_answers(judged, len(sides), partial=partial)
    is_partial = partial or any(a.status is AnswerStatus.STOPPED for a in answers)
    # Programs look at texts alone, and several may judge the same answers.
    is_blind = stored.battle.is_blind or (of_program and stored.battle.mode is Mode.BLIND)
    columns = judgement_columns(judgement) | {"partial": is_partial, "updated_ms": now}
    if old is None:
        columns |= {"turn_id": judged.id, "voter_id": voter_id, "blind": is_blind}
        vote_id = db["votes"].insert(columns | {"created_ms": now}, pk="id").last_pk
        db.execute("DELETE FROM skips WHERE turn_id = ? AND voter_id = ?", [judged.id, voter_id])
    else:
        # Once the names were seen a vote can never become blind again; it stays so while what it
        # says of the sides stays, whatever reasons and comments are added.
        columns["blind"] = old.blind and (is_blind or judgement.prefers_as(old.judgement))
        vote_id = old.id
        db["votes"].update(vote_id, columns)
        db.execute("DELETE FROM comparisons WHERE vote_id = ?", [vote_id])
    insert_comparisons(db, vote_id, judgement, sides, [answer.id for answer in answers])
    for answer in answers:
        if answer.identity_leak:
            detail = evidence("identity_leak", side=SIDES[answer.side])
            add_flag(db, vote_id, "identity_leak", detail, now)
    for found in () if of_program else suspicions(db, vote_id, voter_id, now, rules):
        add_flag(db, vote_id, found.reason, found.detail, now)
    if rules.burst and not of_program:
        _flag_burst(db, vote_id, now, rules.burst)
    said = judgement_columns(judgement) | {"partial": is_partial, "blind": columns["blind"]}
    remember(db, judged.id, voter_id, "cast" if old is None else "change", said, now)


def _flag_burst(db: Database, vote_id: int, now: int, least: int) -> None:
    """Put all votes of a burst in quarantine, those from before it was one, too."""
    burst = burst_of(db, vote_id, now, least)
    if burst is not None:
        detail = evidence("burst", count=len(burst.votes), total=burst.total)
        for row in burst.votes:
            add_flag(db, row, "burst", detail, now)


def undo(db: Database, battle: SqlRow, voter: str, now: int) -> None:
    """Take the vote on the last turn back; what it said stays in `vote_history`."""
    stored = stored_from(db, battle)
    judged, old = last_turn(stored.battle), own_vote(stored, voter)
    if old is None:
        raise NotVotedError(f"turn {judged.position + 1} has no vote of yours to undo")
    body = judgement_columns(old.judgement) | {"partial": old.partial, "blind": old.blind}
    remember(db, judged.id, voter_row(db, voter), "undo", body, now)
    db.execute("DELETE FROM votes WHERE id = ?", [old.id])


def skip(db: Database, battle: SqlRow, voter: str, now: int) -> None:
    """Note that the voter would not judge the last turn; refused when it has a vote of theirs."""
    stored = stored_from(db, battle)
    judged, voter_id = last_turn(stored.battle), voter_row(db, voter)
    if own_vote(stored, voter) is not None:
        raise AlreadyVotedError(
            f"turn {judged.position + 1} is judged; undo the vote before skipping"
        )
    row = {"turn_id": judged.id, "voter_id": voter_id, "created_ms": now}
    if db["skips"].count_where("turn_id = ? AND voter_id = ?", [judged.id, voter_id]) == 0:
        db["skips"].insert(row)
        remember(db, judged.id, voter_id, "skip", {}, now)


def reveal(db: Database, battle: SqlRow, now: int) -> None:
    """Note that the names may be shown: later votes on this battle are not blind."""
    db.execute(
        "UPDATE battles SET revealed_ms = coalesce(revealed_ms, ?) WHERE id = ?",
        [now, battle["id"]],
    )


def last_turn(battle: Battle) -> Turn:
    """The turn that is judged; UnknownBattleError before anything was asked."""
    if not battle.turns:
        raise UnknownBattleError(f"battle {battle.id} has no turn to judge; ask something first")
    return battle.turns[-1]


def own_vote(stored: StoredBattle, voter: str) -> Vote | None:
    """The vote of a voter on the last turn."""
    last = len(stored.battle.turns) - 1
    return next((v for v in stored.votes if v.turn == last and v.voter == voter), None)


def judged_answers(turn: Turn, num_sides: int, *, partial: bool) -> list[Answer]:
    """The current answer of every side, all fit to be judged, or the reason why not."""
    answers = []
    for side in range(num_sides):
        answer = turn.answer(side)
        if answer is None or answer.status is AnswerStatus.FAILED:
            raise SideFailedError(f"side {SIDES[side]} has no answer; a battle needs all of them")
        if not answer.is_finished and not partial:
            raise UnfinishedError(f"side {SIDES[side]} is writing; wait, stop it or vote early")
        answers.append(answer)
    return answers


def insert_comparisons(
    db: Database, vote_id: int, judgement: Judgement, sides: list[int], answers: list[int]
) -> None:
    """One row per pair of sides; `sides` participant ids, `answers` answer ids by side."""
    db["comparisons"].insert_all(
        {
            "vote_id": vote_id,
            "left_side": pair.left,
            "right_side": pair.right,
            "left_id": sides[pair.left],
            "right_id": sides[pair.right],
            "left_answer_id": answers[pair.left],
            "right_answer_id": answers[pair.right],
            "winner": pair.winner,
            "weight": pair.weight,
        }
        for pair in judgement.pairs(len(sides))
    )


def participant_ids(db: Database, battle: int) -> list[int]:
    """Participant row ids in the order shown."""
    rows = db.query(
        "SELECT participant_id FROM sides WHERE battle_id = ? ORDER BY position", [battle]
    )
    return [row["participant_id"] for row in rows]


def add_flag(db: Database, vote_id: int, reason: str, detail: str, now: int) -> None:
    """Put a vote in quarantine for a reason; a reason already there stays as it was."""
    db.execute(
        "INSERT INTO vote_flags (vote_id, reason, detail, created_ms) VALUES (?, ?, ?, ?)"
        " ON CONFLICT DO NOTHING",
        [vote_id, reason, detail, now],
    )


def flag(db: Database, vote_id: int, reason: str, detail: str, now: int) -> None:
    """Put an existing vote in quarantine; see `Store.flag_vote`."""
    if db["votes"].count_where("id = ?", [vote_id]) == 0:
        raise UnknownBattleError(f"vote {vote_id} is unknown; list them with their numbers")
    add_flag(db, vote_id, check_text("reason", reason), check_text("detail", detail), now)


def clear_flag(db: Database, vote_id: int, reason: str, now: int) -> None:
    """Clear one mark; see `Store.clear_flag`."""
    cursor = db.execute(
        "UPDATE vote_flags SET cleared_ms = ? WHERE vote_id = ? AND reason = ?"
        " AND cleared_ms IS NULL",
        [now, vote_id, reason],
    )
    if cursor.rowcount == 0:
        raise NotVotedError(f"vote {vote_id} is not in quarantine for {reason!r}")


def flagged(db: Database, limit: int) -> list[FlaggedVote]:
    """Votes in quarantine, newest first."""
    where = """ WHERE EXISTS (SELECT 1 FROM vote_flags f WHERE f.vote_id = v.id
        AND f.cleared_ms IS NULL) ORDER BY v.id DESC LIMIT ?"""
    reasons = """SELECT reason, detail FROM vote_flags WHERE vote_id = ? AND cleared_ms IS NULL
        ORDER BY reason"""
    return [
        FlaggedVote(
            vote_from(row),
            tuple((found["reason"], found["detail"]) for found in db.query(reasons, [row["id"]])),
        )
        for row in list(db.query(VOTE_SQL + where, [limit]))
    ]


def remember(
    db: Database, turn_id: int, voter: int, action: str, body: Mapping[str, Any], now: int
) -> None:
    """Append to the history of acts."""
    db["vote_history"].insert(
        {
            "turn_id": turn_id,
            "voter_id": voter,
            "action": action,
            "body": canonical_json(dict(body)),
            "at_ms": now,
        }
    )
