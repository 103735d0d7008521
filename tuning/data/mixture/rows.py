"""The rows of a mixture's sources: which are trained, which are kept for tests, which go unused.

Each row is counted once: trained, kept, over the cap, a duplicate, in no source, or bad. Knows
neither messages nor tokens.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from tuning.config import DataOptions
from tuning.data.columns import ColumnReader
from tuning.data.fields import RowError
from tuning.data.folders import DataError
from tuning.data.formats import FormatError
from tuning.data.ledger import BadRow, Tally
from tuning.data.mixture.plan import LISTING, MixturePlan, SourcePlan, Template, rank
from tuning.data.mixture.templates import WHOLE_ROW, MissingColumnError, TemplateRefusedError
from tuning.data.sources import STARTER, RawRow, read_source

OVER_CAP = "over the cap of their source"
KEPT = "kept for the mixture's tests"
IN_HELDOUT_CLUSTER = "in a held-out cluster"
IN_TESTS = "also asked in the mixture's tests"
STARTER_SUITE = "starter suite"
IN_NO_SOURCE = "in no source of the mixture"
DUPLICATE = "duplicate"


@dataclass(frozen=True, eq=False)
class MixtureRow:
    """One row of one source, with the place it came from."""

    source: SourcePlan
    origin: str
    line: int
    columns: Mapping[str, Any]

    @cached_property
    def key(self) -> str:
        """What makes two rows the same: the columns that may reach the model."""
        names = self.columns if WHOLE_ROW in self.source.columns else self.source.columns
        used = {name: self.columns[name] for name in names if name in self.columns}
        return json.dumps(used, sort_keys=True, default=str)

    @property
    def group(self) -> str:
        """Rows of one group stay together on one side of every split."""
        column = self.source.group_by
        return self.key if column is None else str(self.columns[column])

    def pair(self, template: Template) -> tuple[str, str]:
        """Prompt and answer by a template; RowError when it cannot be rendered or is empty."""
        texts = []
        for part, text in (("prompt", template.prompt), ("answer", template.answer)):
            where = f"sources.{self.source.name}.templates.{template.name}.{part}"
            try:
                texts.append(text.render(self.columns))
            except TemplateRefusedError as error:
                raise RowError(where, str(error)) from error
            if not texts[-1]:
                raise RowError(where, "renders empty")
            if not texts[-1].isascii():
                _require_unicode(texts[-1], where)
        return texts[0], texts[1]

    @cached_property
    def questions(self) -> tuple[str, ...]:
        """What each trained template asks, without exemplars and options."""
        return tuple(self.pair(template)[0] for template in self.source.trained_templates)

    def options(self) -> tuple[str, ...]:
        """What the row may be answered with; empty where nothing is listed."""
        column = self.source.options_column
        if column is None:
            return self.source.options
        value = self.columns.get(column)
        if not isinstance(value, list | tuple) or not value:
            raise RowError(column, f"is {value!r}, no list of options")
        return tuple(map(str, value))


def _require_unicode(text: str, where: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise RowError(where, "text cannot be encoded as UTF-8 (lone surrogate)") from None


@dataclass
class MixtureRows:
    """What was read: rows to train on, rows to test with, and what became of the others."""

    train: list[MixtureRow] = field(default_factory=list)
    tests: dict[str, list[MixtureRow]] = field(default_factory=dict)
    read: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    bad: list[BadRow] = field(default_factory=list)
    tally: Tally = field(default_factory=Tally)
    """Files of folders, and columns of rows without templates."""
    columns: dict[str, set[str]] = field(default_factory=dict)
    """By data, all that its rows have."""
    unused_columns: dict[str, list[str]] = field(default_factory=dict)
    """By source, the columns that no template reads."""


def read_rows(plan: MixturePlan, seed: int, *, deduplicate: bool) -> MixtureRows:
    """All rows of all sources, sorted out; `seed` draws those within a cap.

    DataError for a source without rows, a column that no row has, and a template that fits none.
    """
    found = MixtureRows()
    pools = _pools(plan, seed, found)
    suite = _starter_suite() if any(source.data == STARTER for source in plan.sources) else []
    for source in plan.sources:
        rows = pools[source.name]
        if not rows:
            if present := found.columns[source.data]:
                _require_columns(plan, source, present)
            first = f" ({found.bad[0]})" if found.bad else ""
            raise _error(
                plan, source, "data", f"{source.data!r} holds no row for this source{first}"
            )
        present = set().union(*(row.columns for row in rows))
        _require_columns(plan, source, present)
        used = source.read_columns
        if not source.as_is and WHOLE_ROW not in source.columns:
            found.unused_columns[source.name] = sorted(present - used)
        train = _keep_tests(plan, source, rows, suite, found)
        train = _once(train, found) if deduplicate else train
        train = _within_cap(source, train, seed, found)
        kept, bad = _usable(plan, source, train, source.trained_templates)
        found.train += kept
        found.bad += bad
    found.dropped = +found.dropped
    return found


def _pools(plan: MixturePlan, seed: int, found: MixtureRows) -> dict[str, list[MixtureRow]]:
    """Rows by source; each file is read once."""
    pools: dict[str, list[MixtureRow]] = {source.name: [] for source in plan.sources}
    for data in dict.fromkeys(source.data for source in plan.sources):
        sources = [source for source in plan.sources if source.data == data]
        readers = {
            source.name: ColumnReader(DataOptions(drop=source.drop), found.tally)
            for source in sources
            if source.as_is and data != STARTER
        }
        seen = found.columns[data] = set()
        for raw in _read(data, seed, found.tally):
            seen.update(map(str, raw.columns))
            if raw.problem is not None:
                found.read += 1
                found.bad.append(BadRow(raw.source, raw.line, "row", raw.problem))
                continue
            takers = [source for source in sources if _matches(source, raw)]
            found.read += max(1, len(takers))
            found.dropped[IN_NO_SOURCE] += not takers
            for source in takers:
                try:
                    columns: Mapping[str, Any] = raw.columns
                    if source.name in readers:
                        columns = {**columns, **_as_pair(raw, source, readers[source.name])}
                    if source.group_by is not None and source.group_by not in columns:
                        raise RowError(source.group_by, "column of group_by is missing")
                    pools[source.name].append(MixtureRow(source, raw.source, raw.line, columns))
                except RowError as error:
                    found.bad.append(BadRow(raw.source, raw.line, error.field, error.reason))
        for name, reader in readers.items():
            with _as_setting_of(name):
                reader.finish()
    return pools


def _read(data: str, seed: int, tally: Tally) -> Iterator[RawRow]:
    if data != STARTER:
        yield from read_source(data, seed, tally)
        return
    from tuning.starter.world.instructions import training_tasks

    for line, task in enumerate(training_tasks(seed), 1):
        yield RawRow(STARTER, line, _task_columns(task))


def _task_columns(task: Any) -> dict[str, Any]:
    names = ("prompt", "response", "family", "entity", "phrasing")
    return {name: getattr(task, name) for name in names}


def _matches(source: SourcePlan, raw: RawRow) -> bool:
    return all(raw.columns.get(name) in wanted for name, wanted in source.where.items())


def _as_pair(raw: RawRow, source: SourcePlan, reader: ColumnReader) -> dict[str, str]:
    """`prompt` and `response` of a row that is a whole instruction already."""
    own = {*source.where, source.group_by, source.options_column}
    columns = {name: value for name, value in raw.columns.items() if name not in own}
    with _as_setting_of(source.name):
        conversation = reader.read(columns, f"{raw.source}:{raw.line}")
    messages = conversation.messages
    if [message["role"] for message in messages] != ["user", "assistant"]:
        raise RowError(
            "messages", "is more than one prompt and one answer; give such rows as another --data"
        )
    if conversation.rejected or conversation.num_trained_turns == 0:
        raise RowError("messages", f"is no lesson ({conversation.rejected or 'not to be trained'})")
    return {"prompt": messages[0]["content"], "response": messages[1]["content"]}


@contextmanager
def _as_setting_of(source: str) -> Iterator[None]:
    """What is to be left out of a source is set in the mixture, not by a flag."""
    try:
        yield
    except FormatError as error:
        remedy = re.sub(r", or map (it|one) with --set .*", "", str(error))
        raise DataError(remedy.replace("--set drop=", f"`drop` of source {source!r}: ")) from error


def _require_columns(plan: MixturePlan, source: SourcePlan, present: set[str]) -> None:
    asked = (
        ("where", source.where),
        ("drop", source.drop),
        ("options_column", [source.options_column]),
    )
    for key, names in asked:
        for name in names:
            if name is not None and name not in present:
                known = ", ".join(sorted(present))
                raise _error(plan, source, key, f"no row has a column {name!r}; there are {known}")


def _keep_tests(
    plan: MixturePlan,
    source: SourcePlan,
    rows: list[MixtureRow],
    suite: Sequence[RawRow],
    found: MixtureRows,
) -> list[MixtureRow]:
    """Put the rows of the tests aside, and give back the others."""
    if source.data == STARTER:
        found.tests[source.name] = _starter_tests(plan, source, suite)
        found.dropped[IN_HELDOUT_CLUSTER] += len(rows) if source.heldout else 0
        return [] if source.heldout else rows
    limit = int(source.test * 2**64)
    tests: list[MixtureRow] = []
    train: list[MixtureRow] = []
    for row in rows:
        place = int.from_bytes(rank(plan.seed, "test", source.name, row.group)[:8], "big")
        (tests if source.heldout or place < limit else train).append(row)
    kept, bad = _usable(plan, source, tests, source.templates)
    found.tests[source.name] = kept
    found.bad += bad
    found.dropped[IN_HELDOUT_CLUSTER if source.heldout else KEPT] += len(kept)
    return train


def _starter_suite() -> list[RawRow]:
    """The starter's own held-out tasks, with their checks; they count nowhere as rows read."""
    from tuning.starter.world.instructions import heldout_tasks

    return [
        RawRow(STARTER_SUITE, line, {**_task_columns(task), "check": task.check})
        for line, task in enumerate(heldout_tasks(), 1)
    ]


