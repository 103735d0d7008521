"""The `arena import` command: whose reader a format has, and what was added.

Formats that the arena writes itself are read in `arena.imports`; those of public preference sets
by the readers of tuning, whose judgements come as rows of a file between them.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from arena.exports.dataset import file_sha256
from arena.imports.importer import Imported, ImportedFile, import_file
from arena.imports.readers import JUDGED, READERS, ImportRefusedError
from arena.storage.store import Store


def run_import(home: Path, file: Path, kind: str, *, skip_bad: bool, json_out: bool) -> None:
    """Import a file and print what was added and what was left out."""
    done = import_any(Store.at_home(home), file, kind, skip_bad=skip_bad)
    if json_out:
        told = {"num_new": done.num_new, "num_known": done.num_known}
        print(json.dumps(told | {"left_out": dict(done.left_out)}))
        return
    print(f"{done.num_new} battles added, {done.num_known} known before")
    for reason, count in done.left_out.most_common():
        print(f"left out: {count} ({reason})")


def import_any(store: Store, file: Path, kind: str, *, skip_bad: bool = False) -> Imported:
    """Import a file of any known format. Raises ImportRefusedError for another."""
    if kind in READERS and kind != JUDGED:
        return import_file(store, file, kind, skip_bad=skip_bad)
    from tuning.data.preferences.formats import PREFERENCE_FORMATS
    from tuning.errors import TuningError

    known = {form.name: form for form in PREFERENCE_FORMATS}
    if kind not in known:
        names = ", ".join([*(name for name in READERS if name != JUDGED), *known])
        raise ImportRefusedError(f"format {kind!r} is unknown; use one of {names}")
    if not file.exists():
        raise ImportRefusedError(f"{file} does not exist; give a file or a folder of them")
    with tempfile.TemporaryDirectory() as temporary:
        between = Path(temporary) / "judged.jsonl"
        try:
            with between.open("w", encoding="utf-8", newline="\n") as out:
                for row in _judged_rows(file, kind):
                    out.write(json.dumps(row, ensure_ascii=True) + "\n")
            origin = ImportedFile(_content_sha256(file), kind)
            return import_file(store, between, JUDGED, skip_bad=skip_bad, origin=origin)
        except TuningError as error:
            raise ImportRefusedError(str(error)) from error
        except ImportRefusedError as error:
            raise ImportRefusedError(str(error).replace(str(between), str(file))) from error


def _content_sha256(file: Path) -> str:
    """Of a file as it is; of a folder that of its files, in order."""
    if file.is_file():
        return file_sha256(file)
    parts = [file_sha256(path) for path in sorted(file.rglob("*")) if path.is_file()]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _judged_rows(file: Path, kind: str) -> Iterator[dict[str, Any]]:
    """The rows of a file as judgements; a bad one with its place and what is wrong."""
    from tuning.data.ledger import BadRow
    from tuning.data.preferences.formats import format_called
    from tuning.data.preferences.judged import Judged
    from tuning.data.preferences.pairs import text_of
    from tuning.data.sources import RawRow, read_source

    form = format_called(kind)

    def rows() -> Iterator[RawRow]:
        for raw in read_source(str(file)):
            lacking = form.required - raw.columns.keys()
            if lacking and raw.problem is None:
                raw = replace(raw, problem=f"has no {', '.join(sorted(lacking))}")
            yield raw

    for found in form.read(rows()):
        if isinstance(found, BadRow):
            yield {"problem": str(found)}
            continue
        assert isinstance(found, Judged)
        if any(answer.before is not None for answer in found.answers):
            yield {"problem": f"{found.origin}: the answers come after different words"}
            continue
        yield {
            "format": kind,
            "row": found.origin.row,
            "prompt": list(found.prompt),
            "answers": [
                {"text": text_of(answer.messages), "model": answer.model}
                for answer in found.answers
            ],
            "ranks": found.ranks,
            "both_bad": found.both_bad,
            "strength": found.strength,
            "voter": found.origin.voter,
            "blind": found.blind,
            "language": found.language,
            "comment": found.comment,
            "tags": list(found.tags),
            "created_ms": found.created_ms,
        }
