"""Reads battles that were voted on elsewhere into the store: files, checks, batches.

Every row is checked before the first one is written, so that a file with a bad row changes
nothing. Rows are read one by one; only a JSON list is read at once.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from arena.errors import ArenaError
from arena.exchange import incoming
from arena.exchange.export import file_sha256
from arena.exchange.incoming_webui import from_openwebui
from arena.storage.bulk import BulkWriter, RecordError, check_record, pseudonym
from arena.storage.database import write
from arena.storage.ledger import Ledger
from arena.storage.store import Store

Record = dict[str, Any]

BATCH = 2_000
"""Battles written in one transaction."""

SHOWN = 5
"""Bad rows that are told one by one."""

READERS: dict[str, Callable[[Any], Record]] = {
    "raw": lambda row: dict(row),
    "lmsys": incoming.from_lmsys,
    "140k": incoming.from_140k,
    "openwebui": from_openwebui,
    "trl": incoming.from_trl,
}


class ImportRefusedError(ArenaError):
    """The file is missing, of no known kind, or holds rows that are no battles."""


@dataclass
class Imported:
    """What an import did: battles written, known before, and rows left out by reason."""

    num_new: int = 0
    num_known: int = 0
    left_out: Counter[str] = field(default_factory=Counter)


def import_file(store: Store, path: Path, kind: str, *, skip_bad: bool = False) -> Imported:
    """Import a file or a folder that `arena export` wrote.

    Raises ImportRefusedError with the first bad rows, unless `skip_bad` leaves those out.
    """
    if kind not in READERS:
        raise ImportRefusedError(f"format {kind!r} is unknown; use one of {', '.join(READERS)}")
    source = source_file(path, kind)
    before = _state(source)
    if not skip_bad:
        _refuse_bad_rows(source, kind)
    done = Imported()
    writer = BulkWriter(partial(pseudonym, file_sha256(source) if kind == "raw" else kind))
    records = _good_records(source, kind, done, checked=not skip_bad)
    while batch := list(islice(records, BATCH)):
        if _state(source) != before:
            raise ImportRefusedError(f"{source} changed while it was read; import it again")
        num_new = write(
            store.path,
            store.config,
            lambda db, batch=batch: writer.add(db, batch),  # type: ignore[misc]
        )
        done.num_new += num_new
        done.num_known += len(batch) - num_new
    Ledger(store).refresh()  # the next leaderboard starts from its copy
    return done


def _state(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def source_file(path: Path, kind: str) -> Path:
    """The file itself, or the one that holds the rows in a folder of an export."""
    if path.is_dir():
        names = ["battles.jsonl"] if kind == "raw" else ["train.jsonl", "train.json"]
        found = [path / name for name in names if (path / name).is_file()]
        found += sorted(path.glob("data/train-*.parquet"))
        if not found:
            raise ImportRefusedError(f"{path} holds no {' or '.join(names)}; give the file itself")
        return found[0]
    if not path.is_file():
        raise ImportRefusedError(f"{path} does not exist; give a .jsonl, .json or .parquet file")
    return path


def read_rows(path: Path) -> Iterator[tuple[int, Any]]:
    """Rows with their numbers from 1, from JSON lines, a JSON list or Parquet."""
    if path.suffix == ".parquet":
        yield from enumerate(_parquet_rows(path), 1)
    elif path.suffix == ".json":
        yield from enumerate(_json_list(path), 1)
    elif path.suffix in (".jsonl", ".ndjson"):
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, _json(line, path, number)
    else:
        raise ImportRefusedError(f"{path} is no .jsonl, .json or .parquet file; convert it first")


def _refuse_bad_rows(source: Path, kind: str) -> None:
    shown: list[str] = []
    num_bad = 0
    for number, record in _records(source, kind):
        if isinstance(record, ArenaError):
            num_bad += 1
            if len(shown) < SHOWN:
                shown.append(f"row {number}: {record}")
    if num_bad:
        raise ImportRefusedError(
            f"{source} has {num_bad} bad rows, nothing was imported ({'; '.join(shown)});"
            " mend them or leave them out with --skip-bad"
        )


def _good_records(source: Path, kind: str, done: Imported, *, checked: bool) -> Iterator[Record]:
    for _, record in _records(source, kind, check=not checked):
        if isinstance(record, ArenaError):
            done.left_out[str(record)] += 1
        else:
            yield record


def _records(
    source: Path, kind: str, *, check: bool = True
) -> Iterator[tuple[int, Record | ArenaError]]:
    read = READERS[kind]
    for number, row in read_rows(source):
        try:
            record = read(row)
            if check:
                check_record(record)
        except ArenaError as error:
            yield number, error
        except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
            reason = f"missing field {error}" if isinstance(error, KeyError) else str(error)
            yield number, RecordError(f"no {kind} row: {reason}")
        else:
            yield number, record


def _parquet_rows(path: Path) -> Iterator[Any]:
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=BATCH):
                yield from batch.to_pylist()
    except pa.ArrowInvalid as error:
        raise ImportRefusedError(f"{path} is no Parquet file: {error}") from error


def _json_list(path: Path) -> list[Any]:
    rows = _json(path.read_bytes(), path, 1)
    if not isinstance(rows, list):
        raise ImportRefusedError(f"{path} holds no JSON list of rows")
    return rows


def _json(text: bytes, path: Path, number: int) -> Any:
    try:
        return json.loads(text)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ImportRefusedError(f"{path} row {number} is no JSON: {error}") from error
