"""Sets in which several answers to a prompt are rated or ranked, as judgements.

HelpSteer (one answer a row, those of a prompt one after the other), Nectar, UltraFeedback and
OpenAssistant (rows of messages, or trees). Knows no file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from tuning.data.fields import Message, RowError, plain, read_list, read_text, says_nothing
from tuning.data.ledger import BadRow
from tuning.data.preferences.compared import time_ms
from tuning.data.preferences.judged import MAX_ANSWERS, Judged, JudgedAnswer, ranks_of
from tuning.data.preferences.messages import assistant, check_prompt, read_messages, system_of, user
from tuning.data.preferences.paired import origin_of
from tuning.data.preferences.pairs import Origin
from tuning.data.sources import RawRow

Rows = Iterable[RawRow]
Found = Iterator[Judged | BadRow]


def helpsteer_of(rows: Rows) -> Found:
    """HelpSteer and HelpSteer 2: answers to one prompt in rows that follow each other.

    The verdict is `helpfulness`; equal ones tie. An answer that stands alone is told as bad.
    """
    for _, group in groupby(rows, key=lambda raw: str(raw.columns.get("prompt"))):
        yield from _told(list(group), _helpsteer)


def _helpsteer(group: Sequence[RawRow]) -> Iterator[Judged]:
    first = group[0]
    if len(group) < 2:
        raise RowError("prompt", "only one answer to it, so there is nothing to compare")
    prompt = read_messages(first.columns, "prompt", "user")
    check_prompt(prompt, "prompt")
    scores = [_score(raw.columns.get("helpfulness"), "helpfulness") for raw in group]
    answers = tuple(
        JudgedAnswer((assistant(read_text(raw.columns, "response", required=False)),), score=score)
        for raw, score in zip(group, scores, strict=True)
    )
    yield Judged(prompt, answers, origin_of(first, first.columns), ranks=ranks_of(scores))


def nectar_of(raw: RawRow) -> Iterator[Judged]:
    """A row of Nectar: a transcript that ends where the assistant is to answer, seven answers."""
    row = raw.columns
    asked = read_text(row, "prompt").rstrip()
    prompt = read_messages({"prompt": asked.removesuffix("Assistant:").rstrip()}, "prompt", "user")
    check_prompt(prompt, "prompt")
    items = _items(row, "answers")
    ranks = [_score(item.get("rank"), f"answers[{at}].rank") for at, item in enumerate(items)]
    answers = tuple(
        JudgedAnswer((assistant(_text(item, "answer")),), _name(item, "model"), score=-rank)
        for item, rank in zip(items, ranks, strict=True)
    )
    yield Judged(prompt, answers, origin_of(raw, row), ranks=ranks_of([-rank for rank in ranks]))


def ultrafeedback_of(raw: RawRow) -> Iterator[Judged]:
    """A row of UltraFeedback: an instruction and four completions with an overall score each."""
    row = raw.columns
    prompt = (*system_of(row, "system"), user(read_text(row, "instruction")))
    items = _items(row, "completions")
    scores = [
        _score(item.get("overall_score"), f"completions[{at}].overall_score")
        for at, item in enumerate(items)
    ]
    answers = tuple(
        JudgedAnswer((assistant(_text(item, "response")),), _name(item, "model"), score=score)
        for item, score in zip(items, scores, strict=True)
    )
    yield Judged(prompt, answers, origin_of(raw, row), ranks=ranks_of(scores))


def trees_of(raw: RawRow) -> Iterator[Judged]:
    """A tree of OpenAssistant: every question with two or more ranked answers."""
    root = plain(raw.columns.get("prompt"))
    if not isinstance(root, Mapping):
        raise RowError("prompt", "is no message with replies")
    yield from _ranked(raw, root, (), 0)


def messages_of(rows: Rows) -> Found:
    """OpenAssistant's rows of single messages, those of a tree one after the other."""
    for _, group in groupby(rows, key=lambda raw: str(raw.columns.get("message_tree_id"))):
        yield from _told(list(group), _tree)


def _tree(group: Sequence[RawRow]) -> Iterator[Judged]:
    """The tree of some rows, as `trees_of` reads it."""
    nodes: dict[str, dict[str, Any]] = {}
    for raw in group:
        nodes[str(raw.columns.get("message_id"))] = {**raw.columns, "replies": []}
    roots = []
    for node in nodes.values():
        parent = node.get("parent_id")
        if says_nothing(parent):
            roots.append(node)
        elif str(parent) in nodes:
            nodes[str(parent)]["replies"].append(node)
        else:
            raise RowError(
                "parent_id", f"{parent!r} is no message of the tree, or stands elsewhere"
            )
    for root in roots:
        yield from _ranked(group[0], root, (), 0)


def _ranked(
    raw: RawRow, node: Mapping[str, Any], before: tuple[Message, ...], depth: int
) -> Iterator[Judged]:
    """The judgements below a message; `before` is what was said before it."""
    if depth > 100:
        raise RowError("replies", "is nested too deeply")
    role = {"prompter": "user", "assistant": "assistant"}.get(str(node.get("role")))
    if role is None:
        raise RowError("role", f"is {node.get('role')!r}; use prompter or assistant")
    told = (*before, {"role": role, "content": read_text(node, "text", required=False)})
    replies = [item for item in read_list(node, "replies", required=False) if item]
    good = [item for item in replies if not item.get("deleted")]
    ranked = [item for item in good if not says_nothing(item.get("rank"))]
    if role == "user" and len(ranked) > 1:
        ranks = [_score(item.get("rank"), "rank") for item in ranked]
        answers = tuple(
            JudgedAnswer((assistant(_text(item, "text")),), _name(item, "model_name"))
            for item in ranked
        )
        origin = Origin(raw.source, raw.line, _name(node, "message_id"))
        created = time_ms(node, "created_date")
        yield Judged(
            told,
            answers,
            origin,
            ranks=ranks_of([-rank for rank in ranks]),
            language=_name(node, "lang"),
            created_ms=created,
        )
    for item in good:
        yield from _ranked(raw, item, told, depth + 1)


def _told(group: Sequence[RawRow], read: Callable[[Sequence[RawRow]], Iterator[Judged]]) -> Found:
    """What several rows say together; one that cannot be used makes all of them bad."""
    try:
        yield from list(read(group))
    except RowError as error:
        for raw in group:
            yield BadRow(raw.source, raw.line, error.field, error.reason)


def _items(row: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    items = read_list(row, name)
    if not all(isinstance(item, Mapping) for item in items):
        raise RowError(name, "is no list of answers")
    if not 2 <= len(items) <= MAX_ANSWERS:
        raise RowError(name, f"holds {len(items)} answers; 2 to {MAX_ANSWERS} can be compared")
    return items


def _score(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        raise RowError(name, f"is {value!r}, no number")
    return float(value)


def _text(item: Mapping[str, Any], name: str) -> str:
    return read_text(item, name, required=False)


def _name(item: Mapping[str, Any], name: str) -> str | None:
    value = item.get(name)
    return value if isinstance(value, str) and value.strip() else None
