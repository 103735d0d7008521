"""What an instruction family is, and the table-driven kind: facts with their ways of being said.

A family offers statements for the corpus (never an answered question) and tasks for tuning and
evaluation. Knows neither how the corpus mixes families nor how the held-out split is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Protocol


@dataclass(frozen=True)
class Task:
    """One instruction with its reference response and its check.

    `entity` is what the task is about: held-out entities never occur in tuning.
    """

    family: str
    entity: str
    phrasing: str
    prompt: str
    response: str
    check: dict[str, Any]


class Family(Protocol):
    """A kind of instruction over a set of entities."""

    @property
    def name(self) -> str: ...

    def entities(self) -> Sequence[str]:
        """Everything the family can ask about."""
        ...

    def statement(self, entity: str, rng: Random) -> str:
        """A true text about the entity, for the corpus; holds no question."""
        ...

    def tasks(self, entity: str, rng: Random) -> list[Task]:
        """Instructions about the entity; `rng` fills what the entity leaves open."""
        ...


@dataclass(frozen=True)
class Ask:
    """One relation: how it is stated, asked and answered; `{slots}` come from the fact.

    `answer` names the slot that holds the answer. With `one_word`, the format family asks it too.
    """

    statements: tuple[str, ...]
    questions: tuple[str, ...]
    response: str
    answer: str
    one_word: bool = False
    number: bool = False


@dataclass(frozen=True, eq=False)
class FactFamily:
    """A family whose entities are rows of a table and whose relations are templates.

    Rows that give each other away (hot and cold) share a `group`, which is the tasks' entity.
    """

    name: str
    facts: dict[str, dict[str, str]]
    asks: tuple[Ask, ...]

    def entities(self) -> Sequence[str]:
        """The subjects of the table."""
        return list(self.facts)

    def statement(self, entity: str, rng: Random) -> str:
        """One sentence of a random relation about the entity."""
        ask = rng.choice(self.asks)
        return capitalised(rng.choice(ask.statements).format(**self.facts[entity]))

    def tasks(self, entity: str, rng: Random) -> list[Task]:
        """Every phrasing of every relation about the entity."""
        slots = self.facts[entity]
        return [
            Task(
                self.name,
                slots.get("group", entity),
                question,
                capitalised(question.format(**slots)),
                capitalised(ask.response.format(**slots)),
                self.check(ask, slots),
            )
            for ask in self.asks
            for question in ask.questions
        ]

    def check(self, ask: Ask, slots: dict[str, str]) -> dict[str, Any]:
        """The check of an answer: a number, or the right value and none of the wrong ones."""
        answer = slots[ask.answer]
        if ask.number:
            return {"kind": "number", "value": int(answer)}
        others = sorted({row[ask.answer] for row in self.facts.values()} - {answer})
        given = set(slots.values())
        return {
            "kind": "fact",
            "answers": [answer],
            "wrong": [other for other in others if other not in given],
        }


def capitalised(text: str) -> str:
    """The text with its first letter in upper case."""
    return text[:1].upper() + text[1:]
