"""From data sources to clean conversations: normalised, deduplicated, split, all counted.

Knows messages and the ledger; knows neither tokens nor models.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tuning.config import DataOptions
from tuning.data.columns import ColumnReader
from tuning.data.examples import Example, examples_sha256
from tuning.data.fields import Conversation, RowError
from tuning.data.folders import DataError
from tuning.data.ledger import BadRow, Ledger
from tuning.data.mixture.drawing import Drawn, draw
from tuning.data.mixture.kept import drop_asked
from tuning.data.mixture.plan import is_mixture, load_plan
from tuning.data.mixture.rows import MixtureRow, read_rows
from tuning.data.sources import STARTER, RawRow, read_source
from tuning.data.split import (
    drop_leaks,
    drop_repeats,
    prompt_key,
    split_off,
    weighed_order,
    why_none_heldout,
)


@dataclass(frozen=True)
class Corpus:
    """What a run trains on and what it is checked on; `sha256` is that of the training rows."""

    train: tuple[Example, ...]
    order: tuple[int, ...]
    """Which training rows an epoch holds, by position; a row may be in it several times or not."""
    heldout: tuple[Example, ...]
    sha256: str
    sources: dict[str, str]
    """Source name to the sha256 of its file, or of its rows where it is no file."""


def load_corpus(sources: Sequence[str], options: DataOptions, seed: int, ledger: Ledger) -> Corpus:
    """Read, normalise, deduplicate, weight and split all sources; counts go to `ledger`."""
    _refuse_unread(sources, options)
    examples: list[list[Example]] = []
    hashes: dict[str, str] = {}
    for source in sources:
        if is_mixture(source):
            examples.append(_read_mixture(source, options, seed, ledger, hashes))
            continue
        examples.append(list(_read_examples(source, options, seed, ledger)))
        hashes[source] = _source_sha256(source, examples[-1])
    heldout: list[Example] = []
    if options.heldout_file is not None:
        strictly = replace(options, strict=True)
        beside = Ledger()
        heldout = list(_read_examples(options.heldout_file, strictly, seed, beside))
        if not heldout:
            raise DataError(
                f"data_options.heldout_file: {options.heldout_file!r} leaves no row to evaluate on "
                f"({_why(beside)}); mend the file"
            )
        ledger.tally.seen |= beside.tally.seen
        ledger.tally.dropped.update(beside.tally.dropped)
    _refuse_unknown_names(options, ledger)
    examples = drop_repeats(examples, options, ledger)
    if options.heldout_file is None:
        examples, heldout = split_off(examples, options.heldout, seed)
        ledger.rows_heldout = len(heldout)
        if options.heldout and not heldout:
            ledger.note = why_none_heldout(examples, options)
    examples = drop_leaks(examples, heldout, ledger)
    examples, heldout = _write_mixtures(examples, heldout, seed)
    train = [example for rows in examples for example in rows]
    if not train:
        raise DataError(
            f"data {', '.join(sources)}: no row is left to train on ({_why(ledger)}); mend the data"
        )
    ledger.rows_trained = len(train)
    order = weighed_order([len(rows) for rows in examples], options.weights, seed)
    if not order:
        raise DataError(
            f"data_options.weights: {options.weights} leave no row in an epoch; give larger ones"
        )
    return Corpus(tuple(train), order, tuple(heldout), examples_sha256(train), hashes)


def _read_examples(
    source: str, options: DataOptions, seed: int, ledger: Ledger
) -> Iterator[Example]:
    reader = ColumnReader(options, ledger.tally)
    count = 0
    for raw in read_source(source, seed, ledger.tally):
        count += 1
        ledger.rows_read += 1
        try:
            if raw.problem is not None:
                raise RowError("row", raw.problem)
            conversation = reader.read(raw.columns, f"{raw.source}:{raw.line}")
            reason = conversation.rejected
            if reason is None and conversation.num_trained_turns == 0:
                reason = "of no trained turn"
            if reason is not None:
                ledger.rows_dropped[reason] += 1
                continue
            yield _example(raw, conversation, options)
        except RowError as error:
            bad = BadRow(raw.source, raw.line, error.field, error.reason)
            if options.strict:
                raise DataError(f"{bad}; mend the row, or leave --strict out to skip it") from error
            ledger.bad_rows.append(bad)
    reader.finish()
    if count == 0:
        raise DataError(f"data {source!r}: holds no rows; give at least one")


def _refuse_unread(sources: Sequence[str], options: DataOptions) -> None:
    """Settings about columns say nothing of a mixture, whose templates name them."""
    given = {
        "format": options.format if options.format != "auto" else None,
        "columns": options.columns,
        "group_by": options.group_by,
    }
    for name, value in given.items():
        if value is not None and all(map(is_mixture, sources)):
            raise DataError(
                f"data_options.{name}: {value!r} is for sources that are no mixture; write it in "
                f"{sources[0]}, as `templates` or `group_by`"
            )


def _read_mixture(
    source: str, options: DataOptions, seed: int, ledger: Ledger, hashes: dict[str, str]
) -> list[Example]:
    """The rows of a mixture, said by their columns until `_write_mixtures` makes the messages."""
    plan = load_plan(Path(source).expanduser())
    found = read_rows(plan, seed, deduplicate=options.deduplicate)
    drop_asked(plan, found)
    if options.strict and found.bad:
        raise DataError(f"{found.bad[0]}; mend the row, or leave --strict out to skip it")
    ledger.rows_read += found.read
    ledger.rows_dropped.update(found.dropped)
    ledger.bad_rows += found.bad
    ledger.unused_columns.update(found.unused_columns)
    ledger.tally.add(found.tally)
    hashes[source] = _source_sha256(source, ())
    for data in sorted({item.data for item in plan.sources}):
        rows = [row for row in found.train if row.source.data == data]
        hashes[f"{source}: {data}"] = _source_sha256(data, [_by_columns(row) for row in rows])
    return [_by_columns(row) for row in found.train]


def _by_columns(row: MixtureRow) -> Example:
    messages = ({"role": "user", "content": row.key},)
    return Example(messages, row.origin, row.line, row.group, row=row)


def _write_mixtures(
    examples: list[list[Example]], heldout: list[Example], seed: int
) -> tuple[list[list[Example]], list[Example]]:
    """Give the rows of mixtures their messages; exemplars come from the rows to train on only."""
    rows = [item.row for part in examples for item in part if item.row is not None]
    if not rows:
        return examples, heldout
    train, others = draw(rows, [item.row for item in heldout if item.row is not None], seed)

    def written(items: list[Example], made: Iterator[Drawn]) -> list[Example]:
        return [item if item.row is None else _as_drawn(item, next(made)) for item in items]

    following = iter(train)
    return [written(part, following) for part in examples], written(heldout, iter(others))


def _as_drawn(example: Example, drawn: Drawn) -> Example:
    messages = (
        {"role": "user", "content": drawn.prompt},
        {"role": "assistant", "content": drawn.answer},
    )
    return replace(example, messages=messages, drawn=drawn)


def _example(raw: RawRow, conversation: Conversation, options: DataOptions) -> Example:
    group = prompt_key(conversation.messages).lower()
    if options.group_by is not None:
        if options.group_by not in raw.columns:
            raise RowError(options.group_by, "column of data_options.group_by is missing")
        group = str(raw.columns[options.group_by])
    return Example(
        conversation.messages,
        raw.source,
        raw.line,
        group,
        conversation.tools,
        conversation.untrained,
    )


def _refuse_unknown_names(options: DataOptions, ledger: Ledger) -> None:
    """A column that is to be mapped or dropped, and that no row has, is a slip of the pen."""
    tally = ledger.tally
    for setting, names, there in (
        ("drop", options.drop, tally.dropped),
        ("columns", tuple((options.columns or {}).values()), tally.seen),
    ):
        for name in names:
            if name not in there:
                if not tally.seen:  # the rows of mixtures alone: their columns are theirs to read
                    raise DataError(
                        f"data_options.{setting}: {name!r} is for sources whose rows are read as "
                        "they are, and there are mixtures alone; say it in the mixture's YAML"
                    )
                raise DataError(
                    f"data_options.{setting}: {name!r} is in no row; the columns are "
                    f"{', '.join(map(ascii, sorted(map(str, tally.seen))[:20]))}"
                )


def _source_sha256(source: str, examples: Sequence[Example]) -> str:
    from tuning.variant.folder import file_sha256

    path = Path(source).expanduser()
    if source != STARTER and path.is_file():
        return file_sha256(path)
    return examples_sha256(examples)


def _why(ledger: Ledger) -> str:
    parts: list[Any] = [f"{count} {reason}" for reason, count in ledger.rows_dropped.items()]
    if ledger.rows_heldout:
        parts.append(f"{ledger.rows_heldout} held out by data_options.heldout")
    if ledger.bad_rows:
        parts.append(f"{len(ledger.bad_rows)} bad, the first is {ledger.bad_rows[0]}")
    return ", ".join(parts) or "nothing was read"
