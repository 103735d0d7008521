"""Reads data sources row by row, each row with the place it came from.

Knows JSON, JSONL, CSV and Parquet files, dataset folders, hub ids and the starter's own rows;
does not know what the columns mean (`tuning.data.formats`).
"""

from __future__ import annotations

import codecs
import csv
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuning.data.folders import SUFFIXES, DataError, list_folder, pick_split
from tuning.data.ledger import Tally
from tuning.json_lines import JsonError, parse_json, read_json_lines

STARTER = "starter"
ABOUT_ROWS = ("name", "description", "version", "license", "source", "url", "created", "date")


@dataclass(frozen=True)
class RawRow:
    """One row as it stands in its source; `problem` says why it could not even be parsed."""

    source: str
    line: int
    columns: dict[str, Any]
    problem: str | None = None


def read_source(source: str, seed: int = 0, tally: Tally | None = None) -> Iterator[RawRow]:
    """All rows of one source, in order; `line` counts from 1 (rows, where a file has no lines).

    Which files or splits of it are read and which are not is written into `tally`.
    """
    tally = Tally() if tally is None else tally
    if source == STARTER:
        from tuning.starter.world.instructions import training_rows

        rows = training_rows(seed=seed)
        return (RawRow(STARTER, line, row) for line, row in enumerate(rows, 1))
    path = Path(source).expanduser()
    if path.is_file():
        return _read_file(path, source)
    if path.is_dir():
        return _read_folder(path, source, tally)
    if "/" in source and path.suffix not in SUFFIXES and not source.startswith(("/", ".", "~")):
        return _read_hub(source, tally)
    raise DataError(
        f"data {source!r}: no such file or folder; give starter, a {', '.join(SUFFIXES)} file, a "
        "dataset folder, a hub id such as owner/dataset or a mixture's .yaml file"
    )


def _read_file(path: Path, source: str) -> Iterator[RawRow]:
    readers: dict[str, Callable[[Path, str], Iterator[RawRow]]] = {
        ".jsonl": _read_jsonl,
        ".ndjson": _read_jsonl,
        ".json": _read_json,
        ".csv": _read_csv,
        ".parquet": _read_parquet,
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise DataError(
            f"data {source!r}: unknown file type {path.suffix!r}; give one of {', '.join(SUFFIXES)}"
        )
    if path.stat().st_size == 0:
        raise DataError(f"data {source!r}: file is empty; give at least one row")
    try:
        yield from reader(path, source)
    except OSError as error:
        raise DataError(f"data {source!r}: cannot be read ({error}); check the file") from error


def _read_jsonl(path: Path, source: str) -> Iterator[RawRow]:
    for line in read_json_lines(path):
        try:
            yield _row(line.value(), line.number, source)
        except JsonError as error:
            yield RawRow(source, line.number, {}, str(error))


def _row(value: Any, line: int, source: str) -> RawRow:
    if not isinstance(value, dict):
        return RawRow(source, line, {}, f"is a JSON {type(value).__name__}, not an object")
    return RawRow(source, line, value)


def _read_json(path: Path, source: str) -> Iterator[RawRow]:
    try:
        content = parse_json(path.read_bytes().removeprefix(codecs.BOM_UTF8))
    except JsonError as error:
        raise DataError(
            f"data {source!r}: {error}; mend it, or use one object a line in a .jsonl file"
        ) from error
    if isinstance(content, dict):
        content = _only_list(content, source)
    if not isinstance(content, list):
        raise DataError(f"data {source!r}: must be a JSON list of objects")
    for line, value in enumerate(content, 1):
        yield _row(value, line, source)


def _only_list(content: dict[str, Any], source: str) -> list[Any] | None:
    """The list of an object that holds one list of rows, and beside it only words about them."""
    lists = [key for key, value in content.items() if isinstance(value, list)]
    if len(lists) != 1:
        return None
    for key, value in content.items():
        if key not in (*lists, *ABOUT_ROWS):
            raise DataError(
                f"data {source!r}: {key[:60]!a} beside the list {lists[0][:60]!a} holds "
                f"{ascii(value)[:60]}, which nothing uses; save the list alone"
            )
    rows: list[Any] = content[lists[0]]
    return rows


def _read_csv(path: Path, source: str) -> Iterator[RawRow]:
    csv.field_size_limit(2**31 - 1)
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, strict=True)
            _refuse_twice(reader.fieldnames or (), source)
            for columns in reader:
                extra = columns.pop(None, None) if None in columns else None
                problem = f"has {len(extra)} field(s) too many" if extra else None
                yield RawRow(source, reader.line_num, dict(columns), problem)
    except UnicodeDecodeError as error:
        raise DataError(
            f"data {source!r}: is not UTF-8 (byte {error.start}); save the file as UTF-8"
        ) from error
    except csv.Error as error:
        raise DataError(f"data {source!r}: is no valid CSV ({error}); mend the file") from error


