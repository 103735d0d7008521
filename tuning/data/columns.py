"""Decides what becomes of every column of a row: used, harmless, left out as asked, or refused.

Knows formats and the settings `data_options.columns`, `drop` and `format`; knows no files.
"""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Mapping
from typing import Any

from tuning.config import DataOptions
from tuning.data.fields import (
    HARMLESS_TURN_KEYS,
    Conversation,
    DataRow,
    RowError,
    UnusedError,
    plain,
    says_nothing,
    shorten,
)
from tuning.data.formats import (
    EXTRAS,
    FORMATS,
    SYSTEM,
    Format,
    FormatError,
    detect_format,
    format_named,
    normalise_row,
)
from tuning.data.ledger import Tally

# Which row it is, where it is from, what it is about, when it was made and how long it is.
HARMLESS_NAMES = """
    _id id ids uid uuid idx index row_id sample_id prompt_id question_id conversation_id
    conversation_hash session_id hash __index_level_0__
    source sources data_source dataset dataset_name origin url link license author model
    model_name generator metadata meta
    category topic subject domain task task_id task_name task_type task_source template_id
    template_idx template_type family difficulty tags lang language
    created created_at timestamp date num_tokens num_turns length
"""
PANDAS_INDEX = {"", "Unnamed: 0"}
HARMLESS = frozenset(HARMLESS_NAMES.split()) | PANDAS_INDEX
"""Columns that say which row it is or where it is from, and nothing that could be learned."""
SUBJECT_NAMES = """
    category topic subject domain task task_name task_type lang language
"""
SUBJECTS = frozenset(SUBJECT_NAMES.split())
"""Harmless columns that can be part of what is asked: counted where they differ for one prompt."""
EXPORT_NAMES = """
    vote_id battle_id turn mode blind partial flags strength weight reasons comment propensity
    winner margin model side kind ask_as weights_sha256 base sampling
"""
_OF_AN_ANSWER = ("model", "side", "kind", "ask_as", "weights_sha256", "base", "sampling")
OF_EXPORTS = frozenset(EXPORT_NAMES.split()) | {
    f"{role}_{name}" for role in ("chosen", "rejected") for name in _OF_AN_ANSWER
}
"""Columns about the vote and the models in rows of `arena export`; harmless in those alone."""
EXPORTED = frozenset({"vote_id", "battle_id", "propensity"})
"""Columns by which such rows are known."""
RENDERED = "text"
SHOWN = 20
TURN_COLUMNS = frozenset({"messages", "conversations", "prompt", "completion"})
ROLE_AND_TEXT = frozenset({"role", "content", "from", "value"})
REMEDY = "leave it out with --set drop"


