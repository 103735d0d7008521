"""Verifiers: decide in code whether an answer does what its instruction asked.

A check is plain data (`{"kind": ..., ...}`), so that a suite of prompts with their checks is a
JSON Lines file anyone can write. Knows nothing of models, prompts or families.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from tuning.errors import TuningError
from tuning.evaluation.form_checks import FORM_KINDS

Check = Mapping[str, Any]


class CheckError(TuningError):
    """A check names an unknown kind or lacks one of its fields."""


def words_of(text: str) -> list[str]:
    """Lower-case words and numbers of `text`, punctuation left out."""
    return re.findall(r"[^\W_]+(?:['’-][^\W_]+)*", text.lower())


def sentences_of(text: str) -> list[str]:
    """Sentences of `text`, split after `.`, `!` or `?`, empty ones left out."""
    parts = re.split(r"(?<=[.!?])[\"'”]?\s+", text.strip())
    return [part for part in parts if words_of(part)]


def has_phrase(text: str, phrase: str) -> bool:
    """Whether the words of `phrase` occur in `text` in a row, case ignored."""
    found, wanted = words_of(text), words_of(phrase)
    span = len(wanted)
    return any(found[i : i + span] == wanted for i in range(len(found) - span + 1))


def has_form(text: str, word: str) -> bool:
    """Whether `word`, its plural in -s or -es, or its possessive occurs in `text`."""
    forms = {word, word + "s", word + "es", word + "'s", word + "’s"}
    return any(found in forms for found in words_of(text))


def _exact(check: Check, answer: str) -> bool:
    """The answer is one of `answers`; case and closing punctuation ignored."""
    given = answer.strip().rstrip(".!").strip().lower()
    return given in {str(accepted).lower() for accepted in check["answers"]}


def _verbatim(check: Check, answer: str) -> bool:
    """The answer is `text`, character by character, outer white space aside."""
    return answer.strip() == str(check["text"]).strip()


def _fact(check: Check, answer: str) -> bool:
    """One statement with one of `answers` and none of `wrong`; no question."""
    if "?" in answer or len(sentences_of(answer)) != 1 or len(words_of(answer)) > 30:
        return False
    right = any(has_phrase(answer, accepted) for accepted in check["answers"])
    return right and not any(has_phrase(answer, wrong) for wrong in check.get("wrong", ()))


def _number(check: Check, answer: str) -> bool:
    """One statement whose last number is `value`; no question."""
    numbers = re.findall(r"-?\d+", answer)
    single = "?" not in answer and len(sentences_of(answer)) == 1
    return single and bool(numbers) and int(numbers[-1]) == int(check["value"])


def _list(check: Check, answer: str) -> bool:
    """Exactly `count` different items of `allowed` and no other list item.

    With `bullets`, one item a line after "- "; otherwise in a sentence, where what stands before
    "are" or ":" introduces the list.
    """
    if "?" in answer:
        return False
    if check.get("bullets"):
        lines = [line.strip() for line in answer.strip().splitlines() if line.strip()]
        if not all(line.startswith("- ") for line in lines):
            return False
        items = [line[2:].strip(" .").lower() for line in lines]
    else:
        body = re.split(r"\bare\b|:", answer.strip(), maxsplit=1)[-1]
        items = [part.strip(" .\n-").lower() for part in re.split(r",|\band\b|\n", body)]
        items = [re.sub(r"^(an?|the) ", "", item) for item in items if item]
    allowed = {str(item).lower() for item in check["allowed"]}
    return len(items) == len(set(items)) == int(check["count"]) and set(items) <= allowed


def _story(check: Check, answer: str) -> bool:
    """Has every word of `words`, `min_sentences` or more different whole sentences, no question."""
    text = answer.strip()
    found = sentences_of(text)
    enough = len(found) >= int(check["min_sentences"]) and len(set(found)) == len(found)
    whole = text.endswith((".", "!", '"')) and "?" not in text
    return enough and whole and all(has_form(text, word) for word in check["words"])


def _mentions(check: Check, answer: str) -> bool:
    """Has every phrase of `phrases` in at most `max_words` words; no question."""
    text = answer.strip()
    short = len(words_of(text)) <= int(check["max_words"]) and "?" not in text
    return short and all(has_phrase(text, phrase) for phrase in check["phrases"])


def _all(check: Check, answer: str) -> bool:
    """Every one of `checks` passes."""
    return all(verify(part, answer) for part in check["checks"])


KINDS: Mapping[str, Callable[[Check, str], bool]] = {
    **FORM_KINDS,
    "all": _all,
    "exact": _exact,
    "verbatim": _verbatim,
    "fact": _fact,
    "number": _number,
    "list": _list,
    "story": _story,
    "mentions": _mentions,
}


def verify(check: Check, answer: str) -> bool:
    """Whether `answer` passes `check`.

    Raises `CheckError` for a check of unknown kind, with a missing field or one of a wrong type.
    """
    kind = check.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        known = ", ".join(sorted(KINDS))
        raise CheckError(f"unknown check kind {kind!r}; known kinds: {known}")
    try:
        return KINDS[kind](check, answer)
    except KeyError as error:
        raise CheckError(f"check of kind {kind!r} lacks the field {error}; add it") from error
    except (TypeError, ValueError, AttributeError) as error:
        raise CheckError(f"check of kind {kind!r} has a field of a wrong type ({error})") from error
