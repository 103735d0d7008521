"""Writes the votes of a store as a dataset folder: whole or not at all, rows one by one.

A folder has `data/<split>-00000-of-00001.parquet`, a `<split>.jsonl` mirror, a dataset
card and MANIFEST.json. It is a pure function of the store, the options and the program
version: no clock is read, so that the same votes give the same bytes. Knows no rows of
its own: formats are functions from a judged pair to rows.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from arena.config.version import program_version
from arena.errors import ArenaError
from arena.exports.dataset_card import write_dataset_card
from arena.exports.folders import replacing
from arena.exports.formats import FORMATS, ExportFormat
from arena.exports.redaction import redact_pair
from arena.exports.writers import Closing, Writer
from arena.storage.database import reading
from arena.storage.raw import raw_features, raw_line, raw_records
from arena.storage.seen_rows import SeenRows
from arena.storage.selection import (
    ExportCounts,
    JudgedPair,
    LeftOut,
    Selection,
    not_judged,
    select_pairs,
)
from arena.storage.store import Store

MANIFEST = "MANIFEST.json"
MANIFEST_VERSION = 1
RAW = "raw"
RAW_FILE = "battles.jsonl"
ABOUT_RAW = (
    "Every battle with all attempts, votes and their history, one JSON object a line; voters are"
    " numbers. `arena import --format raw` reads it back."
)


class ExportError(ArenaError):
    """The votes do not make this dataset, or the folder cannot be written."""

    code = "export_refused"


@dataclass(frozen=True)
class ExportOptions:
    """What to export and how to split it.

    `test_fraction`: share of prompts (0 to below 1) that go to the test split; a prompt is
    never in both. `seed` picks which. `dedupe` drops rows whose core columns were written
    before; `redact` replaces e-mail addresses, telephone numbers and keys.
    """

    format: str = "trl"
    selection: Selection = field(default_factory=Selection)
    test_fraction: float = 0.0
    seed: int = 0
    dedupe: bool = False
    redact: bool = False
    license: str = ""

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        if not 0 <= self.test_fraction < 1:
            raise ExportError(
                f"test fraction {self.test_fraction} is no share; give 0 <= fraction < 1"
            )


@dataclass(frozen=True)
class Exported:
    """What an export wrote: folder, rows per split, pairs left out by reason, and so the rows that
    pairs did not make beside others.
    """

    folder: Path
    splits: dict[str, int]
    num_pairs: int
    left_out: dict[str, int]
    rows_left_out: dict[str, int]


def export(store: Store, out: Path, options: ExportOptions, *, overwrite: bool = False) -> Exported:
    """Write the dataset folder `out`; raises ExportError and leaves nothing behind.

    `overwrite` replaces an earlier export (a folder with a manifest), nothing else.
    """
    if options.format == RAW:
        return _export_raw(store, out, options, overwrite=overwrite)
    form = export_format(options.format)
    counts = ExportCounts()
    with replacing(out, marker=MANIFEST, overwrite=overwrite) as folder:
        writers: dict[str, Writer] = {}
        with ExitStack() as stack:
            for split in split_names(options):
                writer = form.open(folder, split, options.selection)
                writers[split] = stack.enter_context(Closing(writer))
            seen = stack.enter_context(SeenRows(form.core)) if options.dedupe else None
            db = stack.enter_context(reading(store.path, store.config))
            for pair in select_pairs(db, options.selection, counts):
                _write_pair(form, pair, options, writers, seen, counts)
        if not counts.num_rows:
            told = counts_text(counts)
            raise ExportError(f"no vote makes a {form.name} row ({told}); nothing written").coded(
                "export_empty", format=form.name, counts=told
            )
        kept = drop_empty_splits(writers)
        splits = {split: writer.num_rows for split, writer in kept.items()}
        data_files = {split: w.data_files for split, w in kept.items() if w.data_files}
        manifest = describe(store, options, counts, splits)
        write_dataset_card(folder, form.about, manifest, data_files, license_name=options.license)
        write_manifest(folder, manifest)
    return Exported(
        out, splits, counts.num_pairs, dict(counts.left_out), dict(counts.rows_left_out)
    )


def _write_pair(
    form: ExportFormat,
    pair: JudgedPair,
    options: ExportOptions,
    writers: dict[str, Writer],
    seen: SeenRows | None,
    counts: ExportCounts,
) -> None:
    if options.redact:
        pair = redact_pair(pair, counts.redacted)
    writer = writers[split_of(pair, options)]  # of the prompt as it is written
    rows = form.rows(pair)
    if isinstance(rows, LeftOut):
        counts.left_out[rows] += 1
        return
    reasons = [row for row in rows if isinstance(row, LeftOut)]
    if reasons and len(reasons) == len(rows):
        counts.left_out[reasons[0]] += 1
    else:
        counts.rows_left_out.update(reasons)
    for row in rows:
        if isinstance(row, LeftOut):
            continue
        if seen is not None and not seen.is_new(row):
            counts.left_out[LeftOut.DUPLICATE] += 1
            continue
        writer.write(row)
        counts.num_rows += 1


def _export_raw(store: Store, out: Path, options: ExportOptions, *, overwrite: bool) -> Exported:
    """All battles as they are: `battles.jsonl`, which `arena import --format raw` reads back and
    `datasets.load_dataset` opens.
    """
    if options != ExportOptions(format=RAW, license=options.license):
        raise ExportError("format 'raw' is the whole store: it takes no filter, split or change")
    counts = ExportCounts()
    with replacing(out, marker=MANIFEST, overwrite=overwrite) as folder:
        with (
            (folder / RAW_FILE).open("w", encoding="utf-8", newline="\n") as file,
            reading(store.path, store.config) as db,
        ):
            for record in raw_records(db):
                file.write(raw_line(record))
                counts.num_rows += 1
                counts.num_pairs += sum(len(turn["votes"]) for turn in record["turns"])
        if not counts.num_rows:
            raise ExportError("the store has no battle; nothing written")
        splits = {"train": counts.num_rows}
        manifest = describe(store, options, counts, splits)
        write_dataset_card(
            folder,
            ABOUT_RAW,
            manifest,
            {"train": RAW_FILE},
            license_name=options.license,
            features=raw_features(),
        )
        write_manifest(folder, manifest)
    return Exported(out, splits, counts.num_pairs, {}, {})


def export_format(name: str) -> ExportFormat:
    """A format by name; ExportError lists the known ones."""
    if name not in FORMATS:
        known = ", ".join([*FORMATS, RAW])
        raise ExportError(f"format {name!r} is unknown; use one of {known}")
    return FORMATS[name]


def split_names(options: ExportOptions) -> tuple[str, ...]:
    """The splits an export has."""
    return ("train", "test") if options.test_fraction else ("train",)


def split_of(pair: JudgedPair, options: ExportOptions) -> str:
    """The split of a pair by its conversation's first prompt, so that prompts never mix."""
    if not options.test_fraction:
        return "train"
    prompt = " ".join(pair.left.context[0]["content"].lower().split())
    digest = hashlib.sha256(f"{options.seed}\n{prompt}".encode()).digest()
    share = int.from_bytes(digest[:8], "big") / 2**64
    return "test" if share < options.test_fraction else "train"


