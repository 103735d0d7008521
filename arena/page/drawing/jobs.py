"""What can be asked of a drawing process, and how each is done.

A job is a JSON value: its kind and its arguments. Knows the HTML of texts; knows no process.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from arena.page.html.differences import marked_html
from arena.page.html.markdown import AnswerLabels, answer_html, settled_html

Job: TypeAlias = tuple[str | int, ...]


def answer_job(text: str, labels: AnswerLabels) -> Job:
    """A whole answer: its HTML."""
    return ("answer", text, *labels)


def marked_job(text: str, other: str) -> Job:
    """A text with the words marked that the other has not: its HTML."""
    return ("marked", text, other)


def step_job(rest: str, end: int, labels: AnswerLabels) -> Job:
    """An answer that grows, from its last block on: HTML of the blocks that no further line can
    change, the length of their text, and HTML of what follows them.

    Args:
        rest: the text, from the beginning of a block on.
        end: how much of it is whole lines that are to be searched for blocks; 0 for no search.
        labels: as of `answer_html`.
    """
    return ("step", rest, end, *labels)


def ways(job: Job) -> tuple[Callable[[], Any], ...]:
    """How to do a job, the best way first; the next is for when the one before took too long."""
    match job:
        case ("answer", str(text), *words):
            labels = AnswerLabels(*map(str, words))
            return (
                lambda: answer_html(text, labels),
                lambda: answer_html(text, labels, coloured=False),
            )
        case ("marked", str(text), str(other)):
            return (lambda: marked_html(text, other),)
        case ("step", str(text), int(end), *words):
            labels = AnswerLabels(*map(str, words))
            return (lambda: _step(text, end, labels),)
    raise ValueError(f"{job[0]!r} is no kind of job")


def _step(rest: str, end: int, labels: AnswerLabels) -> tuple[str, int, str]:
    added, length = settled_html(rest[:end], labels) if end else ("", 0)
    following = AnswerLabels("", labels.copy) if length else labels
    return added, length, answer_html(rest[length:], following, whole=False)
