"""What preference training learns from: pairs, single labelled answers, ties; and their ledger.

Messages are those of `tuning.data.fields`. Knows no file, no token and no objective.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tuning.data.fields import Message
from tuning.data.folders import DataError
from tuning.data.ledger import SHOWN, BadRow, Tally

USED, HELD_OUT = "used", "held out"
TIE, BOTH_BAD = "tie", "both bad"
IDENTICAL, IDENTICAL_ONCE_CUT = "identical", "identical once cut"
TOO_LONG, PROMPT_TOO_LONG = "too long", "prompt too long"
PROMPT_DIFFERS, DUPLICATE, EMPTY = "prompt differs", "duplicate", "empty answer"
SPECIAL, REFUSED = "special token in a text", "refused by the chat template"
SEVERAL_TURNS = "answer of several turns"
HUMAN = "human edit"
"""Who wrote an answer that a voter made better."""


@dataclass(frozen=True)
class Origin:
    """Where a judgement stands and whose it is: row id and voter are None where nobody says."""

    source: str
    line: int
    row: str | None = None
    voter: str | None = None

    def __str__(self) -> str:
        return f"{self.source}:{self.line}"


@dataclass(frozen=True)
class Pair:
    """Two answers to one prompt, the first of which was preferred.

    `prompt`, `chosen` and `rejected` are messages; an answer starts with the assistant.
    `strength` is by how much, 1 in full, and None where the row does not say. `weight` is how many
    votes it counts for: a ranking of k answers makes k(k-1)/2 pairs of weight 2/k. `models` and
    `ratings` are those of the chosen and the rejected answer.
    """

    prompt: tuple[Message, ...]
    chosen: tuple[Message, ...]
    rejected: tuple[Message, ...]
    origin: Origin
    strength: float | None = None
    weight: float = 1.0
    models: tuple[str | None, str | None] = (None, None)
    ratings: tuple[float | None, float | None] = (None, None)

    @property
    def same_model(self) -> bool:
        """Whether one and the same model wrote both."""
        return self.models[0] is not None and self.models[0] == self.models[1]


@dataclass(frozen=True)
class Tie:
    """Two answers to one prompt that were called equally good, or both bad."""

    prompt: tuple[Message, ...]
    first: tuple[Message, ...]
    second: tuple[Message, ...]
    origin: Origin
    both_bad: bool = False
    weight: float = 1.0
    models: tuple[str | None, str | None] = (None, None)


@dataclass(frozen=True)
class Labelled:
    """One answer that was called good (`label` true) or bad, as KTO learns from."""

    prompt: tuple[Message, ...]
    completion: tuple[Message, ...]
    label: bool
    origin: Origin
    weight: float = 1.0
    model: str | None = None


Lesson = Pair | Tie | Labelled


@dataclass
class PreferenceLedger:
    """What became of every row, and of every pair, tie and label that the rows made."""

    rows_read: int = 0
    bad_rows: list[BadRow] = field(default_factory=list)
    read: Counter[str] = field(default_factory=Counter)
    """What the rows made: pairs, ties, both bad, labels."""
    left_out: Counter[str] = field(default_factory=Counter)
    """Of those, what is not learned from, by reason."""
    heldout: int = 0
    """Of those, what is held out."""
    exported: Counter[str] = field(default_factory=Counter)
    """Judged pairs that an export of an arena left out before, by its reason."""
    tally: Tally = field(default_factory=Tally)

    @property
    def used(self) -> int:
        """What is left to train on."""
        return self.read.total() - self.left_out.total() - self.heldout

    def check(self) -> None:
        """Nothing is left out that was never read."""
        assert self.used >= 0, (self.read, self.left_out, self.heldout)

    def to_json(self) -> dict[str, Any]:
        """For `variant.json`; the first hundred bad rows are listed, all are counted."""
        return {
            "rows": {"read": self.rows_read, "bad": len(self.bad_rows)},
            "read": dict(self.read),
            "used": self.used,
            "heldout": self.heldout,
            "left_out": dict(sorted(self.left_out.items())),
            "left_out_by_the_export": dict(sorted(self.exported.items())),
            **self.tally.to_json(),
            "bad_rows": [str(row) for row in self.bad_rows[:100]],
        }

    def lines(self) -> list[str]:
        """What a person reads before training starts."""
        made = ", ".join(f"{count:,} {what}" for what, count in self.read.items()) or "nothing"
        left = "".join(f", {count:,} {why}" for why, count in sorted(self.left_out.items()))
        found = [
            f"preferences: {self.rows_read:,} rows read, {len(self.bad_rows):,} bad; they make "
            f"{made}",
            f"of these: {self.used:,} to train on, {self.heldout:,} held out{left}",
        ]
        if self.exported:
            told = ", ".join(f"{why} {count:,}" for why, count in sorted(self.exported.items()))
            found.append(f"left out by the export before: {told}")
        found += self.tally.lines()
        more = len(self.bad_rows) - SHOWN
        found += [f"left out {row}" for row in self.bad_rows[:SHOWN]]
        return [*found, *([f"left out {more:,} more"] if more > 0 else [])]


@dataclass(frozen=True)
class Preferences:
    """All that was read: pairs, ties, single answers with labels, and what became of the rest.

    Both-bad votes are among the ties; `labels` turns every judgement into labelled answers.
    """

    pairs: tuple[Pair, ...] = ()
    ties: tuple[Tie, ...] = ()
    labelled: tuple[Labelled, ...] = ()
    ledger: PreferenceLedger = field(default_factory=PreferenceLedger)

    def __len__(self) -> int:
        return len(self.pairs) + len(self.ties) + len(self.labelled)

    @property
    def lessons(self) -> tuple[Lesson, ...]:
        """All of them, pairs first."""
        return (*self.pairs, *self.ties, *self.labelled)

    def labels(self) -> tuple[Labelled, ...]:
        """Every answer that a judgement calls good or bad: the unpaired view, for KTO.

        A tie calls both answers good, a both-bad vote both bad. Of a ranking the first are good,
        the last bad, and those between neither. A better answer that a voter wrote is good, and
        says nothing new of the others. Each counts for one vote at most.
        """
        found: dict[tuple[object, ...], list[Labelled]] = {}
        compared: tuple[Pair | Tie, ...] = (*self.pairs, *self.ties)
        for lesson in compared:
            for made in _labels_of(lesson):
                origin = made.origin
                vote = (origin.source, origin.row or origin.line, origin.voter)
                words = tuple(text_of(part) for part in (made.prompt, made.completion))
                found.setdefault((*vote, *words), []).append(made)
        single = [
            replace(same[0], weight=min(1.0, sum(one.weight for one in same)))
            for same in found.values()
            if len({one.label for one in same}) == 1
        ]
        return (*self.labelled, *single)

    def require_pairs(self) -> None:
        """DataError where no pair says which answer is better, with what there is instead."""
        if not self.pairs:
            raise DataError(f"data: no pair of a better and a worse answer ({self._why()}); {MORE}")

    def require_labels(self) -> None:
        """DataError where not both good and bad answers are there."""
        classes = {item.label for item in self.labels()}
        if len(classes) < 2:
            only = f"all are {'good' if True in classes else 'bad'}" if classes else self._why()
            raise DataError(f"data: KTO needs good and bad answers, but {only}; add the other kind")

    def require_strength(self) -> None:
        """DataError where some pairs say by how much one is better and some do not."""
        missing = [pair for pair in self.pairs if pair.strength is None]
        if missing:
            raise DataError(
                f"data: {len(missing):,} of {len(self.pairs):,} pairs do not say by how much the "
                f"chosen answer is better ({missing[0].origin}); give all a margin, or train "
                "without strength"
            )

    def _why(self) -> str:
        parts = [f"{count:,} {what}" for what, count in self.ledger.read.items()]
        parts += [f"{count:,} left out: {why}" for why, count in self.ledger.left_out.items()]
        if self.ledger.bad_rows:
            parts.append(
                f"{len(self.ledger.bad_rows):,} bad, the first is {self.ledger.bad_rows[0]}"
            )
        return ", ".join(parts) or "nothing was read"


def _labels_of(lesson: Pair | Tie) -> Iterator[Labelled]:
    if isinstance(lesson, Pair):
        answers, labels = (lesson.chosen, lesson.rejected), (True, False)
    else:
        answers, labels = (lesson.first, lesson.second), (not lesson.both_bad,) * 2
    of_human = lesson.models[0] == HUMAN
    for answer, label, model in zip(answers, labels, lesson.models, strict=True):
        if label or not of_human:
            yield Labelled(lesson.prompt, answer, label, lesson.origin, lesson.weight, model)


MORE = "collect votes for one side or the other, or give other data"


def text_of(messages: Sequence[Message]) -> str:
    """The words of an answer, its messages one after the other."""
    return "\n".join(message["content"] for message in messages)


def count_kinds(lessons: Iterable[Lesson]) -> Counter[str]:
    """How many of each kind, as the ledger names them."""
    return Counter(
        "pairs"
        if isinstance(lesson, Pair)
        else "labels"
        if isinstance(lesson, Labelled)
        else "both bad"
        if lesson.both_bad
        else "ties"
        for lesson in lessons
    )
