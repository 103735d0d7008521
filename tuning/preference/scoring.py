"""Rows of prompts and completions from files, scored by a reward model.

Knows columns and scores; knows no training.
"""

from __future__ import annotations

from tuning.data.columns import HARMLESS
from tuning.data.fields import Message, RowError, UnusedError, says_nothing
from tuning.data.folders import DataError
from tuning.data.ledger import Tally
from tuning.data.preferences.messages import check_prompt, read_messages
from tuning.data.sources import RawRow, read_source

COLUMNS = ("prompt", "completion")
Scorable = tuple[tuple[Message, ...], tuple[Message, ...]]


def read_completions(source: str) -> list[Scorable]:
    """(prompt, completion) of every row of a file, as messages; DataError names what is wrong.

    `prompt` and `completion` are texts or lists of messages. Columns that only say which row it is
    may stand beside them.
    """
    rows = [_read(raw) for raw in read_source(source, 0, Tally())]
    if not rows:
        raise DataError(f"{source}: holds no rows; give rows of prompt and completion")
    return rows


def _check_unicode(messages: tuple[Message, ...]) -> None:
    for index, message in enumerate(messages):
        try:
            message["content"].encode("utf-8")
        except UnicodeEncodeError:
            where = f"completion[{index}]"
            raise RowError(where, "text cannot be encoded as UTF-8 (lone surrogate)") from None


def _read(raw: RawRow) -> Scorable:
    where = f"{raw.source}:{raw.line}"
    try:
        if raw.problem is not None:
            raise RowError("row", raw.problem)
        row = raw.columns
        for name, value in row.items():
            if name not in COLUMNS and name not in HARMLESS and not says_nothing(value):
                raise RowError(str(name), "is no column that a score is made of; leave it out")
        prompt = read_messages(row, "prompt", "user")
        check_prompt(prompt, "prompt")
        completion = read_messages(row, "completion", "assistant")
        if not completion or any(turn["role"] != "assistant" for turn in completion[-1:]):
            raise RowError("completion", "does not end on an answer of the assistant")
        _check_unicode(completion)
        return prompt, completion
    except (RowError, UnusedError) as error:
        reason = error.reason if isinstance(error, RowError) else str(error)
        raise DataError(f"{where}: {error.field}: {reason}; mend the row") from error