def drop_empty_splits(writers: dict[str, Writer]) -> dict[str, Writer]:
    """The splits with rows; files of the others are removed, for readers fail on empty ones."""
    for writer in writers.values():
        if not writer.num_rows:
            for path in writer.paths:
                path.unlink()
    return {split: writer for split, writer in writers.items() if writer.num_rows}


def counts_text(counts: ExportCounts) -> str:
    """Counts in words: `3 judged pairs: tie 2, empty 1`."""
    reasons = ", ".join(f"{reason} {n}" for reason, n in sorted(counts.left_out.items()))
    return f"{counts.num_pairs} judged pairs" + (f": {reasons}" if reasons else "")


def describe(
    store: Store, options: ExportOptions, counts: ExportCounts, splits: dict[str, int]
) -> dict[str, Any]:
    """The manifest without the files' hashes."""
    options_told = asdict(options) | {"selection": options.selection.described()}
    return {
        "manifest_version": MANIFEST_VERSION,
        "program": f"instruct-arena {program_version()}",
        "options": options_told,
        "splits": splits,
        "num_rows": counts.num_rows,
        "num_judged_pairs": counts.num_pairs,
        "left_out": dict(sorted(counts.left_out.items())),
        "rows_left_out": dict(sorted(counts.rows_left_out.items())),
        "redacted": dict(sorted(counts.redacted.items())),
        "newest_vote_ms": counts.last_ms,
        "store": store.counts() | not_judged(store),
    }


def write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    """MANIFEST.json with size and sha256 of every other file of the folder."""
    files = {
        path.relative_to(folder).as_posix(): {
            "bytes": path.stat().st_size,
            "sha256": file_sha256(path),
        }
        for path in _files(folder)
    }
    text = json.dumps(manifest | {"files": files}, indent=2, ensure_ascii=False)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")


def file_sha256(path: Path) -> str:
    """Hex sha256 of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _files(folder: Path) -> Iterator[Path]:
    return iter(sorted(path for path in folder.rglob("*") if path.is_file()))
