"""Checks of form: length, keywords, case, lists, JSON, language of an answer.

The kinds are those of instruction-following benchmarks such as IFEval (Zhou et al. 2023); each is
decided in code from the answer alone. `verifiers` offers them beside the checks of content.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from tuning.evaluation.checks import (
    Check,
    Counted,
    CountedText,
    Filled,
    Letter,
    Phrase,
    Positive,
    Texts,
    Word,
    WordList,
)
from tuning.evaluation.texts import (
    lines_of,
    lower_words,
    paragraphs_of,
    sentences_of,
    words_of,
)
from tuning.value_types import Text

SEPARATOR = "******"
# Frequent words that tell these languages apart; a text is taken for the one with most hits.
LANGUAGE_WORDS: Mapping[str, tuple[str, ...]] = {
    "english": ("the", "and", "is", "of", "to", "in", "that", "was", "for", "with", "are", "this"),
    "german": ("der", "die", "das", "und", "ist", "nicht", "ein", "eine", "ich", "mit", "auf"),
    "french": ("le", "la", "les", "et", "est", "une", "un", "des", "que", "dans", "pour", "avec"),
    "spanish": ("el", "la", "los", "y", "es", "una", "un", "que", "de", "en", "por", "con"),
    "italian": ("il", "la", "gli", "e", "un", "una", "che", "di", "per", "non", "con", "sono"),
}


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


class Keywords(Check):
    """Every word of `words` occurs."""

    kind: Literal["keywords"]
    words: WordList

    def passes(self, answer: str) -> bool:
        found = set(lower_words(answer))
        return all(word.lower() in found for word in self.words)


class KeywordCount(Counted):
    """`word` occurs `relation` `count` times."""

    kind: Literal["keyword_count"]
    word: Word

    def passes(self, answer: str) -> bool:
        return self.compare(lower_words(answer).count(self.word.lower()))


class ForbiddenWords(Check):
    """None of `words` occurs, in an answer of at least one word."""

    kind: Literal["forbidden_words"]
    words: WordList

    def passes(self, answer: str) -> bool:
        found = set(lower_words(answer))
        return bool(found) and not any(word.lower() in found for word in self.words)


class LetterCount(Counted):
    """`letter`, in either case, occurs `relation` `count` times."""

    kind: Literal["letter_count"]
    letter: Letter

    def passes(self, answer: str) -> bool:
        return self.compare(answer.lower().count(self.letter.lower()))


class WordCount(CountedText):
    """The number of words; an empty answer never passes."""

    kind: Literal["word_count"]

    def passes(self, answer: str) -> bool:
        count = len(words_of(answer))
        return count > 0 and self.compare(count)


class SentenceCount(CountedText):
    """The number of sentences; an empty answer never passes."""

    kind: Literal["sentence_count"]

    def passes(self, answer: str) -> bool:
        count = len(sentences_of(answer))
        return count > 0 and self.compare(count)


class ParagraphCount(CountedText):
    """The number of paragraphs, parted by empty lines."""

    kind: Literal["paragraph_count"]

    def passes(self, answer: str) -> bool:
        count = len(paragraphs_of(answer))
        return count > 0 and self.compare(count)


class LineCount(CountedText):
    """The number of lines that are not empty."""

    kind: Literal["line_count"]

    def passes(self, answer: str) -> bool:
        count = len(lines_of(answer))
        return count > 0 and self.compare(count)


class ParagraphStart(Check):
    """Paragraph number `paragraph` (from 1) begins with `word`."""

    kind: Literal["paragraph_start"]
    paragraph: Positive
    word: Word

    def passes(self, answer: str) -> bool:
        found = paragraphs_of(answer)
        index = self.paragraph - 1
        if index >= len(found):
            return False
        return lower_words(found[index])[:1] == [self.word.lower()]


class Placeholders(Counted):
    """Placeholders in square brackets, such as [name]."""

    kind: Literal["placeholders"]

    def passes(self, answer: str) -> bool:
        return self.compare(len(re.findall(r"\[[^\[\]\n]+\]", answer)))


class Postscript(Check):
    """The last paragraph or line starts with `marker`, such as P.S., and says something."""

    kind: Literal["postscript"]
    marker: Filled

    def passes(self, answer: str) -> bool:
        marker = self.marker
        lines = lines_of(answer)
        return any(line.startswith(marker) and words_of(line[len(marker) :]) for line in lines[-2:])


class Bullets(Counted):
    """Lines that are bullet points, after `-`, `*` or `•`."""

    kind: Literal["bullets"]

    def passes(self, answer: str) -> bool:
        return self.compare(sum(bool(re.match(r"[-*•]\s+\S", line)) for line in lines_of(answer)))


class Numbered(Counted):
    """Lines numbered 1, 2, 3 … in this order."""

    kind: Literal["numbered"]

    def passes(self, answer: str) -> bool:
        numbers = [
            found[1].lstrip("0")  # as text, since Python reads no number of thousands of digits
            for line in lines_of(answer)
            if (found := re.match(r"([0-9]+)[.)]\s", line))
        ]
        rising = [str(number) for number in range(1, len(numbers) + 1)]
        return numbers == rising and self.compare(len(numbers))


class OneOf(Check):
    """The answer is one of `options` and nothing else; closing full stop aside."""

    kind: Literal["one_of"]
    options: Texts

    def passes(self, answer: str) -> bool:
        given = answer.strip().rstrip(".").strip().lower()
        return given in {option.rstrip(".").lower() for option in self.options}


class Highlights(Counted):
    """Stretches between single or double asterisks, such as *this*."""

    kind: Literal["highlights"]

    def passes(self, answer: str) -> bool:
        found = re.findall(r"\*\*([^*\n]+)\*\*|\*([^*\n]+)\*", answer)
        return self.compare(sum(1 for pair in found if any(part.strip() for part in pair)))


class Sections(Counted):
    """Lines that begin with `marker` and a number, such as Section 1."""

    kind: Literal["sections"]
    marker: Filled

    def passes(self, answer: str) -> bool:
        pattern = rf"^\W*{re.escape(self.marker)}\s+\d+"
        return self.compare(len(re.findall(pattern, answer, re.MULTILINE)))


class JsonAnswer(Check):
    """The whole answer is JSON, perhaps in a code fence; an object with `keys` where given."""

    kind: Literal["json"]
    keys: tuple[Text, ...] | None = None

    def passes(self, answer: str) -> bool:
        text = re.sub(r"^```(?:json)?\s*\n|\n```\s*$", "", answer.strip())
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):  # ValueError also for numbers of too many digits
            return False
        if self.keys is None:
            return isinstance(value, dict | list)
        return isinstance(value, dict) and set(self.keys) <= set(value)


class Titled(Check):
    """A title in double angle brackets, such as <<A day>>."""

    kind: Literal["title"]

    def passes(self, answer: str) -> bool:
        return any(words_of(found) for found in re.findall(r"<<([^<>\n]+)>>", answer))


class TwoAnswers(Check):
    """Two different answers parted by six asterisks."""

    kind: Literal["two_answers"]

    def passes(self, answer: str) -> bool:
        parts = [part.strip() for part in answer.split(SEPARATOR)]
        return len(parts) == 2 and all(map(words_of, parts)) and parts[0] != parts[1]


class RepeatsPrompt(Check):
    """The answer begins with `text`, word for word, and then goes on."""

    kind: Literal["repeats_prompt"]
    text: Phrase

    def passes(self, answer: str) -> bool:
        text, given = self.text.strip(), answer.strip()
        return given.lower().startswith(text.lower()) and bool(words_of(given[len(text) :]))


class StartsWith(Check):
    """The answer begins with `phrase`; case ignored."""

    kind: Literal["starts_with"]
    phrase: Filled

    def passes(self, answer: str) -> bool:
        return answer.strip().lower().startswith(self.phrase.lower())


class EndsWith(Check):
    """The answer ends with `phrase`; case and outer quotes ignored."""

    kind: Literal["ends_with"]
    phrase: Filled

    def passes(self, answer: str) -> bool:
        return answer.strip().strip("\"'").lower().endswith(self.phrase.lower())


class Quoted(Check):
    """The whole answer is in double quotation marks."""

    kind: Literal["quoted"]

    def passes(self, answer: str) -> bool:
        text = answer.strip()
        return len(text) > 2 and text[0] in '"“' and text[-1] in '"”' and bool(words_of(text))


class NoComma(Check):
    """No comma, in an answer of at least one word."""

    kind: Literal["no_comma"]

    def passes(self, answer: str) -> bool:
        return bool(words_of(answer)) and "," not in answer


class NoQuestion(Check):
    """No question mark, in an answer of at least one word."""

    kind: Literal["no_question"]

    def passes(self, answer: str) -> bool:
        return bool(words_of(answer)) and "?" not in answer


class CapitalWords(Counted):
    """Words of two or more letters written in capitals only."""

    kind: Literal["capital_words"]

    def passes(self, answer: str) -> bool:
        return self.compare(sum(word.isupper() and len(word) > 1 for word in words_of(answer)))


class UpperCase(Check):
    """Every letter is a capital."""

    kind: Literal["upper_case"]

    def passes(self, answer: str) -> bool:
        return answer.isupper()


class LowerCase(Check):
    """No letter is a capital."""

    kind: Literal["lower_case"]

    def passes(self, answer: str) -> bool:
        return answer.islower()


class InLanguage(Check):
    """Most of the frequent words in the answer are of `language`."""

    kind: Literal["language"]
    language: Annotated[
        Literal["english", "german", "french", "spanish", "italian"], BeforeValidator(_lower)
    ]

    def passes(self, answer: str) -> bool:
        words = lower_words(answer)
        hits = {
            name: sum(word in known for word in words) for name, known in LANGUAGE_WORDS.items()
        }
        wanted = self.language
        others = [count for name, count in hits.items() if name != wanted]
        return hits[wanted] > max(others)


FORM_KINDS: tuple[type[Check], ...] = (
    Keywords,
    KeywordCount,
    ForbiddenWords,
    LetterCount,
    WordCount,
    SentenceCount,
    ParagraphCount,
    LineCount,
    ParagraphStart,
    Placeholders,
    Postscript,
    Bullets,
    Numbered,
    OneOf,
    Highlights,
    Sections,
    JsonAnswer,
    Titled,
    TwoAnswers,
    RepeatsPrompt,
    StartsWith,
    EndsWith,
    Quoted,
    NoComma,
    NoQuestion,
    CapitalWords,
    UpperCase,
    LowerCase,
    InLanguage,
)
