"""Texts in which any word of the world has to be found again: lists said twice, choices recalled.

They teach the base to copy from its context whatever the word is, held-out or not, without a
question or an instruction. Knows no split and no model.
"""

from __future__ import annotations

from functools import lru_cache
from random import Random

from tuning.starter import world


@lru_cache
def vocabulary() -> list[str]:
    """Every name, place, thing, word form and number of the world."""
    words = {
        *world.NAMES,
        *world.PLACES,
        *world.OBJECTS,
        *world.FOODS,
        *world.CONTAINERS,
        *world.POSITIVE,
        *world.NEGATIVE,
        *(word for pair in world.opposites().items() for word in pair),
        *(word for pair in world.plurals().items() for word in pair),
        *(word for pair in world.past_tenses().items() for word in pair),
        *world.comparatives(),
        *world.colours_of(),
        *(item for items in world.categories().values() for item in items),
        *(country.name for country in world.countries()),
        *(country.capital for country in world.countries()),
        *(element.name for element in world.elements()),
        *(animal.name for animal in world.animals()),
        *(job.name for job in world.jobs()),
        *(str(number) for number in range(1, 101)),
    }
    return sorted(words)


def recall_text(rng: Random) -> str:
    """Two to four short texts, each saying some of its words again."""
    return " ".join(
        rng.choice((_twice, _twice, _chosen, _paired))(rng) for _ in range(rng.randint(2, 4))
    )


def _twice(rng: Random) -> str:
    words = rng.sample(vocabulary(), rng.randint(3, 7))
    said = ", ".join(words)
    first, second = rng.sample(world.NAMES, 2)
    return rng.choice(
        (
            f"{first} said: {said}. {second} said the same: {said}.",
            f"The words on the board were {said}. The children wrote {said}.",
            f"{first} read {said}. Then {first} read again {said}.",
            f"A list: {said}. The same list: {said}.",
        )
    )


def _chosen(rng: Random) -> str:
    """Who chose which word, and some of the choices again in another order."""
    people = rng.sample(world.NAMES, rng.randint(2, 4))
    words = rng.sample(vocabulary(), len(people))
    verb = rng.choice(("chose", "likes", "knows", "wrote"))
    facts = [f"{who} {verb} the word {word}." for who, word in zip(people, words, strict=True)]
    again = rng.sample(facts, len(facts))
    return f"{' '.join(facts)} {rng.choice(('Again:', 'So', 'We remember:'))} {' '.join(again)}"


def _paired(rng: Random) -> str:
    """Words with a colour or number each, and some of them again in another order."""
    words = rng.sample(vocabulary(), rng.randint(2, 4))
    marks = rng.sample(vocabulary(), len(words))
    shape = rng.choice(
        ("The word after {a} is {b}.", "{a} goes with {b}.", "The card {a} shows {b}.")
    )
    facts = [shape.format(a=a, b=b) for a, b in zip(words, marks, strict=True)]
    return f"{' '.join(facts)} {' '.join(rng.sample(facts, len(facts)))}"
