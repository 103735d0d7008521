"""Writes many battles into the store at once, each a record of `arena.raw`; reads no files.

A record is checked against the same types and rules as a battle of the page before it is
written. A battle whose id the store knows already is left as it is, so that an import that
was interrupted can be run again.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any

from sqlite_utils import Database

from arena.battle import SIDES, AnswerStatus, AskAs, History, Mode, Participant, SamplingParams
from arena.errors import ArenaError
from arena.judgement import Judgement, Strength, Winner
from arena.people import participant_row, sha256
from arena.raw import ANSWER_COLUMNS, BATTLE_COLUMNS, TURN_COLUMNS, VERSION, VOTE_COLUMNS
from arena.records import judgement_columns, sampling_json
from arena.store import now_ms
from arena.texts import canonical_json, check_text

Record = Mapping[str, Any]


class RecordError(ArenaError):
    """A record that is no battle: a field is missing, of the wrong type or contradicts another."""


def participant_of(record: Record) -> Participant:
    """The participant of one side of a record."""
    values = {name: value for name, value in record.items() if name != "sampling"}
    return Participant(
        **{**values, "ask_as": AskAs(values["ask_as"])}, sampling=sampling_of(record["sampling"])
    )


def sampling_of(record: Record) -> SamplingParams:
    """Sampling parameters of a record; unknown ones are refused."""
    known = {field.name for field in fields(SamplingParams)}
    unknown = sorted(set(record) - known)
    if unknown:
        raise RecordError(f"sampling parameter {unknown[0]!r} is unknown")
    return SamplingParams(**{**record, "stop": tuple(record.get("stop", ()))})


def judgement_of(vote: Record) -> Judgement:
    """The judgement of a vote of a record."""
    return Judgement(
        winner=None if vote["winner"] is None else Winner(vote["winner"]),
        ranking=None if vote["ranking"] is None else tuple(vote["ranking"]),
        strength=None if vote["strength"] is None else Strength(vote["strength"]),
        reasons=tuple(vote["reasons"]),
        comment=vote["comment"],
        edited_answer=vote["edited_answer"],
    )


def check_record(record: Record) -> None:
    """RecordError, or an error of battle, judgement or text, naming what is wrong."""
    try:
        _check(record)
    except (KeyError, TypeError, AttributeError) as error:
        raise RecordError(f"not a battle: {type(error).__name__} {error}") from error
    except ValueError as error:
        if isinstance(error, ArenaError):
            raise
        raise RecordError(str(error)) from error


def _check(record: Record) -> None:
    if record["version"] != VERSION:
        raise RecordError(f"version {record['version']!r} is not {VERSION}; update the program")
    num_sides = len(record["participants"])
    if not 2 <= num_sides <= len(SIDES):
        raise RecordError(f"a battle has 2 to {len(SIDES)} sides, not {num_sides}")
    if not isinstance(record["id"], str) or not 1 <= len(record["id"]) <= 100:
        raise RecordError(f"id {record['id']!r} is no text of 1 to 100 characters")
    Mode(record["mode"])
    for participant in record["participants"]:
        check_text("name", participant_of(participant).name)
    for turn in record["turns"]:
        History(turn["context"])
        check_text("prompt", turn["prompt"])
        current = {answer["side"]: answer for answer in turn["answers"] if not answer["superseded"]}
        for answer in turn["answers"]:
            AnswerStatus(answer["status"])
            check_text("answer", answer["text"])
            if not 0 <= answer["side"] < num_sides:
                raise RecordError(f"answer of side {answer['side']} in a battle of {num_sides}")
        for vote in turn["votes"]:
            judgement_of(vote).pairs(num_sides)
            check_text("comment", vote["comment"] + vote["edited_answer"])
            if len(current) != num_sides:
                raise RecordError("a vote on a turn without an answer of every side")


class BulkWriter:
    """Adds records to an open database inside a transaction of the caller."""

    def __init__(self, db: Database, voter_name: Callable[[Any], str]) -> None:
        """`voter_name`: the pseudonym that a voter of the records gets in the store."""
        self._db = db
        self._voter_name = voter_name
        self._voters: dict[Any, int] = {}
        self._people: dict[str, int] = {}
        self._rows: dict[str, list[dict[str, Any]]] = {}
        self._ids: dict[str, int] = {}

    def add(self, records: Sequence[Record]) -> int:
        """Write checked records that are new to the store; their number."""
        known = self._known([record["id"] for record in records])
        for table in ("battles", "turns", "answers", "votes"):
            found = next(iter(self._db.query(f"SELECT coalesce(max(id), 0) AS id FROM {table}")))
            self._ids[table] = found["id"]
        num_new = 0
        for record in records:
            if record["id"] not in known:
                known.add(record["id"])
                self._battle(record)
                num_new += 1
        self._flush()
        return num_new

    def _known(self, names: list[str]) -> set[str]:
        marks = ",".join("?" * len(names))
        rows = self._db.query(f"SELECT public_id FROM battles WHERE public_id IN ({marks})", names)
        return {row["public_id"] for row in rows}

    def _put(self, table: str, row: dict[str, Any]) -> int:
        """Queue a row; numbered tables give it the next id."""
        number = 0
        if table in self._ids:
            number = self._ids[table] = self._ids[table] + 1
            row = {"id": number, **row}
        self._rows.setdefault(table, []).append(row)
        return number

    def _flush(self) -> None:
        for table in (
            *("battles", "sides", "turns", "answers", "votes", "comparisons"),
            *("vote_flags", "skips", "vote_history"),
        ):
            rows = self._rows.pop(table, [])
            if rows:
                names = list(rows[0])
                marks = ", ".join(f":{name}" for name in names)
                self._db.conn.executemany(
                    f"INSERT INTO {table} ({', '.join(names)}) VALUES ({marks})", rows
                )

    def _voter(self, voter: Any) -> int:
        if voter not in self._voters:
            name = self._voter_name(voter)
            row = {"name": name, "now": now_ms()}
            self._db.execute(
                "INSERT INTO voters (pseudonym, created_ms) VALUES (:name, :now)"
                " ON CONFLICT DO NOTHING",
                row,
            )
            found = self._db.query("SELECT id FROM voters WHERE pseudonym = :name", row)
            self._voters[voter] = next(iter(found))["id"]
        return self._voters[voter]

    def _participant(self, record: Record) -> int:
        key = canonical_json(record)
        if key not in self._people:
            self._people[key] = participant_row(self._db, participant_of(record), now_ms())
        return self._people[key]

    def _battle(self, record: Record) -> None:
        battle = self._put(
            "battles",
            {
                **{name: record[name] for name in BATTLE_COLUMNS},
                "public_id": record["id"],
                # The secret of a battle never leaves its store; nobody knows the new one.
                "token_sha256": sha256(secrets.token_hex(16)),
                "owner_id": None if record["owner"] is None else self._voter(record["owner"]),
                "tags": canonical_json(record["tags"]),
            },
        )
        sides = [self._participant(participant) for participant in record["participants"]]
        for position, participant in enumerate(sides):
            side = {"battle_id": battle, "position": position, "participant_id": participant}
            self._put("sides", side)
        for position, turn in enumerate(record["turns"]):
            self._turn(battle, position, turn, sides)

    def _turn(self, battle: int, position: int, record: Record, sides: list[int]) -> None:
        columns = {name: record[name] for name in TURN_COLUMNS} | {"history": record["context"]}
        turn = self._put("turns", {"battle_id": battle, "position": position, **columns})
        answers: dict[int, int] = {}
        for answer in record["answers"]:
            row = {name: answer[name] for name in ANSWER_COLUMNS}
            number = self._put(
                "answers",
                row
                | {
                    "turn_id": turn,
                    "sampling": sampling_json(sampling_of(answer["sampling"])),
                    "identity_leak": answer["identity_leak"],
                    "superseded": answer["superseded"],
                },
            )
            if not answer["superseded"]:
                answers[answer["side"]] = number
        for vote in record["votes"]:
            self._vote(turn, vote, sides, answers)
        for skip in record["skips"]:
            voter = self._voter(skip["voter"])
            row = {"turn_id": turn, "voter_id": voter, "created_ms": skip["created_ms"]}
            self._put("skips", row)
        for act in record["history"]:
            row = {"turn_id": turn, "voter_id": self._voter(act["voter"])}
            row |= {"action": act["action"], "body": canonical_json(act["body"])}
            self._put("vote_history", {**row, "at_ms": act["at_ms"]})

    def _vote(self, turn: int, vote: Record, sides: list[int], answers: dict[int, int]) -> None:
        judgement = judgement_of(vote)
        number = self._put(
            "votes",
            {
                **{name: vote[name] for name in VOTE_COLUMNS},
                **judgement_columns(judgement),
                "turn_id": turn,
                "voter_id": self._voter(vote["voter"]),
                "partial": vote["partial"],
                "blind": vote["blind"],
            },
        )
        for pair in judgement.pairs(len(sides)):
            self._put(
                "comparisons",
                {
                    "vote_id": number,
                    "left_side": pair.left,
                    "right_side": pair.right,
                    "left_id": sides[pair.left],
                    "right_id": sides[pair.right],
                    "left_answer_id": answers[pair.left],
                    "right_answer_id": answers[pair.right],
                    "winner": pair.winner,
                    "weight": pair.weight,
                },
            )
        for flag in vote["flags"]:
            self._put("vote_flags", {"vote_id": number, **flag})


def pseudonym(source: str, voter: Any) -> str:
    """The same voter of the same source is the same pseudonym in every import."""
    return hashlib.sha256(f"{source}\n{voter}".encode()).hexdigest()[:16]
