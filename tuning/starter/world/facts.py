"""Families of facts: countries, elements, animals, jobs, colours, numbers and word forms.

Data only: each family is a table of `world` with its sentences. Knows no split and no model.
"""

from __future__ import annotations

from functools import lru_cache

from tuning.starter.world import lexicon
from tuning.starter.world.family import Ask, FactFamily


@lru_cache
def fact_families() -> tuple[FactFamily, ...]:
    """All table-driven families."""
    return (*_country_families(), *_nature_families(), *_number_families(), *_word_families())


def _country_families() -> tuple[FactFamily, ...]:
    rows = {c.name: vars(c) for c in lexicon.countries()}
    capital = Ask(
        (
            "the capital of {name} is {capital}.",
            "{capital} is the capital of {name}.",
            "the capital city of {name} is {capital}.",
            "people who visit {name} like to see its capital, {capital}.",
            "the most important city of {name} is its capital, {capital}.",
        ),
        (
            "What is the capital of {name}?",
            "Name the capital of {name}.",
            "Tell me the capital city of {name}.",
            "Which city is the capital of {name}?",
            "Can you tell me what the capital of {name} is?",
        ),
        "the capital of {name} is {capital}.",
        "capital",
        one_word=True,
    )
    country_of = Ask(
        ("{capital} is a city in {name}.", "{capital} lies in {name}."),
        (
            "{capital} is the capital of which country?",
            "Which country has the capital {capital}?",
            "In which country is the city of {capital}?",
        ),
        "{capital} is the capital of {name}.",
        "name",
    )
    continent = Ask(
        (
            "{name} is a country in {continent}.",
            "{name} lies in {continent}.",
            "the country {name} is on the continent of {continent}.",
        ),
        (
            "On which continent is {name}?",
            "Which continent is {name} on?",
            "Name the continent of {name}.",
            "Where in the world is {name}?",
        ),
        "{name} is in {continent}.",
        "continent",
        one_word=True,
    )
    language = Ask(
        (
            "people in {name} speak {language}.",
            "the language of {name} is {language}.",
            "in {name}, people speak {language}.",
            "most people in {name} speak {language} at home.",
        ),
        (
            "Which language do people speak in {name}?",
            "What is the language of {name}?",
            "Name the language of {name}.",
            "What do people speak in {name}?",
        ),
        "people in {name} speak {language}.",
        "language",
        one_word=True,
    )
    return (
        FactFamily("capital", rows, (capital, country_of)),
        FactFamily("continent", rows, (continent,)),
        FactFamily("language", rows, (language,)),
    )