class ColumnReader:
    """Reads the rows of one source, all of one format, into conversations."""

    def __init__(self, options: DataOptions, tally: Tally) -> None:
        self._tally = tally
        self._drop = frozenset(options.drop)
        self._named = format_named(options.format) if options.format != "auto" else None
        self._map = dict(options.columns or {})
        self._group_by = options.group_by
        self._known: Format | None = None
        self._unknown: dict[str, tuple[str, str, str]] = {}  # name: row, place in it, what it holds
        self._takes_context = True  # whether the rows with such columns can be asked with context
        known = frozenset().union(*(item.columns for item in FORMATS))
        self._subjects: dict[tuple[str, int], int] = {}  # column and prompt: the value, hashed
        wrong = sorted(set(self._map) - known)
        if wrong:
            raise FormatError(
                f"data_options.columns: {wrong[0]!r} is nothing a row is made of; map some of "
                f"{', '.join(sorted(known))} to columns of the data"
            )

        for name, count in Counter(self._map.values()).items():
            if count > 1:
                parts = [part for part, column in self._map.items() if column == name]
                raise FormatError(
                    f"data_options.columns: {name!r} is mapped to {' and '.join(parts)}, so the "
                    "model would learn what it is shown; map a column of its own to each"
                )

    def read(self, columns: Mapping[str, Any], where: str) -> Conversation:
        """The conversation of one row.

        RowError where the row cannot be used, FormatError where no row like it could be. Columns
        and keys of turns that nothing would use are for `finish`.
        """
        row = self._renamed(columns, where)
        said = {name: value for name, value in row.items() if not says_nothing(value)}
        known = self._known or self._named or self._detect(row, said, where)
        if not known.required <= set(said):
            _refuse_mixture(said, known, where)
        try:
            conversation = normalise_row(row, known)
            self._account(row, known, conversation, where)
        except RowError as error:
            raise RowError(self._own_name(error.field), error.reason) from error
        except UnusedError as error:
            raise FormatError(f"{where}: {self._unused(error)}") from error
        for place, held in conversation.unused.items():
            name = self._own_name(place)
            self._unknown.setdefault(_without_places(name), (where, name, held))
            self._takes_context = False
        self._tally.context_turns += len(conversation.untrained)
        return conversation

    def finish(self) -> None:
        """After the last row: FormatError names every column and key that nothing would use."""
        if not self._unknown:
            return
        (name, (where, place, held)), *more = self._unknown.items()
        names = [*self._unknown][:SHOWN]
        listed = shlex.quote(",".join(map(_printable, names)))
        others = f" (and {len(self._unknown) - SHOWN} more)" if len(more) >= SHOWN else ""
        if more:
            keys = any(name != place for name, (_, place, _) in self._unknown.items())
            what = f"columns {'and keys ' if keys else ''}{', '.join(map(_printable, names))}"
            what += f"{others} are used by nothing; {_printable(place)} {held}; leave them out with"
        else:
            column = "column " if name == place else ""
            what = f"{_printable(place)}: {column}{held}, which nothing uses; leave it out with"
        mapped = ""
        if self._takes_context:
            mapped = (
                f", or map {'one' if more else 'it'} with "
                f"--set columns={shlex.quote(f'context:{_printable(name)}')}"
            )
        raise FormatError(f"{where}: {what} --set drop={listed}{mapped}")

    def _detect(self, row: DataRow, said: DataRow, where: str) -> Format:
        """The format that the columns which say something fit; for this row alone, that of all."""
        asked = frozenset(self._map)
        if {"prompt", "response"} <= asked:
            return format_named("prompt-response")
        for known in FORMATS:
            if asked and asked & known.required and known.required <= asked:
                return known
        try:
            self._known = detect_format(said, where)
        except FormatError:
            return detect_format(row, where)
        return self._known

    def _renamed(self, columns: Mapping[str, Any], where: str) -> dict[str, Any]:
        """The row without what is to be dropped, its mapped columns under the names of formats."""
        self._tally.seen.update(columns)
        row = {}
        for name, value in columns.items():
            if name in self._drop:
                self._tally.dropped[name] += 1
            else:
                row[name] = self._without_keys(name, value)
        taken = {}
        for target, name in self._map.items():
            if target in row and target not in self._map.values():
                raise FormatError(
                    f"{where}: data_options.columns maps {target} to {name!r}, but there is a "
                    f"column {target!r} as well; name one of them in data_options.drop"
                )
            if name in row:
                taken[target] = row[name]
        rest = {key: value for key, value in row.items() if key not in self._map.values()}
        return rest | taken

    def _without_keys(self, name: str, value: Any) -> Any:
        """A column without the keys within it that `drop` names as `column.key`, at any depth."""
        if not any(item.startswith(f"{name}.") for item in self._drop):
            return value
        value = plain(value)
        if isinstance(value, list | tuple):
            return [self._without_keys(name, item) for item in value]
        if not isinstance(value, Mapping):
            return value
        left = {}
        for key, item in value.items():
            inner = f"{name}.{key}"
            if inner in self._drop:
                self._tally.dropped[inner] += 1
            else:
                left[key] = self._without_keys(inner, item)
        return left

    def _account(self, row: DataRow, known: Format, conversation: Conversation, where: str) -> None:
        """Count every column, and keep the names of those that say something nothing uses."""
        texts = [message["content"].strip() for message in conversation.messages]
        harmless = []
        for name, value in row.items():
            if name in known.columns or says_nothing(value) or name == self._group_by:
                continue
            harmless_here = name in HARMLESS or (name in OF_EXPORTS and row.keys() >= EXPORTED)
            if _holds_part_of_prompt(value, texts) or not (
                harmless_here or _says_again(name, value, texts)
            ):
                self._unknown.setdefault(str(name), (where, str(name), f"holds {shorten(value)}"))
                text = not isinstance(plain(row.get("prompt")), list)
                one = isinstance(value, str | int | float)
                self._takes_context &= "context" in known.columns and text and one
                continue
            if name in SUBJECTS:
                self._compare_subject(name, value, conversation)
            harmless.append(self._own_name(name))
        used = [
            self._own_name(name)
            for name, value in row.items()
            if (name in known.columns or name == self._group_by) and not says_nothing(value)
        ]
        self._tally.used.update(used)
        self._tally.harmless.update(harmless)
        for name in sorted(TURN_COLUMNS & known.columns):
            self._count_keys(name, row.get(name))

    def _compare_subject(self, name: str, value: Any, conversation: Conversation) -> None:
        """Count rows whose column says another thing than that of an earlier row alike in prompt.

        The answers then depend on what the model is not shown, unless they only repeat each other.
        """
        asked = [item["content"] for item in conversation.messages if item["role"] != "assistant"]
        first = self._subjects.setdefault((name, hash(tuple(asked))), hash(str(value)))
        if first != hash(str(value)):
            self._tally.differing[self._own_name(name)] += 1

    def _count_keys(self, name: str, turns: Any) -> None:
        """Count what the turns of a column have beside role and text."""
        own, turns = self._own_name(name), plain(turns)
        keys = Counter(
            f"{own}.{key}"
            for item in (turns if isinstance(turns, list | tuple) else ())
            if isinstance(item, Mapping)
            for key, value in item.items()
            if key not in ROLE_AND_TEXT and not says_nothing(value)
        )
        for key, count in keys.items():
            harmless = key.rpartition(".")[2] in HARMLESS_TURN_KEYS
            (self._tally.harmless if harmless else self._tally.used)[key] += count

    def _own_name(self, field: str) -> str:
        """What the data calls a column, or a place in one, that was mapped."""
        for end, sign in ((field.find("["), "["), (field.find("."), ".")):
            if end > 0:
                head, _, tail = field.partition(sign)
                return f"{self._map.get(head, head)}{sign}{tail}"
        return self._map.get(field, field)

    def _unused(self, error: UnusedError) -> str:
        """One sentence on what is unused and which setting says what to do with it."""
        name = self._own_name(error.field)
        column = _without_places(name)
        return f"{_printable(name)}: {error.reason}; {REMEDY}={shlex.quote(_printable(column))}"


