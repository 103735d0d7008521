"""Keeps the judged pairs of the store as columns of numbers and reads only what has changed.

The store numbers every change of a vote (`vote_changes`); a cache remembers the newest
number it has read, and appends new pairs in place. A copy of them lies beside the database, so
that the next program starts from it. It is derived: a copy that is missing, old or of another
database is made anew from the store. Knows no models' names, no rules of what counts, no fit.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlite_utils import Database

from arena.storage.database import reading
from arena.storage.store import Store

ROW = np.dtype(
    [
        ("vote", np.int64),
        ("created_ms", np.int64),
        ("weight", np.float64),
        ("propensity", np.float64),
        ("left", np.int32),
        ("right", np.int32),
        ("voter", np.int32),
        ("outcome", np.int8),
        ("blind", np.int8),
        ("flagged", np.int8),
    ],
    align=True,
)
"""One judged pair: row ids of vote, voter and participants; `outcome` as of `VoteTable`."""

PairArray = npt.NDArray[np.void]
Column = npt.NDArray[Any]
CacheMark = npt.NDArray[np.int64]

MANY = 20_000
"""With more changes than that all is read anew; so many rows are worth a copy on disk."""

ROWS_SQL = """
SELECT c.vote_id, v.created_ms, c.weight, coalesce(b.propensity, 0), c.left_id, c.right_id,
       v.voter_id,
       CASE c.winner WHEN 'model_a' THEN 0 WHEN 'model_b' THEN 1 WHEN 'tie' THEN 2 ELSE 3 END,
       v.blind,
       EXISTS (SELECT 1 FROM vote_flags f WHERE f.vote_id = v.id AND f.cleared_ms IS NULL)
  FROM comparisons c
  CROSS JOIN votes v ON v.id = c.vote_id
  CROSS JOIN turns t ON t.id = v.turn_id
  CROSS JOIN battles b ON b.id = t.battle_id
"""
CHANGED = " WHERE c.vote_id IN (SELECT vote_id FROM vote_changes WHERE seq > ?)"
ORDER = " ORDER BY c.vote_id, c.left_side, c.right_side"


class PairColumns:
    """Judged pairs as one array a field of ROW. What was handed out never changes: new pairs are
    written behind it, into room that doubles when it runs out.
    """

    def __init__(self, columns: Mapping[str, Column], length: int) -> None:
        """`columns` have at least `length` places; those behind are room."""
        self._columns, self._length = columns, length

    @classmethod
    def of(cls, rows: PairArray) -> PairColumns:
        """From an array of ROW."""
        assert ROW.names is not None
        return cls({name: np.ascontiguousarray(rows[name]) for name in ROW.names}, len(rows))

    def __len__(self) -> int:
        """Number of pairs."""
        return self._length

    def __getitem__(self, name: str) -> Column:
        """The values of one field; not to be written to."""
        return self._columns[name][: self._length]

    def rows(self) -> PairArray:
        """As one array of ROW."""
        rows: PairArray = np.empty(len(self), ROW)
        for name in self._columns:
            rows[name] = self[name]
        return rows

    def with_more(self, more: PairArray) -> PairColumns:
        """These and some more behind them. Only the newest of all may be given more."""
        length = len(self) + len(more)
        columns = dict(self._columns)
        for name, column in columns.items():
            if len(column) < length:
                columns[name] = np.empty(max(1_000, 2 * length), column.dtype)
                columns[name][: len(self)] = column[: len(self)]
            columns[name][len(self) : length] = more[name]
        return PairColumns(columns, length)


class PairCache:
    """The judged pairs of one store, in the order of votes; may be shared by threads."""

    def __init__(self, store: Store, many: int = MANY) -> None:
        """Nothing is read yet."""
        self._store, self._many = store, many
        self._path = store.path.with_name(f"{store.path.name}-pairs")
        self._lock = threading.Lock()
        self._pairs = PairColumns.of(np.empty(0, ROW))
        self._mark: CacheMark | None = None

    @contextmanager
    def reading(self) -> Iterator[tuple[Database, PairColumns]]:
        """An open database in one consistent read, and its judged pairs."""
        with ExitStack() as stack:
            with self._lock:  # the read begins inside: a later holder never sees less
                db = stack.enter_context(reading(self._store.path, self._store.config))
                pairs = self._refreshed(db)
            yield db, pairs

    def refresh(self) -> PairColumns:
        """The judged pairs as they are now."""
        with self.reading() as (_, pairs):
            return pairs

    def _refreshed(self, db: Database) -> PairColumns:
        if self._mark is None:
            self._load()
        newest = _newest(db)
        mark = self._mark
        num_changes = None if mark is None else _changes_since(db, mark, newest)
        if mark is None or num_changes is None or num_changes > self._many:
            rows: PairArray = np.fromiter(db.execute(ROWS_SQL + ORDER), ROW)
            self._pairs, self._mark = PairColumns.of(rows), newest
            if len(rows) > self._many:
                self._save(rows, newest)
        elif num_changes:
            self._pairs, self._mark = _replaced(db, self._pairs, int(mark[0])), newest
        return self._pairs

    def _load(self) -> None:
        """Take up the copy on disk, if there is one that this program can read."""
        try:
            with self._path.open("rb") as file:
                mark = np.load(file, allow_pickle=False)
                rows = np.load(file, allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return  # a copy only: without it all is read from the store
        if rows.dtype == ROW and mark.dtype == np.int64 and mark.shape == (2,):
            self._pairs, self._mark = PairColumns.of(rows), mark

    def _save(self, rows: PairArray, mark: CacheMark) -> None:
        """Write the copy, whole or not at all; a folder that is not writable has none."""
        try:
            with tempfile.NamedTemporaryFile(
                dir=self._path.parent, prefix=f".{self._path.name}.", delete=False
            ) as file:
                np.save(file, mark, allow_pickle=False)
                np.save(file, rows, allow_pickle=False)
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            return
        Path(file.name).replace(self._path)


def _newest(db: Database) -> CacheMark:
    """Number and stamp of the newest change."""
    row = db.execute("SELECT seq, stamp FROM vote_changes ORDER BY seq DESC LIMIT 1").fetchone()
    return np.array(row, np.int64)


def _changes_since(db: Database, mark: CacheMark, newest: CacheMark) -> int | None:
    """How many changes came after that one; None if this database does not have it: it was
    replaced, or an older copy was put back.
    """
    row = db.execute("SELECT stamp FROM vote_changes WHERE seq = ?", [int(mark[0])]).fetchone()
    return int(newest[0] - mark[0]) if row is not None and row[0] == mark[1] else None


def _replaced(db: Database, pairs: PairColumns, seq: int) -> PairColumns:
    """The pairs with those of votes changed after `seq` read anew."""
    changed = np.fromiter(
        (row[0] for row in db.execute("SELECT vote_id FROM vote_changes WHERE seq > ?", [seq])),
        np.int64,
    )
    new: PairArray = np.fromiter(db.execute(ROWS_SQL + CHANGED + ORDER, [seq]), ROW)
    last = pairs["vote"][-1] if len(pairs) else 0
    if changed.min() > last:  # the common case: all of them are new
        return pairs.with_more(new)
    both = np.concatenate([pairs.rows()[~np.isin(pairs["vote"], changed)], new])
    return PairColumns.of(both[np.argsort(both["vote"], kind="stable")])
