"""Brings an answer into the form that a check asks for, where code can: by kind of check.

What comes out is checked by the caller; a kind that only the model can answer (a language, say)
is not here. Knows sentences and checks; knows no model.
"""

from __future__ import annotations

import itertools
import json
import random
import re
from collections.abc import Callable, Sequence
from typing import Any

from tuning.evaluation.checks import Check
from tuning.evaluation.texts import lower_words, words_of
from tuning.verified.asks import LETTERS

NAMES = ("title", "topic", "name", "subject", "heading", "theme")
"""Keys of JSON whose values are names and no sentences."""


def shape(
    check: Check,
    sentences: Sequence[str],
    lines: Sequence[str],
    chance: random.Random,
    topic: str = "",
) -> str | None:
    """An answer made of `sentences`, or of `lines` of verse, in the form that `check` asks for.

    `topic` is what they are about, for a title. None where there is too little of them, or no way
    to do it in code.
    """
    way = WAYS.get(check.kind)
    if way is None or not sentences:
        return None
    try:
        named = {"topic": topic} if check.kind in ("json", "title") else {}
        parts = list(lines if check.kind == "line_count" else sentences)
        return way(check, parts, chance, **named)
    except _TooLittleError:
        return None


class _TooLittleError(Exception):
    """Fewer sentences than the form needs."""


def _take(sentences: Sequence[str], count: int) -> list[str]:
    if len(sentences) < count or count < 1:
        raise _TooLittleError
    return list(sentences[:count])


def _some(sentences: Sequence[str], chance: random.Random, most: int = 3) -> str:
    return " ".join(_take(sentences, min(len(sentences), chance.randint(1, most))))


def _lowered(sentence: str) -> str:
    """As it goes on behind other words: its first word in lower case unless it is a name or I."""
    first = sentence.split()[0]
    keeps = first in ("I", "I'm", "I've") or first[1:] != first[1:].lower()
    return sentence if keeps else sentence[0].lower() + sentence[1:]


def _bare(sentence: str) -> str:
    return sentence.rstrip(".!?")


def _number(check: Any, chance: random.Random, more: int = 0) -> int:
    """How many to write: what is asked, or up to `more` further where more are allowed."""
    if check.relation == "at least":
        return int(check.count) + chance.randint(0, more)
    if check.relation == "at most":
        return max(1, int(check.count) - chance.randint(0, more))
    return int(check.count)


def _sentence_count(check: Any, sentences: list[str], chance: random.Random) -> str:
    return " ".join(_take(sentences, _number(check, chance)))


def _word_count(check: Any, sentences: list[str], chance: random.Random) -> str:
    taken: list[str] = []
    for sentence in sentences:
        count = len(words_of(" ".join([*taken, sentence])))
        if check.relation == "at most" and count > check.count:
            break
        taken.append(sentence)
        if check.relation == "at least" and count >= check.count:
            return " ".join(taken)
    if check.relation != "at most":
        raise _TooLittleError
    return " ".join(_take(taken, len(taken)))


def _paragraphs(check: Any, sentences: list[str], chance: random.Random) -> str:
    return "\n\n".join(_parts(sentences, _number(check, chance)))


