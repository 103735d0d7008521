"""From data sources to preferences: every row read, every pair counted, repeats left out.

Knows files through `tuning.data.sources`; knows neither tokens nor models.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

from tuning.config import DataOptions
from tuning.data.fields import texts_of
from tuning.data.folders import DataError
from tuning.data.formats import FormatError
from tuning.data.ledger import BadRow
from tuning.data.preferences.formats import (
    ColumnCheck,
    PreferenceFormat,
    format_called,
    preference_format,
    without,
)
from tuning.data.preferences.judged import Judged
from tuning.data.preferences.pairs import (
    DUPLICATE,
    Labelled,
    Lesson,
    Pair,
    PreferenceLedger,
    Preferences,
    Tie,
    count_kinds,
)
from tuning.data.sources import RawRow, read_source

MANIFEST = "MANIFEST.json"


def read_preferences(
    sources: Sequence[str], options: DataOptions | None = None, seed: int = 0
) -> Preferences:
    """All preferences of some sources, in order; what is left out is in the ledger, by reason.

    Of `options`, `format`, `columns`, `drop`, `strict` and `deduplicate` are read. FormatError
    and DataError name what cannot be read.
    """
    options = DataOptions() if options is None else options
    ledger = PreferenceLedger()
    kept: list[Lesson] = []
    seen: set[tuple[object, ...]] = set()
    for source in sources:
        _read_counts(source, ledger)
        for judged in _judgements(source, options, seed, ledger):
            for made in judged.lessons():
                lesson, reason = made if isinstance(made, tuple) else (made, None)
                ledger.read.update(count_kinds([lesson]))
                if reason is None and options.deduplicate:
                    key = _identity(lesson)
                    reason = DUPLICATE if key in seen else None
                    seen.add(key)
                if reason is None:
                    kept.append(lesson)
                else:
                    ledger.left_out[reason] += 1
    return Preferences(
        tuple(item for item in kept if isinstance(item, Pair)),
        tuple(item for item in kept if isinstance(item, Tie)),
        tuple(item for item in kept if isinstance(item, Labelled)),
        ledger,
    )


def _judgements(
    source: str, options: DataOptions, seed: int, ledger: PreferenceLedger
) -> Iterator[Judged]:
    rows = _renamed(source, options, seed, ledger)
    first = next(rows, None)
    if first is None:
        raise DataError(f"data {source!r}: holds no preferences; give at least one row")
    place = f"{first.source}:{first.line}"
    if options.format == "auto":
        known = preference_format(first.columns, place)
    else:
        known = format_called(options.format)
    check = ColumnCheck(known, ledger.tally)

    def counted() -> Iterator[RawRow]:
        for row in chain([first], rows):
            check.count(row.columns, f"{row.source}:{row.line}")
            _refuse_other(row, known)
            yield row

    for found in known.read(counted()):
        bad = found if isinstance(found, BadRow) else _unwritable(found)
        if bad is not None:
            _leave_out(bad, options, ledger)
        elif isinstance(found, Judged):
            yield found
    check.finish()


def _unwritable(judged: Judged) -> BadRow | None:
    """Why no tokenizer could take an answer: it holds half of a surrogate pair."""
    for at, answer in enumerate(judged.answers):
        try:
            for message in answer.messages:
                "".join(texts_of(message)).encode("utf-8")
        except UnicodeEncodeError:
            origin = judged.origin
            reason = "text cannot be encoded as UTF-8 (lone surrogate)"
            return BadRow(origin.source, origin.line, f"answer {at + 1}", reason)
    return None


def _leave_out(bad: BadRow, options: DataOptions, ledger: PreferenceLedger) -> None:
    """Count a bad row, or stop at it."""
    if options.strict:
        raise DataError(f"{bad}; mend the row, or leave --strict out to skip it")
    ledger.bad_rows.append(bad)


def _renamed(
    source: str, options: DataOptions, seed: int, ledger: PreferenceLedger
) -> Iterator[RawRow]:
    """The rows of a source, its columns dropped and mapped as asked."""
    drop, names = frozenset(options.drop), dict(options.columns or {})
    for raw in read_source(source, seed, ledger.tally):
        ledger.rows_read += 1
        if raw.problem is not None:
            _leave_out(BadRow(raw.source, raw.line, "row", raw.problem), options, ledger)
            continue
        ledger.tally.seen.update(raw.columns)
        row = without(raw.columns, drop, ledger.tally)
        for target, name in names.items():
            if name in row and target in row and target not in names.values():
                raise FormatError(
                    f"{raw.source}:{raw.line}: data_options.columns maps {target} to {name!r}, "
                    f"but there is a column {target!r} as well; name one of them in drop"
                )
        taken = {target: row[name] for target, name in names.items() if name in row}
        rest = {key: value for key, value in row.items() if key not in names.values()}
        yield RawRow(raw.source, raw.line, rest | taken)


def _refuse_other(row: RawRow, known: PreferenceFormat) -> None:
    """A row that fits another format shows a mixed file, which would be half read."""
    if known.required <= row.columns.keys():
        return
    try:
        other = preference_format(row.columns, "")
    except FormatError:
        return
    if other is not known:
        raise FormatError(
            f"{row.source}:{row.line}: row is of format {other.name}, those before are "
            f"{known.name}; keep one format a file, and give the files as several --data"
        )


def _identity(lesson: Lesson) -> tuple[object, ...]:
    """What makes two judgements the same: texts, verdict, and who judged, or which row it was."""
    origin = lesson.origin
    who = (origin.voter, origin.row) if origin.voter is None else (origin.voter,)
    if isinstance(lesson, Pair):
        answers = [lesson.chosen, lesson.rejected]
    elif isinstance(lesson, Tie):
        answers = sorted([lesson.first, lesson.second], key=str)
    else:
        answers = [lesson.completion]
    texts = json.dumps([lesson.prompt, *answers], ensure_ascii=False, sort_keys=True)
    verdict = getattr(lesson, "label", getattr(lesson, "both_bad", None))
    return (type(lesson), texts, verdict, *who)


def _read_counts(source: str, ledger: PreferenceLedger) -> None:
    """What an arena's export left out before, as its manifest tells."""
    path = Path(source).expanduser() / MANIFEST
    if not path.is_file():
        return
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        counts = dict(manifest["left_out"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"data {source!r}: {MANIFEST} is no manifest of an export ({error!r}); give the file "
            "with the rows instead"
        ) from error
    ledger.exported.update({str(why): int(count) for why, count in counts.items()})
