"""The one reader of JSON and JSON Lines: whole lines, their numbers, and what is wrong with them.

A line ends at a line feed alone: U+2028, U+2029 and U+0085 may stand inside a text. Knows nothing
of what the values mean.
"""

from __future__ import annotations

import codecs
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuning.errors import TuningError


class JsonError(TuningError):
    """Bytes that are no JSON value; the message says why, as the end of a sentence about them."""


@dataclass(frozen=True)
class Line:
    """One line that is not blank: its number, counted from 1, and its bytes."""

    number: int
    raw: bytes

    def value(self) -> Any:
        """The JSON value of the line; JsonError where it is none."""
        return parse_json(self.raw)


def read_json_lines(path: Path) -> Iterator[Line]:
    """The lines of a file that are not blank; a byte order mark at its start is left out.

    OSError where the file cannot be read.
    """
    with path.open("rb") as stream:
        for number, raw in enumerate(stream, 1):
            if number == 1:
                raw = raw.removeprefix(codecs.BOM_UTF8)
            if raw.strip():
                yield Line(number, raw)


def load_records(path: Path) -> list[dict[str, Any]]:
    """All objects of a file that a program wrote; JsonError names file and line."""
    records = []
    for line in read_json_lines(path):
        try:
            value = line.value()
        except JsonError as error:
            raise JsonError(f"{path}:{line.number}: {error}") from error
        if not isinstance(value, dict):
            raise JsonError(f"{path}:{line.number}: is a JSON {type(value).__name__}, no object")
        records.append(value)
    return records


def parse_json(raw: bytes) -> Any:
    """The value of one JSON text in UTF-8; JsonError where it is none.

    A key that stands twice in one object is refused, since one of the two would be lost. NaN and
    infinity, which JSON does not have, are read as Python writes them.
    """
    try:
        return json.loads(raw.decode("utf-8"), object_pairs_hook=_object)
    except JsonError:
        raise
    except UnicodeDecodeError as error:
        reason = f"is not UTF-8 ({error.reason} at byte {error.start})"
    except json.JSONDecodeError as error:
        line = f"line {error.lineno}, " if error.lineno > 1 else ""
        reason = f"is no JSON ({error.msg} at {line}column {error.colno})"
    except RecursionError:
        reason = "is nested too deeply"
    except ValueError:  # of Python, not of JSON
        reason = "holds a number of too many digits"
    raise JsonError(reason)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        counts = Counter(key for key, _ in pairs)
        (twice, _), *_ = counts.most_common(1)
        raise JsonError(f"has the key {twice[:60]!r} twice")
    return content
