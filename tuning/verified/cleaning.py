"""Takes the filler off an answer, and says which answers are not worth learning from.

Knows words that small models put around an answer; knows neither prompts nor checks.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from tuning.evaluation.texts import lines_of, lower_words, sentences_of, words_of

OPENING = re.compile(
    r"^(?:(?:sure|certainly|of course|absolutely|okay|great question|yes)[^\n.!:]*[.!:,]\s*)?"
    r"(?:(?:here(?:'s| is| are)|below is)\b[^\n.:]*:\s*)?",
    re.IGNORECASE,
)
CLOSING = re.compile(
    r"\s*\b(?:i hope (?:this|that)|let me know|feel free|please note|is there anything)\b.*$",
    re.IGNORECASE | re.DOTALL,
)
# What speaks of the answer or its writer instead of its subject.
ABOUT_ITSELF = re.compile(
    r"\b(?:as an ai|language model|smollm|this (?:paragraph|poem|essay|text|sentence|response)|"
    r"bullet points?|asterisks?|word (?:count|limit)|double quot|square brackets|"
    r"in (?:\w+ )?(?:\d+|one|two|three|four|five|six) "
    r"(?:short |simple )?(?:sentences?|words|lines|paragraphs?|bullet)|"
    r"placeholders?|lowercase|uppercase|capital letters|json|"
    r"(?:glad|happy|here) to (?:help|assist))\b",
    re.IGNORECASE,
)
RUN = 5  # words in a row that no writer uses twice by chance
ENDS = (".", "!", "?", '"', "”", ")", "*", "]", "}", "`", ">")


def without_filler(answer: str) -> str:
    """The answer without a greeting before it and an offer of more help behind it."""
    return CLOSING.sub("", OPENING.sub("", answer.strip(), count=1)).strip()


def whole_sentences(answer: str) -> list[str]:
    """Its different sentences that are whole and about their subject, on one line each."""
    found: dict[str, str] = {}
    said: set[tuple[str, ...]] = set()
    for line in lines_of(without_filler(answer)):
        text = re.sub(r"^(?:[-*•]|\d+[.)])\s+|^#+\s*|[*_`<>]", "", line).strip()
        for sentence in sentences_of(text):
            is_whole = sentence.endswith((".", "!", "?")) and sentence[0].isupper()
            if is_whole and len(words_of(sentence)) >= 3 and not ABOUT_ITSELF.search(sentence):
                if not said & (runs := set(_runs(sentence))):
                    found.setdefault(sentence.lower(), sentence)
                said |= runs
    return list(found.values())


def repeats(answer: str, prompt: str, asked_for: Sequence[str] = ()) -> bool:
    """Whether an answer says words of its prompt over again, but for the texts it was asked for."""
    for text in asked_for:
        prompt = prompt.replace(text, " | ")
    return any(set(_runs(answer)) & set(_runs(part)) for part in prompt.split("|"))


def _runs(text: str) -> list[tuple[str, ...]]:
    """Every `RUN` words in a row of `text`, in lower case."""
    words = lower_words(text)
    return [tuple(words[at : at + RUN]) for at in range(len(words) - RUN + 1)]


def is_worth_learning(answer: str) -> bool:
    """Whether an answer says something once, ends, and does not speak of itself."""
    if not words_of(answer) or ABOUT_ITSELF.search(answer):
        return False
    runs = _runs(answer)
    if len(set(runs)) < len(runs):
        return False
    sentences = [" ".join(words_of(sentence.lower())) for sentence in sentences_of(answer)]
    lines = lines_of(answer)
    is_repeated = len(set(sentences)) < len(sentences) or len(set(lines)) < len(lines)
    return not is_repeated and (len(lines) > 1 or answer.endswith(ENDS) or len(sentences) == 1)