def _refuse_twice(names: Sequence[str], source: str) -> None:
    """A column that stands twice would be lost once."""
    (name, count), *_ = [*Counter(names).most_common(1), ("", 0)]
    if count > 1:
        raise DataError(f"data {source!r}: has the column {name[:60]!a} twice; rename one")


def _read_parquet(path: Path, source: str) -> Iterator[RawRow]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as table:
            _refuse_twice(table.schema_arrow.names, source)
            line = 0
            for batch in table.iter_batches(batch_size=1024):
                for columns in batch.to_pylist():
                    line += 1
                    yield RawRow(source, line, columns)
    except DataError:
        raise
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"data {source!r}: is no valid Parquet ({reason})") from error


def _read_folder(path: Path, source: str, tally: Tally) -> Iterator[RawRow]:
    """A `datasets` folder (`save_to_disk`), or the data files below it that are to be trained."""
    if (path / "dataset_info.json").is_file() or (path / "dataset_dict.json").is_file():
        yield from _read_saved(path, source, tally)
        return
    listing = list_folder(path, source)
    tally.files_read += map(str, listing.read)
    tally.files_left += [f"{path / name} ({reason})" for name, reason in listing.left]
    for item in listing.read:
        yield from _read_file(item, str(item))


def _read_saved(path: Path, source: str, tally: Tally) -> Iterator[RawRow]:
    from datasets import DatasetDict, load_from_disk

    line = 0
    try:
        loaded = load_from_disk(str(path))
        if isinstance(loaded, DatasetDict):
            loaded = loaded[_counted_split(list(loaded), source, tally)]
        for columns in loaded:
            line += 1
            yield RawRow(source, line, dict(columns))
    except DataError:
        raise
    except Exception as error:  # the library takes for granted what its files hold
        reason = " ".join(str(error).split())[:200]
        raise DataError(
            f"data {source!r}: is no whole folder of datasets ({reason} after {line} rows); save "
            "it again with save_to_disk"
        ) from error


def _counted_split(names: list[str], source: str, tally: Tally) -> str:
    """The split to train on; all are written down."""
    chosen = pick_split(names, source)
    tally.files_read.append(f"{source}: split {chosen}")
    tally.files_left += [f"{source}: split {name}" for name in names if name != chosen]
    return chosen


def _read_hub(source: str, tally: Tally) -> Iterator[RawRow]:
    import pyarrow
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError

    try:
        loaded = load_dataset(source, split="train", streaming=False)
    except (OSError, ValueError, RuntimeError, DatasetsError, pyarrow.ArrowException) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(
            f"data {source!r}: no such file or folder, and the hub did not give it ({reason}); "
            "check the name and the network"
        ) from error
    _counted_split(list(loaded.info.splits or ["train"]), source, tally)
    for line, columns in enumerate(loaded, 1):
        yield RawRow(source, line, dict(columns))
