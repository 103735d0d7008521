"""Normalises one row of any usual instruction data set to a list of chat messages.

A row is a mapping of columns; a message is `{"role", "content"}` with roles system, user,
assistant, tool. Knows nothing of files, tokenizers or models.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tuning.errors import TuningError

Row = Mapping[str, Any]
Message = dict[str, str]
ROLES = ("system", "user", "assistant", "tool")
SHAREGPT_ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "assistant": "assistant",
    "system": "system",
    "observation": "tool",
    "tool": "tool",
    "function_call": "assistant",
}
MAX_ROW_CHARACTERS = 10_000_000


class FormatError(TuningError):
    """Columns that fit no known format, or an unknown format name."""


class RowError(TuningError):
    """One row that cannot be used; `field` names where, the message why."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


@dataclass(frozen=True)
class Format:
    """A known layout of columns and the way from one row to messages."""

    name: str
    required: frozenset[str]
    normalise: Callable[[Row], list[Message]]


def detect_format(columns: Iterable[str], where: str = "data") -> Format:
    """The first known format whose required columns are all there; FormatError lists them."""
    present = set(columns)
    for known in FORMATS:
        if known.required <= present:
            return known
    expected = "; ".join(f"{item.name}: {', '.join(sorted(item.required))}" for item in FORMATS)
    raise FormatError(
        f"{where}: columns {', '.join(sorted(map(str, present))) or '(none)'} fit no known format "
        f"({expected}); rename them or map them with data_options.columns in --config"
    )


def format_named(name: str) -> Format:
    """A format by its name."""
    for known in FORMATS:
        if known.name == name:
            return known
    names = ", ".join(item.name for item in FORMATS)
    raise FormatError(f"data_options.format: unknown format {name!r}; known are auto, {names}")


def mapped_format(columns: Mapping[str, str]) -> Format:
    """A format made from a column map `{"prompt": ..., "response": ..., "system": ...}`."""
    unknown = set(columns) - {"prompt", "response", "system"}
    if unknown or not {"prompt", "response"} <= set(columns):
        raise FormatError(
            f"data_options.columns: {dict(columns)!r} must map prompt and response (and may map "
            "system) to columns of the data"
        )

    def normalise(row: Row) -> list[Message]:
        messages = _system(row, columns["system"]) if "system" in columns else []
        return [*messages, *_pair(row, columns["prompt"], columns["response"])]

    return Format("mapped", frozenset(columns.values()), normalise)


def normalise_row(row: Row, known: Format) -> list[Message]:
    """Messages of one row, checked; RowError names the field and the reason."""
    missing = sorted(known.required - set(row))
    if missing:
        raise RowError(missing[0], f"column is missing (format {known.name})")
    messages = known.normalise(row)
    check_messages(messages)
    return messages


def check_messages(messages: list[Message]) -> None:
    """Refuse conversations that no model can be trained on; RowError says which message."""
    if not messages:
        raise RowError("messages", "is empty")
    if sum(len(message["content"]) for message in messages) > MAX_ROW_CHARACTERS:
        raise RowError("messages", f"row is longer than {MAX_ROW_CHARACTERS:,} characters")
    roles = [message["role"] for message in messages]
    if "assistant" not in roles:
        raise RowError("messages", f"no assistant turn (roles: {', '.join(roles)})")
    if "user" not in roles:
        raise RowError("messages", f"no user turn (roles: {', '.join(roles)})")
    if roles[-1] != "assistant":
        raise RowError(f"messages[{len(roles) - 1}]", f"ends on {roles[-1]}, not on the assistant")
    if "system" in roles[1:]:
        raise RowError(f"messages[{roles.index('system', 1)}]", "system message is not the first")
    turns = [role for role in roles if role != "system"]
    if turns[0] == "assistant":
        raise RowError("messages[0]", "starts with the assistant")
    for index in range(1, len(roles)):
        if roles[index] == roles[index - 1] and roles[index] != "tool":
            raise RowError(f"messages[{index}]", f"two {roles[index]} turns in a row")
    for index, message in enumerate(messages):
        where = f"messages[{index}].content"
        if not message["content"].strip() and message["role"] != "system":
            raise RowError(where, f"{message['role']} text is empty")
        try:
            message["content"].encode("utf-8")
        except UnicodeEncodeError:
            raise RowError(where, "text cannot be encoded as UTF-8 (lone surrogate)") from None


def _text(row: Row, field: str, *, required: bool = True) -> str:
    value = row.get(field)
    if value is None:
        if required:
            raise RowError(field, "is missing or null")
        return ""
    if not isinstance(value, str):
        raise RowError(field, f"is {type(value).__name__}, not text")
    if required and not value.strip():
        raise RowError(field, "is empty")
    return value


