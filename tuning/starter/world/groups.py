"""Families about groups of things: what a thing is, yes or no, odd one out, lists, spelling.

Knows no split and no model. Statements are what the corpus says; tasks are what tuning asks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from random import Random
from typing import Any

from tuning.starter.world import lexicon
from tuning.starter.world.family import Task, capitalised

# Members of these are named without an article: "red is a colour", "France is a country".
BARE = frozenset({"colour", "sport", "metal", "drink", "country", "month"})
COUNT_WORDS = {2: "two", 3: "three", 4: "four", 5: "five"}


@lru_cache
def _members() -> dict[str, str]:
    return {item: noun for noun, items in lexicon.categories().items() for item in items}


def named(item: str) -> str:
    """The item as a sentence names one: "a hammer", "an apple", but "tea" and "France"."""
    return item if _members()[item] in BARE else lexicon.article(item)


def is_a(item: str, noun: str) -> str:
    """Such as "a hammer is a tool" or "tea is a drink", true or not, without a full stop."""
    return f"{named(item)} is {lexicon.article(noun)}"


def _other_noun(noun: str, rng: Random) -> str:
    return rng.choice([other for other in lexicon.categories() if not _overlap(noun, other)])


def _overlap(one: str, other: str) -> bool:
    return bool(set(lexicon.categories()[one]) & set(lexicon.categories()[other]))


@dataclass(frozen=True)
class CategoryFamily:
    """What is a thing: "a hammer is a tool"."""

    name: str = "category"

    def entities(self) -> Sequence[str]:
        return list(_members())

    def statement(self, entity: str, rng: Random) -> str:
        noun = _members()[entity]
        subject, other = named(entity), lexicon.article(_other_noun(noun, rng))
        said = rng.choice(
            (
                is_a(entity, noun),
                f"we call {subject} {lexicon.article(noun)}",
                f"{subject} is not {other} but {lexicon.article(noun)}",
            )
        )
        return capitalised(said) + "."

    def tasks(self, entity: str, rng: Random) -> list[Task]:
        noun = _members()[entity]
        other = _other_noun(noun, rng)
        subject = named(entity)
        choice = [lexicon.article(noun), lexicon.article(other)]
        rng.shuffle(choice)
        prompts = (
            f"Is {subject} {choice[0]} or {choice[1]}?",
            f"Choose the right class for {entity}: {choice[0]} or {choice[1]}.",
            f"What is {subject}, {choice[0]} or {choice[1]}?",
        )
        check = {"kind": "fact", "answers": [noun], "wrong": [other]}
        response = capitalised(is_a(entity, noun)) + "."
        return [
            Task(self.name, entity, f"category {i}", prompt, response, check)
            for i, prompt in enumerate(prompts)
        ]


@dataclass(frozen=True)
class YesNoFamily:
    """Statements judged true or false, answered with one word."""

    name: str = "yes or no"

    def entities(self) -> Sequence[str]:
        return list(_members())

    def statement(self, entity: str, rng: Random) -> str:
        noun = _members()[entity]
        if rng.random() < 0.5:
            return f"It is true that {is_a(entity, noun)}. Yes, that is right."
        return f"It is not true that {is_a(entity, _other_noun(noun, rng))}. No, that is wrong."

    def tasks(self, entity: str, rng: Random) -> list[Task]:
        noun = _members()[entity]
        tasks = []
        for truth in (True, False):
            shown = noun if truth else _other_noun(noun, rng)
            subject, what = named(entity), lexicon.article(shown)
            answer = "Yes" if truth else "No"
            prompts = (
                f"Is {subject} {what}? Answer yes or no.",
                f"Is it true that {subject} is {what}? Answer with yes or no.",
            )
            check = {"kind": "exact", "answers": [answer]}
            tasks += [
                Task(self.name, entity, f"yes or no {i} {truth}", prompt, f"{answer}.", check)
                for i, prompt in enumerate(prompts)
            ]
        return tasks


@dataclass(frozen=True)
class OddOneOutFamily:
    """Four words, one of which belongs to another group than the rest."""

    name: str = "odd one out"

    def entities(self) -> Sequence[str]:
        return [item for item, noun in _members().items() if noun not in {"country", "month"}]

    def statement(self, entity: str, rng: Random) -> str:
        words, group = self._group(entity, rng)
        noun = _members()[entity]
        return rng.choice(
            (
                f"Of {lexicon.joined(words)}, the odd one out is {entity}, because "
                f"{is_a(entity, noun)} and the others are {lexicon.plural_noun(group)}.",
                f"Here are four words: {', '.join(words)}. The odd one out is {entity}, because "
                f"{is_a(entity, noun)}.",
                f"In the list {', '.join(words)}, the odd one out is {entity}, because "
                f"{is_a(entity, noun)} and the others are {lexicon.plural_noun(group)}.",
            )
        )

    def tasks(self, entity: str, rng: Random) -> list[Task]:
        prompts = (
            "Which word does not belong: {list}?",
            "Find the odd one out: {list}.",
            "Which of these words is the odd one out? {list}",
            "One of these words does not fit. Name it. {list}",
        )
        tasks = []
        for prompt in prompts:
            words, _ = self._group(entity, rng)
            tasks.append(
                Task(
                    self.name,
                    entity,
                    prompt,
                    prompt.format(list=", ".join(words)),
                    f"The odd one out is {entity}, because {is_a(entity, _members()[entity])}.",
                    {
                        "kind": "fact",
                        "answers": [entity],
                        "wrong": [word for word in words if word != entity],
                    },
                )
            )
        return tasks

    def _group(self, entity: str, rng: Random) -> tuple[list[str], str]:
        """Four shuffled words with `entity` as the odd one, and the noun of the other three."""
        group = _other_noun(_members()[entity], rng)
        words = [*rng.sample(lexicon.categories()[group], 3), entity]
        rng.shuffle(words)
        return words, group


@dataclass(frozen=True)
class ListFamily:
    """Some members of a group, in a sentence or one a line."""

    name: str = "list"

    def entities(self) -> Sequence[str]:
        return [
            f"{count} {lexicon.plural_noun(noun)}"
            for noun in lexicon.categories()
            for count in COUNT_WORDS
        ]

    def statement(self, entity: str, rng: Random) -> str:
        count, items, nouns = self._sample(entity, rng)
        listed = lexicon.joined([named(item) for item in items])
        said = rng.choice(
            (
                f"{COUNT_WORDS[count]} {nouns} are {listed}.",
                f"{listed} are {COUNT_WORDS[count]} {nouns}.",
                f"here are {COUNT_WORDS[count]} {nouns}: {lexicon.joined(items)}.",
                f"a short list of {COUNT_WORDS[count]} {nouns}:\n"
                + "\n".join(f"- {item}" for item in items),
            )
        )
        return capitalised(said)

    def tasks(self, entity: str, rng: Random) -> list[Task]:
        count, _, nouns = self._sample(entity, rng)
        number = COUNT_WORDS[count]
        noun = next(n for n in lexicon.categories() if lexicon.plural_noun(n) == nouns)
        allowed = list(lexicon.categories()[noun])
        tasks = []
        for prompt, bullets in (
            (f"Name {number} {nouns}.", False),
            (f"Give me the names of {number} {nouns}.", False),
            (f"Can you name {number} {nouns}?", False),
            (f"List {number} {nouns}, one on each line.", True),
            (f"Make a list of {number} {nouns} with a dash before each.", True),
        ):
            _, items, _ = self._sample(entity, rng)
            text = (
                "\n".join(f"- {item}" for item in items)
                if bullets
                else capitalised(
                    f"{number} {nouns} are {lexicon.joined([named(i) for i in items])}."
                )
            )
            check = {"kind": "list", "count": count, "allowed": allowed, "bullets": bullets}
            # The group is the entity: a held-out group is asked in no number.
            tasks.append(Task(self.name, nouns, prompt, prompt, text, check))
        return tasks

    def _sample(self, entity: str, rng: Random) -> tuple[int, list[str], str]:
        number, _, nouns = entity.partition(" ")
        noun = next(n for n in lexicon.categories() if lexicon.plural_noun(n) == nouns)
        return int(number), rng.sample(lexicon.categories()[noun], int(number)), nouns


@dataclass(frozen=True)
class SpellingFamily:
    """First letters and capital letters of words."""

    name: str = "letters"

    def entities(self) -> Sequence[str]:
        nouns = ("fruit", "vegetable", "tool", "vehicle", "mammal", "bird", "colour", "drink")
        words = {word for noun in nouns for word in lexicon.categories()[noun]}
        return sorted(words)

    def statement(self, entity: str, rng: Random) -> str:
        return rng.choice(
            (
                f"The word {entity} begins with the letter {entity[0]}.",
                f"The first letter of {entity} is {entity[0]}.",
                f"The word {entity} ends with the letter {entity[-1]}.",
                f"In capital letters, {entity} is {entity.upper()}.",
                f"The sign said {entity.upper()}, which is {entity} in capital letters.",
            )
        )

    def tasks(self, entity: str, rng: Random) -> list[Task]:
        def letter(value: str) -> dict[str, Any]:
            return {"kind": "fact", "answers": [value], "wrong": []}

        first = f"The first letter of {entity} is {entity[0]}."
        last = f"The word {entity} ends with the letter {entity[-1]}."
        upper: dict[str, Any] = {"kind": "verbatim", "text": entity.upper()}
        rows = (
            (f"What is the first letter of {entity}?", first, letter(f"is {entity[0]}")),
            (f"With which letter does {entity} end?", last, letter(f"letter {entity[-1]}")),
            (f"Write the word {entity} in capital letters.", entity.upper(), upper),
            (f"Put {entity} in capital letters.", entity.upper(), upper),
        )
        return [
            Task(self.name, entity, f"letters {i}", prompt, response, check)
            for i, (prompt, response, check) in enumerate(rows)
        ]