def _nature_families() -> tuple[FactFamily, ...]:
    elements = {e.name: vars(e) | {"number": str(e.number)} for e in lexicon.elements()}
    element = FactFamily(
        "element",
        elements,
        (
            Ask(
                (
                    "the chemical symbol of {name} is {symbol}.",
                    "{symbol} is the symbol of {name}.",
                    "chemists write {symbol} for {name}.",
                    "the symbol for the element {name} is {symbol}.",
                ),
                (
                    "What is the chemical symbol of {name}?",
                    "Which symbol do chemists use for {name}?",
                    "Give me the symbol of the element {name}.",
                    "How do chemists write {name}?",
                ),
                "the chemical symbol of {name} is {symbol}.",
                "symbol",
                one_word=True,
            ),
            Ask(
                (
                    "the atomic number of {name} is {number}.",
                    "{name} has the atomic number {number}.",
                    "the element with the atomic number {number} is {name}.",
                ),
                (
                    "What is the atomic number of {name}?",
                    "Tell me the atomic number of {name}.",
                    "Which atomic number does {name} have?",
                ),
                "the atomic number of {name} is {number}.",
                "number",
                number=True,
            ),
        ),
    )
    animals = {
        a.name: vars(a)
        | {"a_name": lexicon.article(a.name), "a_kind": lexicon.article(a.kind)}
        | {"a_young": lexicon.article(a.young), "where": lexicon.located(a.place)}
        for a in lexicon.animals()
    }
    animal = FactFamily(
        "animal",
        animals,
        (
            Ask(
                (
                    "{a_name} is {a_kind}.",
                    "the {name} is {a_kind}.",
                    "the {name} belongs to the {kind} class.",
                ),
                (
                    "What kind of animal is {a_name}?",
                    "To which class of animals does the {name} belong?",
                    "Tell me what kind of animal the {name} is.",
                ),
                "{a_name} is {a_kind}.",
                "kind",
            ),
            Ask(
                (
                    "a young {name} is called {a_young}.",
                    "{a_young} is a young {name}.",
                    "the young of the {name} is called {a_young}.",
                ),
                (
                    "What is a young {name} called?",
                    "What do you call a young {name}?",
                    "What is the word for a young {name}?",
                ),
                "a young {name} is called {a_young}.",
                "young",
            ),
            Ask(
                (
                    "the {name} lives {where}.",
                    "you can see {a_name} {where}.",
                    "the home of the {name} is the {place}.",
                ),
                (
                    "Where does the {name} live?",
                    "Where can you see {a_name}?",
                    "Where is the home of the {name}?",
                ),
                "the {name} lives {where}.",
                "place",
            ),
        ),
    )
    jobs = {
        j.name: vars(j) | {"a_name": lexicon.article(j.name), "a_place": lexicon.article(j.place)}
        for j in lexicon.jobs()
    }
    job = FactFamily(
        "job",
        jobs,
        (
            Ask(
                (
                    "{a_name} {task}.",
                    "the {name} {task} every day.",
                    "{a_name} is a person who {task}.",
                ),
                (
                    "What does {a_name} do?",
                    "What is the work of {a_name}?",
                    "Tell me what {a_name} does.",
                ),
                "{a_name} {task}.",
                "task",
            ),
            Ask(
                ("the person who {task} is {a_name}.", "somebody who {task} is {a_name}."),
                ("Who {task}?", "What do you call a person who {task}?"),
                "a person who {task} is {a_name}.",
                "name",
            ),
            Ask(
                (
                    "{a_name} works in {a_place}.",
                    "the {name} goes to work in {a_place}.",
                    "you can meet {a_name} in {a_place}.",
                ),
                (
                    "Where does {a_name} work?",
                    "In which place does {a_name} work?",
                    "Where can you meet {a_name}?",
                ),
                "{a_name} works in {a_place}.",
                "place",
            ),
        ),
    )
    things = {thing: {"thing": thing, "colour": c} for thing, c in lexicon.colours_of().items()}
    colour = FactFamily(
        "colour",
        things,
        (
            Ask(
                (
                    "{thing} is {colour}.",
                    "the colour of {thing} is {colour}.",
                    "as everybody knows, {thing} is {colour}.",
                ),
                (
                    "What colour is {thing}?",
                    "What is the colour of {thing}?",
                    "Tell me the colour of {thing}.",
                    "Which colour does {thing} have?",
                ),
                "the colour of {thing} is {colour}.",
                "colour",
                one_word=True,
            ),
        ),
    )
    return (element, animal, job, colour)


def _number_families() -> tuple[FactFamily, ...]:
    return (
        FactFamily("addition", _sums(), (_ADDITION,)),
        FactFamily("subtraction", _differences(), (_SUBTRACTION,)),
        FactFamily("multiplication", _products(), (_MULTIPLICATION,)),
        FactFamily("number order", _neighbours(), (_AFTER, _BEFORE)),
    )


def _sums() -> dict[str, dict[str, str]]:
    return {
        f"{a}+{b}": {"a": str(a), "b": str(b), "c": str(a + b), "group": _group("+", a, b)}
        for a in range(1, 21)
        for b in range(1, 21)
    }


def _group(sign: str, a: int, b: int) -> str:
    """One split key for 3+8 and 8+3: learning one in tuning would give the other away."""
    return f"{min(a, b)}{sign}{max(a, b)}"


def _differences() -> dict[str, dict[str, str]]:
    pairs = [(a, b) for a in range(2, 21) for b in range(1, a)]
    return {f"{a}-{b}": {"a": str(a), "b": str(b), "c": str(a - b)} for a, b in pairs}


def _products() -> dict[str, dict[str, str]]:
    return {
        f"{a}x{b}": {"a": str(a), "b": str(b), "c": str(a * b), "group": _group("x", a, b)}
        for a in range(2, 11)
        for b in range(2, 11)
    }


def _neighbours() -> dict[str, dict[str, str]]:
    return {str(n): {"n": str(n), "next": str(n + 1), "prev": str(n - 1)} for n in range(1, 101)}


