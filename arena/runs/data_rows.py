"""The rows of a kept data file one by one, to be searched, corrected and left out.

What comes of it is a new file with its own hash; the old one stays as it is. Knows JSON and CSV,
not what rows mean.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from arena.runs.uploads import UploadRefusedError

MOST_SHOWN = 50


@dataclass(frozen=True)
class KeptRow:
    """One row as JSON text; a line that is no JSON is as it stands. `number`: as errors name it."""

    number: int
    text: str


def rows_of(path: Path) -> Iterator[KeptRow]:
    """The rows of a data file in their order. Raises UploadRefusedError where it has none."""
    try:
        content = path.read_text(encoding="utf-8-sig")
        if path.suffix in (".jsonl", ".ndjson"):
            lines = content.split("\n")
            yield from (KeptRow(at, one.strip()) for at, one in enumerate(lines, 1) if one.strip())
        elif path.suffix == ".json":
            found = json.loads(content)
            if not isinstance(found, list):
                raise ValueError("it is no list of rows")
            yield from (KeptRow(at, _text(one)) for at, one in enumerate(found, 1))
        elif path.suffix == ".csv":
            reader = csv.DictReader(io.StringIO(content, newline=""), strict=True)
            for row in reader:
                if None in row or None in row.values():
                    raise ValueError(f"line {reader.line_num} has another number of fields")
                yield KeptRow(reader.line_num, _text(row))
        else:
            raise ValueError("its rows are no text")
    except (OSError, ValueError, csv.Error, RecursionError) as error:
        raise UploadRefusedError(
            f"{path.name}: its rows cannot be told one by one ({error}); give JSON, JSON Lines or "
            "CSV in UTF-8"
        ) from error


def find_rows(path: Path, search: str, offset: int) -> dict[str, Any]:
    """So many rows with these words, from the `offset`th on; and how many there are of them."""
    wanted = search.casefold()
    every = list(rows_of(path))
    found = [row for row in every if wanted in row.text.casefold()] if wanted else every
    shown = islice(found, offset, offset + MOST_SHOWN)
    rows = [{"number": row.number, "text": row.text} for row in shown]
    return {"total": len(every), "found": len(found), "offset": offset, "rows": rows}


def corrected(path: Path, changes: Mapping[int, str], left_out: Sequence[int]) -> bytes:
    """All rows as JSON Lines: those of `changes` in their place, those of `left_out` not.

    Raises UploadRefusedError for a number that no row has, or a changed row that is no object.
    """
    rows = {row.number: row.text for row in rows_of(path)}
    for number in (*changes, *left_out):
        if number not in rows:
            raise UploadRefusedError(f"{path.name}: there is no row {number}")
    for number, text in changes.items():
        try:
            if not isinstance(row := json.loads(text), dict):
                raise ValueError("no object in braces")
            rows[number] = _text(row)
        except (ValueError, RecursionError) as error:
            raise UploadRefusedError(f"row {number} is no JSON ({error}); mend it") from error
    for number in left_out:
        rows.pop(number, None)
    return "".join(f"{text}\n" for text in rows.values()).encode("utf-8")


def name_of_corrected(name: str) -> str:
    """The name under which the corrected rows are kept, before they get their hash."""
    stem = name.rpartition(".")[0]
    head, dash, digest = stem.rpartition("-")
    is_hash = dash and len(digest) == 12 and all(one in "0123456789abcdef" for one in digest)
    return f"{head if is_hash else stem}.jsonl"


def _text(row: Any) -> str:
    """As JSON; half a pair of surrogates stays an escape, since no UTF-8 can hold it."""
    text = json.dumps(row, ensure_ascii=False)
    return text if _is_utf8(text) else json.dumps(row)


def _is_utf8(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
