"""Families over texts: reading a passage, judging a review, repeating, stories, notes.

The entity of a task is a word it is built around (a name, an adjective); the rest is drawn at
random. Knows no split and no model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from tuning.starter.world import lexicon
from tuning.starter.world.family import Task

COLOURS = ("red", "blue", "green", "yellow", "black", "white", "brown", "purple", "pink", "grey")


@dataclass(frozen=True)
class Passage:
    """A short text, a fact in it said again, and questions whose answer that fact is."""

    text: str
    recap: str
    questions: tuple[str, ...]
    answer: str
    wrong: tuple[str, ...]


@dataclass(frozen=True)
class ReadingFamily:
    """Questions about a passage that stands in the prompt."""

    name: str = "reading"

    def entities(self) -> Sequence[str]:
        return lexicon.NAMES

    def statement(self, entity: str, rng: Random) -> str:
        passage = _passage(entity, rng)
        link = rng.choice(("", "So ", "Remember: ", "In short: ", "As we have read, "))
        recap = passage.recap
        if link and recap.startswith("The "):
            recap = recap[0].lower() + recap[1:]
        return f"{passage.text} {link}{recap}"

    def tasks(self, entity: str, rng: Random) -> list[Task]:
        tasks = []
        for number, frame in enumerate(
            (
                "{text} {question}",
                "Read the text and answer the question. {text} {question}",
                "{question} Look at this text: {text}",
            )
        ):
            passage = _passage(entity, rng)
            tasks.append(
                Task(
                    self.name,
                    entity,
                    f"reading {number}",
                    frame.format(text=passage.text, question=rng.choice(passage.questions)),
                    passage.recap,
                    {"kind": "fact", "answers": [passage.answer], "wrong": list(passage.wrong)},
                )
            )
        return tasks


def _passage(name: str, rng: Random) -> Passage:
    """A passage in which `name` and two others do something, with one fact picked."""
    others = rng.sample([other for other in lexicon.NAMES if other != name], 2)
    people = [name, *others]
    rng.shuffle(people)
    return rng.choice((_putting, _going, _having, _buying, _colours, _days))(name, people, rng)


def _putting(name: str, people: list[str], rng: Random) -> Passage:
    things, boxes = rng.sample(lexicon.OBJECTS, 3), rng.sample(lexicon.CONTAINERS, 3)
    text = " ".join(
        f"{who} put the {thing} in the {box}."
        for who, thing, box in zip(people, things, boxes, strict=True)
    )
    i = rng.randrange(3)
    return Passage(
        text,
        f"The {things[i]} is in the {boxes[i]}.",
        (f"Where is the {things[i]}?", f"In what is the {things[i]}?"),
        boxes[i],
        tuple(box for box in boxes if box != boxes[i]),
    )


def _going(name: str, people: list[str], rng: Random) -> Passage:
    places = rng.sample(lexicon.PLACES, 3)
    verbs = [rng.choice(("went", "walked", "ran")) for _ in people]
    text = " ".join(
        f"{who} {verb} to the {place}."
        for who, verb, place in zip(people, verbs, places, strict=True)
    )
    i = people.index(name)
    return Passage(
        text,
        f"{name} is at the {places[i]}.",
        (f"Where is {name}?", f"Where did {name} go?"),
        places[i],
        tuple(place for place in places if place != places[i]),
    )


def _having(name: str, people: list[str], rng: Random) -> Passage:
    things = rng.sample(lexicon.OBJECTS, 3)
    verb = rng.choice(("has", "found", "holds"))
    text = " ".join(
        f"{who} {verb} {lexicon.article(thing)}." for who, thing in zip(people, things, strict=True)
    )
    i = people.index(name)
    return Passage(
        text,
        f"{name} {verb} the {things[i]}.",
        (f"Who {verb} the {things[i]}?", f"Which person {verb} the {things[i]}?"),
        name,
        tuple(other for other in people if other != name),
    )


def _buying(name: str, people: list[str], rng: Random) -> Passage:
    foods = rng.sample(lexicon.FOODS, 3)
    verb, base = rng.choice((("bought", "buy"), ("ate", "eat"), ("made", "make")))
    text = " ".join(f"{who} {verb} the {food}." for who, food in zip(people, foods, strict=True))
    i = people.index(name)
    return Passage(
        text,
        f"{name} {verb} the {foods[i]}.",
        (f"What did {name} {base}?", f"Which food did {name} {base}?"),
        foods[i],
        tuple(food for food in foods if food != foods[i]),
    )


def _colours(name: str, people: list[str], rng: Random) -> Passage:
    things, colours = rng.sample(lexicon.OBJECTS, 3), rng.sample(COLOURS, 3)
    text = " ".join(
        f"{who} has a {colour} {thing}."
        for who, colour, thing in zip(people, colours, things, strict=True)
    )
    i = rng.randrange(3)
    return Passage(
        text,
        f"The {things[i]} is {colours[i]}.",
        (f"What colour is the {things[i]}?", f"Which colour does the {things[i]} have?"),
        colours[i],
        tuple(colour for colour in colours if colour != colours[i]),
    )


def _days(name: str, people: list[str], rng: Random) -> Passage:
    days, places = rng.sample(lexicon.DAYS, 3), rng.sample(lexicon.PLACES, 3)
    text = " ".join(
        f"On {day}, {who} went to the {place}."
        for who, day, place in zip(people, days, places, strict=True)
    )
    i = people.index(name)
    return Passage(
        text,
        f"{name} went to the {places[i]} on {days[i]}.",
        (f"When did {name} go to the {places[i]}?", f"On which day was {name} at the {places[i]}?"),
        days[i],
        tuple(day for day in days if day != days[i]),
    )


@dataclass(frozen=True)
class SentimentFamily:
    """Reviews judged as positive or negative."""

    name: str = "sentiment"

    def entities(self) -> Sequence[str]:
        return [*lexicon.POSITIVE, *lexicon.NEGATIVE]

    def statement(self, entity: str, rng: Random) -> str:
        review, label = self._review(entity, rng)
        said = f"{rng.choice(lexicon.NAMES)} wrote: {review}"
        return rng.choice(
            (
                f"{said} That is a {label} review.",
                f"{said} The review is {label}.",
                f"{said} It was a {label} thing to say.",
            )
        )

    def tasks(self, entity: str, rng: Random) -> list[Task]:
        frames = (
            "Is this review positive or negative? {review}",
            "{review} Is that a positive or a negative review?",
            "Say whether this review is positive or negative: {review}",
        )
        tasks = []
        for frame in frames:
            review, label = self._review(entity, rng)
            other = "negative" if label == "positive" else "positive"
            check = {"kind": "fact", "answers": [label], "wrong": [other]}
            prompt = frame.format(review=review)
            tasks.append(Task(self.name, entity, frame, prompt, f"The review is {label}.", check))
        return tasks

    def _review(self, word: str, rng: Random) -> tuple[str, str]:
        positive = word in lexicon.POSITIVE
        thing = rng.choice(lexicon.REVIEWED)
        again = (
            ("I want more of it.", "I was very happy.", "I will come again.", "Everybody smiled.")
            if positive
            else ("I want my money back.", "I was very sad.", "I will never come again.", "I left.")
        )
        first = rng.choice((f"The {thing} was {word}.", f"What a {word} {thing}!"))
        if word[0] in "aeiou":
            first = f"The {thing} was {word}."
        review = f"{first} {rng.choice(again)}" if rng.random() < 0.7 else first
        return review, "positive" if positive else "negative"


@dataclass(frozen=True)
class RepeatFamily:
    """A sentence said again, word for word."""

    name: str = "repeat"

    def entities(self) -> Sequence[str]:
        return lexicon.NAMES

    def statement(self, entity: str, rng: Random) -> str:
        sentence = _simple_sentence(entity, rng)
        first, second = rng.sample(lexicon.NAMES, 2)
        return rng.choice(
            (
                f'{first} said: "{sentence}" {second} repeated: "{sentence}"',
                f'The teacher wrote: "{sentence}" The children wrote the same: "{sentence}"',
                f'"{sentence}" said {first}. "{sentence}" said {second} as well.',
            )
        )

    def tasks(self, entity: str, rng: Random) -> list[Task]:
        frames = (
            "Repeat this sentence: {sentence}",
            "Say the same sentence again: {sentence}",
            "Copy this sentence word for word: {sentence}",
        )
        tasks = []
        for frame in frames:
            sentence = _simple_sentence(entity, rng)
            check = {"kind": "verbatim", "text": sentence}
            prompt = frame.format(sentence=sentence)
            tasks.append(Task(self.name, entity, frame, prompt, sentence, check))
        return tasks


def _simple_sentence(name: str, rng: Random) -> str:
    thing, place, food = (
        rng.choice(lexicon.OBJECTS),
        rng.choice(lexicon.PLACES),
        rng.choice(lexicon.FOODS),
    )
    colour, other = rng.choice(COLOURS), rng.choice(lexicon.NAMES)
    return rng.choice(
        (
            f"{name} found a {colour} {thing} in the {place}.",
            f"{name} and {other} ate the {food} near the {place}.",
            f"The {thing} of {name} is {colour}.",
            f"{name} gave the {thing} to {other} at the {place}.",
            f"Every {rng.choice(lexicon.DAYS)}, {name} brings the {food} to the {place}.",
            f"{other} saw {name} with a {colour} {thing}.",
        )
    )


@dataclass(frozen=True)
class NoteFamily:
    """Short notes from one person to another."""

    name: str = "note"

    def entities(self) -> Sequence[str]:
        return lexicon.NAMES

    def statement(self, entity: str, rng: Random) -> str:
        sender = rng.choice([name for name in lexicon.NAMES if name != entity])
        thing = rng.choice([*lexicon.OBJECTS, *lexicon.FOODS])
        kind = rng.choice(("thanks", "invitation"))
        if kind == "thanks":
            return (
                f"{sender} wanted to thank {entity} for the {thing} and wrote a note. "
                + _thanks(sender, entity, thing)
            )
        place, day = rng.choice(lexicon.PLACES), rng.choice(lexicon.DAYS)
        return (
            f"{sender} wanted to invite {entity} to the {place} on {day} and wrote a note. "
            + _invitation(sender, entity, place, day)
        )

    def tasks(self, entity: str, rng: Random) -> list[Task]:
        tasks = []
        for number in range(4):
            sender = rng.choice([name for name in lexicon.NAMES if name != entity])
            thing = rng.choice([*lexicon.OBJECTS, *lexicon.FOODS])
            place, day = rng.choice(lexicon.PLACES), rng.choice(lexicon.DAYS)
            if number < 2:
                prompt = (
                    f"Write a note from {sender} to thank {entity} for the {thing}.",
                    f"Write a short note for {sender} to thank {entity} for the {thing}.",
                )[number]
                text, phrases = _thanks(sender, entity, thing), ["thank", sender, entity, thing]
            else:
                prompt = (
                    f"Write a note from {sender} to invite {entity} to the {place} on {day}.",
                    f"Write a short note for {sender} to invite {entity} to the {place} on {day}.",
                )[number - 2]
                text = _invitation(sender, entity, place, day)
                phrases = [sender, entity, place, day]
            check = {"kind": "mentions", "phrases": phrases, "max_words": 40}
            tasks.append(Task(self.name, entity, f"note {number}", prompt, text, check))
        return tasks


def _thanks(sender: str, receiver: str, thing: str) -> str:
    return f"Dear {receiver}, thank you for the {thing}. I like it very much. Your friend {sender}."


def _invitation(sender: str, receiver: str, place: str, day: str) -> str:
    return (
        f"Dear {receiver}, please come to the {place} on {day}. It will be fun. "
        f"Your friend {sender}."
    )