_ADDITION = Ask(
    (
        "{a} plus {b} is {c}.",
        "{a} + {b} = {c}.",
        "the sum of {a} and {b} is {c}.",
        "if you add {a} and {b}, you get {c}.",
    ),
    (
        "What is {a} plus {b}?",
        "Add {a} and {b}.",
        "What is the sum of {a} and {b}?",
        "How much is {a} + {b}?",
    ),
    "{a} plus {b} is {c}.",
    "c",
    number=True,
)
_SUBTRACTION = Ask(
    (
        "{a} minus {b} is {c}.",
        "{a} - {b} = {c}.",
        "if you take {b} away from {a}, you get {c}.",
    ),
    ("What is {a} minus {b}?", "Take {b} away from {a}.", "How much is {a} - {b}?"),
    "{a} minus {b} is {c}.",
    "c",
    number=True,
)
_MULTIPLICATION = Ask(
    (
        "{a} times {b} is {c}.",
        "{a} x {b} = {c}.",
        "if you multiply {a} by {b}, you get {c}.",
    ),
    ("What is {a} times {b}?", "Multiply {a} by {b}.", "How much is {a} x {b}?"),
    "{a} times {b} is {c}.",
    "c",
    number=True,
)
_AFTER = Ask(
    (
        "after {n} comes {next}.",
        "the number after {n} is {next}.",
        "{n} is followed by {next}.",
    ),
    (
        "Which number comes after {n}?",
        "What is the number after {n}?",
        "Tell me the next number after {n}.",
    ),
    "the number after {n} is {next}.",
    "next",
    number=True,
)
_BEFORE = Ask(
    ("before {n} comes {prev}.", "the number before {n} is {prev}."),
    ("Which number comes before {n}?", "What is the number before {n}?"),
    "the number before {n} is {prev}.",
    "prev",
    number=True,
)


def _word_families() -> tuple[FactFamily, ...]:
    pairs = lexicon.opposites()
    both = {}
    for a, b in pairs.items():
        both[a] = {"word": a, "other": b, "group": f"{a}/{b}"}
        both[b] = {"word": b, "other": a, "group": f"{a}/{b}"}
    opposite = Ask(
        (
            "the opposite of {word} is {other}.",
            "{word} is the opposite of {other}.",
            "what is not {word} is often {other}.",
        ),
        (
            "What is the opposite of {word}?",
            "Give me the opposite of the word {word}.",
            "Which word means the opposite of {word}?",
            "Tell me the opposite of {word}.",
        ),
        "the opposite of {word} is {other}.",
        "other",
        one_word=True,
    )
    plural = Ask(
        (
            "the plural of {word} is {other}.",
            "one {word}, two {other}.",
            "there is one {word} here, but there are many {other} there.",
        ),
        (
            "What is the plural of {word}?",
            "Give me the plural of the word {word}.",
            "How do you say more than one {word}?",
            "Write the plural form of {word}.",
        ),
        "the plural of {word} is {other}.",
        "other",
        one_word=True,
    )
    past = Ask(
        (
            "the past tense of {word} is {other}.",
            "today they {word}, yesterday they {other}.",
            "we often {word}, and last year we {other} too.",
        ),
        (
            "What is the past tense of {word}?",
            "Give me the past tense of the verb {word}.",
            "Write the verb {word} in the past tense.",
            "Which word is the past form of {word}?",
        ),
        "the past tense of {word} is {other}.",
        "other",
        one_word=True,
    )
    degrees = {
        w: {"word": w, "more": more, "most": most}
        for w, (more, most) in lexicon.comparatives().items()
    }
    comparative = (
        Ask(
            (
                "the comparative of {word} is {more}.",
                "the first thing is {word}, but the second one is {more}.",
                "{word}, {more}, {most}.",
            ),
            (
                "What is the comparative of {word}?",
                "Give me the comparative form of {word}.",
                "Write the comparative of the word {word}.",
            ),
            "the comparative of {word} is {more}.",
            "more",
        ),
        Ask(
            (
                "the superlative of {word} is {most}.",
                "all of them are {word}, but this one is the {most}.",
            ),
            (
                "What is the superlative of {word}?",
                "Give me the superlative form of {word}.",
                "Write the superlative of the word {word}.",
            ),
            "the superlative of {word} is {most}.",
            "most",
        ),
    )
    return (
        FactFamily("opposite", both, (opposite,)),
        FactFamily("plural", _word_pairs(lexicon.plurals()), (plural,)),
        FactFamily("past tense", _word_pairs(lexicon.past_tenses()), (past,)),
        FactFamily("comparison", degrees, comparative),
    )


def _word_pairs(pairs: dict[str, str]) -> dict[str, dict[str, str]]:
    return {word: {"word": word, "other": other} for word, other in pairs.items()}
