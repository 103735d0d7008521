"""Documents of the starter's world: the text its base model is pretrained on.

Every document follows from a seed and its number alone, so that training can resume anywhere.
Documents state facts, tell stories, print dialogues, or are sheets: bare instructions, one after
the other, which are never answered. Following one is left to tuning. Knows no tokenizer, no model.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from random import Random

from tuning.starter.world.dialogues import cards_text, dialogue_text
from tuning.starter.world.family import Family
from tuning.starter.world.instructions import families, is_heldout
from tuning.starter.world.recall import recall_text

# Share of each family in the corpus, by statements; in-context skills need the most text.
WEIGHTS = {
    "capital": 6.0,
    "continent": 2.5,
    "language": 3.5,
    "element": 5.0,
    "animal": 6.0,
    "job": 4.0,
    "colour": 1.5,
    "addition": 7.0,
    "subtraction": 4.0,
    "multiplication": 2.5,
    "number order": 3.0,
    "opposite": 5.0,
    "plural": 3.0,
    "past tense": 3.5,
    "comparison": 3.0,
    "category": 5.0,
    "yes or no": 4.0,
    "odd one out": 8.0,
    "list": 5.0,
    "letters": 5.0,
    "sentiment": 2.5,
    "repeat": 6.0,
    "reading": 10.0,
    "note": 2.5,
    "story": 4.0,
}
SHEET_SHARE = 0.06
# From this document on, a share of them is about words to be found again in the text: first the
# facts, then how to carry any word over, which facts about a named subject need in use.
RECALL_START = 85_000
RECALL_SHARE = 0.28
# From this document on, the last stretch, the hardest skills are said more often.
REVIEW_START = 145_500
REVIEW_RECALL_SHARE = 0.14
REVIEW_FACTORS = {
    "addition": 2.0,
    "subtraction": 2.0,
    "multiplication": 1.6,
    "number order": 1.4,
    "odd one out": 2.2,
    "reading": 2.2,
}
# From this document on, people also ask and answer each other, and sheets are more frequent.
DIALOGUE_START = 212_992
DIALOGUE_SHARE = 0.45
CARDS_SHARE = 0.05
LATE_SHEET_SHARE = 0.1
HELDOUT_DOCUMENTS = 200


@lru_cache
def _weighted(*, review: bool) -> tuple[list[Family], list[float]]:
    chosen = [family for family in families() if family.name in WEIGHTS]
    factors = REVIEW_FACTORS if review else {}
    return chosen, [WEIGHTS[family.name] * factors.get(family.name, 1.0) for family in chosen]


def document(number: int, *, seed: str = "corpus") -> str:
    """The document with this number: facts, texts, dialogues, or a sheet of instructions."""
    rng = Random(f"{seed} {number}")
    late = number >= DIALOGUE_START
    if rng.random() < (LATE_SHEET_SHARE if late else SHEET_SHARE):
        return _sheet(rng)
    if late and (part := rng.random()) < DIALOGUE_SHARE + CARDS_SHARE:
        return dialogue_text(rng) if part < DIALOGUE_SHARE else cards_text(rng)
    review = number >= REVIEW_START
    share = REVIEW_RECALL_SHARE if review else RECALL_SHARE
    if number >= RECALL_START and rng.random() < share:
        return recall_text(rng)
    pool, weights = _weighted(review=review)
    if rng.random() < 0.5:  # one subject, several sentences
        family = rng.choices(pool, weights)[0]
        subject = rng.choice(_entities(family.name))
        texts = [family.statement(subject, rng) for _ in range(rng.randint(2, 5))]
        texts = list(dict.fromkeys(texts))
    else:
        picked = rng.choices(pool, weights, k=rng.randint(4, 10))
        texts = [_statement(family, rng) for family in picked]
    lines = rng.random() < 0.3 or any("\n" in text for text in texts)
    return ("\n" if lines else " ").join(texts)


def documents(start: int = 0, *, seed: str = "corpus") -> Iterator[str]:
    """All documents from number `start` on, without end."""
    number = start
    while True:
        yield document(number, seed=seed)
        number += 1


def heldout_documents() -> list[str]:
    """Documents of another seed, on which perplexity is measured."""
    return [
        document(DIALOGUE_START + number, seed="held-out") for number in range(HELDOUT_DOCUMENTS)
    ]


def _statement(family: Family, rng: Random) -> str:
    return family.statement(rng.choice(_entities(family.name)), rng)


@lru_cache
def _entities(name: str) -> list[str]:
    return next(list(family.entities()) for family in families() if family.name == name)


def _sheet(rng: Random) -> str:
    """Instructions without answers, as on a worksheet; none about a held-out entity."""
    pool = list(families())
    lines: list[str] = []
    wanted = rng.randint(4, 9)
    while len(lines) < wanted:
        family = rng.choice(pool)
        tasks = family.tasks(rng.choice(_entities(family.name)), rng)
        open_tasks = [task for task in tasks if not is_heldout(task.entity)]
        if open_tasks:
            lines.append(rng.choice(open_tasks).prompt)
    return "\n".join(lines)
