"""Reads the typed fields of a row: texts, lists, turns of a conversation, what a turn is worth.

Knows no layout of columns and no file.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from tuning.errors import TuningError
from tuning.json_lines import JsonError, parse_json

DataRow = Mapping[str, Any]
Message = dict[str, Any]
"""`role` and `content`, and where a turn has them what templates know: `tool_calls`,
`tool_call_id`, `name`, `reasoning_content`."""
ROLES = ("system", "user", "assistant", "tool")
SHAREGPT_ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "assistant": "assistant",
    "system": "system",
    "developer": "system",
    "observation": "tool",
    "tool": "tool",
    "function": "tool",
    "function_call": "assistant",
}
TURN_KEYS = (
    *("weight", "train", "tool_calls", "function_call"),
    *("tool_call_id", "name", "reasoning_content"),
)
HARMLESS_TURN_KEYS = frozenset({"id", "index", "timestamp", "created_at", "model"})
MAX_DEPTH = 64


class RowError(TuningError):
    """One row that cannot be used; `field` names where, the message why."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


class UnusedError(TuningError):
    """A column or key that says something and that nothing would use; `field` names it."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


@dataclass(frozen=True)
class Conversation:
    """What one row says: its messages, and how they are to be taken."""

    messages: tuple[Message, ...]
    tools: tuple[dict[str, Any], ...] = ()
    """Functions that the assistant may call, as JSON schemas; for the chat template."""
    untrained: frozenset[int] = frozenset()
    """Positions of the assistant's turns that are context only."""
    rejected: str | None = None
    """Why nothing of the row is a lesson, such as `label: false`; None where it is one."""
    unused: Mapping[str, str] = field(default_factory=dict)
    """Keys of turns that nothing would use, such as `messages[1].audio`, and what they hold."""

    @property
    def num_trained_turns(self) -> int:
        """Turns of the assistant that are trained."""
        answers = [at for at, item in enumerate(self.messages) if item["role"] == "assistant"]
        return len(set(answers) - self.untrained)


@dataclass
class Turns:
    """Messages of a list of turns, as they are read one by one."""

    messages: list[Message] = field(default_factory=list)
    untrained: set[int] = field(default_factory=set)
    unused: dict[str, str] = field(default_factory=dict)

    def add(self, other: Turns) -> None:
        """Put the turns of `other` behind these."""
        self.untrained |= {len(self.messages) + at for at in other.untrained}
        self.unused |= other.unused
        self.messages += other.messages


def says_nothing(value: Any, depth: int = 0) -> bool:
    """Whether a value is null, blank, or holds nothing that is not."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return True
    value = plain(value)
    if depth > MAX_DEPTH or not isinstance(value, Mapping | list | tuple):
        return False
    inner = value.values() if isinstance(value, Mapping) else value
    return all(says_nothing(item, depth + 1) for item in inner)


def read_text(row: DataRow, name: str, *, required: bool = True) -> str:
    """The text in a column, of a number or truth value as JSON writes it.

    Blank where it is not required and not there.
    """
    value = row.get(name)
    if isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return json.dumps(value)
    if value is None:
        if required:
            raise RowError(name, "is missing or null")
        return ""
    if not isinstance(value, str):
        raise RowError(name, f"is {type(value).__name__}, not text")
    if required and not value.strip():
        raise RowError(name, "is empty")
    return value


def read_list(row: DataRow, name: str, *, required: bool = True) -> list[Any]:
    """The list in a column; empty where it is not required and not there."""
    value = plain(row.get(name))
    if value is None:
        if required:
            raise RowError(name, "is missing or null")
        return []
    if not isinstance(value, list | tuple):
        raise RowError(name, f"is {type(value).__name__}, not a list")
    if required and not value:
        raise RowError(name, "is empty")
    return list(value)


def read_tools(row: DataRow) -> tuple[dict[str, Any], ...]:
    """The functions in the column `tools`: a list of schemas, or its JSON."""
    value = row.get("tools")
    if says_nothing(value):
        return ()
    if isinstance(value, str):
        value = read_json(value, "tools")
    items = read_list({"tools": value}, "tools")
    tools = []
    for index, item in enumerate(items):
        where = f"tools[{index}]"
        schema = read_json(item, where) if isinstance(item, str) else item
        if not isinstance(schema, Mapping):
            raise RowError(where, f"is {type(schema).__name__}, not an object")
        tools.append(_without_null(dict(schema), where))
    return tuple(tools)


def read_turns(
    row: DataRow, name: str, keys: tuple[tuple[str, str], ...], roles: Mapping[str, str]
) -> Turns:
    """The turns in a column; `keys` are the names that role and text may have, `roles` the words.

    RowError names what cannot be used, UnusedError a value of a key that is read; keys that
    nothing would use are gathered.
    """
    turns = Turns()
    for index, item in enumerate(read_list(row, name)):
        where = f"{name}[{index}]"
        if not isinstance(item, Mapping):
            raise RowError(
                where,
                f"is {type(item).__name__}, not an object; "
                f"write turns with {' and '.join(keys[0])}",
            )
        found = [pair for pair in keys if pair[0] in item]
        if not found:
            raise RowError(where, f"has no {keys[0][0]}")
        role_key, text_key = found[0]
        role = item[role_key]
        word = role.strip().lower() if isinstance(role, str) else ""
        if word not in roles:
            known = ", ".join(roles)
            raise RowError(f"{where}.{role_key}", f"unknown role {shorten(role)} (of {known})")
        message: Message = {"role": roles[word]}
        calls = read_tool_calls(item, where)
        place = f"{where}.{text_key}"
        message["content"] = _content(item.get(text_key), place, turns, empty=bool(calls))
        if calls:
            message["tool_calls"] = calls
        for key in ("tool_call_id", "name", "reasoning_content"):
            if not says_nothing(item.get(key)):
                message[key] = read_text(item, key)
        if not _is_trained(item, where, message["role"]):
            turns.untrained.add(index)
        # A speaker's name: few templates write it. That of a tool repeats the call's.
        if "name" in message and message["role"] != "tool":
            speaker = shorten(message["name"])
            turns.unused[f"{where}.name"] = f"is {speaker} on a {message['role']} turn"
        keys_read = (role_key, text_key, *TURN_KEYS, *HARMLESS_TURN_KEYS)
        _gather_unused(item, where, keys_read, turns)
        turns.messages.append(message)
    return turns


def shorten(value: Any) -> str:
    """A value for an error: its start, as Python writes it."""
    text = ascii(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def texts_of(message: Message) -> list[str]:
    """Every text of a message that a template may write."""
    found = [message["content"], message.get("reasoning_content"), message.get("name")]
    if "tool_calls" in message:
        found.append(json.dumps(message["tool_calls"], ensure_ascii=False))
    return [text for text in found if text]


def _content(value: Any, where: str, turns: Turns, *, empty: bool) -> str:
    """The text of a turn; a list of text parts is joined, as the APIs that send it read it."""
    value = plain(value)
    if value is None and empty:
        return ""
    if isinstance(value, list | tuple) and value:
        return "".join(_part(part, f"{where}[{index}]", turns) for index, part in enumerate(value))
    if not isinstance(value, str):
        raise RowError(where, f"is {type(value).__name__}, not text")
    return value


def _part(part: Any, where: str, turns: Turns) -> str:
    if not isinstance(part, Mapping):
        raise RowError(where, f"is {type(part).__name__}, not an object")
    kind = part.get("type", "text")
    if kind != "text":
        raise RowError(where, f"is a part of type {shorten(kind)}, which is no text")
    _gather_unused(part, where, ("type", "text"), turns)
    return read_text({where: part.get("text")}, where)


def _is_trained(item: DataRow, where: str, role: str) -> bool:
    """Whether the turn's own `weight` (0 or 1) and `train` leave it trained."""
    trained = True
    for key, off, on in (("weight", 0, 1), ("train", False, True)):
        value = item.get(key)
        if value is None:
            continue
        if value not in (off, on) or isinstance(value, bool) != isinstance(off, bool):
            raise UnusedError(
                f"{where}.{key}", f"is {shorten(value)}; a turn is trained or not: {off} or {on}"
            )
        if value is True and role != "assistant":
            raise UnusedError(
                f"{where}.{key}", f"is {on} on a {role} turn; only the assistant's are trained"
            )
        trained = trained and bool(value)
    return trained or role != "assistant"