def _system(row: Row, field: str = "system") -> list[Message]:
    text = _text(row, field, required=False)
    return [{"role": "system", "content": text}] if text.strip() else []


def _pair(row: Row, prompt: str, response: str) -> list[Message]:
    return [
        {"role": "user", "content": _text(row, prompt)},
        {"role": "assistant", "content": _text(row, response)},
    ]


def _instruction(row: Row, response: str, context: str) -> list[Message]:
    """Instruction rows; an input or context follows the instruction after a blank line."""
    text = _text(row, "instruction")
    extra = _text(row, context, required=False)
    content = f"{text}\n\n{extra}" if extra.strip() else text
    return [
        *_system(row),
        *_history(row),
        {"role": "user", "content": content},
        {"role": "assistant", "content": _text(row, response)},
    ]


def _history(row: Row) -> list[Message]:
    messages: list[Message] = []
    for index, pair in enumerate(_list(row, "history", required=False)):
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise RowError(f"history[{index}]", "is no pair of prompt and response")
        for role, content in zip(("user", "assistant"), pair, strict=True):
            if not isinstance(content, str):
                raise RowError(f"history[{index}]", f"{role} is no text")
            messages.append({"role": role, "content": content})
    return messages


def _list(row: Row, field: str, *, required: bool = True) -> list[Any]:
    value = row.get(field)
    if value is None:
        if required:
            raise RowError(field, "is missing or null")
        return []
    if hasattr(value, "tolist"):
        value = value.tolist()
    if not isinstance(value, list | tuple):
        raise RowError(field, f"is {type(value).__name__}, not a list")
    if required and not value:
        raise RowError(field, "is empty")
    return list(value)


def _turns(
    row: Row, field: str, keys: tuple[tuple[str, str], ...], roles: Mapping[str, str]
) -> list[Message]:
    messages: list[Message] = []
    for index, item in enumerate(_list(row, field)):
        where = f"{field}[{index}]"
        if not isinstance(item, Mapping):
            raise RowError(where, f"is {type(item).__name__}, not an object")
        found = [pair for pair in keys if pair[0] in item]
        if not found:
            raise RowError(where, f"has no {keys[0][0]}")
        role_key, text_key = found[0]
        role, content = item[role_key], item.get(text_key)
        if not isinstance(role, str) or role not in roles:
            raise RowError(f"{where}.{role_key}", f"unknown role {role!r} (of {', '.join(roles)})")
        if not isinstance(content, str):
            raise RowError(f"{where}.{text_key}", f"is {type(content).__name__}, not text")
        messages.append({"role": roles[role], "content": content})
    return messages


def _messages(row: Row, field: str = "messages") -> list[Message]:
    return _turns(row, field, (("role", "content"),), {role: role for role in ROLES})


def _sharegpt(row: Row) -> list[Message]:
    keys = (("from", "value"), ("role", "content"))
    turns = _turns(row, "conversations", keys, SHAREGPT_ROLES)
    return turns if turns and turns[0]["role"] == "system" else [*_system(row), *turns]


def _prompt_completion(row: Row) -> list[Message]:
    if isinstance(row.get("prompt"), str) != isinstance(row.get("completion"), str):
        raise RowError("completion", "prompt and completion must both be text or both be lists")
    if isinstance(row.get("prompt"), str):
        return [*_system(row), *_pair(row, "prompt", "completion")]
    return [*_messages(row, "prompt"), *_messages(row, "completion")]


FORMATS: tuple[Format, ...] = (
    Format("messages", frozenset({"messages"}), _messages),
    Format("sharegpt", frozenset({"conversations"}), _sharegpt),
    Format("prompt-completion", frozenset({"prompt", "completion"}), _prompt_completion),
    Format(
        "alpaca",
        frozenset({"instruction", "output"}),
        lambda row: _instruction(row, "output", "input"),
    ),
    Format(
        "dolly",
        frozenset({"instruction", "response"}),
        lambda row: _instruction(row, "response", "context"),
    ),
    Format("flan", frozenset({"inputs", "targets"}), lambda row: _pair(row, "inputs", "targets")),
    Format(
        "question-answer",
        frozenset({"question", "answer"}),
        lambda row: [*_system(row), *_pair(row, "question", "answer")],
    ),
    Format(
        "prompt-response",
        frozenset({"prompt", "response"}),
        lambda row: [*_system(row), *_pair(row, "prompt", "response")],
    ),
)
