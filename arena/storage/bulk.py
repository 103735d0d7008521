"""Writes many battles into the store at once, each a record of `arena.storage.raw`; reads no files.

A record is checked against the same types and rules as a battle of the page before it is
written. A battle whose id the store knows already is left as it is, so that an import that
was interrupted can be run again.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from operator import itemgetter
from typing import Any

from sqlite_utils import Database

from arena.errors import ArenaError
from arena.storage.people import participant_row, sha256
from arena.storage.raw import (
    ANSWER_COLUMNS,
    BATTLE_COLUMNS,
    PARTICIPANT_COLUMNS,
    TURN_COLUMNS,
    VERSION,
    VOTE_COLUMNS,
)
from arena.storage.records import sampling_json
from arena.storage.store import now_ms
from arena.values.battle import (
    SIDES,
    AnswerStatus,
    AskAs,
    History,
    Mode,
    Participant,
    SamplingParams,
)
from arena.values.judgement import Judgement, Strength, Winner
from arena.values.texts import canonical_json, check_text

Record = Mapping[str, Any]


UNSET = SamplingParams()


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
    if not record:
        return UNSET
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
        _check_turn(turn, num_sides)


def _check_turn(turn: Record, num_sides: int) -> None:
    History(turn["context"])
    check_text("prompt", turn["prompt"])
    current = set()
    for answer in turn["answers"]:
        AnswerStatus(answer["status"])
        check_text("answer", answer["text"])
        sampling_of(answer["sampling"])
        if not 0 <= answer["side"] < num_sides:
            raise RecordError(f"answer of side {answer['side']} in a battle of {num_sides}")
        if not answer["superseded"]:
            current.add(answer["side"])
    for vote in turn["votes"]:
        judgement_of(vote).pairs(num_sides)
        check_text("comment", vote["comment"] + vote["edited_answer"])
        if len(current) != num_sides:
            raise RecordError("a vote on a turn without an answer of every side")


COLUMNS = {
    "battles": ("id", "public_id", "token_sha256", "owner_id", "tags", *BATTLE_COLUMNS),
    "sides": ("battle_id", "position", "participant_id"),
    "turns": ("id", "battle_id", "position", "history", *TURN_COLUMNS),
    "answers": ("id", "turn_id", "sampling", "identity_leak", "superseded", *ANSWER_COLUMNS),
    "votes": ("id", "turn_id", "voter_id", "ranking", "reasons", "partial", "blind", *VOTE_COLUMNS),
    "comparisons": (
        *("vote_id", "left_side", "right_side", "left_id", "right_id"),
        *("left_answer_id", "right_answer_id", "winner", "weight"),
    ),
    "vote_flags": ("vote_id", "reason", "detail", "created_ms", "cleared_ms"),
    "skips": ("turn_id", "voter_id", "created_ms"),
    "vote_history": ("turn_id", "voter_id", "action", "body", "at_ms"),
}
"""What is written to each table, tables that others refer to first."""

_PARTICIPANT, _BATTLE, _TURN, _ANSWER, _VOTE, _FLAG = (
    itemgetter(*names)
    for names in (
        *(PARTICIPANT_COLUMNS, BATTLE_COLUMNS, TURN_COLUMNS, ANSWER_COLUMNS, VOTE_COLUMNS),
        COLUMNS["vote_flags"][1:],
    )
)


class BulkWriter:
    """Adds records to an open database inside a transaction of the caller.

    One writer may serve several transactions, one after the other, of one database.
    """

    def __init__(self, voter_name: Callable[[Any], str]) -> None:
        """`voter_name`: the pseudonym that a voter of the records gets in the store."""
        self._voter_name = voter_name
        self._voters: dict[Any, int] = {}
        self._people: dict[tuple[Any, ...], int] = {}
        self._rows: dict[str, list[tuple[Any, ...]]] = {}
        self._ids: dict[str, int] = {}

    def add(self, db: Database, records: Sequence[Record]) -> int:
        """Write checked records that are new to the store; their number."""
        known = _known(db, [record["id"] for record in records])
        self._rows = {table: [] for table in COLUMNS}
        for table in ("battles", "turns", "answers", "votes"):
            found = next(iter(db.query(f"SELECT coalesce(max(id), 0) AS id FROM {table}")))
            self._ids[table] = found["id"]
        num_new = 0
        try:
            for record in records:
                if record["id"] not in known:
                    known.add(record["id"])
                    self._battle(db, record)
                    num_new += 1
            self._flush(db)
        except BaseException:  # what is rolled back now is no longer known
            self._voters.clear()
            self._people.clear()
            raise
        return num_new

    def _next(self, table: str) -> int:
        number = self._ids[table] = self._ids[table] + 1
        return number

    def _flush(self, db: Database) -> None:
        for table, names in COLUMNS.items():
            if self._rows[table]:
                marks = ", ".join("?" * len(names))
                db.conn.executemany(
                    f"INSERT INTO {table} ({', '.join(names)}) VALUES ({marks})", self._rows[table]
                )

    def _voter(self, db: Database, voter: Any) -> int:
        if voter not in self._voters:
            name = self._voter_name(voter)
            row = {"name": name, "now": now_ms()}
            db.execute(
                "INSERT INTO voters (pseudonym, created_ms) VALUES (:name, :now)"
                " ON CONFLICT DO NOTHING",
                row,
            )
            found = db.query("SELECT id FROM voters WHERE pseudonym = :name", row)
            self._voters[voter] = next(iter(found))["id"]
        return self._voters[voter]

    def _participant(self, db: Database, record: Record) -> int:
        key = (*_PARTICIPANT(record), str(record["sampling"]))
        if key not in self._people:
            self._people[key] = participant_row(db, participant_of(record), now_ms())
        return self._people[key]

    def _battle(self, db: Database, record: Record) -> None:
        battle = self._next("battles")
        # The secret of a battle never leaves its store; nobody knows the new one.
        token = sha256(secrets.token_hex(16))
        owner = None if record["owner"] is None else self._voter(db, record["owner"])
        tags = canonical_json(record["tags"])
        row = (battle, record["id"], token, owner, tags, *_BATTLE(record))
        self._rows["battles"].append(row)
        sides = [self._participant(db, participant) for participant in record["participants"]]
        self._rows["sides"] += [(battle, i, side) for i, side in enumerate(sides)]
        for position, turn in enumerate(record["turns"]):
            self._turn(db, (battle, position), turn, sides)

    def _turn(self, db: Database, place: tuple[int, int], record: Record, sides: list[int]) -> None:
        turn = self._next("turns")
        self._rows["turns"].append((turn, *place, record["context"], *_TURN(record)))
        answers: dict[int, int] = {}
        for answer in record["answers"]:
            number = self._next("answers")
            sampling = (
                sampling_json(sampling_of(answer["sampling"])) if answer["sampling"] else "{}"
            )
            marks = (answer["identity_leak"], answer["superseded"])
            self._rows["answers"].append((number, turn, sampling, *marks, *_ANSWER(answer)))
            if not answer["superseded"]:
                answers[answer["side"]] = number
        for vote in record["votes"]:
            self._vote(turn, self._voter(db, vote["voter"]), vote, sides, answers)
        for skip in record["skips"]:
            voter = self._voter(db, skip["voter"])
            self._rows["skips"].append((turn, voter, skip["created_ms"]))
        for act in record["history"]:
            voter = self._voter(db, act["voter"])
            row = (turn, voter, act["action"], canonical_json(act["body"]), act["at_ms"])
            self._rows["vote_history"].append(row)

    def _vote(
        self, turn: int, voter: int, vote: Record, sides: list[int], answers: dict[int, int]
    ) -> None:
        judgement = judgement_of(vote)
        number = self._next("votes")
        ranking = None if judgement.ranking is None else canonical_json(judgement.ranking)
        said = (ranking, canonical_json(judgement.reasons), vote["partial"], vote["blind"])
        self._rows["votes"].append((number, turn, voter, *said, *_VOTE(vote)))
        for pair in judgement.pairs(len(sides)):
            left, right = pair.left, pair.right
            self._rows["comparisons"].append(
                (
                    *(number, left, right, sides[left], sides[right]),
                    *(answers[left], answers[right], str(pair.winner), pair.weight),
                )
            )
        self._rows["vote_flags"] += [(number, *_FLAG(flag)) for flag in vote["flags"]]


def _known(db: Database, names: list[str]) -> set[str]:
    """Which of these battles the store has."""
    marks = ",".join("?" * len(names))
    rows = db.execute(f"SELECT public_id FROM battles WHERE public_id IN ({marks})", names)
    return {row[0] for row in rows}


def pseudonym(source: str, voter: Any) -> str:
    """The same voter of the same source is the same pseudonym in every import."""
    return hashlib.sha256(f"{source}\n{voter}".encode()).hexdigest()[:16]
