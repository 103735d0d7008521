"""Makes the built-in form prompts, each with its check; knows tables and chance, no model."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tuning.evaluation.checks import Check
from tuning.evaluation.verifiers import parse_check
from tuning.verified import asks

PLAIN_SHARE = 0.2
"""Of prompts that demand no form: their answers stay what they were."""


@dataclass(frozen=True)
class CheckedPrompt:
    """A prompt, the check its answer must pass (None: any whole answer), a prompt without the
    demand whose answers may be brought into form, and what they are about."""

    prompt: str
    check: Check | None
    plain: str | None = None
    topic: str = ""


def form_asks(count: int, seed: int) -> list[CheckedPrompt]:
    """`count` different prompts, every kind of demand equally often; the same for the same seed."""
    chance = random.Random(seed)
    kinds = list(DEMANDS)
    found: dict[str, CheckedPrompt] = {}
    for turn in itertools.count():
        if len(found) == count:
            break
        if chance.random() < PLAIN_SHARE:
            ask = _plain(chance)
        else:
            ask = _formed(kinds[turn % len(kinds)], chance)
        found.setdefault(ask.prompt, ask)
    return list(found.values())


def _plain(chance: random.Random) -> CheckedPrompt:
    pattern = chance.choice((*asks.PLAIN, *asks.QUESTIONS))
    return CheckedPrompt(pattern.format(topic=chance.choice(asks.TOPICS)), None)


def _formed(kind: str, chance: random.Random) -> CheckedPrompt:
    topic = chance.choice(asks.TOPICS)
    demand, check = DEMANDS[kind](chance, topic)
    subject = chance.choice(asks.SUBJECTS).format(topic=topic)
    prompt = chance.choice(asks.LAYOUTS).format(subject=subject, demand=demand)
    if TOPIC in demand:
        prompt = demand.replace(TOPIC, topic)
    plain = asks.POEM if kind in ("line_count", "haiku") else chance.choice(asks.PLAIN)
    return CheckedPrompt(prompt, parse_check(check), plain.format(topic=topic), topic)


Made = tuple[str, dict[str, Any]]
"""A demand in words, and its check."""
TOPIC = "{topic}"
"""Stands in a demand that says itself what the answer is to be about."""


def _text(kind: str, chance: random.Random, **values: Any) -> str:
    return chance.choice(asks.DEMANDS[kind]).format(topic=TOPIC, **values)


def _counted(
    kind: str, low: int, high: int, relation: str, check: str | None = None, **more: Any
) -> Callable[[random.Random, str], Made]:
    """A demand for a number of something, which stands in figures or, where small, in words."""

    def make(chance: random.Random, topic: str) -> Made:
        number = chance.randint(low, high)
        is_word = number < len(asks.NUMBERS) and chance.random() < 0.5
        shown = asks.NUMBERS[number] if is_word else str(number)
        demand = _text(kind, chance, n=shown, figure=number, s="" if number == 1 else "s")
        wanted = {"kind": check or kind, "count": number, "relation": relation, **more}
        if demand.startswith("Keep it under"):
            wanted["count"] -= 1
        return demand, wanted

    return make


def _simple(kind: str) -> Callable[[random.Random, str], Made]:
    return lambda chance, topic: (_text(kind, chance), {"kind": kind})


def _haiku(chance: random.Random, topic: str) -> Made:
    return _text("haiku", chance), {"kind": "line_count", "count": 3, "relation": "exactly"}


def _paragraph_start(chance: random.Random, topic: str) -> Made:
    word = chance.choice(asks.STARTERS)
    check = {"kind": "paragraph_start", "paragraph": 2, "word": word}
    return _text("paragraph_start", chance, word=word), check


def _postscript(chance: random.Random, topic: str) -> Made:
    marker = chance.choice(asks.POSTSCRIPTS)
    return _text("postscript", chance, word=marker), {"kind": "postscript", "marker": marker}


def _one_of(chance: random.Random, topic: str) -> Made:
    options = list(chance.choice(asks.CHOICES))
    joined = chance.choice((" / ", ", ", "; ")).join(options)
    return _text("one_of", chance, options=joined), {"kind": "one_of", "options": options}


def _sections(chance: random.Random, topic: str) -> Made:
    marker, number = chance.choice(asks.MARKERS), chance.randint(2, 4)
    shown = chance.choice((str(number), asks.NUMBERS[number]))
    check = {"kind": "sections", "marker": marker, "count": number, "relation": "exactly"}
    return _text("sections", chance, word=marker, n=shown), check


def _json(chance: random.Random, topic: str) -> Made:
    keys = chance.choice(asks.KEYS)
    quote = chance.choice(('"{}"', "{}"))
    listed = _listed([quote.format(key) for key in keys])
    demand = _text("json", chance, keys=listed, s="s" if len(keys) > 1 else "")
    return demand, {"kind": "json", "keys": list(keys)}


def _repeat(chance: random.Random, topic: str) -> Made:
    pattern = ("I was asked about {topic}.", "Here are my thoughts on {topic}.", "Let us begin.")
    text = chance.choice(pattern).format(topic=topic)
    return _text("repeats_prompt", chance, text=text), {"kind": "repeats_prompt", "text": text}


def _phrase(kind: str, phrases: tuple[str, ...]) -> Callable[[random.Random, str], Made]:
    def make(chance: random.Random, topic: str) -> Made:
        phrase = chance.choice(phrases)
        return _text(kind, chance, phrase=phrase), {"kind": kind, "phrase": phrase}

    return make


def _words(
    kind: str, words: tuple[str, ...], least: int, most: int
) -> Callable[[random.Random, str], Made]:
    def make(chance: random.Random, topic: str) -> Made:
        chosen = chance.sample(words, chance.randint(least, most))
        return _text(kind, chance, words=_listed(chosen)), {"kind": kind, "words": chosen}

    return make


def _word_count(
    kind: str, words: tuple[str, ...], field: str, low: int, high: int
) -> Callable[[random.Random, str], Made]:
    def make(chance: random.Random, topic: str) -> Made:
        word, number = chance.choice(words), chance.randint(low, high)
        shown = chance.choice((str(number), asks.NUMBERS[number]))
        demand = _text(kind, chance, word=word, n=shown)
        return demand, {"kind": kind, field: word, "count": number, "relation": "at least"}

    return make


def _language(chance: random.Random, topic: str) -> Made:
    word = chance.choice(asks.LANGUAGES)
    return _text("language", chance, word=word), {"kind": "language", "language": word}


def _listed(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


DEMANDS: dict[str, Callable[[random.Random, str], Made]] = {
    "sentence_count": _counted("sentence_count", 1, 5, "exactly"),
    "at_most_sentences": _counted("at_most_sentences", 1, 4, "at most", "sentence_count"),
    "at_most_words": _counted("at_most_words", 10, 40, "at most", "word_count"),
    "at_least_words": _counted("at_least_words", 40, 90, "at least", "word_count"),
    "paragraph_count": _counted("paragraph_count", 2, 4, "exactly"),
    "line_count": _counted("line_count", 2, 6, "exactly"),
    "haiku": _haiku,
    "paragraph_start": _paragraph_start,
    "placeholders": _counted("placeholders", 2, 5, "at least"),
    "postscript": _postscript,
    "bullets": _counted("bullets", 2, 6, "exactly"),
    "numbered": _counted("numbered", 2, 6, "exactly"),
    "one_of": _one_of,
    "highlights": _counted("highlights", 2, 4, "at least"),
    "sections": _sections,
    "json": _json,
    "title": _simple("title"),
    "two_answers": _simple("two_answers"),
    "repeats_prompt": _repeat,
    "starts_with": _phrase("starts_with", asks.OPENINGS),
    "ends_with": _phrase("ends_with", asks.CLOSINGS),
    "quoted": _simple("quoted"),
    "no_comma": _simple("no_comma"),
    "no_question": _simple("no_question"),
    "capital_words": _counted("capital_words", 2, 5, "at least"),
    "upper_case": _simple("upper_case"),
    "lower_case": _simple("lower_case"),
    "language": _language,
    "keywords": _words("keywords", asks.WORDS, 2, 4),
    "keyword_count": _word_count("keyword_count", asks.WORDS, "word", 2, 4),
    "forbidden_words": _words("forbidden_words", asks.COMMON, 2, 3),
    "letter_count": _word_count("letter_count", tuple(asks.LETTERS), "letter", 3, 6),
}
