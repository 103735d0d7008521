"""Rows of a chosen and a rejected answer, and of single labelled ones, as judgements.

Reads TRL's explicit and implicit prompts, message lists, texts and transcripts, the binarized
sets with their scores, and the exports of an arena. Knows no file.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from tuning.data.fields import DataRow, Message, RowError, read_text, says_nothing, shorten
from tuning.data.formats import TRUTH
from tuning.data.preferences.judged import Judged, JudgedAnswer
from tuning.data.preferences.messages import (
    assistant,
    check_prompt,
    read_messages,
    shared_start,
    shared_text,
    system_of,
    user,
)
from tuning.data.preferences.pairs import Origin
from tuning.data.sources import RawRow

PROMPTS = ("prompt", "question", "instruction", "conversations", "messages")
SCORES = {
    "chosen": ("chosen_score", "score_chosen", "chosen_rating", "chosen-rating"),
    "rejected": ("rejected_score", "score_rejected", "rejected_rating", "rejected-rating"),
}
MODELS = {
    "chosen": ("chosen_model", "chosen-model"),
    "rejected": ("rejected_model", "rejected-model"),
}
ROWS = ("vote_id", "prompt_id", "id", "uid")
VOTERS = ("voter", "annotator_id", "judge")
STRENGTHS = {"much": 1.0, "slightly": 1 / 3}
UNSAID = 2 / 3
"""The margin that an arena's export writes for a vote without a strength."""


def pairs_of(raw: RawRow) -> Iterator[Judged]:
    """The judgement of a row of `chosen` and `rejected`."""
    row = raw.columns
    chosen = read_messages(row, "chosen", "assistant")
    rejected = read_messages(row, "rejected", "assistant")
    named = next((name for name in PROMPTS if not says_nothing(row.get(name))), None)
    if named == "messages" and _starts(chosen) != "assistant":
        named = None  # sets with whole conversations repeat one of them in this column
    if named is None or _starts(chosen) != "assistant" or _starts(rejected) != "assistant":
        prompt, chosen, rejected = _whole(row, chosen, rejected)
        if named is not None:
            _check_told(_explicit(row, named), prompt, named)
    else:
        asked = _explicit(row, named)
        prompt, chosen, rejected = _parted([*asked, *chosen], [*asked, *rejected])
    differ = any(message["role"] == "user" for message in (*chosen, *rejected))
    if not differ:
        check_prompt(prompt, named or "chosen")
    answers = [
        JudgedAnswer(
            messages,
            _first(row, MODELS[role]),
            _number(row, SCORES[role]),
            before=messages[:-1] if differ else None,
        )
        for role, messages in (("chosen", chosen), ("rejected", rejected))
    ]
    yield Judged(
        prompt,
        tuple(answers),
        origin_of(raw, row),
        ranks=(1, 2),
        strength=strength_of(row),
        weight=_number(row, ("weight",)),
        language=_word(row, "language"),
        blind=bool(row.get("blind", False)),
        comment=_word(row, "comment") or "",
        tags=tuple(tag for tag in (row.get("tags") or ()) if isinstance(tag, str)),
    )


def labels_of(raw: RawRow) -> Iterator[Judged]:
    """The judgement of a row with one answer and a `label` (LLaMA-Factory: `kto_tag`)."""
    row = raw.columns
    label = label_of(row)
    if "completion" in row:
        prompt = read_messages(row, "prompt", "user")
        whole = (*prompt, *read_messages(row, "completion", "assistant"))
    else:
        whole = read_messages(row, "messages", "user")
    whole = (*system_of(row, "system", "system_prompt"), *whole)
    if not whole:
        raise RowError("completion" if "completion" in row else "messages", "is empty")
    if whole[-1]["role"] != "assistant":
        raise RowError("completion", f"ends on {whole[-1]['role']}, not on the assistant")
    prompt, completion = whole[:-1], whole[-1:]
    check_prompt(prompt, "prompt")
    answer = JudgedAnswer(completion, _first(row, ("model",)), label=label)
    weight = _number(row, ("weight",))
    yield Judged(prompt, (answer,), origin_of(raw, row), weight=weight)


def origin_of(raw: RawRow, row: DataRow) -> Origin:
    """Where a judgement stands, with the id and the voter that the row names."""
    return Origin(raw.source, raw.line, _first(row, ROWS), _first(row, VOTERS))


