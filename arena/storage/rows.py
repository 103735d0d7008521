"""Rows of the store to battles as values and back; knows columns, no SQL writes."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from sqlite_utils import Database

from arena.storage.database import SqlRow
from arena.values.battle import (
    Answer,
    AnswerStatus,
    AskAs,
    Battle,
    HistoryMode,
    Mode,
    Participant,
    SamplingSettings,
    Turn,
)
from arena.values.refusals import UnknownBattleError
from arena.values.texts import canonical_json
from arena.values.vote import Judgement, Strength, Vote, Winner

VOTE_SQL = """
SELECT v.*, b.public_id, t.position AS turn_position, p.pseudonym,
       (SELECT json_group_array(f.reason) FROM vote_flags f
         WHERE f.vote_id = v.id AND f.cleared_ms IS NULL) AS flags
  FROM votes v
  JOIN turns t ON t.id = v.turn_id
  JOIN battles b ON b.id = t.battle_id
  JOIN voters p ON p.id = v.voter_id
"""


@dataclass(frozen=True)
class StoredBattle:
    """A battle with all votes on it, by turn, as one transaction saw them."""

    battle: Battle
    votes: tuple[Vote, ...]


def sampling_json(sampling: SamplingSettings) -> str:
    """Canonical JSON of the parameters that are set."""
    return canonical_json({k: v for k, v in asdict(sampling).items() if v not in (None, ())})


def sampling_from(text: str) -> SamplingSettings:
    """The parameters that `sampling_json` wrote."""
    fields = json.loads(text)
    return SamplingSettings(**{**fields, "stop": tuple(fields.get("stop", ()))})


def participant_from(row: SqlRow) -> Participant:
    """A row of `participants`."""
    return Participant(
        name=row["name"],
        model=row["model"],
        ask_as=AskAs(row["ask_as"]),
        kind=row["kind"],
        weights_sha256=row["weights_sha256"],
        base=row["base"],
        base_sha256=row["base_sha256"],
        system_prompt=row["system_prompt"],
        sampling=sampling_from(row["sampling"]),
    )


def answer_from(row: SqlRow) -> Answer:
    """A row of `answers`."""
    return Answer(
        id=row["id"],
        side=row["side"],
        attempt=row["attempt"],
        status=AnswerStatus(row["status"]),
        text=row["text"],
        prompt_sent=row["prompt_sent"],
        model=row["model"],
        weights_sha256=row["weights_sha256"],
        sampling=sampling_from(row["sampling"]),
        num_prompt_tokens=row["num_prompt_tokens"],
        num_tokens=row["num_tokens"],
        first_token_s=row["first_token_s"],
        total_s=row["total_s"],
        finish_reason=row["finish_reason"],
        error=row["error"],
        identity_leak=bool(row["identity_leak"]),
        superseded=bool(row["superseded"]),
        started_ms=row["started_ms"],
        finished_ms=row["finished_ms"],
    )


def judgement_from(row: SqlRow) -> Judgement:
    """The judgement columns of a row of `votes`."""
    return Judgement(
        winner=Winner(row["winner"]) if row["winner"] else None,
        ranking=tuple(json.loads(row["ranking"])) if row["ranking"] else None,
        strength=Strength(row["strength"]) if row["strength"] else None,
        reasons=tuple(json.loads(row["reasons"])),
        comment=row["comment"],
        edited_answer=row["edited_answer"],
    )


def judgement_columns(judgement: Judgement) -> dict[str, Any]:
    """The columns of `votes` that hold a judgement."""
    return {
        "winner": judgement.winner,
        "ranking": None if judgement.ranking is None else canonical_json(judgement.ranking),
        "strength": judgement.strength,
        "reasons": canonical_json(judgement.reasons),
        "comment": judgement.comment,
        "edited_answer": judgement.edited_answer,
    }


def vote_from(row: SqlRow) -> Vote:
    """A row of VOTE_SQL."""
    return Vote(
        id=row["id"],
        battle_id=row["public_id"],
        turn=row["turn_position"],
        voter=row["pseudonym"],
        judgement=judgement_from(row),
        partial=bool(row["partial"]),
        blind=bool(row["blind"]),
        flags=tuple(sorted(json.loads(row["flags"]))),
        created_ms=row["created_ms"],
        updated_ms=row["updated_ms"],
    )


def battle_row(db: Database, battle_id: str) -> SqlRow:
    """The row of `battles` with a public id; UnknownBattleError if there is none."""
    rows = list(db.query("SELECT * FROM battles WHERE public_id = ?", [battle_id]))
    if not rows:
        raise UnknownBattleError(f"battle {battle_id!r} is unknown; start a new one")
    return dict(rows[0])


def answer_row(db: Database, answer_id: int) -> SqlRow:
    """The row of `answers` with an id; UnknownBattleError if there is none."""
    rows = list(db.query("SELECT * FROM answers WHERE id = ?", [answer_id]))
    if not rows:
        raise UnknownBattleError(f"answer {answer_id} is unknown; start a new battle")
    return dict(rows[0])


def turns_from(db: Database, battle: int) -> tuple[Turn, ...]:
    """All turns of a battle (by row id) with every attempt of every side."""
    attempts: dict[int, list[Answer]] = {}
    for row in db.query(
        "SELECT a.* FROM answers a JOIN turns t ON t.id = a.turn_id"
        " WHERE t.battle_id = ? ORDER BY a.turn_id, a.side, a.attempt",
        [battle],
    ):
        attempts.setdefault(row["turn_id"], []).append(answer_from(row))
    return tuple(
        Turn(
            id=row["id"],
            position=row["position"],
            prompt=row["prompt"],
            history=HistoryMode(row["history"]),
            shared_side=row["shared_side"],
            attempts=tuple(attempts.get(row["id"], ())),
            created_ms=row["created_ms"],
        )
        for row in db.query("SELECT * FROM turns WHERE battle_id = ? ORDER BY position", [battle])
    )


def battle_from(db: Database, row: SqlRow) -> Battle:
    """A row of `battles` with its sides and turns."""
    sides = db.query(
        "SELECT p.* FROM sides s JOIN participants p ON p.id = s.participant_id"
        " WHERE s.battle_id = ? ORDER BY s.position",
        [row["id"]],
    )
    return Battle(
        id=row["public_id"],
        mode=Mode(row["mode"]),
        participants=tuple(participant_from(side) for side in sides),
        turns=turns_from(db, row["id"]),
        sampler=row["sampler"],
        propensity=row["propensity"],
        tags=tuple(json.loads(row["tags"])),
        language=row["language"],
        set_name=row["set_name"],
        set_index=row["set_index"],
        source=row["source"],
        created_ms=row["created_ms"],
        revealed_ms=row["revealed_ms"],
    )


def votes_from(db: Database, row: SqlRow) -> tuple[Vote, ...]:
    """All votes on a row of `battles`, by turn and then in the order they were cast."""
    found = db.query(VOTE_SQL + " WHERE b.id = ? ORDER BY t.position, v.id", [row["id"]])
    return tuple(vote_from(vote) for vote in found)


def stored_from(db: Database, row: SqlRow) -> StoredBattle:
    """A row of `battles` with its sides, turns and votes."""
    return StoredBattle(battle_from(db, row), votes_from(db, row))
