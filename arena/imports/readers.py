"""Reads the rows of a file as blocks for the store, each row checked; writes nothing.

A large file is read in a second process, so that one processor converts and checks the rows while
another writes those before them. Rows are read block by block; only a JSON list is read at once.
"""

from __future__ import annotations

import gc
import json
import marshal
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from arena.errors import ArenaError
from arena.imports.judged import from_judged
from arena.imports.lmsys import from_140k, from_lmsys
from arena.imports.openwebui import from_openwebui
from arena.imports.trl import from_trl
from arena.storage.bulk_insert import pseudonym
from arena.storage.record_blocks import Block, BlockBuilder, SomethingWrongError
from arena.storage.record_fields import Record, RecordError

BLOCK = 4_000
"""Rows of a block."""

LARGE = 8_000_000
"""Bytes of a file from which on a second process pays for its start."""

SHOWN = 5
"""Bad rows that are told one by one."""

ANY_FAULT = (
    *(ArenaError, SomethingWrongError, KeyError, TypeError, AttributeError),
    *(IndexError, ValueError),
)

JUDGED = "judged"
"""Rows in which the readers of foreign sets tell what they found."""

READERS: dict[str, Callable[[Any], Record]] = {
    "raw": lambda row: dict(row),
    "lmsys": from_lmsys,
    "140k": from_140k,
    "openwebui": from_openwebui,
    "trl": from_trl,
    JUDGED: from_judged,
}


class ImportRefusedError(ArenaError):
    """The file is missing, of no known kind, or holds rows that are no battles."""


@dataclass
class ConvertedRows:
    """What some rows of a file became: a block, and those left out, by reason and the first few."""

    block: Block
    left_out: Counter[str] = field(default_factory=Counter)
    shown: list[str] = field(default_factory=list)


def rows_of(source: Path, kind: str, name: str) -> Iterator[ConvertedRows]:
    """The rows of a file of one of READERS, in order.

    `name`: what the voters of this file are told apart from those of others by. Raises
    ImportRefusedError for a file that cannot be read.
    """
    if source.stat().st_size < LARGE:
        yield from _converted(source, kind, name)
    else:
        yield from _converted_beside(source, kind, name)


def _converted(source: Path, kind: str, name: str) -> Iterator[ConvertedRows]:
    voter_name = partial(pseudonym, name)
    rows = rows_of_file(source)
    while some := list(islice(rows, BLOCK)):
        try:
            yield ConvertedRows(_quickly(some, READERS[kind], voter_name))
        except ANY_FAULT:
            yield _carefully(some, kind, voter_name)


def _quickly(
    rows: list[tuple[int, Any]], read: Callable[[Any], Record], voter_name: Callable[[Any], str]
) -> Block:
    """The block of some rows. Raises one of ANY_FAULT if one of them is wrong."""
    builder = BlockBuilder(voter_name, careful=False)
    for _, row in rows:
        builder.add(read(row))
    return builder.take()


def _carefully(
    rows: list[tuple[int, Any]], kind: str, voter_name: Callable[[Any], str]
) -> ConvertedRows:
    """The same, with what is wrong in which row."""
    builder = BlockBuilder(voter_name)
    left_out: Counter[str] = Counter()
    shown: list[str] = []
    for number, row in rows:
        try:
            _convert(row, kind, READERS[kind], builder)
        except ArenaError as error:
            left_out[str(error)] += 1
            if len(shown) < SHOWN:
                shown.append(f"row {number}: {error}")
    return ConvertedRows(builder.take(), left_out, shown)


def _convert(row: Any, kind: str, read: Callable[[Any], Record], builder: BlockBuilder) -> None:
    """Add a row to the block, or raise an ArenaError that says what is wrong with it."""
    if isinstance(row, RecordError):
        raise row
    try:
        record = read(row)
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
        if isinstance(error, ArenaError):
            raise
        reason = f"missing field {error}" if isinstance(error, KeyError) else str(error)
        raise RecordError(f"no {kind} row: {reason}") from error
    builder.add(record)


def _converted_beside(source: Path, kind: str, name: str) -> Iterator[ConvertedRows]:
    """The same from another process, which is one block ahead; it ends with this one."""
    command = [sys.executable, "-c", f"from {__name__} import serve_blocks; serve_blocks()"]
    with subprocess.Popen([*command, str(source), kind, name], stdout=subprocess.PIPE) as reader:
        assert reader.stdout is not None
        with Connection(os.dup(reader.stdout.fileno()), writable=False) as blocks:
            reader.stdout.close()
            try:
                while told := marshal.loads(blocks.recv_bytes()):
                    if isinstance(told, str):
                        raise ImportRefusedError(told)
                    block, left_out, shown = told
                    yield ConvertedRows(Block(*block), Counter(left_out), shown)
            except EOFError as error:
                raise ImportRefusedError(
                    f"the process that reads {source} was ended; nothing was imported, try again"
                ) from error


def serve_blocks() -> None:
    """The other process: send every block; then None, or why the file cannot be read."""
    gc.freeze()
    gc.set_threshold(200_000)  # records hold no circles: looking for them costs a fifth of the time
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the other process is told, and closes the pipe
    source, kind, name = sys.argv[1:]
    with Connection(os.dup(sys.stdout.fileno()), readable=False) as there:
        try:
            for rows in _converted(Path(source), kind, name):
                told = (_plain(rows.block), dict(rows.left_out), rows.shown)
                there.send_bytes(marshal.dumps(told))
            there.send_bytes(marshal.dumps(None))
        except ImportRefusedError as error:
            there.send_bytes(marshal.dumps(str(error)))
        except BrokenPipeError:
            pass  # nobody wants the rest


def _plain(block: Block) -> tuple[Any, ...]:
    return block.rows, block.people, block.voters, block.ids, block.num_repeated


def rows_of_file(path: Path) -> Iterator[tuple[int, Any]]:
    """Rows with their numbers from 1, from JSON lines, a JSON list or Parquet.

    A line that is no JSON is a RecordError in place of its row.
    """
    if path.suffix == ".parquet":
        yield from enumerate(_parquet_rows(path), 1)
    elif path.suffix == ".json":
        yield from enumerate(_json_list(path), 1)
    elif path.suffix in (".jsonl", ".ndjson"):
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.isspace():
                    yield number, _json_line(line)
    else:
        raise ImportRefusedError(f"{path} is no .jsonl, .json or .parquet file; convert it first")


def _parquet_rows(path: Path) -> Iterator[Any]:
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=BLOCK):
                yield from batch.to_pylist()
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        raise ImportRefusedError(f"{path} is no Parquet file: {error}") from error


def _json_list(path: Path) -> list[Any]:
    try:
        rows = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ImportRefusedError(f"{path} is no JSON: {error}") from error
    if not isinstance(rows, list):
        raise ImportRefusedError(f"{path} holds no JSON list of rows")
    return rows


def _json_line(line: bytes) -> Any:
    try:
        return orjson.loads(line)
    except ValueError:
        pass  # what only the other parser takes (half a surrogate pair, NaN) is judged by field
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        return RecordError(f"no JSON: {error}")