def label_of(row: DataRow) -> bool:
    """Whether an answer was called good; RowError for a word that says neither."""
    name = next(name for name in ("label", "kto_tag") if name in row)
    word = str(row[name]).strip().lower()
    if word not in TRUTH:
        raise RowError(name, f"is {shorten(row[name])}; a label is true or false (1 or 0)")
    return TRUTH[word]


def strength_of(row: DataRow) -> float | None:
    """By how much the chosen answer is better: `margin`, else the words of `strength`."""
    margin = _number(row, ("margin",))
    if margin is not None:
        if margin < 0:
            raise RowError("margin", f"is {margin:g}; it says by how much chosen is better")
        return margin
    word = _word(row, "strength")
    if word is None:
        return UNSAID if "winner" in row and "strength" in row else None
    if word not in STRENGTHS:
        raise RowError("strength", f"is {shorten(word)}; use one of {', '.join(STRENGTHS)}")
    return STRENGTHS[word]


def _explicit(row: DataRow, name: str) -> tuple[Message, ...]:
    prompt = read_messages(row, name, "user")
    if not says_nothing(row.get("input")) and len(prompt) == 1:
        prompt = (user(f"{prompt[0]['content']}\n\n{read_text(row, 'input')}"),)
    system = system_of(row, "system", "system_prompt")
    if system and prompt[:1] and prompt[0]["role"] == "system":
        if prompt[0]["content"].strip() != system[0]["content"].strip():
            raise RowError("system", f"differs from the system message of {name}")
        return prompt
    return (*system, *prompt)


def _starts(messages: tuple[Message, ...]) -> str:
    """The role that speaks first."""
    return str(messages[0]["role"]) if messages else "nobody"


def _check_told(asked: tuple[Message, ...], prompt: tuple[Message, ...], name: str) -> None:
    """RowError where a prompt is not what the conversations of chosen and rejected start with."""
    told = [message["content"].strip() for message in prompt]
    last = [message["content"].strip() for message in asked if message["role"] != "system"][-1:]
    if not last or last[0] not in told:
        raise RowError(name, "is no part of what chosen and rejected start with")


def _whole(
    row: DataRow, chosen: tuple[Message, ...], rejected: tuple[Message, ...]
) -> tuple[tuple[Message, ...], tuple[Message, ...], tuple[Message, ...]]:
    """Prompt and answers of two whole conversations, or of two texts with a shared start."""
    texts = [row.get("chosen"), row.get("rejected")]
    if all(isinstance(text, str) for text in texts) and len(chosen) == len(rejected) == 1:
        first, second = map(str, texts)
        start = shared_text(first, second)
        if not start.strip():
            raise RowError("chosen", "no prompt is given, and chosen and rejected share no start")
        prompt = (user(start.strip()),)
        first, second = (text[len(start) :].strip() for text in (first, second))
        return prompt, (assistant(first),), (assistant(second),)
    system = system_of(row, "system", "system_prompt")
    if _starts(chosen) == "system":
        system = ()
    return _parted([*system, *chosen], [*system, *rejected])


def _parted(
    first: list[Message], second: list[Message]
) -> tuple[tuple[Message, ...], tuple[Message, ...], tuple[Message, ...]]:
    if not first or not second:
        raise RowError("chosen" if not first else "rejected", "is empty")
    count = shared_start(first, second)
    if count == 0:
        raise RowError("chosen", "no prompt is given, and chosen and rejected share no message")
    return tuple(first[:count]), tuple(first[count:]), tuple(second[count:])


def _first(row: DataRow, names: tuple[str, ...]) -> str | None:
    """The first of some columns that says something, as text."""
    for name in names:
        if not says_nothing(row.get(name)) and not isinstance(row[name], Mapping | list):
            return str(row[name])
    return None


def _word(row: DataRow, name: str) -> str | None:
    value = row.get(name)
    return value if isinstance(value, str) and value.strip() else None


def _number(row: DataRow, names: tuple[str, ...]) -> float | None:
    """The number in the first of some columns that says something; RowError where it is none."""
    for name in names:
        value: Any = row.get(name)
        if says_nothing(value):
            continue
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = math.nan
        if isinstance(value, bool) or not math.isfinite(number):
            raise RowError(name, f"is {shorten(value)}, no number")
        return number
    return None
