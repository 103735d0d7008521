"""Copies the store while it is in use, and puts such a copy back; knows no table.

Both ways go through SQLite's online backup, so that a copy is one consistent state and a
running program never sees half of it.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from sqlite_utils import Database

from arena.errors import ArenaError
from arena.storage.database import StoreError, translated
from arena.storage.migrations import check_known
from arena.storage.private_files import make_private
from arena.storage.store import Store

BUSY_TIMEOUT_S = 10.0


class BackupError(ArenaError):
    """The copy cannot be made or is not one of this program's."""


def backup(store: Store, out: Path, *, overwrite: bool = False) -> Path:
    """Write a checked copy of the store to the file `out`, whole or not at all."""
    if out.exists() and not overwrite:
        raise BackupError(f"{out} exists already; give another file or --overwrite")
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        _copy(store.path, temporary)
        _close_journal(temporary)
        check(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(out)
    except OSError as error:
        raise BackupError(f"{out} cannot be written: {error.strerror}") from error
    finally:
        temporary.unlink(missing_ok=True)
    return out


def restore(copy: Path, store_path: Path, *, overwrite: bool = False) -> Path | None:
    """Put a copy in the place of a store; returns where the replaced store was kept.

    The copy is checked first. A store that is there is replaced only with `overwrite`, and
    kept beside it under a new name.
    """
    if not copy.is_file():
        raise BackupError(f"{copy} does not exist; give a file that arena backup wrote")
    check(copy)
    kept = None
    if store_path.exists():
        if not overwrite:
            raise BackupError(f"{store_path} exists already; --overwrite replaces it")
        kept = backup(Store(store_path), _free_name(store_path))
    store_path.parent.mkdir(parents=True, exist_ok=True)
    _copy(copy, store_path)
    Store(store_path)  # an older copy is brought to the newest schema
    return kept


def check(path: Path) -> None:
    """BackupError unless the file is a whole database of this program."""
    try:
        with translated(path), closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as conn:
            found = conn.execute("PRAGMA integrity_check").fetchone()[0]
            if found != "ok":
                raise BackupError(f"{path} is damaged ({found}); take another copy")
            check_known(Database(conn, execute_plugins=False), path)
    except StoreError as error:
        raise BackupError(str(error)) from error


def _copy(source: Path, target: Path) -> None:
    make_private(target)
    with (
        translated(target),
        closing(sqlite3.connect(source, timeout=BUSY_TIMEOUT_S)) as first,
        closing(sqlite3.connect(target, timeout=BUSY_TIMEOUT_S)) as second,
    ):
        first.backup(second)


def _close_journal(path: Path) -> None:
    """Make the copy one file: no write-ahead log beside it."""
    with translated(path), closing(sqlite3.connect(path)) as conn:
        conn.execute("PRAGMA journal_mode = DELETE")


def _free_name(path: Path) -> Path:
    number = 1
    while (candidate := path.with_name(f"{path.stem}.before-restore-{number}.db")).exists():
        number += 1
    return candidate
