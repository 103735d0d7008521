"""Texts in which any word of the world has to be found again: lists said twice, choices recalled.

They teach the base to copy from its context whatever the word is, held-out or not, without a
question or an instruction. Knows no split and no model.
"""

from __future__ import annotations

from functools import lru_cache
from random import Random

from tuning.starter.world import lexicon


@lru_cache
def vocabulary() -> list[str]:
    """Every name, place, thing, word form and number of the lexicon."""
    words = {
        *lexicon.NAMES,
        *lexicon.PLACES,
        *lexicon.OBJECTS,
        *lexicon.FOODS,
        *lexicon.CONTAINERS,
        *lexicon.POSITIVE,
        *lexicon.NEGATIVE,
        *(word for pair in lexicon.opposites().items() for word in pair),
        *(word for pair in lexicon.plurals().items() for word in pair),
        *(word for pair in lexicon.past_tenses().items() for word in pair),
        *lexicon.comparatives(),
        *lexicon.colours_of(),
        *(item for items in lexicon.categories().values() for item in items),
        *(country.name for country in lexicon.countries()),
        *(country.capital for country in lexicon.countries()),
        *(element.name for element in lexicon.elements()),
        *(animal.name for animal in lexicon.animals()),
        *(job.name for job in lexicon.jobs()),
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
    first, second = rng.sample(lexicon.NAMES, 2)
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
    people = rng.sample(lexicon.NAMES, rng.randint(2, 4))
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
