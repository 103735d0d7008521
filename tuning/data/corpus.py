"""From data sources to clean conversations: normalised, deduplicated, split, all counted.

Knows messages and the ledger; knows neither tokens nor models.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tuning.config import DataOptions
from tuning.data.columns import ColumnReader
from tuning.data.fields import Conversation, Message, RowError
from tuning.data.folders import DataError
from tuning.data.ledger import BadRow, Ledger
from tuning.data.mixture.drawing import Drawn, draw
from tuning.data.mixture.kept import drop_asked
from tuning.data.mixture.plan import is_mixture, load_plan
from tuning.data.mixture.rows import MixtureRow, read_rows
from tuning.data.sources import STARTER, RawRow, read_source

MAX_HELDOUT_ROWS = 256


@dataclass(frozen=True)
class Example:
    """One clean conversation, the place it came from, and its group for the held-out split."""

    messages: tuple[Message, ...]
    source: str
    line: int
    group: str
    tools: tuple[dict[str, Any], ...] = ()
    """Functions that the assistant may call, for the chat template."""
    untrained: frozenset[int] = frozenset()
    """Positions of the assistant's turns that are context only."""
    row: MixtureRow | None = None
    """The columns of a mixture's row, whose messages are made after the held-out split."""
    drawn: Drawn | None = None
    """What made the messages of a mixture's row."""

    @property
    def place(self) -> str:
        """`file:line`, as errors name it."""
        return f"{self.source}:{self.line}"


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
    examples = _drop_repeats(examples, options, ledger)
    if options.heldout_file is None:
        examples, heldout = _split(examples, options.heldout, seed)
        ledger.rows_heldout = len(heldout)
        if options.heldout and not heldout:
            ledger.note = _why_none(examples, options)
    examples = _drop_leaks(examples, heldout, ledger)
    examples, heldout = _write_mixtures(examples, heldout, seed)
    train = [example for rows in examples for example in rows]
    if not train:
        raise DataError(
            f"data {', '.join(sources)}: no row is left to train on ({_why(ledger)}); mend the data"
        )
    ledger.rows_trained = len(train)
    order = _weigh([len(rows) for rows in examples], options.weights, seed)
    if not order:
        raise DataError(
            f"data_options.weights: {options.weights} leave no row in an epoch; give larger ones"
        )
    return Corpus(tuple(train), order, tuple(heldout), examples_sha256(train), hashes)


def examples_sha256(examples: Sequence[Example]) -> str:
    """Fingerprint of the conversations in their order: sha256 of their canonical JSON lines."""
    digest = hashlib.sha256()
    for example in examples:
        digest.update(_canonical(example.messages, example).encode() + b"\n")
    return digest.hexdigest()


def _canonical(messages: Sequence[Message], example: Example) -> str:
    """One line of JSON that is the same for the same lesson; plain messages are a list alone."""
    content: Any = list(messages)
    if example.tools or example.untrained:
        content = {
            "messages": content,
            "tools": example.tools,
            "untrained": sorted(example.untrained),
        }
    return json.dumps(content, ensure_ascii=False, sort_keys=True)


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


def prompt_key(messages: Sequence[Message]) -> str:
    """What makes two prompts the same: their words, punctuation aside."""
    return " | ".join(
        plain_words(message["content"]) for message in messages if message["role"] != "assistant"
    )


def _asked(example: Example) -> list[str]:
    """The key of what is asked, for a mixture's row in the words of every trained template."""
    if example.row is not None:
        return [plain_words(question) for question in example.row.questions]
    return [prompt_key(example.messages)]


def plain_words(text: str) -> str:
    """Words and numbers of `text`; case and signs stay: PARIS is not paris, 3 - 2 not 3 + 2."""
    return " ".join(re.findall(r"\w+|[^\w\s.,!?'\"]", text))


def _drop_repeats(
    examples: list[list[Example]], options: DataOptions, ledger: Ledger
) -> list[list[Example]]:
    if not options.deduplicate:
        return examples
    from tuning.data.duplicates import NearDuplicates

    seen: set[str] = set()
    near = NearDuplicates(options.near_duplicates) if options.near_duplicates < 1 else None

    def reason(example: Example) -> str | None:
        trimmed = [
            {**message, "content": message["content"].strip()} for message in example.messages
        ]
        exact = _canonical(trimmed, example)
        if exact in seen:
            return "duplicate"
        seen.add(exact)
        words = " | ".join(
            f"{message['role']} {plain_words(message['content'])}" for message in example.messages
        )
        if near is not None and near.seen_before(words):
            return "near duplicate"
        return None

    kept: list[list[Example]] = []
    for rows in examples:
        kept.append([])
        for example in rows:
            why = reason(example)
            if why is None:
                kept[-1].append(example)
            else:
                ledger.rows_dropped[why] += 1
    return kept


def _drop_leaks(
    examples: list[list[Example]], heldout: Sequence[Example], ledger: Ledger
) -> list[list[Example]]:
    """Leave out training rows whose prompt is held out: of an own file, or of another group."""
    forbidden = {key for example in heldout for key in _asked(example)}
    kept = [
        [example for example in rows if forbidden.isdisjoint(_asked(example))] for rows in examples
    ]
    leaked = sum(map(len, examples)) - sum(map(len, kept))
    if leaked:
        ledger.rows_dropped["also in the held-out set"] += leaked
    return kept


def _split(
    examples: list[list[Example]], share: float, seed: int
) -> tuple[list[list[Example]], list[Example]]:
    """Hold out whole groups, chosen by a hash of group and seed: none is on both sides."""
    groups = {example.group for rows in examples for example in rows}
    wanted = min(int(len(groups) * share), MAX_HELDOUT_ROWS)
    ranked = sorted(
        groups,
        key=lambda group: hashlib.sha256(
            f"{seed} {group}".encode("utf-8", "surrogatepass")
        ).digest(),
    )
    chosen: set[str] = set()
    sizes: dict[str, int] = {}
    for rows in examples:
        for example in rows:
            sizes[example.group] = sizes.get(example.group, 0) + 1
    total, budget = 0, min(int(sum(sizes.values()) * share), MAX_HELDOUT_ROWS)
    for group in ranked:
        if len(chosen) >= wanted:
            break
        if total + sizes[group] <= budget:
            chosen.add(group)
            total += sizes[group]
    heldout = [example for rows in examples for example in rows if example.group in chosen]
    kept = [[example for example in rows if example.group not in chosen] for rows in examples]
    return kept, heldout


def _why_none(examples: list[list[Example]], options: DataOptions) -> str:
    """Why the share held nothing out, and what to set."""
    groups = len({example.group for rows in examples for example in rows})
    what = "prompts" if options.group_by is None else f"groups of {options.group_by}"
    share = f"{options.heldout * 100:g} % of {groups:,} {what}"
    why = "is less than one" if int(groups * options.heldout) < 1 else "take more of the rows"
    return f"no row held out: {share} {why}; raise data_options.heldout"


def _weigh(sizes: Sequence[int], weights: Sequence[float], seed: int) -> tuple[int, ...]:
    """Repeat each source's rows by its weight; a fraction takes a seeded sample of them."""
    order: list[int] = []
    start = 0
    for index, size in enumerate(sizes):
        weight = weights[index] if weights else 1.0
        whole = math.floor(weight)
        order.extend(list(range(start, start + size)) * whole)
        part = round((weight - whole) * size)
        picked = random.Random(f"{seed} {index}").sample(range(size), part)
        order.extend(start + position for position in sorted(picked))
        start += size
    return tuple(order)


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