def _starter_tests(
    plan: MixturePlan, source: SourcePlan, suite: Sequence[RawRow]
) -> list[MixtureRow]:
    rows = [
        MixtureRow(source, raw.source, raw.line, raw.columns)
        for raw in suite
        if _matches(source, raw)
    ]
    kept, bad = _usable(plan, source, rows, source.templates)
    if bad:
        raise DataError(f"{bad[0]}; mend the template")
    return kept


def _once(rows: list[MixtureRow], found: MixtureRows) -> list[MixtureRow]:
    first = {row.key: row for row in reversed(rows)}
    kept = [row for row in rows if first[row.key] is row]
    found.dropped[DUPLICATE] += len(rows) - len(kept)
    return kept


def _within_cap(
    source: SourcePlan, rows: list[MixtureRow], seed: int, found: MixtureRows
) -> list[MixtureRow]:
    """At most `cap` rows, drawn by the seed, in the order of the file.

    So the sources are mixed in proportion to min(rows, cap): examples-proportional mixing with a
    maximum (Raffel et al. 2020, section 3.5.2), as FLAN uses it.
    """
    if source.cap is None or len(rows) <= source.cap:
        return rows
    ranked = sorted(range(len(rows)), key=lambda at: rank(seed, "cap", source.name, rows[at].key))
    found.dropped[OVER_CAP] += len(rows) - source.cap
    return [rows[at] for at in sorted(ranked[: source.cap])]


