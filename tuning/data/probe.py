"""Tries a chat template on marked conversations before a run, so that it loses no text unseen.

The conversations are shaped like those of the data: the same roles in the same order, the same
keys. Each text in them is a mark that must stand in the rendering once, behind those before it.
Knows messages and templates; knows neither ids nor models.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Protocol

from tuning.data.rendering import REMEDY, RenderError, TemplateError, Tools, render

# What links messages, and what links calls; a template need not write it.
UNWRITTEN = frozenset({"role", "name", "tool_call_id"})
UNWRITTEN_WITHIN = frozenset({"id", "type"})
# Templates may leave the reasoning of earlier turns out: the model is then trained without it too.
REASONING = frozenset({"reasoning_content", "reasoning", "thinking"})
DROP = "leave it out with data_options.drop"
WORDS = "one may not leave out or cut or move or repeat any of this, however long it is "


class Chat(Protocol):
    """A conversation, and the functions that may be called in it."""

    @property
    def messages(self) -> Sequence[Mapping[str, Any]]:
        """Its messages."""
        ...

    @property
    def tools(self) -> Tools:
        """Schemas of its functions."""
        ...


@dataclass(frozen=True)
class MarkedText:
    """A text of the probe: in which message it is (from 0), under which key, and what it says."""

    message: int
    key: str
    text: str


def check_template(
    tokenizer: Any,
    conversations: Iterable[Chat],
    where: str,
    day: date | None = None,
) -> None:
    """Refuse a template that loses, repeats or moves a text in conversations like these.

    One that says by itself that it takes no such conversation is left alone: its rows are counted
    as bad, one by one. TemplateError says which text of which role is lost, and names `where`.
    """
    for shape in shapes(conversations):
        messages, marks = mark(shape.messages)
        tools = [_mark_tool(tool, at) for at, tool in enumerate(shape.tools)]
        for cut, message in enumerate(messages):
            if message["role"] == "assistant":
                _check_turn(tokenizer, messages[: cut + 1], marks, tools, where, day)


def shapes(conversations: Iterable[Chat]) -> list[Chat]:
    """Conversations that show between them all that the others show, and the longest one.

    Shown is which role follows which, at the start or later, with which keys, and with tools.
    """
    chosen: list[Chat] = []
    seen: set[Any] = set()
    longest: Chat | None = None
    for chat in conversations:
        roles = ["", *(message["role"] for message in chat.messages)]
        shown = {
            (at == 0, roles[at], message["role"], _structure(message), bool(chat.tools))
            for at, message in enumerate(chat.messages)
        }
        if not shown <= seen:
            seen |= shown
            chosen.append(chat)
        if longest is None or len(chat.messages) > len(longest.messages):
            longest = chat
    if longest is not None and not any(longest is item for item in chosen):
        chosen.append(longest)
    return chosen


def _mark_tool(tool: Mapping[str, Any], number: int) -> dict[str, Any]:
    """The schema with marks for the name of the function and for what it does."""
    function = tool.get("function", tool)
    if not isinstance(function, Mapping):
        return dict(tool)
    marked = {**function, "name": f"Tool{number:04d}"}
    if function.get("description"):
        marked["description"] = f"Purpose{number:04d}"
    return {**tool, "function": marked} if "function" in tool else marked


def _lost_tool(text: str, tools: Sequence[Mapping[str, Any]]) -> str | None:
    """What of the tools a text does not say."""
    for number, tool in enumerate(tools):
        function = tool.get("function", tool)
        for key in ("name", "description"):
            value = function.get(key) if isinstance(function, Mapping) else None
            if isinstance(value, str) and value and value not in text:
                return f"loses the {key} of tool {number + 1}"
    return None


def mark(messages: Sequence[Mapping[str, Any]]) -> tuple[list[dict[str, Any]], list[MarkedText]]:
    """The conversation with a mark for each text, and the marks in their order."""
    marks: list[MarkedText] = []
    marked: list[dict[str, Any]] = []
    for at, message in enumerate(messages):
        marked.append(
            {
                key: value if key in UNWRITTEN else _marked(value, at, key, marks)
                for key, value in message.items()
            }
        )
    return marked, marks


def _marked(value: Any, message: int, key: str, marks: list[MarkedText]) -> Any:
    """`value` with marks for its texts; all else stays as it is."""
    if isinstance(value, Mapping):
        return {
            name: inner if name in UNWRITTEN_WITHIN else _marked(inner, message, key, marks)
            for name, inner in value.items()
        }
    if isinstance(value, list | tuple):
        return [_marked(inner, message, key, marks) for inner in value]
    if not isinstance(value, str) or not value.strip():
        return value
    arguments = _json_object(value) if key == "tool_calls" else None
    if arguments is not None:
        return json.dumps(_marked(arguments, message, key, marks))
    number = len(marks)
    marks.append(MarkedText(message, key, f"Mark{number:04d}: {WORDS * 4}End{number:04d}"))
    return marks[-1].text


def _json_object(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _check_turn(
    tokenizer: Any,
    messages: Sequence[dict[str, Any]],
    marks: Sequence[MarkedText],
    tools: Sequence[Mapping[str, Any]],
    where: str,
    day: date | None,
) -> None:
    """The prompt of a turn, and the whole up to its answer."""
    roles = ", ".join(message["role"] for message in messages)
    try:
        (prompt,) = render(tokenizer, [messages[:-1]], prompt=True, day=day, tools=[tools])
        (whole,) = render(tokenizer, [messages], prompt=False, day=day, tools=[tools])
    except RenderError as error:
        if error.refused:
            return
        raise TemplateError(
            f"chat template of {where}: {error.reason} on a conversation of {roles}; {REMEDY}"
        ) from error
    for text, count, part in ((prompt, len(messages) - 1, "prompt"), (whole, len(messages), "")):
        problem = _problem(text, messages[:count], marks) or _lost_tool(text, tools)
        if problem is not None:
            kind = f"in the prompt after {roles.rpartition(', ')[0]}" if part else f"of {roles}"
            remedy = REMEDY if "the content of" in problem else f"{REMEDY}, or {DROP}"
            raise TemplateError(
                f"chat template of {where}: {problem} in a conversation {kind}; {remedy}"
            )
    if not whole.startswith(prompt):
        raise TemplateError(
            f"chat template of {where}: the answer in a conversation of {roles} does not follow "
            f"the generation prompt {prompt[-40:]!r}; use a template whose answers start with it"
        )


def _problem(
    text: str, messages: Sequence[Mapping[str, Any]], marks: Sequence[MarkedText]
) -> str | None:
    """What is wrong with the marks of `messages` in `text`."""
    last = len(messages) - 1
    users = [at for at, message in enumerate(messages) if message["role"] == "user"]
    reached: list[int] = [0] * (len(messages) + 1)
    """Up to where the text is written when the messages before each begin; the end of the last."""
    systems: list[tuple[str, int]] = []
    newest_question = len(text)
    for item in marks:
        if item.message > last or (item.key in REASONING and item.message < last):
            continue
        role = messages[item.message]["role"]
        named = f"the {item.key} of message {item.message + 1} ({role})"
        found, at = text.count(item.text), text.find(item.text)
        if found != 1:
            return f"writes {named} {found} times" if found else f"loses {named}"
        if role == "system":
            systems.append((named, at))
            continue
        if at < max(reached[: item.message + 1]):
            return f"writes {named} out of order"
        reached[item.message + 1] = max(reached[item.message + 1], at)
        if users and item.message == users[-1]:
            newest_question = min(newest_question, at)
    # Some templates put the system text before the newest question, and not before the first.
    late = [named for named, at in systems if at > newest_question]
    return f"writes {late[0]} out of order" if late else None


def _structure(message: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    return tuple(sorted((key, repr(_kind(value))) for key, value in message.items()))


def _kind(value: Any) -> Any:
    """What a value is made of, the arguments of a call left out: each call has its own."""
    if isinstance(value, str):
        return "text" if value.strip() else "blank"
    if isinstance(value, list | tuple):
        return ["many" if len(value) > 1 else "one", *sorted({repr(_kind(item)) for item in value})]
    if isinstance(value, Mapping):
        return {
            key: type(value[key]).__name__ if key == "arguments" else _kind(value[key])
            for key in sorted(value)
        }
    return type(value).__name__
