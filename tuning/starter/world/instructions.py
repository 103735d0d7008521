"""All instruction families, the held-out split, tuning rows and the evaluation suite.

An entity is held out for every family at once, by a hash of its name, so that no task about it is
ever tuned on. Knows no model, tokenizer or template.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from random import Random
from typing import Any

from tuning.starter.world.facts import fact_families
from tuning.starter.world.family import FactFamily, Family, Task
from tuning.starter.world.groups import (
    CategoryFamily,
    ListFamily,
    OddOneOutFamily,
    SpellingFamily,
    YesNoFamily,
)
from tuning.starter.world.stories import StoryFamily
from tuning.starter.world.texts import NoteFamily, ReadingFamily, RepeatFamily, SentimentFamily

HELDOUT_SHARE = 0.2
# Rows for tuning: families that need the prompt's wording or its text get more than facts do.
ROWS_PER_FAMILY = 200
MORE_ROWS = {
    "one word": 900,
    "reading": 800,
    "odd one out": 600,
    "yes or no": 600,
    "list": 500,
    "story": 500,
    "number order": 400,
    "category": 400,
    "repeat": 400,
    "letters": 400,
    "job": 400,
    "continent": 300,
    "language": 300,
    "capital": 320,
    "animal": 300,
}
ITEMS_PER_FAMILY = 48


@dataclass(frozen=True)
class OneWordFamily:
    """Questions of fact families whose answer must be one word and nothing else."""

    name: str = "one word"

    def entities(self) -> Sequence[str]:
        return [f"{family.name}: {entity}" for family, entity in self._facts()]

    def statement(self, entity: str, rng: Random) -> str:
        """The corpus says such facts in sentences, so this is the family's own statement."""
        family, name = self._find(entity)
        return family.statement(name, rng)

    def tasks(self, entity: str, rng: Random) -> list[Task]:
        family, name = self._find(entity)
        slots = family.facts[name]
        tasks = []
        for ask in family.asks:
            answer = slots[ask.answer]
            if not ask.one_word or " " in answer:
                continue
            question = rng.choice(ask.questions)
            for frame in (
                "{question} Answer in one word.",
                "{question} Give only one word.",
                "Answer with one word: {question}",
            ):
                tasks.append(
                    Task(
                        self.name,
                        slots.get("group", name),
                        frame,
                        frame.format(question=question.format(**slots)),
                        answer,
                        {"kind": "exact", "answers": [answer]},
                    )
                )
        return tasks

    def _facts(self) -> list[tuple[FactFamily, str]]:
        asked = [family for family in fact_families() if any(a.one_word for a in family.asks)]
        return [(family, entity) for family in asked for entity in family.entities()]

    def _find(self, entity: str) -> tuple[FactFamily, str]:
        family_name, _, name = entity.partition(": ")
        return next(f for f in fact_families() if f.name == family_name), name


@lru_cache
def families() -> tuple[Family, ...]:
    """Every family, facts first."""
    return (
        *fact_families(),
        CategoryFamily(),
        YesNoFamily(),
        OddOneOutFamily(),
        ListFamily(),
        SpellingFamily(),
        OneWordFamily(),
        SentimentFamily(),
        RepeatFamily(),
        ReadingFamily(),
        NoteFamily(),
        StoryFamily(),
    )


def is_heldout(entity: str) -> bool:
    """Whether tasks about `entity` belong to evaluation only; depends on the name alone."""
    return sha256(entity.encode()).digest()[0] < HELDOUT_SHARE * 256


def family_tasks(family: Family, *, heldout: bool, count: int, rng: Random) -> list[Task]:
    """Up to `count` different tasks of one side of the split, spread over the entities."""
    found: dict[str, Task] = {}
    rounds = 0
    while len(found) < count and rounds < 12:
        rounds += 1
        entities = list(family.entities())
        rng.shuffle(entities)
        for entity in entities:
            tasks = [t for t in family.tasks(entity, rng) if is_heldout(t.entity) == heldout]
            for task in rng.sample(tasks, min(2, len(tasks))):
                found.setdefault(task.prompt, task)
    return list(found.values())[:count]


def training_tasks(seed: int = 0) -> list[Task]:
    """Tasks for tuning, shuffled; none is about a held-out entity."""
    rng = Random(f"training {seed}")
    tasks = [
        task
        for family in families()
        for task in family_tasks(
            family,
            heldout=False,
            count=MORE_ROWS.get(family.name, ROWS_PER_FAMILY),
            rng=rng,
        )
    ]
    rng.shuffle(tasks)
    return tasks


def training_rows(seed: int = 0) -> list[dict[str, Any]]:
    """Tuning rows: `messages` (one user, one assistant turn) and the family's name."""
    return [
        {
            "messages": [
                {"role": "user", "content": task.prompt},
                {"role": "assistant", "content": task.response},
            ],
            "family": task.family,
        }
        for task in training_tasks(seed)
    ]


def heldout_tasks() -> list[Task]:
    """The tasks of the suite, in family order; the same in every run."""
    rng = Random("held-out suite")
    return [
        task
        for family in families()
        for task in family_tasks(family, heldout=True, count=ITEMS_PER_FAMILY, rng=rng)
    ]


def heldout_items() -> list[dict[str, Any]]:
    """The starter's evaluation suite, as a suite file has it: held-out instructions with checks."""
    return [
        {
            "id": f"{task.family}/{number}",
            "family": task.family,
            "prompt": task.prompt,
            "check": task.check,
        }
        for number, task in enumerate(heldout_tasks())
    ]
