"""Writers who share a commit: each keeps its own result and fault, and what it was promised."""

from __future__ import annotations

import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlite_utils import Database

from arena.errors import ArenaError
from arena.storage import database
from arena.storage.database import DatabaseConfig, StoreBusyError
from arena.storage.group_commit import GroupCommit


@pytest.fixture
def path(quick_folder: Path, request: pytest.FixtureRequest) -> Path:
    """A database with one table of numbers."""
    path = quick_folder / f"{request.node.name[:40]}.db"
    database.open_or_create(
        path, DatabaseConfig(), lambda db: db.execute("CREATE TABLE t (n INTEGER UNIQUE)")
    )
    return path


def numbers(path: Path) -> list[int]:
    connection = sqlite3.connect(path)
    found = [row[0] for row in connection.execute("SELECT n FROM t ORDER BY n")]
    connection.close()
    return found


def put(number: int) -> object:
    def body(db: Database) -> int:
        db.execute("INSERT INTO t VALUES (?)", [number])
        if number % 5 == 0:
            raise ArenaError(f"no fives: {number}")
        return number * 2

    return body


def test_each_of_many_writers_has_its_own_end(path: Path) -> None:
    """All wait until the first has begun, so that most of them share commits."""
    group, gate = GroupCommit(path, DatabaseConfig()), threading.Event()
    begun = threading.Event()

    def hold(db: Database) -> None:
        begun.set()
        gate.wait(30)

    def write(number: int) -> int | str:
        try:
            return group.write(put(number))
        except ArenaError as error:
            return str(error)

    with ThreadPoolExecutor(150) as pool:
        first = pool.submit(group.write, hold)
        assert begun.wait(30)
        ends = [pool.submit(write, number) for number in range(1, 101)]
        while len(group._waiting) < 100:
            pass
        gate.set()
        first.result(30)
        found = [end.result(60) for end in ends]
    expected = [n * 2 if n % 5 else f"no fives: {n}" for n in range(1, 101)]
    assert found == expected
    assert numbers(path) == [n for n in range(1, 101) if n % 5]


def test_writer_who_loses_the_transaction_costs_the_others_nothing(path: Path) -> None:
    group, gate, begun = GroupCommit(path, DatabaseConfig()), threading.Event(), threading.Event()

    def hold(db: Database) -> None:
        begun.set()
        gate.wait(30)

    def lose(db: Database) -> None:
        db.execute("ROLLBACK")
        raise ArenaError("lost")

    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(group.write, hold)
        assert begun.wait(30)
        ends = [pool.submit(group.write, body) for body in (put(1), lose, put(2))]
        while len(group._waiting) < 3:
            pass
        gate.set()
        first.result(30)
        assert (ends[0].result(30), ends[2].result(30)) == (2, 4)
        with pytest.raises(ArenaError, match="lost"):
            ends[1].result(30)
    assert numbers(path) == [1, 2]


def test_another_process_that_holds_the_database_is_told_to_each(path: Path) -> None:
    group = GroupCommit(path, DatabaseConfig(wait_s=0.2, busy_s=0.05))
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with ThreadPoolExecutor(4) as pool:
        ends = [pool.submit(group.write, put(number)) for number in (1, 2, 3)]
        for end in ends:
            with pytest.raises(StoreBusyError):
                end.result(30)
    other.execute("ROLLBACK")
    other.close()
    assert group.write(put(4)) == 8
    assert numbers(path) == [4]
