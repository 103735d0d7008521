"""One judgement as any data set writes it: a prompt, its answers, what was said of them.

Every reader makes these; training turns them into pairs, ties and labels, an arena into battles.
Knows no file and no column.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

from tuning.data.fields import Message
from tuning.data.preferences.pairs import (
    EMPTY,
    IDENTICAL,
    PROMPT_DIFFERS,
    Labelled,
    Lesson,
    Origin,
    Pair,
    Tie,
    text_of,
)

MAX_ANSWERS = 64


@dataclass(frozen=True)
class JudgedAnswer:
    """One answer: its messages, who wrote it, and what it was given by itself.

    `label`: whether it was called good; `score`: a number, more is better. `before` is what was
    said before it where that differs from the prompt that the answers share.
    """

    messages: tuple[Message, ...]
    model: str | None = None
    score: float | None = None
    label: bool | None = None
    before: tuple[Message, ...] | None = None


@dataclass(frozen=True)
class Judged:
    """One judgement.

    `ranks`: one a answer, 1 is best, equal ones tie; None where the answers have labels alone.
    `strength`: by how much the better of two is better, 1 in full. `weight`: of each pair; None
    for 2/k with k answers. `created_ms`: milliseconds since 1970, UTC, 0 where nobody says.
    """

    prompt: tuple[Message, ...]
    answers: tuple[JudgedAnswer, ...]
    origin: Origin
    ranks: tuple[int, ...] | None = None
    both_bad: bool = False
    strength: float | None = None
    weight: float | None = None
    blind: bool = True
    language: str | None = None
    comment: str = ""
    tags: tuple[str, ...] = ()
    created_ms: int = 0

    def lessons(self) -> Iterator[Lesson | tuple[Lesson, str]]:
        """What can be learned from it; with a reason where a lesson teaches nothing."""
        for answer in self.answers:
            if answer.label is not None:
                weight = 1.0 if self.weight is None else self.weight
                made = Labelled(
                    self.prompt, answer.messages, answer.label, self.origin, weight, answer.model
                )
                yield (made, EMPTY) if _is_empty(answer) else made
        if self.ranks is not None:
            weight = 2 / len(self.answers) if self.weight is None else self.weight
            for first, second in combinations(range(len(self.answers)), 2):
                yield self._compared(first, second, weight)

    def _compared(self, first: int, second: int, weight: float) -> Lesson | tuple[Lesson, str]:
        assert self.ranks is not None
        is_tie = self.both_bad or self.ranks[first] == self.ranks[second]
        if self.ranks[second] < self.ranks[first]:
            first, second = second, first
        left, right = self.answers[first], self.answers[second]
        models = (left.model, right.model)
        lesson: Lesson
        if is_tie:
            lesson = Tie(
                *(self.prompt, left.messages, right.messages, self.origin),
                both_bad=self.both_bad,
                weight=weight,
                models=models,
            )
        else:
            lesson = Pair(
                *(self.prompt, left.messages, right.messages, self.origin),
                strength=self.strength,
                weight=weight,
                models=models,
                ratings=(left.score, right.score),
            )
        if left.before != right.before:
            return lesson, PROMPT_DIFFERS
        if _is_empty(left) or _is_empty(right):
            return lesson, EMPTY
        if text_of(left.messages).strip() == text_of(right.messages).strip():
            return lesson, IDENTICAL
        return lesson


def _is_empty(answer: JudgedAnswer) -> bool:
    """An answer without words, as a failed one is, teaches nothing."""
    return not text_of(answer.messages).strip() and not any(
        message.get("tool_calls") for message in answer.messages
    )


def ranks_of(scores: list[float]) -> tuple[int, ...]:
    """Ranks by falling score: equal scores share the better rank."""
    return tuple(1 + sum(other > score for other in scores) for score in scores)
