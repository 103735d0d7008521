"""Which preferences are held out: whole prompts, and whole voters where asked, never single rows.

Knows pairs and prompts; knows neither files nor tokens.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace

from tuning.data.preferences.pairs import Labelled, Lesson, Pair, Preferences, Tie
from tuning.data.split import prompt_key


def split_by_prompt(
    preferences: Preferences, share: float, seed: int, *, by_voter: bool = False
) -> tuple[Preferences, Preferences]:
    """(train, held out): about `share` of the prompts are held out, each with all its judgements.

    With `by_voter`, about `share` of the voters are held out as well, and what a held-out voter
    said of a trained prompt, or a trained one of a held-out prompt, is in neither: it is counted
    as left out. Two prompts of the same words, case aside, are one. Both share one ledger.
    """
    lessons = preferences.lessons
    prompts = _chosen({_prompt(lesson) for lesson in lessons}, share, seed)
    voters: set[str] = set()
    if by_voter:
        voters = _chosen({v for lesson in lessons if (v := lesson.origin.voter)}, share, seed)
    train: list[Lesson] = []
    heldout: list[Lesson] = []
    between = 0
    for lesson in lessons:
        is_held = _prompt(lesson) in prompts
        voter = lesson.origin.voter
        if by_voter and voters and voter is not None and (voter in voters) != is_held:
            between += 1
        else:
            (heldout if is_held else train).append(lesson)
    ledger = preferences.ledger
    ledger.heldout = len(heldout)
    if between:
        ledger.left_out["of a voter or prompt on the other side of the split"] += between
    return _of(preferences, train), _of(preferences, heldout)


def _of(preferences: Preferences, lessons: list[Lesson]) -> Preferences:
    return replace(
        preferences,
        pairs=tuple(item for item in lessons if isinstance(item, Pair)),
        ties=tuple(item for item in lessons if isinstance(item, Tie)),
        labelled=tuple(item for item in lessons if isinstance(item, Labelled)),
    )


def _prompt(lesson: Lesson) -> str:
    return prompt_key(lesson.prompt).lower()


def _chosen(names: set[str], share: float, seed: int) -> set[str]:
    """The share of `names` with the least hashes; none where that is less than one."""
    ranked = sorted(
        names,
        key=lambda name: hashlib.sha256(f"{seed} {name}".encode("utf-8", "surrogatepass")).digest(),
    )
    return set(ranked[: int(len(names) * share)])