def _printable(name: str) -> str:
    return (name if name.isprintable() else ascii(name))[:100]


def _without_places(name: str) -> str:
    """The name of a key for every turn: `messages.audio` of `messages[1].audio`."""
    return re.sub(r"\[\d+\]", "", name)


def _holds_part_of_prompt(value: Any, texts: list[str]) -> bool:
    """Whether a column such as `metadata` holds a system text or context that no message says."""
    value = plain(value)
    if not isinstance(value, Mapping):
        return False
    parts = [plain(value.get(name)) for name in (*SYSTEM, *EXTRAS)]
    said = "\n\n".join(texts)
    return any(isinstance(part, str) and part.strip() not in said for part in parts)


def _says_again(name: str, value: Any, texts: list[str]) -> bool:
    """Whether a column repeats a message, or as `text` the whole row."""
    if not isinstance(value, str):
        return False
    if value.strip() in texts:
        return True
    parts = [part.strip() for text in texts for part in text.split("\n\n")]
    return name == RENDERED and all(part in value for part in parts)


def _refuse_mixture(row: DataRow, known: Format, where: str) -> None:
    """A row that fits another format shows a mixed file, which would be half read: refuse it."""
    try:
        other = detect_format(row)
    except FormatError:
        return
    raise FormatError(
        f"{where}: row is of format {other.name}, those before are {known.name}; "
        "keep one format a file, and give the files as several --data"
    )
