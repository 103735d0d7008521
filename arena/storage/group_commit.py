"""Lets writers of one store share a commit: who waits for the disk together is done together.

Each write is still its own: one that fails is undone alone, and none returns before what it wrote
is on disk. Knows transactions, no table.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from sqlite_utils import Database

from arena.storage import database
from arena.storage.database import DatabaseConfig, StoreError

log = logging.getLogger(__name__)

T = TypeVar("T")
MOST = 64


class _Write:
    """One body that waits for its turn, and how it ended."""

    def __init__(self, body: Callable[[Database], Any]) -> None:
        self.body = body
        self.is_done = False
        self.result: Any = None
        self.error: BaseException | None = None


class _LostError(Exception):
    """A body broke the transaction of all; each has to be written alone."""


class GroupCommit:
    """Writes to one database file from any thread of this process."""

    def __init__(self, path: Path, config: DatabaseConfig) -> None:
        self._path = path
        self._config = config
        self._waiting: list[_Write] = []
        self._list_lock = threading.Lock()
        self._turn = threading.Lock()

    def write(self, body: Callable[[Database], T]) -> T:
        """Run `body` and return its result once it is on disk; see `database.write`."""
        mine = _Write(body)
        with self._list_lock:
            self._waiting.append(mine)
        with self._turn:  # whoever comes first writes for all who wait by then
            if not mine.is_done:
                with self._list_lock:
                    batch, self._waiting = self._waiting[:MOST], self._waiting[MOST:]
                self._write_all(batch)
                if not mine.is_done:  # more waited than one batch takes
                    with self._list_lock:
                        self._waiting.remove(mine)
                    self._write_all([mine])
        if mine.error is not None:
            raise mine.error
        result: T = mine.result
        return result

    def _write_all(self, batch: list[_Write]) -> None:
        if len(batch) > 1:
            try:
                database.write(self._path, self._config, lambda db: _run_each(db, batch))
            except Exception as error:  # nothing of it was written; each is told its own below
                log.debug("a commit of %d writes is tried one by one: %s", len(batch), error)
            else:
                for one in batch:
                    one.is_done = True
                return
        for one in batch:
            try:
                one.result, one.error = database.write(self._path, self._config, one.body), None
            except BaseException as error:  # it belongs to the thread that asked
                one.error = error
            one.is_done = True


def _run_each(db: Database, batch: list[_Write]) -> None:
    """All bodies in one transaction, each in a savepoint that only it can lose."""
    for one in batch:
        one.error = None
        db.execute("SAVEPOINT one_write")
        try:
            one.result = one.body(db)
        except Exception as error:
            if not db.conn.in_transaction or isinstance(error, StoreError):
                raise _LostError from error
            db.execute("ROLLBACK TO one_write")
            one.error = error
        db.execute("RELEASE one_write")