def read_tool_calls(item: DataRow, where: str) -> list[dict[str, Any]]:
    """Calls as templates read them: their arguments an object, also where they came as JSON.

    A `function_call`, as older rows of OpenAI have it, is a list of one.
    """
    old = plain(item.get("function_call"))
    if not says_nothing(old):
        if not says_nothing(item.get("tool_calls")):
            raise UnusedError(f"{where}.function_call", "stands beside tool_calls")
        item = {"tool_calls": [{"type": "function", "function": old}]}
    if says_nothing(item.get("tool_calls")):
        return []
    calls = []
    for index, call in enumerate(read_list(item, "tool_calls")):
        at = f"{where}.tool_calls[{index}]"
        function = call.get("function") if isinstance(call, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise RowError(at, "has no function with a name")
        arguments = function.get("arguments")
        if isinstance(arguments, str):
            arguments = (
                read_json(arguments, f"{at}.function.arguments") if arguments.strip() else {}
            )
        if not isinstance(arguments or {}, Mapping):
            raise RowError(f"{at}.function.arguments", "is no object")
        known = _without_null(dict(call), at)
        known["function"] = {
            **known["function"],
            "arguments": _without_null(dict(arguments or {}), at),
        }
        calls.append(known)
    return calls


def _gather_unused(item: DataRow, where: str, known: Collection[str], turns: Turns) -> None:
    for key, value in item.items():
        if key not in known and not says_nothing(value):
            turns.unused[f"{where}.{key}"] = f"holds {shorten(value)}"


def read_json(text: str, where: str) -> Any:
    """The value of JSON within a row; RowError where it is none."""
    try:
        return parse_json(text.encode("utf-8", "surrogatepass"))
    except JsonError as error:
        raise RowError(where, str(error)) from error


def _without_null(content: dict[str, Any], where: str) -> dict[str, Any]:
    """Leave out null values, with which Parquet fills the keys that other rows have."""

    def cleaned(value: Any, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise RowError(where, "is nested too deeply")
        value = plain(value)
        if isinstance(value, Mapping):
            items = [(str(key), item) for key, item in value.items() if item is not None]
            return {key: cleaned(item, depth + 1) for key, item in items}
        if isinstance(value, list | tuple):
            return [cleaned(item, depth + 1) for item in value]
        if isinstance(value, str | int | float | bool) or value is None:
            return value
        raise RowError(where, f"holds {type(value).__name__}, which JSON does not have")

    result: dict[str, Any] = cleaned(content, 0)
    return result


def plain(value: Any) -> Any:
    """A value of Python's own; arrays become lists."""
    return value.tolist() if hasattr(value, "tolist") else value
