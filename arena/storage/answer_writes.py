"""Writes turns and answers inside a transaction that the store has opened; knows no votes' rules.

An answer is noted before its stream begins and again when it ends; every attempt stays.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from sqlite_utils import Database

from arena.storage.database import SqlRow, insert
from arena.storage.history_queries import index_turn
from arena.storage.quarantine import evidence
from arena.storage.rows import answer_from, answer_row, battle_from, sampling_json
from arena.values.battle import (
    SIDES,
    Answer,
    AnswerOutcome,
    AnswerStatus,
    Battle,
    BattleError,
    HistoryMode,
)
from arena.values.refusals import AlreadyVotedError, UnfinishedError, UnknownBattleError
from arena.values.texts import check_text, clean_text


def add_turn(db: Database, row: SqlRow, prompt: str, shared_side: int | None, now: int) -> int:
    """Append a turn to a battle and return its position; `shared_side`: whose past all continue.

    Without `shared_side` each side continues its own answers. Raises TextError, BattleError;
    UnfinishedError while an answer is being written.
    """
    check_text("prompt", prompt)
    if not prompt.strip():
        raise BattleError("the prompt is empty; write something to ask")
    battle = battle_from(db, row)
    position = len(battle.turns)
    if position == 0:
        shared_side = None  # the first turn has no past to share
    if shared_side is not None:
        check_side(shared_side, battle.num_sides)
    if position and any(not a.is_finished for a in battle.turns[-1].attempts):
        raise UnfinishedError("an answer is still being written; wait or stop it first")
    turn = {
        "battle_id": row["id"],
        "position": position,
        "prompt": prompt,
        "history": HistoryMode.OWN if shared_side is None else HistoryMode.SHARED,
        "shared_side": shared_side,
        "created_ms": now,
    }
    insert(db, "turns", turn)
    return position


def start_answer(
    db: Database, battle: Battle, turn: int, side: int, columns: Mapping[str, Any], now: int
) -> int:
    """Open an attempt of a side, supersede the earlier ones, and return its row id.

    Raises AlreadyVotedError once the turn has a vote.
    """
    check_side(side, battle.num_sides)
    if not 0 <= turn < len(battle.turns):
        raise UnknownBattleError(f"battle {battle.id} has no turn {turn + 1}")
    asked = battle.turns[turn]
    if db.execute("SELECT 1 FROM votes WHERE turn_id = ? LIMIT 1", [asked.id]).fetchone():
        raise AlreadyVotedError(f"turn {turn + 1} is judged; undo the vote to ask again")
    db.execute(
        "UPDATE answers SET superseded = 1, status = CASE status WHEN 'streaming'"
        " THEN 'stopped' ELSE status END WHERE turn_id = ? AND side = ?",
        [asked.id, side],
    )
    answer = {
        **columns,
        "model": columns["model"] or battle.participants[side].model,
        "turn_id": asked.id,
        "side": side,
        "attempt": 1 + sum(1 for a in asked.attempts if a.side == side),
        "status": AnswerStatus.STREAMING,
        "text": "",
        "started_ms": now,
    }
    return insert(db, "answers", answer)


def finish(
    db: Database,
    answer_id: int,
    outcome: AnswerOutcome,
    tokens: Sequence[tuple[str, float]],
    now: int,
) -> Answer:
    """Store the end of an attempt; see `Store.finish_answer`."""
    assert outcome.status is not AnswerStatus.STREAMING
    old = answer_from(answer_row(db, answer_id))
    if old.is_finished:
        return old
    columns = {k: v for k, v in asdict(outcome).items() if v is not None}
    for name in ("text", "prompt_sent", "error"):
        if name in columns:
            columns[name] = clean_text(columns[name])
    if columns.pop("seed", None) is not None:
        columns["sampling"] = sampling_json(replace(old.sampling, seed=outcome.seed))
    db["answers"].update(answer_id, {**columns, "finished_ms": now})
    if outcome.status is AnswerStatus.FAILED:
        flag_judged(db, "a.id = ?", [answer_id], now)
    if tokens:
        told = [[clean_text(text), logprob] for text, logprob in tokens]
        row = {"answer_id": answer_id, "tokens": json.dumps(told, ensure_ascii=False)}
        db["answer_tokens"].insert(row)
    index_turn(db, answer_row(db, answer_id)["turn_id"])
    return answer_from(answer_row(db, answer_id))


def keep_texts(db: Database, texts: Mapping[int, str]) -> None:
    """Store the texts so far of attempts that are being written, by the ids of their rows."""
    db.conn.executemany(
        "UPDATE answers SET text = ? WHERE id = ? AND status = 'streaming'",
        [(clean_text(text), answer_id) for answer_id, text in texts.items()],
    )


def tokens_of(db: Database, answer_id: int) -> list[tuple[str, float]]:
    """Tokens with log-probabilities as `finish` stored them."""
    rows = db.query("SELECT tokens FROM answer_tokens WHERE answer_id = ?", [answer_id])
    return [(text, logprob) for row in rows for text, logprob in json.loads(row["tokens"])]


def writers(db: Database) -> list[str | None]:
    """The names of the programs that are said to write answers now; None for an old version."""
    rows = db.query("SELECT DISTINCT writer FROM answers WHERE status = 'streaming'")
    return [row["writer"] for row in rows]


def close_orphans(db: Database, dead: Sequence[str | None], now: int) -> int:
    """Fail the attempts that these programs were writing; their number."""
    places = ", ".join("?" * len(dead))
    names = [name or "" for name in dead]
    which = f"status = 'streaming' AND coalesce(writer, '') IN ({places})"
    flag_judged(db, f"a.{which}", names, now)
    error = "shut-down: The program was stopped while this answer was being written."
    cut = db.query(f"SELECT DISTINCT turn_id FROM answers WHERE {which}", names)
    for turn_id in [row["turn_id"] for row in cut]:
        index_turn(db, turn_id)
    cursor = db.execute(
        f"UPDATE answers SET status = 'failed', error = ?, finished_ms = ? WHERE {which}",
        [error, now, *names],
    )
    return int(cursor.rowcount)


def flag_judged(db: Database, which: str, values: list[Any], now: int) -> None:
    """Put votes that were cast on answers which then failed in quarantine; none is dropped."""
    db.execute(
        "INSERT INTO vote_flags (vote_id, reason, detail, created_ms)"
        " SELECT DISTINCT c.vote_id, 'failed_side', ?, ?"
        " FROM answers a JOIN votes v ON v.turn_id = a.turn_id"
        " JOIN comparisons c ON c.vote_id = v.id AND a.id IN (c.left_answer_id, c.right_answer_id)"
        f" WHERE a.superseded = 0 AND {which} ON CONFLICT DO NOTHING",
        [evidence("failed_side"), now, *values],
    )


def check_side(side: int, num_sides: int) -> None:
    """BattleError unless the battle has this side."""
    if not 0 <= side < num_sides:
        raise BattleError(f"side {side} is unknown; this battle has sides {SIDES[:num_sides]}")
