"""Whether a store can be read and written now, found out without a visitor's act.

Reads every table, looks through a small file whole now and then, and writes a trial file beside it;
a write that failed is remembered until one works. Knows the store's file; knows no page.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from arena.storage import database
from arena.storage.database import StoreBusyError, StoreError
from arena.storage.store import Store

log = logging.getLogger(__name__)

TABLES = ("voters", "participants", "battles", "turns", "answers", "votes", "vote_flags")
AGAIN_SECONDS = 1.0
TRIAL_BYTES = 65_536
WHOLE_BYTES = 256 << 20
"""A larger file is not looked through whole: that would take seconds."""
WHOLE_SECONDS = 60.0


@dataclass
class StoreHealth:
    """The state of one store, as it was last looked at."""

    store: Store
    fault: StoreError | None = None
    _looked_at: float = float("-inf")
    _looked_whole_at: float = float("-inf")
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def look(self) -> StoreError | None:
        """What is wrong now, or None; a change is told in the log, with the way out.

        Blocks; whoever asks within a second is told what was found last.
        """
        with self._lock:
            if time.monotonic() - self._looked_at > AGAIN_SECONDS:
                self._look()
                self._looked_at = time.monotonic()
        return self.fault

    def _look(self) -> None:
        before, self.fault = self.fault, self._fault()
        if self.fault is not None and str(self.fault) != str(before):
            log.error("the store fails: %s", self.fault)
        elif before is not None and self.fault is None:
            log.warning("the store works again")

    def _fault(self) -> StoreError | None:
        path, config = self.store.path, self.store.config
        try:
            if not path.exists():
                raise StoreError(f"{path} is gone; stop the page and restore a backup")
            with database.reading(path, config) as db:
                for table in TABLES:
                    db.execute(f"SELECT * FROM {table} LIMIT 1").fetchone()
                self._look_whole(db.conn)
            self._write_trial()
        except StoreBusyError:
            return None  # somebody writes, so it can be written
        except StoreError as error:
            return error
        return self.store.write_fault

    def _look_whole(self, connection: sqlite3.Connection) -> None:
        path = self.store.path
        is_due = self.fault is not None or time.monotonic() - self._looked_whole_at > WHOLE_SECONDS
        if not is_due or path.stat().st_size > WHOLE_BYTES:
            return
        require_whole(path, connection)
        self._looked_whole_at = time.monotonic()

    def _write_trial(self) -> None:
        trial = self.store.path.with_name(f".trial-{os.getpid()}")
        try:
            with trial.open("wb") as file:
                file.write(b"\0" * TRIAL_BYTES)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise StoreError(
                f"{trial.parent} cannot be written to ({error.strerror}); "
                "free some space or make it writable"
            ) from error
        finally:
            trial.unlink(missing_ok=True)


def require_whole(path: Path, connection: sqlite3.Connection) -> None:
    """StoreError for a file with a broken page; reads all of it."""
    (told,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if told != "ok":
        raise StoreError(f"{path} is damaged ({str(told)[:200]}); restore a backup")


def count_votes(path: Path) -> int:
    """The votes of a store that is looked through whole; StoreError for one that is damaged."""
    with database.reading(path, database.DatabaseConfig()) as db:
        require_whole(path, db.conn)
        (count,) = db.execute("SELECT count(*) FROM votes").fetchone()
    return int(count)
