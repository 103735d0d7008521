"""Normalises one row of any usual instruction data set to a conversation of chat messages.

A row is a mapping of columns; a message is `{"role", "content"}` with roles system, user,
assistant, tool. Knows nothing of files, tokenizers or models.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tuning.data.fields import (
    ROLES,
    SHAREGPT_ROLES,
    Conversation,
    DataRow,
    Message,
    RowError,
    Turns,
    UnusedError,
    plain,
    read_json,
    read_list,
    read_text,
    read_tool_calls,
    read_tools,
    read_turns,
    says_nothing,
    shorten,
    texts_of,
)
from tuning.errors import TuningError

__all__ = ["Conversation", "DataRow", "Message", "RowError", "UnusedError"]

MAX_ROW_CHARACTERS = 10_000_000
SYSTEM = ("system", "system_prompt")
EXTRAS = ("input", "context")
CHOICES = ("choices", "options")
QUESTIONS = ("prompt", "instruction", "inputs", "question")
LABELS = ("label", "kto_tag")
TRUTH = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}
TURN_ROLES = {role: role for role in ROLES} | {"developer": "system", "function": "tool"}
# What any row may have beside its conversation, and what rows of a prompt and an answer may.
COMMON = frozenset({*SYSTEM, *LABELS, "tools"})
BESIDE = COMMON | {*EXTRAS, *CHOICES, "history"}


class FormatError(TuningError):
    """Columns that fit no known format, or an unknown format name."""


@dataclass(frozen=True)
class Format:
    """A known layout of columns and the way from one row to its turns."""

    name: str
    required: frozenset[str]
    optional: frozenset[str]
    turns: Callable[[DataRow], Turns]

    @property
    def columns(self) -> frozenset[str]:
        """Every column that is read."""
        return self.required | self.optional


def detect_format(columns: Iterable[str], where: str = "data") -> Format:
    """The first known format whose required columns are all there; FormatError lists them."""
    present = set(columns)
    for known in FORMATS:
        if known.required <= present:
            return known
    names = [item if item.isprintable() else ascii(item) for item in sorted(map(str, present))]
    shown = [*(name[:60] for name in names[:20]), *(["…"] if len(names) > 20 else [])]
    if {"chosen", "rejected"} <= present:
        raise FormatError(
            f"{where}: rows of chosen and rejected answers are preferences, which this training "
            f"does not learn from; {_advice(columns if isinstance(columns, Mapping) else {})}"
        )
    if present == {"text"}:
        raise FormatError(
            f"{where}: column text holds a whole dialogue, in which nothing says what is "
            "the answer; write its turns as messages, a list of role and content"
        )
    expected = "; ".join(f"{item.name}: {', '.join(sorted(item.required))}" for item in FORMATS)
    raise FormatError(
        f"{where}: columns {', '.join(shown) or '(none)'} fit no known format "
        f"({expected}); rename them or map them with data_options.columns in --config"
    )


def _advice(row: DataRow) -> str:
    """The settings that train on the chosen answer of this preference row."""
    chosen, prompt = plain(row.get("chosen")), plain(row.get("prompt"))
    asked = next((name for name in QUESTIONS if isinstance(row.get(name), str)), None)
    drop, found = "rejected", None
    if isinstance(chosen, list) and chosen and isinstance(chosen[0], Mapping):
        if chosen[0].get("role") != "assistant":
            found = "messages:chosen"
            drop = "rejected,prompt" if isinstance(prompt, list) else drop
        elif isinstance(prompt, list):
            found = "completion:chosen"
    elif isinstance(chosen, str) and asked is not None:
        found = "completion:chosen" if asked == "prompt" else f"prompt:{asked},response:chosen"
    if found is None:
        return (
            "to train on the chosen ones, write rows of prompt and completion, both as text or "
            "both as lists of messages, and leave them out with --set drop=rejected"
        )
    return f"to train on the chosen ones, give --set columns={found} --set drop={drop}"


def format_named(name: str) -> Format:
    """A format by its name."""
    for known in FORMATS:
        if known.name == name:
            return known
    names = ", ".join(item.name for item in FORMATS)
    raise FormatError(f"data_options.format: unknown format {name!r}; known are auto, {names}")


def normalise_row(row: DataRow, known: Format) -> Conversation:
    """The conversation of one row, checked; RowError names the field and the reason."""
    missing = sorted(known.required - set(row))
    if missing:
        raise RowError(missing[0], f"column is missing (format {known.name})")
    turns = known.turns(row)
    rejected = _rejected(row)
    check_messages(turns.messages)
    return Conversation(
        tuple(turns.messages), read_tools(row), frozenset(turns.untrained), rejected, turns.unused
    )


def check_messages(messages: list[Message]) -> None:
    """Refuse conversations that no model can be trained on; RowError says which message."""
    if not messages:
        raise RowError("messages", "is empty")
    if sum(len(message["content"]) for message in messages) > MAX_ROW_CHARACTERS:
        raise RowError("messages", f"row is longer than {MAX_ROW_CHARACTERS:,} characters")
    roles = [message["role"] for message in messages]
    if "assistant" not in roles:
        raise RowError("messages", f"no assistant turn (roles: {', '.join(roles)[:200]})")
    if "user" not in roles:
        raise RowError("messages", f"no user turn (roles: {', '.join(roles)[:200]})")
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
        blank = not message["content"].strip()
        if blank and message["role"] != "system" and "tool_calls" not in message:
            raise RowError(where, f"{message['role']} text is empty")
        try:
            "".join(texts_of(message)).encode("utf-8")
        except UnicodeEncodeError:
            raise RowError(where, "text cannot be encoded as UTF-8 (lone surrogate)") from None


def _rejected(row: DataRow) -> str | None:
    """Why an unpaired preference row is no lesson: its `label` is false, or 0."""
    found: dict[str, bool] = {}
    for name in LABELS:
        value = row.get(name)
        if says_nothing(value):
            continue
        word = str(value).strip().lower()
        if word not in TRUTH:
            raise UnusedError(
                name, f"is {shorten(value)}; a label of an answer is true or false (1 or 0)"
            )
        found[name] = TRUTH[word]
    if len(set(found.values())) > 1:
        (first, good), (second, other) = found.items()
        raise UnusedError(
            second, f"is {str(other).lower()}, but {first} is {str(good).lower()}; keep one"
        )
    return next((f"{name} false" for name, good in found.items() if not good), None)


def _system(row: DataRow) -> Turns:
    texts = [text for name in SYSTEM if (text := read_text(row, name, required=False)).strip()]
    return Turns([{"role": "system", "content": "\n\n".join(texts)}] if texts else [])


def _asked(row: DataRow, prompt: str, response: str) -> Turns:
    """Prompt and answer; input, context and choices follow the prompt after blank lines."""
    turns = _system(row)
    turns.messages += _history(row)
    parts = [read_text(row, prompt), *(read_text(row, name, required=False) for name in EXTRAS)]
    options = _options(row)
    if options:
        parts.append("\n".join(options))
    answer = row.get(response)
    if options and isinstance(answer, str) and answer.strip().isdecimal():
        named = {part for option in options for part in option.split(") ", 1)}
        answer = answer if answer.strip() in named else int(answer)
    if options and isinstance(answer, int) and not isinstance(answer, bool):
        if not 0 <= answer < len(options):
            raise RowError(response, f"is {answer}, but there are {len(options)} choices")
        row = {**row, response: options[answer].partition(") ")[2]}
    content = "\n\n".join(part for part in parts if part.strip())
    turns.messages += [
        {"role": "user", "content": content},
        {"role": "assistant", "content": read_text(row, response)},
    ]
    return turns


def _options(row: DataRow) -> list[str]:
    """Lines `A) text` of the choices: a list of texts, or `{"text": [...], "label": [...]}`."""
    lines: list[str] = []
    for name in CHOICES:
        value = row.get(name)
        if says_nothing(value):
            continue
        labels: list[Any] | None = None
        if isinstance(value, Mapping):
            if set(value) != {"text", "label"}:
                raise UnusedError(name, f"holds {shorten(value)}; give a list of texts")
            labels, value = read_list(value, "label"), value["text"]
        texts = read_list({name: value}, name)
        if not all(isinstance(text, str) and text.strip() for text in texts):
            raise RowError(name, "is no list of texts")
        if lines or len(texts) > 26:
            raise RowError(name, "holds too many choices")
        labels = labels or [chr(ord("A") + index) for index in range(len(texts))]
        if len(labels) != len(texts):
            raise RowError(name, f"has {len(labels)} labels for {len(texts)} texts")
        lines = [f"{label}) {text}" for label, text in zip(labels, texts, strict=True)]
    return lines


def _history(row: DataRow) -> list[Message]:
    messages: list[Message] = []
    for index, pair in enumerate(read_list(row, "history", required=False)):
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise RowError(f"history[{index}]", "is no pair of prompt and response")
        for role, content in zip(("user", "assistant"), pair, strict=True):
            if not isinstance(content, str):
                raise RowError(f"history[{index}]", f"{role} is no text")
            messages.append({"role": role, "content": content})
    return messages


def _turns(row: DataRow, name: str) -> Turns:
    return read_turns(row, name, (("role", "content"),), TURN_ROLES)


def _with_system(row: DataRow, turns: Turns) -> Turns:
    """The column's system text first; the turns may repeat it, but not say another."""
    system = _system(row)
    if system.messages and turns.messages and turns.messages[0]["role"] == "system":
        if turns.messages[0]["content"].strip() != system.messages[0]["content"].strip():
            raise UnusedError("system", "differs from the system message of the turns")
        return turns
    system.add(turns)
    return system


