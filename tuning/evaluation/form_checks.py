"""Checks of form: length, keywords, case, lists, JSON, language of an answer.

The kinds are those of instruction-following benchmarks such as IFEval (Zhou et al. 2023); each is
decided in code from the answer alone. `verifiers` offers them beside the checks of content.
"""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

Check = Mapping[str, Any]
RELATIONS: Mapping[str, Callable[[int, int], bool]] = {
    "at least": operator.ge,
    "at most": operator.le,
    "exactly": operator.eq,
}
SEPARATOR = "******"
# Frequent words that tell these languages apart; a text is taken for the one with most hits.
LANGUAGE_WORDS: Mapping[str, tuple[str, ...]] = {
    "english": ("the", "and", "is", "of", "to", "in", "that", "was", "for", "with", "are", "this"),
    "german": ("der", "die", "das", "und", "ist", "nicht", "ein", "eine", "ich", "mit", "auf"),
    "french": ("le", "la", "les", "et", "est", "une", "un", "des", "que", "dans", "pour", "avec"),
    "spanish": ("el", "la", "los", "y", "es", "una", "un", "que", "de", "en", "por", "con"),
    "italian": ("il", "la", "gli", "e", "un", "una", "che", "di", "per", "non", "con", "sono"),
}


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+(?:['’-][^\W_]+)*", text)


def _lower_words(text: str) -> list[str]:
    return [word.lower() for word in _words(text)]


def _sentences(text: str) -> list[str]:
    parts = re.split(r"(?<=[.!?])[\"'”)]*\s+", text.strip())
    return [part for part in parts if _words(part)]


def _paragraphs(text: str) -> list[str]:
    return [part.strip() for part in re.split(r"\n\s*\n", text.strip()) if part.strip()]


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.strip().splitlines() if line.strip()]


def _compare(check: Check, found: int) -> bool:
    """Whether `found` stands in `relation` (default at least) to `count`."""
    return RELATIONS[check.get("relation", "at least")](found, int(check["count"]))


def _keywords(check: Check, answer: str) -> bool:
    """Every word of `words` occurs."""
    found = set(_lower_words(answer))
    return all(str(word).lower() in found for word in check["words"])


def _keyword_count(check: Check, answer: str) -> bool:
    """`word` occurs `relation` `count` times."""
    return _compare(check, _lower_words(answer).count(str(check["word"]).lower()))


def _forbidden_words(check: Check, answer: str) -> bool:
    """None of `words` occurs, in an answer of at least one word."""
    found = set(_lower_words(answer))
    return bool(found) and not any(str(word).lower() in found for word in check["words"])


def _letter_count(check: Check, answer: str) -> bool:
    """`letter`, in either case, occurs `relation` `count` times."""
    return _compare(check, answer.lower().count(str(check["letter"]).lower()))


def _word_count(check: Check, answer: str) -> bool:
    """The number of words; an empty answer never passes."""
    count = len(_words(answer))
    return count > 0 and _compare(check, count)


def _sentence_count(check: Check, answer: str) -> bool:
    """The number of sentences; an empty answer never passes."""
    count = len(_sentences(answer))
    return count > 0 and _compare(check, count)


def _paragraph_count(check: Check, answer: str) -> bool:
    """The number of paragraphs, parted by empty lines."""
    count = len(_paragraphs(answer))
    return count > 0 and _compare(check, count)


def _line_count(check: Check, answer: str) -> bool:
    """The number of lines that are not empty."""
    count = len(_lines(answer))
    return count > 0 and _compare(check, count)


def _paragraph_start(check: Check, answer: str) -> bool:
    """Paragraph number `paragraph` (from 1) begins with `word`."""
    found = _paragraphs(answer)
    index = int(check["paragraph"]) - 1
    if index >= len(found):
        return False
    return _lower_words(found[index])[:1] == [str(check["word"]).lower()]


def _placeholders(check: Check, answer: str) -> bool:
    """Placeholders in square brackets, such as [name]."""
    return _compare(check, len(re.findall(r"\[[^\[\]\n]+\]", answer)))


def _postscript(check: Check, answer: str) -> bool:
    """The last paragraph or line starts with `marker`, such as P.S., and says something."""
    marker = str(check["marker"])
    lines = _lines(answer)
    return any(line.startswith(marker) and _words(line[len(marker) :]) for line in lines[-2:])


def _bullets(check: Check, answer: str) -> bool:
    """Lines that are bullet points, after `-`, `*` or `•`."""
    return _compare(check, sum(bool(re.match(r"[-*•]\s+\S", line)) for line in _lines(answer)))


def _numbered(check: Check, answer: str) -> bool:
    """Lines numbered 1, 2, 3 … in this order."""
    numbers = [
        int(found[1]) for line in _lines(answer) if (found := re.match(r"(\d+)[.)]\s", line))
    ]
    return numbers == list(range(1, len(numbers) + 1)) and _compare(check, len(numbers))


def _one_of(check: Check, answer: str) -> bool:
    """The answer is one of `options` and nothing else; closing full stop aside."""
    given = answer.strip().rstrip(".").strip().lower()
    return given in {str(option).rstrip(".").lower() for option in check["options"]}


def _highlights(check: Check, answer: str) -> bool:
    """Stretches between single or double asterisks, such as *this*."""
    found = re.findall(r"\*\*([^*\n]+)\*\*|\*([^*\n]+)\*", answer)
    return _compare(check, sum(1 for pair in found if any(part.strip() for part in pair)))


def _sections(check: Check, answer: str) -> bool:
    """Lines that begin with `marker` and a number, such as Section 1."""
    pattern = rf"^\W*{re.escape(str(check['marker']))}\s+\d+"
    return _compare(check, len(re.findall(pattern, answer, re.MULTILINE)))


def _json(check: Check, answer: str) -> bool:
    """The whole answer is JSON, perhaps in a code fence; an object with `keys` where given."""
    text = re.sub(r"^```(?:json)?\s*\n|\n```\s*$", "", answer.strip())
    try:
        value = json.loads(text)
    except (json.JSONDecodeError, RecursionError):
        return False
    if "keys" not in check:
        return isinstance(value, dict | list)
    return isinstance(value, dict) and set(map(str, check["keys"])) <= set(value)


def _title(check: Check, answer: str) -> bool:
    """A title in double angle brackets, such as <<A day>>."""
    return any(_words(found) for found in re.findall(r"<<([^<>\n]+)>>", answer))


def _two_answers(check: Check, answer: str) -> bool:
    """Two different answers parted by six asterisks."""
    parts = [part.strip() for part in answer.split(SEPARATOR)]
    return len(parts) == 2 and all(map(_words, parts)) and parts[0] != parts[1]


def _repeats_prompt(check: Check, answer: str) -> bool:
    """The answer begins with `text`, word for word, and then goes on."""
    text, given = str(check["text"]).strip(), answer.strip()
    return given.lower().startswith(text.lower()) and bool(_words(given[len(text) :]))


def _starts_with(check: Check, answer: str) -> bool:
    """The answer begins with `phrase`; case ignored."""
    return answer.strip().lower().startswith(str(check["phrase"]).lower())


def _ends_with(check: Check, answer: str) -> bool:
    """The answer ends with `phrase`; case and outer quotes ignored."""
    return answer.strip().strip("\"'").lower().endswith(str(check["phrase"]).lower())


def _quoted(check: Check, answer: str) -> bool:
    """The whole answer is in double quotation marks."""
    text = answer.strip()
    return len(text) > 2 and text[0] in '"“' and text[-1] in '"”' and bool(_words(text))


def _no_comma(check: Check, answer: str) -> bool:
    """No comma, in an answer of at least one word."""
    return bool(_words(answer)) and "," not in answer


def _no_question(check: Check, answer: str) -> bool:
    """No question mark, in an answer of at least one word."""
    return bool(_words(answer)) and "?" not in answer


def _capital_words(check: Check, answer: str) -> bool:
    """Words of two or more letters written in capitals only."""
    return _compare(check, sum(word.isupper() and len(word) > 1 for word in _words(answer)))


def _upper_case(check: Check, answer: str) -> bool:
    """Every letter is a capital."""
    return answer.isupper()


def _lower_case(check: Check, answer: str) -> bool:
    """No letter is a capital."""
    return answer.islower()


def _language(check: Check, answer: str) -> bool:
    """Most of the frequent words in the answer are of `language`."""
    words = _lower_words(answer)
    hits = {name: sum(word in known for word in words) for name, known in LANGUAGE_WORDS.items()}
    wanted = str(check["language"]).lower()
    others = [count for name, count in hits.items() if name != wanted]
    return hits[wanted] > max(others)


FORM_KINDS: Mapping[str, Callable[[Check, str], bool]] = {
    "keywords": _keywords,
    "keyword_count": _keyword_count,
    "forbidden_words": _forbidden_words,
    "letter_count": _letter_count,
    "word_count": _word_count,
    "sentence_count": _sentence_count,
    "paragraph_count": _paragraph_count,
    "line_count": _line_count,
    "paragraph_start": _paragraph_start,
    "placeholders": _placeholders,
    "postscript": _postscript,
    "bullets": _bullets,
    "numbered": _numbered,
    "one_of": _one_of,
    "highlights": _highlights,
    "sections": _sections,
    "json": _json,
    "title": _title,
    "two_answers": _two_answers,
    "repeats_prompt": _repeats_prompt,
    "starts_with": _starts_with,
    "ends_with": _ends_with,
    "quoted": _quoted,
    "no_comma": _no_comma,
    "no_question": _no_question,
    "capital_words": _capital_words,
    "upper_case": _upper_case,
    "lower_case": _lower_case,
    "language": _language,
}
