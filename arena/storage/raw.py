"""The store as lines of JSON, one battle a line, nothing left out but secrets.

The probabilities of single tokens stay behind, too: they are shown on the page only.
Importing such a file into an empty store and exporting again gives the same bytes. Voters
are numbered in order of appearance. Several cursors run side by side, each in the order of
battles, so that memory stays constant.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from sqlite_utils import Database

from arena.storage.database import SqlRow
from arena.storage.record_fields import Record
from arena.values.texts import canonical_json

VERSION = 1
NESTED = ("participants", "turns")
TYPES = {"propensity": "float64"} | dict.fromkeys(
    ("version", "owner", "set_index", "created_ms", "revealed_ms"), "int64"
)

BATTLE_COLUMNS = (
    *("mode", "sampler", "propensity", "language", "set_name", "set_index", "source"),
    *("created_ms", "revealed_ms"),
)
PARTICIPANT_COLUMNS = (
    *("name", "model", "ask_as", "kind", "weights_sha256", "base", "base_sha256"),
    "system_prompt",
)
TURN_COLUMNS = ("prompt", "shared_side", "created_ms")
ANSWER_COLUMNS = (
    *("side", "attempt", "status", "text", "prompt_sent", "model", "weights_sha256"),
    *("num_prompt_tokens", "num_tokens", "first_token_s", "total_s", "finish_reason", "error"),
    *("started_ms", "finished_ms"),
)
VOTE_COLUMNS = (*("winner", "strength", "comment", "edited_answer", "created_ms", "updated_ms"),)

_TURN_ORDER = "ORDER BY t.battle_id, t.position"
STREAMS = {
    "sides": "SELECT s.battle_id, p.* FROM sides s JOIN participants p ON p.id = s.participant_id"
    " ORDER BY s.battle_id, s.position",
    "turns": f"SELECT t.* FROM turns t {_TURN_ORDER}",
    "answers": "SELECT t.battle_id, t.position, a.* FROM turns t CROSS JOIN answers a"
    f" ON a.turn_id = t.id {_TURN_ORDER}, a.side, a.attempt",
    "votes": """SELECT t.battle_id, t.position, v.*,
        (SELECT json_group_array(json_object('reason', f.reason, 'detail', f.detail,
                'created_ms', f.created_ms, 'cleared_ms', f.cleared_ms))
           FROM vote_flags f WHERE f.vote_id = v.id) AS flags
        FROM turns t CROSS JOIN votes v ON v.turn_id = t.id """
    f"{_TURN_ORDER}, v.created_ms, v.id",
    "skips": "SELECT t.battle_id, t.position, s.* FROM turns t CROSS JOIN skips s"
    f" ON s.turn_id = t.id {_TURN_ORDER}, s.created_ms, s.voter_id",
    "history": "SELECT t.battle_id, t.position, h.* FROM turns t CROSS JOIN vote_history h"
    f" ON h.turn_id = t.id {_TURN_ORDER}, h.id",
}


def raw_records(db: Database) -> Iterator[Record]:
    """Every battle as a JSON value, in the order in which they were made."""
    streams = {name: Grouped(iter(db.query(sql))) for name, sql in STREAMS.items()}
    voters: dict[int, int] = {}
    for battle in db.query("SELECT * FROM battles ORDER BY id"):
        parts = {name: stream.take(battle["id"]) for name, stream in streams.items()}
        yield _record(battle, parts, voters)


def raw_features() -> list[dict[str, str]]:
    """The columns of a raw file as `datasets` writes types in a card; the nested ones are JSON,
    for their fields differ from battle to battle.
    """
    plain = ["version", "id", "owner", *BATTLE_COLUMNS]
    return [
        *({"name": name, "dtype": TYPES.get(name, "string")} for name in plain),
        {"name": "tags", "list": "string"},
        *({"name": name, "dtype": "json"} for name in NESTED),
    ]


def raw_line(record: Record) -> str:
    """One line of a raw file, with its end."""
    return canonical_json(record) + "\n"


class Grouped:
    """Hands out the rows of one battle after another from rows in the order of battles."""

    def __init__(self, rows: Iterator[SqlRow]) -> None:
        """`rows` have a column `battle_id` that never falls."""
        self._rows = rows
        self._next = next(rows, None)

    def take(self, battle_id: int) -> list[SqlRow]:
        """All rows of a battle; battles are asked for in order."""
        taken = []
        while self._next is not None and self._next["battle_id"] == battle_id:
            taken.append(self._next)
            self._next = next(self._rows, None)
        return taken


def _record(battle: SqlRow, parts: Mapping[str, list[SqlRow]], voters: dict[int, int]) -> Record:
    def number(voter: int | None) -> int | None:
        return None if voter is None else voters.setdefault(voter, len(voters) + 1)

    owner = number(battle["owner_id"])
    by_turn: dict[int, dict[str, list[SqlRow]]] = {}
    for name in ("answers", "votes", "skips", "history"):
        for row in parts[name]:
            by_turn.setdefault(row["position"], {}).setdefault(name, []).append(row)
    return {
        "version": VERSION,
        "id": battle["public_id"],
        "owner": owner,
        "tags": json.loads(battle["tags"]),
        **{name: battle[name] for name in BATTLE_COLUMNS},
        "participants": [
            {name: side[name] for name in PARTICIPANT_COLUMNS}
            | {"sampling": json.loads(side["sampling"])}
            for side in parts["sides"]
        ],
        "turns": [
            _turn(turn, by_turn.get(turn["position"], {}), number) for turn in parts["turns"]
        ],
    }


def _turn(turn: SqlRow, parts: Mapping[str, list[SqlRow]], number: Any) -> Record:
    return {
        **{name: turn[name] for name in TURN_COLUMNS},
        "context": turn["history"],
        "answers": [
            {name: row[name] for name in ANSWER_COLUMNS}
            | {
                "sampling": json.loads(row["sampling"]),
                "identity_leak": bool(row["identity_leak"]),
                "superseded": bool(row["superseded"]),
            }
            for row in parts.get("answers", ())
        ],
        "votes": [
            {name: row[name] for name in VOTE_COLUMNS}
            | {
                "voter": number(row["voter_id"]),
                "ranking": None if row["ranking"] is None else json.loads(row["ranking"]),
                "reasons": json.loads(row["reasons"]),
                "partial": bool(row["partial"]),
                "blind": bool(row["blind"]),
                "flags": sorted(json.loads(row["flags"]), key=lambda flag: str(flag["reason"])),
            }
            for row in parts.get("votes", ())
        ],
        "skips": [
            {"voter": number(row["voter_id"]), "created_ms": row["created_ms"]}
            for row in parts.get("skips", ())
        ],
        "history": [
            {
                "voter": number(row["voter_id"]),
                "action": row["action"],
                "body": json.loads(row["body"]),
                "at_ms": row["at_ms"],
            }
            for row in parts.get("history", ())
        ],
    }
