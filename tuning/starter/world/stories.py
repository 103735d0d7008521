"""The story family: short stories that use required words, and story documents for the corpus.

A story is a chain of sentences from small banks, each built around a person, an animal, a place
or a thing. Knows no split and no model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from tuning.starter.world import lexicon
from tuning.starter.world.family import Task

OPENINGS = (
    "One day, {name} went to the {place}.",
    "On a sunny morning, {name} walked to the {place}.",
    "{name} lived near the {place}.",
    "It was a quiet evening at the {place}, and {name} was there.",
    "Last summer, {name} spent a day at the {place}.",
    "Once upon a time, {name} came to the {place}.",
)
MEETINGS = (
    "There {name} saw a little {animal}.",
    "A {animal} came out and looked at {name}.",
    "Near the {place}, a {animal} was waiting.",
    "Suddenly a {animal} appeared.",
    "{name} heard a noise, and it was a {animal}.",
)
THINGS = (
    "The {animal} had {a_thing}.",
    "On the ground there was {a_thing}.",
    "{name} showed the {animal} {a_thing}.",
    "The {animal} was looking for {a_thing}.",
    "{name} had {a_thing} in the bag.",
)
EVENTS = (
    "{name} gave the {thing} to the {animal}.",
    "The {animal} took the {thing} and ran away.",
    "They played with the {thing} for an hour.",
    "The {animal} was afraid, but {name} was kind.",
    "Together they carried the {thing} home.",
    "{name} laughed, and the {animal} was happy too.",
    "Then it began to rain, so they hid the {thing}.",
)
ENDINGS = (
    "In the end, they became good friends.",
    "{name} went home and told everybody about the {animal}.",
    "After that day, {name} often went back to the {place}.",
    "{name} never forgot the {animal}.",
    "At night, {name} slept well and dreamed of the {thing}.",
    "And so the day at the {place} ended well.",
)
ANIMALS = lexicon.listed(
    """
dog cat horse rabbit mouse lion tiger bear wolf fox monkey duck goose swan robin parrot sheep
goat pig cow frog turtle squirrel hedgehog zebra camel penguin snake
"""
)
SNACKS = (
    "cake",
    "pizza",
    "pie",
    "pancake",
    "sandwich",
    "cookie",
    "apple",
    "banana",
    "egg",
    "melon",
)


def write_story(words: dict[str, str], rng: Random) -> str:
    """Five or six sentences about the `name`, `place`, `animal` and `thing` in `words`."""
    words = words | {"a_thing": lexicon.article(words["thing"])}
    parts = [rng.choice(OPENINGS), rng.choice(MEETINGS), rng.choice(THINGS)]
    parts += rng.sample(EVENTS, rng.choice((1, 2)))
    parts.append(rng.choice(ENDINGS))
    return " ".join(part.format(**words) for part in parts)


def _draw(rng: Random) -> dict[str, str]:
    return {
        "name": rng.choice(lexicon.NAMES),
        "animal": rng.choice(ANIMALS),
        "place": rng.choice(lexicon.PLACES),
        "thing": rng.choice([*lexicon.OBJECTS, *SNACKS]),
    }


def _with_articles(words: list[str]) -> str:
    return lexicon.joined([lexicon.article(word) for word in words])


@dataclass(frozen=True)
class StoryFamily:
    """Short stories in which three given words occur; the entity is the animal."""

    name: str = "story"

    def entities(self) -> Sequence[str]:
        return ANIMALS

    def statement(self, entity: str, rng: Random) -> str:
        words = _draw(rng) | {"animal": entity}
        story = write_story(words, rng)
        if rng.random() < 0.3:
            return story
        named = [words["animal"], words["place"], words["thing"]]
        rng.shuffle(named)
        a, b, c = named
        opening = rng.choice(
            (
                f"This is a story with the words {a}, {b} and {c}.",
                f"Here is a story about {_with_articles(named)}.",
                f"The words of this story are {a}, {b} and {c}.",
            )
        )
        return f"{opening} {story}"

    def tasks(self, entity: str, rng: Random) -> list[Task]:
        frames = (
            "Write a short story with the words {a}, {b} and {c}.",
            "Tell me a story about {all}.",
            "Use the words {a}, {b} and {c} in a short story.",
            "Invent a little story in which {all} occur.",
        )
        tasks = []
        for frame in frames:
            words = _draw(rng) | {"animal": entity}
            named = [words["animal"], words["place"], words["thing"]]
            rng.shuffle(named)
            a, b, c = named
            prompt = frame.format(a=a, b=b, c=c, all=_with_articles(named))
            story = write_story(words, rng)
            check = {"kind": "story", "words": named, "min_sentences": 3}
            tasks.append(Task(self.name, entity, frame, prompt, story, check))
        return tasks
