"""Reads battles that were voted on elsewhere into the store, as one transaction.

Rows are checked and written as they are read; a file with a bad row, an import that is killed and
a full disk change nothing. Voters wait meanwhile: other writes are refused while a large import
goes on, and reads see the store as it was.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from arena.exports.dataset import file_sha256
from arena.imports.readers import READERS, SHOWN, ImportRefusedError, rows_of
from arena.storage.bulk_insert import BulkWriter
from arena.storage.database import write
from arena.storage.pair_cache import PairCache
from arena.storage.store import Store


@dataclass
class Imported:
    """What an import did: battles written, known before, and rows left out by reason."""

    num_new: int = 0
    num_known: int = 0
    left_out: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class ImportedFile:
    """What a person imports: the file and its format, where it is read by way of another file."""

    sha256: str
    format: str


def import_file(
    store: Store,
    path: Path,
    kind: str,
    *,
    skip_bad: bool = False,
    origin: ImportedFile | None = None,
) -> Imported:
    """Import a file or a folder that `arena export` wrote.

    Raises ImportRefusedError with the first bad rows, unless `skip_bad` leaves those out; and for a
    file that was imported as another format.
    """
    if kind not in READERS:
        raise ImportRefusedError(f"format {kind!r} is unknown; use one of {', '.join(READERS)}")
    source = source_file(path, kind)
    origin = origin or ImportedFile(file_sha256(source), kind)
    name = origin.sha256 if kind == "raw" else kind

    def body(writer: BulkWriter) -> Imported:
        if others := writer.formats_of(origin.sha256) - {origin.format}:
            raise ImportRefusedError(
                f"{path} was imported as {', '.join(sorted(others))} before; its battles would be "
                f"there twice as {origin.format}; leave it"
            )
        done = _import(writer, source, kind, name, skip_bad=skip_bad)
        if done.num_new or done.num_known:
            writer.note_file(origin.sha256, origin.format)
        return done

    done = write(store.path, store.config, lambda db: body(BulkWriter(db)))
    PairCache(store).refresh()  # the next leaderboard starts from its copy
    return done


def _import(writer: BulkWriter, source: Path, kind: str, name: str, *, skip_bad: bool) -> Imported:
    done = Imported()
    shown: list[str] = []
    for rows in rows_of(source, kind, name):
        done.left_out += rows.left_out
        shown += rows.shown[: SHOWN - len(shown)]
        if skip_bad or not done.left_out:  # else only to tell how many more are bad
            num_new = writer.add(rows.block)
            done.num_new += num_new
            done.num_known += len(rows.block.ids) + rows.block.num_repeated - num_new
    if done.left_out and not skip_bad:
        raise ImportRefusedError(
            f"{source} has {done.left_out.total()} bad rows, nothing was imported"
            f" ({'; '.join(shown)}); mend them or leave them out with --skip-bad"
        )
    return done


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