def _messages(row: DataRow) -> Turns:
    return _with_system(row, _turns(row, "messages"))


def _sharegpt(row: DataRow) -> Turns:
    keys = (("from", "value"), ("role", "content"))
    turns = read_turns(row, "conversations", keys, SHAREGPT_ROLES)
    if not says_nothing(row.get("tools")):
        _calls_as_calls(read_list(row, "conversations"), turns)
    return _with_system(row, turns)


def _calls_as_calls(items: list[Any], turns: Turns) -> None:
    """Turns named function_call hold `{"name", "arguments"}` as JSON; templates want calls."""
    for index, (item, message) in enumerate(zip(items, turns.messages, strict=True)):
        if "function_call" in (_word(item.get("from")), _word(item.get("role"))):
            where = f"conversations[{index}]"
            found = read_json(message["content"], where)
            calls = found if isinstance(found, list) else [found]
            wrapped = [{"type": "function", "function": call} for call in calls]
            message["tool_calls"] = read_tool_calls({"tool_calls": wrapped}, where)
            message["content"] = ""


def _word(role: Any) -> str:
    return str(role).strip().lower()


def _prompt_completion(row: DataRow) -> Turns:
    scalar = str | bool | int | float
    if isinstance(row.get("prompt"), scalar) != isinstance(row.get("completion"), scalar):
        raise RowError("completion", "prompt and completion must both be text or both be lists")
    if isinstance(row.get("prompt"), scalar):
        return _asked(row, "prompt", "completion")
    turns = _with_system(row, _turns(row, "prompt"))
    for name in (*EXTRAS, *CHOICES, "history"):
        if not says_nothing(row.get(name)):
            raise UnusedError(name, "stands beside a list of messages, which it is no part of")
    turns.add(_turns(row, "completion"))
    return turns


def _pair_format(name: str, prompt: str, response: str) -> Format:
    columns = frozenset({prompt, response})
    return Format(name, columns, BESIDE - columns, lambda row: _asked(row, prompt, response))


FORMATS: tuple[Format, ...] = (
    Format("messages", frozenset({"messages"}), COMMON, _messages),
    Format("sharegpt", frozenset({"conversations"}), COMMON, _sharegpt),
    Format("prompt-completion", frozenset({"prompt", "completion"}), BESIDE, _prompt_completion),
    _pair_format("alpaca", "instruction", "output"),
    _pair_format("dolly", "instruction", "response"),
    _pair_format("flan", "inputs", "targets"),
    _pair_format("question-answer", "question", "answer"),
    _pair_format("question-response", "question", "response"),
    _pair_format("prompt-response", "prompt", "response"),
)
