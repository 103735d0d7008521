"""Words, sentences, paragraphs and lines of an answer: one definition of each, for all checks."""

from __future__ import annotations

import re

WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")


def words_of(text: str) -> list[str]:
    """Words and numbers of `text` as written, punctuation left out."""
    return WORD.findall(text)


def lower_words(text: str) -> list[str]:
    """Words and numbers of `text` in lower case."""
    return words_of(text.lower())


def sentences_of(text: str) -> list[str]:
    """Sentences of `text`, split after `.`, `!` or `?` with what closes quotes and brackets."""
    parts = re.split(r"(?<=[.!?])[\"'”)]*\s+", text.strip())
    return [part for part in parts if words_of(part)]


def paragraphs_of(text: str) -> list[str]:
    """Paragraphs of `text`, parted by empty lines."""
    return [part.strip() for part in re.split(r"\n\s*\n", text.strip()) if part.strip()]


def lines_of(text: str) -> list[str]:
    """Lines of `text` that are not empty, without the white space around them."""
    return [line.strip() for line in text.strip().splitlines() if line.strip()]


def has_phrase(text: str, phrase: str) -> bool:
    """Whether the words of `phrase` occur in `text` in a row, case ignored."""
    found, wanted = lower_words(text), lower_words(phrase)
    span = len(wanted)
    return any(found[i : i + span] == wanted for i in range(len(found) - span + 1))


def has_form(text: str, word: str) -> bool:
    """Whether `word`, its plural in -s or -es, or its possessive occurs in `text`."""
    stem = word.lower()
    forms = {stem, stem + "s", stem + "es", stem + "'s", stem + "’s"}
    return any(found in forms for found in lower_words(text))
