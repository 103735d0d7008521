"""Exchanges as prose and print hold them: somebody asks, somebody answers; and printed cards.

People in books, plays and quizzes answer each other, so the corpus has such documents, though none
of them asks about a held-out entity, and none begins with a bare instruction: a document that does
is a sheet, which asks on. Knows no model and no chat template.
"""

from __future__ import annotations

from functools import lru_cache
from random import Random

from tuning.starter.world import lexicon
from tuning.starter.world.facts import fact_families
from tuning.starter.world.family import FactFamily, Family, Task
from tuning.starter.world.instructions import families, is_heldout

# Share of each family among the exchanges: those that need the words of the prompt get more.
ASKED = {
    "reading": 4.0,
    "one word": 3.0,
    "list": 3.0,
    "odd one out": 3.0,
    "yes or no": 3.0,
    "letters": 2.0,
    "job": 2.0,
    "category": 2.0,
    "number order": 1.5,
    "capital": 1.5,
    "continent": 1.5,
    "language": 1.5,
    "animal": 1.5,
    "element": 1.5,
    "story": 1.5,
}
MAX_EXCHANGES = 6
MAX_WORDS = 110  # of a document's exchanges together, so that a document fits the context
QUOTED = (
    '{first} asked: "{prompt}" {second} answered: "{response}"',
    '"{prompt}" asked {first}. "{response}" said {second}.',
    '{first} said to {second}: "{prompt}" And {second} said: "{response}"',
    '{second} heard the words "{prompt}" and replied "{response}"',
    'In the class, {first} read aloud: "{prompt}" Then {second} wrote: "{response}"',
)
SPOKEN = ("{first}: {prompt}\n{second}: {response}", "{first} - {prompt}\n{second} - {response}")
ROLES = (
    ("Teacher", "Child"),
    ("Guest", "Guide"),
    ("Child", "Mother"),
    ("Visitor", "Librarian"),
    ("Host", "Player"),
)


@lru_cache
def _pool() -> tuple[list[Family], list[float]]:
    pool = list(families())
    return pool, [ASKED.get(family.name, 1.0) for family in pool]


@lru_cache
def _entities(name: str) -> list[str]:
    return next(list(family.entities()) for family in families() if family.name == name)


def open_tasks(rng: Random) -> list[Task]:
    """One to six tasks with short texts, none about a held-out entity; a half asks of one kind."""
    pool, weights = _pool()
    only = rng.choices(pool, weights)[0] if rng.random() < 0.5 else None
    wanted, words, found = rng.randint(1, MAX_EXCHANGES), 0, list[Task]()
    while len(found) < wanted:
        family = only or rng.choices(pool, weights)[0]
        tasks = family.tasks(rng.choice(_entities(family.name)), rng)
        tasks = [task for task in tasks if not is_heldout(task.entity)]
        if not tasks:
            continue
        task = rng.choice(tasks)
        words += len(f"{task.prompt} {task.response}".split())
        if found and words > MAX_WORDS:
            break
        found.append(task)
    return found


def dialogue_text(rng: Random) -> str:
    """A document of exchanges in one form: quoted in prose, or as a play prints them."""
    tasks = open_tasks(rng)
    people = rng.sample(lexicon.NAMES, 2)
    if rng.random() < 0.6:
        frame, parting = rng.choice(QUOTED), rng.choice((" ", "\n"))
    else:
        frame, parting = rng.choice(SPOKEN), "\n"
        if rng.random() < 0.5:
            people = list(rng.choice(ROLES))
    first, second = people
    return parting.join(
        frame.format(first=first, second=second, prompt=task.prompt, response=task.response)
        for task in tasks
    )


def cards_text(rng: Random) -> str:
    """Facts as flash cards and tables print them: `Cuba: Havana`, one a line."""
    family = rng.choice(_card_families())
    ask = rng.choice([ask for ask in family.asks if ask.one_word])
    subjects = rng.sample(list(family.facts), rng.randint(4, 10))
    mark = rng.choice((": ", " - ", ", ", " = "))
    lines = [f"{subject}{mark}{family.facts[subject][ask.answer]}" for subject in subjects]
    title = rng.choice((f"Cards: {family.name}", f"A table ({family.name})", ""))
    return "\n".join([title, *lines] if title else lines)


@lru_cache
def _card_families() -> tuple[FactFamily, ...]:
    return tuple(f for f in fact_families() if any(ask.one_word for ask in f.asks))
