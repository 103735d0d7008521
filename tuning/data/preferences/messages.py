"""Columns of preference rows as messages: texts, lists of turns, transcripts; their shared start.

Knows no layout of columns beyond the one it is given, and no file.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

from tuning.data.fields import (
    SHAREGPT_ROLES,
    DataRow,
    Message,
    RowError,
    UnusedError,
    plain,
    read_text,
    read_turns,
    says_nothing,
)

KEYS = (("role", "content"), ("from", "value"))
ROLES_OF_TURNS = SHAREGPT_ROLES | {"prompter": "user", "function": "tool", "model": "assistant"}
SPEAKER = re.compile(r"(?:^|\n\n)(Human|Assistant):")
SPEAKERS = {"Human": "user", "Assistant": "assistant"}


def user(text: str) -> Message:
    """What a person asks."""
    return {"role": "user", "content": text}


def assistant(text: str) -> Message:
    """What a model answers."""
    return {"role": "assistant", "content": text}


def read_messages(
    row: DataRow, name: str, role: str, harmless: Collection[str] = ()
) -> tuple[Message, ...]:
    """The messages in a column: a text of `role`, a transcript, one turn or a list of turns.

    RowError where it is none; UnusedError names keys of turns that nothing would use, but for
    those that are `harmless`.
    """
    if name not in row:
        raise RowError(name, "column is missing")
    value = plain(row[name])
    if isinstance(value, str) and SPEAKER.match(value):
        return _transcript(value, name)
    if isinstance(value, Mapping):
        value = [value]
    if not isinstance(value, list | tuple):
        text = read_text(row, name, required=False)
        return ({"role": role, "content": text},)
    if value and all(isinstance(text, str) for text in value):
        raise RowError(name, "is a list of texts; give one text or a list of role and content")
    turns = read_turns({name: value}, name, KEYS, ROLES_OF_TURNS) if value else None
    if turns is None:
        return ()
    for place, held in turns.unused.items():
        if place.rpartition(".")[2] not in harmless:
            raise UnusedError(re.sub(r"\[\d+\]", "", place), f"{held}, which nothing uses")
    return tuple(turns.messages)


def _transcript(text: str, name: str) -> tuple[Message, ...]:
    r"""Turns of `\n\nHuman: … \n\nAssistant: …`, as hh-rlhf writes them."""
    parts = SPEAKER.split(text)
    assert not parts[0].strip()
    pairs = zip(parts[1::2], parts[2::2], strict=True)
    messages = [{"role": SPEAKERS[who], "content": said.strip()} for who, said in pairs]
    joined: list[Message] = []
    for message in messages:  # a speaker's name within a text, or a turn that was cut out
        if joined and joined[-1]["role"] == message["role"]:
            joined[-1] = {**message, "content": f"{joined[-1]['content']}\n\n{message['content']}"}
        else:
            joined.append(message)
    if joined[0]["role"] != "user":
        raise RowError(name, "is a transcript that does not start with Human")
    return tuple(joined)


def system_of(row: DataRow, *names: str) -> tuple[Message, ...]:
    """The system message of the first of these columns that says something."""
    for name in names:
        if not says_nothing(row.get(name)):
            return ({"role": "system", "content": read_text(row, name)},)
    return ()


def shared_start(first: Sequence[Message], second: Sequence[Message]) -> int:
    """How many messages two conversations share; at least one is left to each of them."""
    most = min(len(first), len(second)) - 1
    count = 0
    while count < most and first[count] == second[count]:
        count += 1
    return count


def shared_text(first: str, second: str) -> str:
    """The start that two texts share, up to a line or a word that both have whole."""
    count = 0
    while count < min(len(first), len(second)) and first[count] == second[count]:
        count += 1
    start = first[:count]
    if count in (len(first), len(second)):
        whole = first[count : count + 1] + second[count : count + 1]
        if whole[:1].isspace() or not whole:
            return start
    lines, _, _ = start.rpartition("\n")
    if lines.strip():
        return lines
    return start[: max((at for at, sign in enumerate(start) if sign.isspace()), default=0)]


def check_prompt(prompt: Sequence[Message], name: str) -> None:
    """RowError where a prompt does not end on a question or a tool's result."""
    if not any(message["role"] == "user" and message["content"].strip() for message in prompt):
        raise RowError(name, "nothing in it is asked by a user")
    if prompt[-1]["role"] not in ("user", "tool"):
        raise RowError(name, f"ends on {prompt[-1]['role']}, not on what is to be answered")
    for index, message in enumerate(prompt):
        try:
            message["content"].encode("utf-8")
        except UnicodeEncodeError:
            raise RowError(
                f"{name}[{index}]", "text cannot be encoded as UTF-8 (lone surrogate)"
            ) from None
