"""The figures of a run while it goes on, in its folder, for whoever watches; knows no weights.

`live.jsonl` holds one line that says what is run, then the history so far, a record a line. It is
made anew when a run goes on, and never read by training.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

LIVE_FILE = "live.jsonl"


class LiveFile:
    """Writes `live.jsonl` in the folder of a run; a disk that refuses it does not end the run.

    `say` is told once why the figures are no longer written.
    """

    def __init__(self, folder: Path, say: Callable[[str], object]) -> None:
        self._path = folder / LIVE_FILE
        self._say = say
        self._is_kept = True

    def begin(self, run: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> None:
        """Start the file: what is run, and the records of its earlier part."""
        self._write("w", [{"run": {**run, "began_ms": int(time.time() * 1000)}}, *records])

    def add(self, record: Mapping[str, Any]) -> None:
        """Append one record."""
        self._write("a", [record])

    def _write(self, mode: str, items: Sequence[Mapping[str, Any]]) -> None:
        if not self._is_kept:
            return
        lines = "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open(mode, encoding="utf-8", errors="backslashreplace") as stream:
                stream.write(lines)
        except OSError as error:
            self._is_kept = False
            self._say(f"{self._path}: live figures are no longer written ({error.strerror})")
