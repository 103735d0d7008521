"""Records of `arena.storage.raw` as rows of the tables, each checked; knows no database.

A block holds the rows of some battles. Its battles, turns, answers and votes are numbered from 0,
and so are the people in them, so that blocks can be made apart from the store, in another process,
and be written by the thousand. A record that is no battle leaves nothing in its block.

The types of all values are looked at column by column when a block is taken, which is several times
faster than value by value; only a block in which something is wrong is made again with care, to
tell which record it was.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any

from arena.errors import ArenaError
from arena.storage.raw import VERSION
from arena.storage.record_fields import (
    ACT,
    ACTIONS,
    ANSWER,
    BATTLE,
    FLAG,
    MARKS,
    MAX_WHOLE,
    PARTICIPANT,
    TURN,
    VOTE,
    Fields,
    Record,
    RecordError,
    are_right,
)
from arena.storage.rows import sampling_json
from arena.values.battle import SIDES, AnswerStatus, AskAs, HistoryMode, Mode, SamplingSettings
from arena.values.texts import canonical_json, check_text
from arena.values.vote import Judgement, Strength, Winner

WORDS: dict[type[StrEnum], frozenset[str]] = {
    words: frozenset(words) for words in (Mode, AskAs, HistoryMode, AnswerStatus)
}

COLUMNS = {
    "battles": ("id", "token_sha256", "owner_id", "tags", "public_id", *list(BATTLE)[1:]),
    "sides": ("battle_id", "position", "participant_id"),
    "turns": ("id", "battle_id", "position", "history", *list(TURN)[1:]),
    "answers": ("id", "turn_id", "sampling", *ANSWER),
    "votes": ("id", "turn_id", "voter_id", "ranking", "reasons", *VOTE),
    "comparisons": (
        *("vote_id", "left_side", "right_side", "left_id", "right_id"),
        *("left_answer_id", "right_answer_id", "winner", "weight"),
    ),
    "vote_flags": ("vote_id", *FLAG),
    "skips": ("turn_id", "voter_id", "created_ms"),
    "vote_history": ("turn_id", "voter_id", "body", "action", "at_ms"),
}
"""What is written to each table, tables that others refer to first."""

FROM_RECORDS = {
    "battles": BATTLE,
    "turns": TURN,
    "answers": ANSWER,
    "votes": VOTE,
    "vote_flags": FLAG,
    "vote_history": ACT,
}
"""The fields of records that are the last columns of a table, as they are."""


class SomethingWrongError(Exception):
    """A block made without care holds a value that it cannot hold; make it again with care."""


@dataclass
class Block:
    """Rows of some battles; every field is a plain value that `marshal` can carry.

    `rows[table]`: the values of all its rows one after the other, in the order of COLUMNS.
    `people`: participants, the values of PARTICIPANT and their sampling as JSON. `voters`:
    pseudonyms in order of appearance. `ids`: of the battles. `num_repeated`: records left
    out because their battle is in the block already.
    """

    rows: dict[str, list[Any]] = field(default_factory=lambda: {table: [] for table in COLUMNS})
    people: list[tuple[Any, ...]] = field(default_factory=list)
    voters: list[str] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    num_repeated: int = 0


class BlockBuilder:
    """Takes one record after the other into a block."""

    def __init__(self, voter_name: Callable[[Any], str], *, careful: bool = True) -> None:
        """`voter_name`: the pseudonym that a voter of the records gets in the store. `careful`:
        look at every value when its record is added, and tell which is wrong.
        """
        self._voter_name, self._careful = voter_name, careful
        self._participant_fields = Fields("participant", **PARTICIPANT)
        of = {}
        for what, kinds in (
            *(("battle", BATTLE), ("prompt", TURN), ("answer", ANSWER)),
            *(("vote", VOTE), ("flag", FLAG), ("history", ACT)),
        ):
            fields = Fields(what, **kinds)
            of[what] = fields.of if careful else fields.values
        self._battle_of, self._turn_of, self._answer_of = of["battle"], of["prompt"], of["answer"]
        self._vote_of, self._flag_of, self._act_of = of["vote"], of["flag"], of["history"]
        self._pairs: dict[Any, tuple[tuple[int, int, str, float], ...]] = {}
        self._start()

    def _start(self) -> None:
        self.block = Block()
        self._ids: set[str] = set()
        self._people: dict[Any, int] = {}
        self._voters: dict[Any, int] = {}
        self._num_turns = self._num_answers = self._num_votes = 0

    def take(self) -> Block:
        """The block of all records since the last one taken. Raises SomethingWrongError."""
        block = self.block
        self._start()
        if not self._careful:
            for table, kinds in FROM_RECORDS.items():
                if not are_right(block.rows[table], len(COLUMNS[table]), kinds):
                    raise SomethingWrongError
        # The secret of a battle never leaves its store; nobody knows one of these hashes.
        rows, width = block.rows["battles"], len(COLUMNS["battles"])
        rows[1::width] = [secrets.token_hex(32) for _ in block.ids]
        for table, names in COLUMNS.items():
            for place, name in enumerate(names):
                if name in MARKS:
                    marks = block.rows[table][place :: len(names)]
                    block.rows[table][place :: len(names)] = map(int, marks)
        return block

    def add(self, record: Record) -> None:
        """Add a record. Raises RecordError, or an error of battle, judgement or text, naming what
        is wrong; with care the block is then as it was before, else it is lost.
        """
        if not self._careful:
            self._battle(record)
            return
        block = self.block
        lengths = [len(rows) for rows in block.rows.values()]
        counts = (self._num_turns, self._num_answers, self._num_votes)
        num_people, num_voters = len(block.people), len(block.voters)
        try:
            self._battle(record)
        except (ArenaError, KeyError, TypeError, AttributeError, ValueError) as error:
            for rows, length in zip(block.rows.values(), lengths, strict=True):
                del rows[length:]
            self._num_turns, self._num_answers, self._num_votes = counts
            del block.people[num_people:], block.voters[num_voters:]
            self._people = {k: i for k, i in self._people.items() if i < num_people}
            self._voters = {k: i for k, i in self._voters.items() if i < num_voters}
            if isinstance(error, ArenaError):
                raise
            if isinstance(error, ValueError):
                raise RecordError(str(error)) from error
            what = f"has no {error}" if isinstance(error, KeyError) else str(error)
            raise RecordError(
                f"is no battle of a raw export ({what}); --format names other forms"
            ) from error

    def _battle(self, record: Record) -> None:
        block = self.block
        if record["version"] != VERSION:
            raise RecordError(f"version {record['version']!r} is not {VERSION}; update the program")
        num_sides = len(record["participants"])
        if not 2 <= num_sides <= len(SIDES):
            raise RecordError(f"a battle has 2 to {len(SIDES)} sides, not {num_sides}")
        values = self._battle_of(record)
        name, mode, _, propensity = values[:4]
        if not 1 <= len(name) <= 100:
            raise RecordError(f"id {name!r} is no text of 1 to 100 characters")
        _word(mode, Mode)
        if propensity is not None and not 0 < propensity <= 1:
            raise RecordError(f"propensity {propensity} is no probability")
        if name in self._ids:
            block.num_repeated += 1
            return
        number = len(block.ids)
        owner = None if record["owner"] is None else self._voter(record["owner"])
        block.rows["battles"] += (number, "", owner, _json(record["tags"]))
        block.rows["battles"] += values
        sides = [self._participant(participant) for participant in record["participants"]]
        for position, side in enumerate(sides):
            block.rows["sides"] += (number, position, side)
        for position, turn in enumerate(record["turns"]):
            self._turn(number, position, turn, sides)
        block.ids.append(name)
        self._ids.add(name)

    def _voter(self, voter: Any) -> int:
        number = self._voters.get(voter)
        if number is None:
            number = self._voters[voter] = len(self.block.voters)
            self.block.voters.append(self._voter_name(voter))
        return number

    def _participant(self, record: Record) -> int:
        values = self._participant_fields.values(record)
        key = (*values, str(record["sampling"]))
        number = self._people.get(key)
        if number is None:
            self._participant_fields.of(record)
            if len(record) != len(values) + 1:
                unknown = sorted(set(record) - {*PARTICIPANT, "sampling"})
                raise RecordError(f"participant: {unknown[0]} is no field of it")
            _word(record["ask_as"], AskAs)
            sampling = _sampling(record["sampling"])
            number = self._people[key] = len(self.block.people)
            self.block.people.append((*values, sampling))
        return number

    def _turn(self, battle: int, position: int, record: Record, sides: list[int]) -> None:
        values = self._turn_of(record)
        context, _, shared, _ = values
        _word(context, HistoryMode)
        if (shared is None) != (context == HistoryMode.OWN) or not 0 <= (shared or 0) < len(sides):
            raise RecordError(f"shared_side {shared} in the context {context!r}")
        turn, self._num_turns = self._num_turns, self._num_turns + 1
        self.block.rows["turns"] += (turn, battle, position)
        self.block.rows["turns"] += values
        answers = self._answers(turn, record["answers"], len(sides))
        votes: set[int] = set()
        for vote in record["votes"]:
            if len(answers) != len(sides):
                raise RecordError("a vote on a turn without an answer of every side")
            votes.add(self._vote(turn, vote, sides, answers))
        if len(votes) != len(record["votes"]):
            raise RecordError("a voter has two votes on one turn")
        self._skips_and_history(turn, record)

    def _answers(self, turn: int, records: Iterable[Record], num_sides: int) -> dict[int, int]:
        """Adds the answers of a turn; the current one of each side."""
        current: dict[int, int] = {}
        attempts: set[tuple[int, int]] = set()
        rows, take = self.block.rows["answers"], self._answer_of
        for record in records:
            values = take(record)
            side, attempt, superseded, _, status = values[:5]
            _word(status, AnswerStatus)
            if not 0 <= side < num_sides or attempt < 1 or (side, attempt) in attempts:
                raise RecordError(
                    f"answer of side {side}, attempt {attempt}, in a battle of {num_sides}"
                )
            attempts.add((side, attempt))
            number, self._num_answers = self._num_answers, self._num_answers + 1
            if not superseded:
                if side in current:
                    raise RecordError(f"side {SIDES[side]} has two current answers")
                current[side] = number
            rows += (number, turn, _sampling(record["sampling"]))
            rows += values
        return current

    def _vote(self, turn: int, record: Record, sides: list[int], answers: dict[int, int]) -> int:
        """Adds a vote with its pairs and flags; the number of its voter."""
        rows = self.block.rows
        values = self._vote_of(record)
        voter = self._voter(record["voter"])
        number, self._num_votes = self._num_votes, self._num_votes + 1
        pairs = self._judged(record, len(sides))
        ranking = None if record["ranking"] is None else canonical_json(record["ranking"])
        rows["votes"] += (number, turn, voter, ranking, _json(record["reasons"]))
        rows["votes"] += values
        for left, right, winner, weight in pairs:
            rows["comparisons"] += (number, left, right, sides[left], sides[right])
            rows["comparisons"] += (answers[left], answers[right], winner, weight)
        reasons = set()
        for flag in record["flags"]:
            told = self._flag_of(flag)
            reasons.add(told[0])
            rows["vote_flags"] += (number, *told)
        if len(reasons) != len(record["flags"]):
            raise RecordError("a vote has the same flag twice")
        return voter

    def _judged(self, vote: Record, num_sides: int) -> tuple[tuple[int, int, str, float], ...]:
        """What a vote says about each pair of sides."""
        winner, strength = vote["winner"], vote["strength"]
        ranking = None if vote["ranking"] is None else tuple(vote["ranking"])
        key = (winner, strength, ranking, tuple(vote["reasons"]), num_sides)
        pairs = self._pairs.get(key)
        if pairs is None:
            if ranking is not None and not all(type(rank) is int for rank in ranking):
                raise RecordError(f"ranking {list(ranking)} holds something else than whole ranks")
            judgement = Judgement(
                winner=None if winner is None else Winner(winner),
                ranking=ranking,
                strength=None if strength is None else Strength(strength),
                reasons=key[3],
            )
            pairs = tuple(
                (pair.left, pair.right, str(pair.winner), pair.weight)
                for pair in judgement.pairs(num_sides)
            )
            if len(self._pairs) < 10_000:
                self._pairs[key] = pairs
        return pairs

    def _skips_and_history(self, turn: int, record: Record) -> None:
        rows = self.block.rows
        skipped: set[int] = set()
        for skip in record["skips"]:
            voter, time = self._voter(skip["voter"]), skip["created_ms"]
            if voter in skipped or type(time) is not int or not 0 <= time <= MAX_WHOLE:
                raise RecordError(f"a skip twice, or at {time!r}, which is no time")
            skipped.add(voter)
            rows["skips"] += (turn, voter, time)
        for act in record["history"]:
            action, at_ms = self._act_of(act)
            if action not in ACTIONS:
                raise RecordError(f"action {action!r} is unknown; use one of {', '.join(ACTIONS)}")
            body = canonical_json(act["body"])
            check_text("history", body)
            rows["vote_history"] += (turn, self._voter(act["voter"]), body, action, at_ms)


def _word(value: str, words: type[StrEnum]) -> None:
    """ValueError for a text that is no member."""
    if value not in WORDS[words]:
        words(value)


def _json(texts: Any) -> str:
    """A list of texts as JSON."""
    if not texts and isinstance(texts, list):
        return "[]"
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise RecordError(f"{texts!r} is no list of texts")
    return check_text("tags", canonical_json(texts))


def _sampling(record: Any) -> str:
    """Sampling parameters as the store writes them; unknown ones are refused."""
    if record == {}:
        return "{}"
    known = {field.name for field in fields(SamplingSettings)}
    unknown = sorted(set(record) - known)
    if unknown:
        raise RecordError(f"sampling parameter {unknown[0]!r} is unknown")
    stop = tuple(record.get("stop", ()))
    reward = record.get("reward")
    if reward is not None and not isinstance(reward, str):
        raise RecordError(f"sampling parameter 'reward' is {reward!r}, no name")
    check_text("reward", reward or "")
    texts = ("stop", "reward")
    numbers = [value for name, value in record.items() if name not in texts and value is not None]
    if not all(type(value) in (int, float) and math.isfinite(value) for value in numbers):
        raise RecordError(f"sampling {record!r} holds something else than numbers")
    return check_text("stop", sampling_json(SamplingSettings(**{**record, "stop": stop})))
