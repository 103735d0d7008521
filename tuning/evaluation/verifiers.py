"""Verifiers: decide in code whether an answer does what its instruction asked.

The kinds of content are here, those of form in `form_checks`. Knows nothing of models, prompts or
families.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Field, PlainValidator, ValidationError, model_validator

from tuning.evaluation.checks import (
    Check,
    CheckError,
    Filled,
    Phrase,
    Phrases,
    Positive,
    Texts,
    WordList,
    field_problem,
    impossible,
    nearest,
)
from tuning.evaluation.form_checks import FORM_KINDS
from tuning.evaluation.texts import has_form, has_phrase, lines_of, lower_words, sentences_of
from tuning.value_types import Whole, shown

LONGEST_STATEMENT = 30


class Exact(Check):
    """The answer is one of `answers`; case and closing punctuation ignored."""

    kind: Literal["exact"]
    answers: Texts

    def passes(self, answer: str) -> bool:
        given = answer.strip().rstrip(".!").strip().lower()
        return given in {accepted.lower() for accepted in self.answers}


class Verbatim(Check):
    """The answer is `text`, character by character, outer white space aside."""

    kind: Literal["verbatim"]
    text: Filled

    def passes(self, answer: str) -> bool:
        return answer.strip() == self.text.strip()


class Fact(Check):
    """One statement with one of `answers` and none of `wrong`; no question."""

    kind: Literal["fact"]
    answers: Phrases
    wrong: tuple[Phrase, ...] = ()

    @model_validator(mode="after")
    def _can_be_passed(self) -> Self:
        if all(any(has_phrase(text, wrong) for wrong in self.wrong) for text in self.answers):
            raise impossible(
                f"wrong: holds what every one of the answers {shown(self.answers)} has"
            )
        return self

    def passes(self, answer: str) -> bool:
        if len(lower_words(answer)) > LONGEST_STATEMENT or not _is_statement(answer):
            return False
        right = any(has_phrase(answer, accepted) for accepted in self.answers)
        return right and not any(has_phrase(answer, wrong) for wrong in self.wrong)


class LastNumber(Check):
    """One statement whose last number is `value`; no question."""

    kind: Literal["number"]
    value: Whole

    def passes(self, answer: str) -> bool:
        numbers = re.findall(r"-?[0-9]+", answer)
        if not numbers or not _is_statement(answer):
            return False
        # As text, since Python reads no number of thousands of digits.
        sign, digits = "-" * numbers[-1].startswith("-"), numbers[-1].lstrip("-0") or "0"
        return (sign if digits != "0" else "") + digits == str(self.value)


class ListOf(Check):
    """Exactly `count` different items of `allowed` and no other list item.

    With `bullets`, one item a line after "- "; otherwise in a sentence, where what stands before
    "are" or ":" introduces the list.
    """

    kind: Literal["list"]
    count: Positive
    allowed: Texts
    bullets: bool = False

    @model_validator(mode="after")
    def _can_be_passed(self) -> Self:
        different = len({item.lower() for item in self.allowed})
        if different < self.count:
            raise impossible(f"count: {self.count} different items of the {different} allowed")
        return self

    def passes(self, answer: str) -> bool:
        if "?" in answer:
            return False
        if self.bullets:
            lines = lines_of(answer)
            if not all(line.startswith("- ") for line in lines):
                return False
            items = [line[2:].strip(" .").lower() for line in lines]
        else:
            body = re.split(r"\bare\b|:", answer.strip(), maxsplit=1)[-1]
            items = [part.strip(" .\n-").lower() for part in re.split(r",|\band\b|\n", body)]
            items = [re.sub(r"^(an?|the) ", "", item) for item in items if item]
        allowed = {item.lower() for item in self.allowed}
        return len(items) == len(set(items)) == self.count and set(items) <= allowed


class Story(Check):
    """Has every word of `words`, `min_sentences` or more different whole sentences, no question."""

    kind: Literal["story"]
    words: WordList
    min_sentences: Positive

    def passes(self, answer: str) -> bool:
        text = answer.strip()
        found = sentences_of(text)
        enough = len(found) >= self.min_sentences and len(set(found)) == len(found)
        whole = text.endswith((".", "!", '"')) and "?" not in text
        return enough and whole and all(has_form(text, word) for word in self.words)


class Mentions(Check):
    """Has every phrase of `phrases` in at most `max_words` words; no question."""

    kind: Literal["mentions"]
    phrases: Phrases
    max_words: Positive

    @model_validator(mode="after")
    def _can_be_passed(self) -> Self:
        longest = max(self.phrases, key=lambda phrase: len(lower_words(phrase)))
        if len(lower_words(longest)) > self.max_words:
            raise impossible(f"max_words: {self.max_words} leave no room for {shown(longest)}")
        return self

    def passes(self, answer: str) -> bool:
        text = answer.strip()
        short = len(lower_words(text)) <= self.max_words and "?" not in text
        return short and all(has_phrase(text, phrase) for phrase in self.phrases)


class AllOf(Check):
    """Every one of `checks` passes."""

    kind: Literal["all"]
    checks: Annotated[
        tuple[Annotated[Check, PlainValidator(lambda content: parse_check(content))], ...],
        Field(min_length=1),
    ]

    def passes(self, answer: str) -> bool:
        return all(check.passes(answer) for check in self.checks)


def _is_statement(answer: str) -> bool:
    return "?" not in answer and len(sentences_of(answer)) == 1


CONTENT_KINDS: tuple[type[Check], ...] = (
    AllOf,
    Exact,
    Fact,
    ListOf,
    Mentions,
    LastNumber,
    Story,
    Verbatim,
)
KINDS: Mapping[str, type[Check]] = {
    get_args(kind.model_fields["kind"].annotation)[0]: kind
    for kind in (*FORM_KINDS, *CONTENT_KINDS)
}


def parse_check(content: Any) -> Check:
    """The check that `content`, a JSON object, describes; CheckError names the field and why."""
    if not isinstance(content, dict):
        raise CheckError(f"check: {shown(content)} is no object; give one with a kind")
    kind = content.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise CheckError(f"unknown check kind {shown(kind)}; {nearest(kind, 'kinds', KINDS)}")
    try:
        return KINDS[kind].model_validate(content)
    except ValidationError as error:
        problem = field_problem(error, KINDS[kind])
        raise CheckError(f"check of kind {kind!r}: {problem}") from error
    except RecursionError as error:
        raise CheckError("check: is nested too deeply; take checks out of each other") from error
