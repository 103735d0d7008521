"""Writes the rows of one split to files, a batch at a time; knows no format's columns."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

DatasetRow = dict[str, Any]

BATCH = 2_000
"""Rows held in memory before they are written."""

LINE = orjson.OPT_APPEND_NEWLINE


class Writer(Protocol):
    """One split of an export. `paths` are its files, `data_files` what dataset readers open."""

    num_rows: int
    paths: tuple[Path, ...]
    data_files: str | None

    def write(self, row: DatasetRow) -> None:
        """Append a row."""

    def close(self, *, complete: bool) -> None:
        """Write what is left if the split is complete, and close the files."""


class Closing:
    """Opens and closes a writer with a block."""

    def __init__(self, writer: Writer) -> None:
        """Take over a writer."""
        self.writer = writer

    def __enter__(self) -> Writer:
        """The writer."""
        return self.writer

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close; what is left is written unless an error ends the block."""
        self.writer.close(complete=kind is None)


class TableWriter:
    """`data/<split>-00000-of-00001.parquet` and a `<split>.jsonl` mirror."""

    def __init__(self, folder: Path, split: str, schema: pa.Schema) -> None:
        """Open both files; the folder exists."""
        (folder / "data").mkdir(exist_ok=True)
        self.num_rows = 0
        self.paths: tuple[Path, ...] = (
            folder / "data" / f"{split}-00000-of-00001.parquet",
            folder / f"{split}.jsonl",
        )
        self.data_files: str | None = f"data/{split}-*.parquet"
        self._schema = schema
        self._batch: list[DatasetRow] = []
        self._parquet = pq.ParquetWriter(self.paths[0], schema, compression="zstd")
        self._lines = self.paths[1].open("wb")

    def write(self, row: DatasetRow) -> None:
        """Append a row that has exactly the columns of the schema."""
        self._batch.append(row)
        self.num_rows += 1
        if len(self._batch) >= BATCH:
            self._flush()

    def _flush(self) -> None:
        if not self._batch:
            return
        columns = [
            pa.array([row[field.name] for row in self._batch], field.type) for field in self._schema
        ]
        self._parquet.write_batch(pa.record_batch(columns, schema=self._schema))
        self._lines.writelines([orjson.dumps(row, option=LINE) for row in self._batch])
        self._batch.clear()

    def close(self, *, complete: bool) -> None:
        """See `Writer`."""
        try:
            if complete:
                self._flush()
        finally:
            self._parquet.close()
            self._lines.close()


class CsvWriter:
    """`<split>.csv` with a header, in UTF-8 with a mark that spreadsheets recognise."""

    def __init__(self, folder: Path, split: str, columns: Sequence[str]) -> None:
        """Open the file and write the header."""
        self.num_rows = 0
        self.paths: tuple[Path, ...] = (folder / f"{split}.csv",)
        self.data_files: str | None = f"{split}.csv"
        self._file = self.paths[0].open("w", encoding="utf-8-sig", newline="")
        self._sheet = csv.DictWriter(self._file, columns, lineterminator="\r\n")
        self._sheet.writeheader()

    def write(self, row: DatasetRow) -> None:
        """Append a line."""
        self._sheet.writerow(row)
        self.num_rows += 1

    def close(self, *, complete: bool) -> None:
        """See `Writer`."""
        self._file.close()


class ListWriter:
    """`<split>.json`: one JSON list, a row a line."""

    def __init__(self, folder: Path, split: str) -> None:
        """Open the file."""
        self.num_rows = 0
        self.paths: tuple[Path, ...] = (folder / f"{split}.json",)
        self.data_files: str | None = None
        self._file = self.paths[0].open("w", encoding="utf-8", newline="\n")

    def write(self, row: DatasetRow) -> None:
        """Append an item."""
        self._file.write(self._start() if self.num_rows == 0 else ",\n")
        self._file.write(json.dumps(row, ensure_ascii=False))
        self.num_rows += 1

    def close(self, *, complete: bool) -> None:
        """See `Writer`."""
        if complete:
            self._file.write((self._start() if self.num_rows == 0 else "") + self._end())
        self._file.close()

    def _start(self) -> str:
        return "[\n"

    def _end(self) -> str:
        return "\n]\n"
