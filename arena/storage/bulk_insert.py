"""Writes blocks of battles into the store, many rows a statement; reads no files.

A battle whose id the store knows already is left as it is, so that the same file may be imported
again. Blocks are checked when they are made (`arena.storage.record_blocks`); the database checks
its own rules once more.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

from sqlite_utils import Database

from arena.storage.identities import participant_row
from arena.storage.record_blocks import COLUMNS, Block
from arena.storage.record_fields import PARTICIPANT
from arena.storage.rows import sampling_from
from arena.storage.store import now_ms
from arena.values.battle import AskAs, Participant

ROWS = 200
"""Rows a statement: a statement for each row would cost half as much again."""

CACHE_KIB = 64_000
"""Pages of indexes held in memory; SQLite's default of 2 MB writes them over and over."""

VOTERS_HELD = 200_000
"""Voters whose row is remembered from block to block."""

# For each table: where its row says which row of which other table it belongs to.
PARENTS = {
    **{"sides": ("battles", 0), "turns": ("battles", 1), "answers": ("turns", 1)},
    **{"votes": ("turns", 1), "comparisons": ("votes", 0), "vote_flags": ("votes", 0)},
    **{"skips": ("turns", 0), "vote_history": ("turns", 0)},
}
# For each table: the columns that hold numbers of the block, by what they number.
NUMBERED = {
    "battles": {0: "battles", 2: "voters"},
    "sides": {0: "battles", 2: "people"},
    "turns": {0: "turns", 1: "battles"},
    "answers": {0: "answers", 1: "turns"},
    "votes": {0: "votes", 1: "turns", 2: "voters"},
    "comparisons": {0: "votes", 3: "people", 4: "people", 5: "answers", 6: "answers"},
    "vote_flags": {0: "votes"},
    "skips": {0: "turns", 1: "voters"},
    "vote_history": {0: "turns", 1: "voters"},
}


class BulkWriter:
    """Adds blocks to an open database inside one transaction of the caller."""

    def __init__(self, db: Database) -> None:
        """`db` holds the write lock, so that nobody else adds rows."""
        self._db = db
        db.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        self._first = {
            table: int(db.execute(f"SELECT coalesce(max(id), 0) + 1 FROM {table}").fetchone()[0])
            for table in ("battles", "turns", "answers", "votes")
        }
        self._voters: dict[str, int] = {}
        self._people: dict[tuple[Any, ...], int] = {}

    def add(self, block: Block) -> int:
        """Write the battles that are new to the store; their number."""
        known = self._known(block.ids)
        if known:
            _leave_out(block, {i for i, name in enumerate(block.ids) if name in known})
        self._number(block)
        for table, values in block.rows.items():
            self._insert(table, values)
        for table in self._first:
            if block.rows[table]:
                self._first[table] = block.rows[table][-len(COLUMNS[table])] + 1
        return len(block.ids) - len(known)

    def formats_of(self, sha256: str) -> set[str]:
        """The formats as which a file of this content was imported before."""
        found = self._db.execute("SELECT format FROM imported_files WHERE sha256 = ?", [sha256])
        return {row[0] for row in found}

    def note_file(self, sha256: str, kind: str) -> None:
        """Remember that a file was imported as this format."""
        self._db.execute(
            "INSERT INTO imported_files (sha256, format, created_ms) VALUES (?, ?, ?)"
            " ON CONFLICT DO NOTHING",
            [sha256, kind, now_ms()],
        )

    def _known(self, names: list[str]) -> set[str]:
        """Which of these battles the store has."""
        known: set[str] = set()
        for some in _some(names):
            marks = ",".join("?" * len(some))
            rows = self._db.execute(
                f"SELECT public_id FROM battles WHERE public_id IN ({marks})", some
            )
            known.update(row[0] for row in rows)
        return known

    def _number(self, block: Block) -> None:
        """Put the numbers of the store in the place of those of the block."""
        used: dict[str, set[int]] = {"people": set(), "voters": set()}
        for table, columns in NUMBERED.items():
            for column, what in columns.items():
                if what in used:
                    used[what].update(block.rows[table][column :: len(COLUMNS[table])])
        voters = self._voter_rows(block.voters, used["voters"] - {None})
        people = {i: self._participant(block.people[i]) for i in sorted(used["people"])}
        for table, columns in NUMBERED.items():
            values, width = block.rows[table], len(COLUMNS[table])
            for column, what in columns.items():
                numbers = values[column::width]
                if what in self._first:
                    first = self._first[what]
                    values[column::width] = [first + number for number in numbers]
                else:
                    found = people if what == "people" else voters
                    values[column::width] = [found.get(number) for number in numbers]

    def _voter_rows(self, names: list[str], used: set[int]) -> dict[int, int]:
        """The row of each voter, made when it is new, in the order of the block."""
        if len(self._voters) > VOTERS_HELD:
            self._voters.clear()
        new = [names[i] for i in sorted(used) if names[i] not in self._voters]
        now = now_ms()
        self._db.conn.executemany(
            "INSERT INTO voters (pseudonym, created_ms) VALUES (?, ?) ON CONFLICT DO NOTHING",
            [(name, now) for name in new],
        )
        for some in _some(new):
            marks = ",".join("?" * len(some))
            self._voters.update(
                self._db.execute(
                    f"SELECT pseudonym, id FROM voters WHERE pseudonym IN ({marks})", some
                )
            )
        return {i: self._voters[names[i]] for i in used}

    def _participant(self, told: tuple[Any, ...]) -> int:
        if told not in self._people:
            values = dict(zip(PARTICIPANT, told[:-1], strict=True))
            participant = Participant(
                **values | {"ask_as": AskAs(values["ask_as"])}, sampling=sampling_from(told[-1])
            )
            self._people[told] = participant_row(self._db, participant, now_ms())
        return self._people[told]

    def _insert(self, table: str, values: list[Any]) -> None:
        width = len(COLUMNS[table])
        size = ROWS * width
        rest = len(values) // size * size
        statement = _statement(table, ROWS)
        for first in range(0, rest, size):
            self._db.conn.execute(statement, values[first : first + size])
        self._db.conn.executemany(
            _statement(table, 1),
            [values[first : first + width] for first in range(rest, len(values), width)],
        )


def _statement(table: str, num_rows: int) -> str:
    names = COLUMNS[table]
    marks = f"({', '.join('?' * len(names))})"
    return f"INSERT INTO {table} ({', '.join(names)}) VALUES {', '.join([marks] * num_rows)}"


def _some(names: Sequence[str]) -> Iterator[Sequence[str]]:
    """As many at a time as one statement may ask for."""
    return (names[first : first + 10_000] for first in range(0, len(names), 10_000))


def _leave_out(block: Block, battles: set[int]) -> None:
    """Take the rows of some battles out of a block; its numbers then have gaps."""
    gone: dict[str, set[int]] = {"battles": battles}
    for table, names in COLUMNS.items():
        values, width = block.rows[table], len(names)
        parent, place = PARENTS.get(table, ("battles", 0))
        kept: list[Any] = []
        gone.setdefault(table, set())
        for first in range(0, len(values), width):
            if values[first + place] in gone[parent]:
                gone[table].add(values[first])
            else:
                kept += values[first : first + width]
        block.rows[table] = kept


def pseudonym(source: str, voter: Any) -> str:
    """The same voter of the same source is the same pseudonym in every import."""
    return hashlib.sha256(f"{source}\n{voter}".encode()).hexdigest()[:16]
