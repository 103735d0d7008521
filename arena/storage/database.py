"""Opens the SQLite file of the store and runs one transaction; knows no table.

One `sqlite_utils.Database` per operation: a connection never crosses a thread. WAL with
synchronous FULL keeps every acknowledged commit through a crash and a power cut; writes
begin with BEGIN IMMEDIATE so that a waiting writer honours the busy timeout.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from sqlite_utils import Database

from arena.errors import ArenaError
from arena.storage.private_files import make_private

T = TypeVar("T")
SqlRow = Mapping[str, Any]
"""A row of a query, by column."""


class StoreError(ArenaError):
    """The database refused: damaged, read-only, or an error of the disk."""

    code = "store_failed"


class StoreBusyError(StoreError):
    """Another process holds the database for longer than we wait; nothing was written."""

    code = "store_busy"


class StoreFullError(StoreError):
    """No space left; nothing was written."""

    code = "store_full"


@dataclass(frozen=True)
class DatabaseConfig:
    """How long a write waits for others: `wait_s` by the clock, asking again every `busy_s`."""

    wait_s: float = 8.0
    busy_s: float = 0.5


@contextmanager
def reading(path: Path, config: DatabaseConfig) -> Iterator[Database]:
    """An open database in one consistent read; user-level errors instead of sqlite3's."""
    with _connected(path, config) as db, translated(path):
        db.execute("BEGIN")
        yield db
        db.rollback()


def write(path: Path, config: DatabaseConfig, body: Callable[[Database], T]) -> T:
    """Run `body` in one immediate transaction and commit it; retried while others write.

    An exception in `body` rolls everything back and propagates. When this returns, the
    commit is on disk.
    """
    return _patient(config, lambda: _write_once(path, config, body))


def _patient(config: DatabaseConfig, act: Callable[[], T]) -> T:
    deadline = time.monotonic() + config.wait_s
    while True:
        try:
            return act()
        except StoreBusyError:
            if time.monotonic() >= deadline:
                raise


def _write_once(path: Path, config: DatabaseConfig, body: Callable[[Database], T]) -> T:
    with _connected(path, config) as db, translated(path):
        db.execute("BEGIN IMMEDIATE")
        try:
            result = body(db)
            db.commit()
        except BaseException:
            db.rollback()
            raise
        return result


@contextmanager
def _connected(path: Path, config: DatabaseConfig) -> Iterator[Database]:
    with translated(path):
        conn = sqlite3.connect(path, timeout=config.busy_s)
    try:
        with translated(path):
            db = Database(conn, execute_plugins=False)
            db.execute("PRAGMA foreign_keys = ON")
            db.execute("PRAGMA synchronous = FULL")
        yield db
    finally:
        conn.close()


def open_or_create(path: Path, config: DatabaseConfig, step: Callable[[Database], None]) -> None:
    """Create the file if needed, switch it to WAL and run `step` on the open database."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(
            f"--home {path.parent} cannot be made ({error.strerror}); give a writable folder"
        ) from error
    with contextlib.suppress(OSError):  # SQLite says why, and gives its other files the same mode
        make_private(path)

    def body() -> None:
        with _connected(path, config) as db, translated(path):
            db.enable_wal()
            step(db)

    _patient(config, body)


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn sqlite3's errors into one-line errors that name the file and the remedy."""
    try:
        yield
    except sqlite3.IntegrityError:
        raise  # a broken invariant of ours, never a user's mistake
    except sqlite3.DatabaseError as error:
        name = getattr(error, "sqlite_errorname", "") or ""
        if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            raise StoreBusyError(f"{path} is in use by another process; try again") from error
        if name.startswith("SQLITE_FULL"):
            raise StoreFullError(f"{path}: no space left; free some and try again") from error
        if name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM")):
            raise StoreError(f"{path} is not writable; give a writable --home") from error
        if name.startswith(("SQLITE_NOTADB", "SQLITE_CORRUPT")):
            raise StoreError(
                f"{path} is damaged or no database ({error}); restore a backup"
            ) from error
        if name.startswith("SQLITE_IOERR"):
            raise StoreError(f"{path}: the disk failed ({name}); check the disk") from error
        if isinstance(error, sqlite3.OperationalError):  # a table is gone, memory is short
            raise StoreError(
                f"{path} is not as it should be ({error}); restore a backup"
            ) from error
        raise


def insert(db: Database, table: str, row: Mapping[str, Any]) -> int:
    """The row id of a new row. Asks nothing about the table: for writes that many wait for."""
    names, places = ", ".join(row), ", ".join("?" * len(row))
    cursor = db.execute(f"INSERT INTO {table} ({names}) VALUES ({places})", list(row.values()))
    return int(cursor.lastrowid)
