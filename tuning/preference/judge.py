"""A judge made of a suite's verifiers, with chosen noise and biases; and what they say of answers.

For demonstrations and tests: its faults are known, so that what a reward model makes of them can be
measured. Knows suites and texts; knows no server and no store.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tuning.data.preferences.pairs import Pair, text_of
from tuning.errors import ConfigError
from tuning.evaluation.suites import STARTER, STARTER_TRAINING, SuiteItem, load_suite
from tuning.evaluation.texts import has_phrase, lower_words

FORM, FACT, SUM, OTHER = "form", "wrong fact", "wrong sum", "other question"
UNKNOWN = "of no suite"
RIGHT = "right"
WINNERS = ("model_a", "model_b")
ASKING = frozenset(
    [
        "what",
        "which",
        "where",
        "when",
        "name",
        "tell",
        "give",
        "write",
        "does",
        "have",
        "that",
        "this",
        "with",
    ]
)
SHORT = 3
"""Words of so few letters, and answers of so few words, do not say what they are about."""


@dataclass(frozen=True)
class SyntheticJudge:
    """Votes by verifiers: an answer that passes beats one that does not.

    With probability `position` it takes the left answer, and with probability `length` the longer
    one, whatever they say; a side that it names is then exchanged with probability `noise`. The
    same judge says the same of the same answers; `voter` makes another of it.
    """

    noise: float = 0.0
    position: float = 0.0
    length: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("noise", "position", "length"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise ConfigError(f"{name}: {value} is no probability; give 0 to 1")

    def decide(self, item: SuiteItem, left: str, right: str, voter: str = "") -> str:
        """The winner: model_a (left), model_b, tie where both pass, both_bad where neither does."""
        draw = random.Random("\n".join([str(self.seed), voter, item.id, left, right]))
        by_position, by_length, flipped = (draw.random() for _ in range(3))
        winner = verdict(item, left, right)
        if by_position < self.position:
            winner = WINNERS[0]
        elif by_length < self.length and len(left) != len(right):
            winner = WINNERS[len(right) > len(left)]
        if winner in WINNERS and flipped < self.noise:
            winner = WINNERS[1 - WINNERS.index(winner)]
        return winner


def verdict(item: SuiteItem, left: str, right: str) -> str:
    """What the verifiers say, without fault."""
    passed = item.check.passes(left), item.check.passes(right)
    if passed[0] == passed[1]:
        return "tie" if passed[0] else "both_bad"
    return WINNERS[passed[1]]


def by_prompt(items: Iterable[SuiteItem]) -> dict[str, SuiteItem]:
    """The items by what they ask, white space aside."""
    return {_plain(item.prompt): item for item in items}


def starter_items() -> list[SuiteItem]:
    """All instructions of the starter that have checks: held-out ones, and those it is tuned on."""
    return [*load_suite(STARTER), *load_suite(STARTER_TRAINING)]


def item_of(pair: Pair, items: Mapping[str, SuiteItem]) -> SuiteItem | None:
    """The item that a pair's prompt asks; None where it is of no suite, or a later turn."""
    if sum(message["role"] == "user" for message in pair.prompt) != 1:
        return None
    return items.get(_plain(str(pair.prompt[-1]["content"])))


def without_noise(pairs: Sequence[Pair], items: Mapping[str, SuiteItem]) -> list[int]:
    """For each pair 1 where the verifiers agree with the vote, -1 where they say the opposite.

    0 where both answers pass, neither does, or the prompt is of no suite.
    """
    found = []
    for pair in pairs:
        item = item_of(pair, items)
        word = verdict(item, text_of(pair.chosen), text_of(pair.rejected)) if item else ""
        found.append({WINNERS[0]: 1, WINNERS[1]: -1}.get(word, 0))
    return found


def relabelled(pairs: Sequence[Pair], items: Mapping[str, SuiteItem]) -> list[Pair]:
    """The pairs that the verifiers decide, as they decide them."""
    made = []
    for pair, sign in zip(pairs, without_noise(pairs, items), strict=True):
        if sign < 0:
            models, ratings = pair.models[::-1], pair.ratings[::-1]
            pair = replace(pair, chosen=pair.rejected, rejected=pair.chosen)
            pair = replace(pair, models=models, ratings=ratings)
        if sign:
            made.append(pair)
    return made


def kinds_of(pairs: Sequence[Pair], items: Mapping[str, SuiteItem]) -> list[str]:
    """What is wrong with the worse answer of each pair, as the verifiers see it.

    Of a vote that they contradict the worse answer is the chosen one.
    """
    found = []
    for pair, sign in zip(pairs, without_noise(pairs, items), strict=True):
        item = item_of(pair, items)
        if item is None:
            found.append(UNKNOWN)
        else:
            found.append(kind_of_error(item, text_of(pair.chosen if sign < 0 else pair.rejected)))
    return found


def kind_of_error(item: SuiteItem, answer: str) -> str:
    """form, wrong fact, wrong sum or other question; `right` where nothing is wrong.

    An answer that has none of the names and numbers of the prompt, or where it has none, none of
    its telling words, is one to another question. One with the right fact in the wrong shape is
    wrong in form, as is one that breaks a rule of form.
    """
    check: Any = item.check
    if check.passes(answer):
        return RIGHT
    asked, said = _names(item.prompt) or _telling(item.prompt), {*lower_words(answer)}
    wanted = {word for text in getattr(check, "answers", ()) for word in lower_words(text)}
    if len(said) > SHORT and asked and not said & (asked | wanted):
        return OTHER
    if check.kind == "number":
        return SUM if re.search(r"[0-9]", answer) else FORM
    if check.kind == "exact" and len(said) <= SHORT:
        return FACT  # it is one word, or nearly, and another one
    if check.kind == "fact":
        return FORM if any(has_phrase(answer, text) for text in check.answers) else FACT
    return FORM


def _names(prompt: str) -> set[str]:
    """Numbers, and words with a capital that begin no sentence."""
    found = re.findall(r"(?<![.!?:] )(?<!^)\b(?:[A-Z]\w+|[0-9]+)|[0-9]+", prompt)
    return {word.lower() for word in found}


def _telling(text: str) -> set[str]:
    """Words that say what a text is about: longer ones, but for those that any question has."""
    return {word for word in lower_words(text) if len(word) > SHORT} - ASKING


def _plain(text: str) -> str:
    return " ".join(text.split())