def _usable(
    plan: MixturePlan,
    source: SourcePlan,
    rows: Sequence[MixtureRow],
    templates: Sequence[Template],
) -> tuple[list[MixtureRow], list[BadRow]]:
    """The rows of which every template can make something, and the others.

    DataError for a template that none of the rows fits.
    """
    kept, bad = [], []
    failures: Counter[str] = Counter()
    for row in rows:
        try:
            for template in templates:
                _try(row, template)
            kept.append(row)
        except RowError as error:
            bad.append(BadRow(row.origin, row.line, error.field, error.reason))
            failures[error.field] += 1
            if failures[error.field] == len(rows):
                raise _fits_none(plan, source, rows, error) from error
    return kept, bad


def _fits_none(
    plan: MixturePlan, source: SourcePlan, rows: Sequence[MixtureRow], error: RowError
) -> DataError:
    """The last row's error, said of the template, since every row has it."""
    keys = next((keys for keys in plan.file.lines if ".".join(keys) == error.field), ())
    if isinstance(error.__cause__, MissingColumnError):
        names = ", ".join(map(repr, error.__cause__.names))
        present = sorted(set().union(*(row.columns for row in rows)))
        return plan.file.error(
            keys,
            f"no row of {source.data!r} has the column {names}; there are {', '.join(present)}",
        )
    return plan.file.error(
        keys or ("sources", source.name), f"fits no row of {source.data!r}: {error.reason}"
    )


def _try(row: MixtureRow, template: Template) -> None:
    """RowError when the template cannot be used with the row."""
    answer = row.pair(template)[1].casefold()
    if template.turned or not any(row.source.shares[kind] for kind in LISTING):
        return
    options = row.options()
    if not any(option.casefold() in answer for option in options):
        raise RowError(
            f"sources.{row.source.name}.options", f"{options!r} do not hold the answer {answer!r}"
        )


def _error(plan: MixturePlan, source: SourcePlan, key: str, text: str) -> DataError:
    return plan.file.error(("sources", source.name, key), text)
