"""Preferences as token ids, in the very ids that serving will send and read.

The prompt is tokenized by itself, as serving does it, so its ids are always a prefix of the row's;
an answer ends with the token at which serving stops. Knows templates and tokenizers; no model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuning.data.fields import Message, texts_of
from tuning.data.preferences.pairs import (
    IDENTICAL_ONCE_CUT,
    PROMPT_TOO_LONG,
    REFUSED,
    SEVERAL_TURNS,
    SPECIAL,
    TOO_LONG,
    Labelled,
    Lesson,
    Pair,
    PreferenceLedger,
    Preferences,
    Tie,
)
from tuning.data.probe import check_template
from tuning.data.rendering import RenderError
from tuning.data.template import Span, render_training

Ids = NDArray[np.int32]
CHUNK = 500


@dataclass(frozen=True)
class EncodedPair:
    """A pair as ids: `prompt_ids`, and the two answers behind it, each of shape (length,)."""

    prompt_ids: Ids
    chosen_ids: Ids
    rejected_ids: Ids
    pair: Pair


@dataclass(frozen=True)
class EncodedTie:
    """A tie as ids: `prompt_ids`, and the two answers behind it, each of shape (length,)."""

    prompt_ids: Ids
    first_ids: Ids
    second_ids: Ids
    tie: Tie


@dataclass(frozen=True)
class EncodedLabelled:
    """A labelled answer as ids: `prompt_ids` and `completion_ids`, each of shape (length,)."""

    prompt_ids: Ids
    completion_ids: Ids
    labelled: Labelled


Encoded = EncodedPair | EncodedTie | EncodedLabelled


@dataclass(frozen=True)
class _Chat:
    """A conversation as the check of templates wants it."""

    messages: tuple[Message, ...]
    tools: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class Encoder:
    """Encodes lessons of any kind and counts in `ledger` what does not fit.

    `max_length` is of prompt and answer together, in tokens. With `cut` a longer answer loses its
    end, as for a policy; without, the lesson is left out, as for a reward model, which reads the
    end. `template_of` is what errors call the template. A template that writes the date writes
    that of `day`.
    """

    tokenizer: Any
    max_length: int
    ledger: PreferenceLedger
    cut: bool = False
    template_of: str = "the tokenizer"
    day: date | None = None
    held: bool = False
    """Whether these are held out: what is left out is then no longer counted as held out."""

    def check_template(self, preferences: Preferences) -> None:
        """TemplateError where the template loses a text of conversations like these."""
        chats = [
            _Chat((*lesson.prompt, *answer))
            for lesson in preferences.lessons
            for answer in answers_of(lesson)
        ]
        check_template(self.tokenizer, chats, self.template_of, self.day)

    def pairs(self, pairs: Sequence[Pair]) -> list[EncodedPair]:
        """Those that can be learned from, in order."""
        return [
            EncodedPair(prompt, first, second, pair)
            for pair, prompt, (first, second) in self._encoded(pairs)
        ]

    def ties(self, ties: Sequence[Tie]) -> list[EncodedTie]:
        """Those that can be learned from, in order."""
        return [
            EncodedTie(prompt, first, second, tie)
            for tie, prompt, (first, second) in self._encoded(ties)
        ]

    def labelled(self, labelled: Sequence[Labelled]) -> list[EncodedLabelled]:
        """Those that can be learned from, in order."""
        return [
            EncodedLabelled(prompt, answer, item)
            for item, prompt, (answer,) in self._encoded(labelled)
        ]

    def _encoded(self, lessons: Sequence[Any]) -> list[tuple[Any, Ids, list[Ids]]]:
        special = sorted(
            {str(token) for token in self.tokenizer.added_tokens_decoder.values() if token.special}
        )
        made = []
        for start in range(0, len(lessons), CHUNK):
            clean = []
            for lesson in lessons[start : start + CHUNK]:
                if _holds_special(lesson, special):
                    self._leave_out(SPECIAL)
                else:
                    clean.append(lesson)
            for lesson, spans in self._spans(clean):
                several = len(spans) != len(answers_of(lesson))
                found = SEVERAL_TURNS if several else self._fitting(spans)
                if isinstance(found, str):
                    self._leave_out(found)
                else:
                    made.append((lesson, *found))
        return made

    def _spans(self, lessons: Sequence[Any]) -> list[tuple[Any, list[Span]]]:
        """The rendered answers of each lesson; those that the template refuses are counted."""
        if not lessons:
            return []
        chats = [(*lesson.prompt, *answer) for lesson in lessons for answer in answers_of(lesson)]
        context = [
            frozenset(
                at for at, message in enumerate(lesson.prompt) if message["role"] == "assistant"
            )
            for lesson in lessons
            for _ in answers_of(lesson)
        ]
        try:
            rendered = render_training(self.tokenizer, chats, untrained=context, day=self.day)
        except RenderError:
            if len(lessons) > 1:
                return [pair for lesson in lessons for pair in self._spans([lesson])]
            self._leave_out(REFUSED)
            return []
        taken = iter(rendered)
        return [
            (lesson, [span for _ in answers_of(lesson) for span in next(taken)])
            for lesson in lessons
        ]

    def _fitting(self, spans: list[Span]) -> tuple[Ids, list[Ids]] | str:
        """Prompt and answers within `max_length`, or why they are left out."""
        prompts, answers = [], []
        for span in spans:
            if len(span.trained) != 1:
                return SEVERAL_TURNS
            ((start, stop),) = span.trained
            prompts.append(span.ids[:start])
            answers.append(span.ids[start:stop])
        if any(prompt != prompts[0] for prompt in prompts):
            return REFUSED
        room = self.max_length - len(prompts[0])
        if room <= 0:
            return PROMPT_TOO_LONG
        if any(len(answer) > room for answer in answers):
            if not self.cut:
                return TOO_LONG
            answers = [answer[:room] for answer in answers]
        if len(answers) == 2 and answers[0] == answers[1]:
            return IDENTICAL_ONCE_CUT
        as_ids = [np.asarray(answer, dtype=np.int32) for answer in answers]
        return np.asarray(prompts[0], dtype=np.int32), as_ids

    def _leave_out(self, reason: str) -> None:
        self.ledger.left_out[reason] += 1
        self.ledger.heldout -= self.held


def answers_of(lesson: Lesson) -> tuple[tuple[Message, ...], ...]:
    """The answers of a lesson: two, or the one that has a label."""
    if isinstance(lesson, Pair):
        return lesson.chosen, lesson.rejected
    if isinstance(lesson, Tie):
        return lesson.first, lesson.second
    return (lesson.completion,)


def _holds_special(lesson: Lesson, special: Sequence[str]) -> bool:
    """A special token written in a text would become the real one and end a turn early."""
    messages = [*lesson.prompt, *(message for answer in answers_of(lesson) for message in answer)]
    texts = [text for message in messages for text in texts_of(message)]
    return any(token in text for text in texts for token in special)
