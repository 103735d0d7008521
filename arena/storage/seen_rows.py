"""Remembers which rows an export has written, on disk, so that memory stays constant."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

from arena.values.texts import canonical_json


class SeenRows:
    """A set of rows by their core columns, in a private temporary SQLite file."""

    def __init__(self, core: Sequence[str]) -> None:
        """`core`: the columns that make two rows the same one."""
        self._core = core
        self._conn = sqlite3.connect("")  # the empty name is a private file that vanishes
        self._conn.execute("CREATE TABLE seen (digest BLOB PRIMARY KEY) WITHOUT ROWID")

    def is_new(self, row: Mapping[str, Any]) -> bool:
        """Whether no row with these core columns was asked about before."""
        text = canonical_json([row[name] for name in self._core])
        digest = hashlib.sha256(text.encode()).digest()[:16]
        cursor = self._conn.execute("INSERT OR IGNORE INTO seen VALUES (?)", [digest])
        return cursor.rowcount == 1

    def __enter__(self) -> SeenRows:
        """The set itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Forget all rows."""
        self._conn.close()
