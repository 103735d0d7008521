"""Writes rows of one split as Parquet with a JSON-lines mirror, a batch at a time."""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

BATCH = 2_000
"""Rows held in memory before they are written."""


class TableWriter:
    """`data/<split>-00000-of-00001.parquet` and `<split>.jsonl` under a folder."""

    def __init__(self, folder: Path, split: str, schema: pa.Schema) -> None:
        """Open both files; the folder exists."""
        (folder / "data").mkdir(exist_ok=True)
        self.num_rows = 0
        self._schema = schema
        self._batch: list[dict[str, Any]] = []
        self._parquet = pq.ParquetWriter(
            folder / "data" / f"{split}-00000-of-00001.parquet", schema, compression="zstd"
        )
        self._lines = (folder / f"{split}.jsonl").open("w", encoding="utf-8", newline="\n")

    def write(self, row: dict[str, Any]) -> None:
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
        dumps = json.JSONEncoder(ensure_ascii=False).encode
        self._lines.write("".join([dumps(row) + "\n" for row in self._batch]))
        self._batch.clear()

    def __enter__(self) -> TableWriter:
        """The writer itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Write what is left (unless an error ends the block) and close both files."""
        try:
            if kind is None:
                self._flush()
        finally:
            self._parquet.close()
            self._lines.close()