def _parts(sentences: list[str], count: int) -> list[str]:
    """The sentences in `count` parts of about the same length, two sentences at most."""
    taken = _take(sentences, min(len(sentences), 2 * count))
    _take(taken, count)
    bounds = [len(taken) * part // count for part in range(count + 1)]
    return [" ".join(taken[low:high]) for low, high in itertools.pairwise(bounds)]


def _line_count(check: Any, lines: list[str], chance: random.Random) -> str:
    return "\n".join(_take(lines, _number(check, chance)))


def _paragraph_start(check: Any, sentences: list[str], chance: random.Random) -> str:
    parts = _parts(sentences, max(2, check.paragraph))
    at = check.paragraph - 1
    parts[at] = f"{check.word}, {_lowered(parts[at])}"
    return "\n\n".join(parts)


def _placeholders(check: Any, sentences: list[str], chance: random.Random) -> str:
    body = " ".join(_take(sentences, min(2, len(sentences))))
    places = ["[place]", "[date]", "[time]"][: max(0, check.count - 2)]
    meeting = f" Let us meet in {' on '.join(places)}." if places else ""
    return f"Dear [name],\n\n{body}{meeting}\n\nBest wishes,\n[your name]"


def _postscript(check: Any, sentences: list[str], chance: random.Random) -> str:
    *body, last = _take(sentences, min(3, max(2, len(sentences))))
    return f"{' '.join(body)}\n\n{check.marker} {last}"


def _bullets(check: Any, sentences: list[str], chance: random.Random) -> str:
    return "\n".join(f"- {one}" for one in _short(sentences, _number(check, chance)))


def _numbered(check: Any, sentences: list[str], chance: random.Random) -> str:
    chosen = _short(sentences, _number(check, chance))
    return "\n".join(f"{number}. {one}" for number, one in enumerate(chosen, 1))


def _short(sentences: list[str], count: int) -> list[str]:
    """The shortest ones, in their order."""
    return sorted(_take(sorted(sentences, key=len), count), key=sentences.index)


def _one_of(check: Any, sentences: list[str], chance: random.Random) -> str:
    return str(chance.choice(check.options))


def _replaced(
    sentences: list[str], count: int, chance: random.Random, change: Callable[[str], str]
) -> str:
    """Some sentences, with so many of their longest words changed where they first occur."""
    for taken in range(chance.randint(1, 3), len(sentences) + 1):
        text = " ".join(sentences[:taken])
        found = sorted(
            {word for word in words_of(text) if len(word) > 3}, key=lambda w: (-len(w), w)
        )
        if len(found) >= count:
            for word in found[:count]:
                text = re.sub(rf"\b{re.escape(word)}\b", change(word), text, count=1)
            return text
    raise _TooLittleError


def _highlights(check: Any, sentences: list[str], chance: random.Random) -> str:
    return _replaced(sentences, _number(check, chance), chance, lambda word: f"*{word}*")


def _capital_words(check: Any, sentences: list[str], chance: random.Random) -> str:
    return _replaced(sentences, _number(check, chance, 1), chance, str.upper)


def _sections(check: Any, sentences: list[str], chance: random.Random) -> str:
    parts = _parts(sentences, _number(check, chance))
    return "\n\n".join(f"{check.marker} {at}\n{part}" for at, part in enumerate(parts, 1))


def _json(check: Any, sentences: list[str], chance: random.Random, topic: str = "") -> str:
    keys = check.keys or ("text",)
    named = {key: _name(sentences, topic) for key in keys if key in NAMES}
    said = [key for key in keys if key not in named]
    chosen = _take(_short(sentences, len(said)), len(said)) if said else []
    values = [_bare(text) if len(words_of(text)) < 8 else text for text in chosen]
    found = named | dict(zip(said, values, strict=True))
    return json.dumps({key: found[key] for key in keys}, ensure_ascii=False)


def _title(check: Any, sentences: list[str], chance: random.Random, topic: str = "") -> str:
    return f"<<{_name(sentences, topic)}>>\n\n{_some(sentences, chance)}"


def _name(sentences: list[str], topic: str) -> str:
    """What the sentences are about, as a title; else some words of the first."""
    words = [word for word in words_of(sentences[0]) if len(word) > 3][:3]
    return topic[0].upper() + topic[1:] if topic else " ".join(_take(words, len(words))).title()


def _two_answers(check: Any, sentences: list[str], chance: random.Random) -> str:
    first, second = _parts(sentences, 2)
    return f"{first}\n******\n{second}"


def _repeat(check: Any, sentences: list[str], chance: random.Random) -> str:
    return f"{check.text} {_some(sentences, chance)}"


def _starts_with(check: Any, sentences: list[str], chance: random.Random) -> str:
    text = _some(sentences, chance)
    return (
        f"{check.phrase} {text if check.phrase.endswith(('.', '!', '?', ':')) else _lowered(text)}"
    )


def _ends_with(check: Any, sentences: list[str], chance: random.Random) -> str:
    text = _some(sentences, chance)
    if check.phrase[0].islower():
        text = f"{_bare(text)}," if check.phrase.startswith("and ") else _bare(text)
    return f"{text} {check.phrase}"


def _quoted(check: Any, sentences: list[str], chance: random.Random) -> str:
    inside = _some(sentences, chance).replace('"', "").replace("“", "").replace("”", "")
    return f'"{inside}"'


def _no_comma(check: Any, sentences: list[str], chance: random.Random) -> str:
    plain = [sentence for sentence in sentences if "," not in sentence]
    return _some(plain, chance)


def _no_question(check: Any, sentences: list[str], chance: random.Random) -> str:
    return _some([sentence for sentence in sentences if "?" not in sentence], chance)


def _keywords(check: Any, sentences: list[str], chance: random.Random) -> str:
    found = set(lower_words(text := _some(sentences, chance, 2)))
    missing = [word for word in check.words if word.lower() not in found]
    chance.shuffle(missing)
    if not missing:
        return text
    joined = missing[0] if len(missing) == 1 else f"{', '.join(missing[:-1])} and {missing[-1]}"
    ways = (
        f"It makes me think of {joined}.",
        f"I see {joined} before me.",
        f"There is something of {joined} in it.",
        f"It reminds me of {joined}.",
    )
    return f"{text} {chance.choice(ways)}"


def _keyword_count(check: Any, sentences: list[str], chance: random.Random) -> str:
    word, count = check.word, max(2, _number(check, chance))
    ways = (
        f"I think of {word}, of {word}{f' and of {word}' * (count - 2)}.",
        f"{word.capitalize()} after {word}{f' and {word}' * (count - 2)}: it stays in my mind.",
        f"It is {word}{f' and {word}' * (count - 1)}.",
    )
    return f"{_some(sentences, chance, 2)} {chance.choice(ways)}"


def _forbidden_words(check: Any, sentences: list[str], chance: random.Random) -> str:
    wrong = {word.lower() for word in check.words}
    return _some([one for one in sentences if not wrong & set(lower_words(one))], chance)


def _letter_count(check: Any, sentences: list[str], chance: random.Random) -> str:
    words = LETTERS.get(check.letter.lower(), "").split()
    text = _some(sentences, chance, 2)
    missing = max(0, _number(check, chance, 1) - text.lower().count(check.letter.lower()))
    if not missing:
        return text
    chosen = chance.sample(_take(words, missing), missing)
    return f"{text} It makes me think of these words: {', '.join(chosen)}."


def _upper(check: Any, sentences: list[str], chance: random.Random) -> str:
    return _some(sentences, chance).upper()


def _lower(check: Any, sentences: list[str], chance: random.Random) -> str:
    return _some(sentences, chance).lower()


WAYS: dict[str, Callable[..., str]] = {
    "sentence_count": _sentence_count,
    "word_count": _word_count,
    "paragraph_count": _paragraphs,
    "line_count": _line_count,
    "paragraph_start": _paragraph_start,
    "placeholders": _placeholders,
    "postscript": _postscript,
    "bullets": _bullets,
    "numbered": _numbered,
    "one_of": _one_of,
    "highlights": _highlights,
    "capital_words": _capital_words,
    "sections": _sections,
    "json": _json,
    "title": _title,
    "two_answers": _two_answers,
    "repeats_prompt": _repeat,
    "starts_with": _starts_with,
    "ends_with": _ends_with,
    "quoted": _quoted,
    "no_comma": _no_comma,
    "no_question": _no_question,
    "keywords": _keywords,
    "keyword_count": _keyword_count,
    "forbidden_words": _forbidden_words,
    "letter_count": _letter_count,
    "upper_case": _upper,
    "lower_case": _lower,
}
