"""The votes of a loop: read once, split by prompt, and written as the files that its runs read.

Beside the votes as they are: a share of them, the same with shuffled winners, and the opposite. All
files hold the same held-out prompts. Knows pairs and rows; knows no model.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tuning.data.preferences.load import read_preferences
from tuning.data.preferences.pairs import Lesson, Pair, Preferences, Tie, text_of
from tuning.data.preferences.split import split_by_prompt
from tuning.data.split import prompt_key
from tuning.loop.folder import LoopFolder
from tuning.loop.settings import LoopError, LoopSettings
from tuning.variant.folder import file_sha256

TRUE, SHUFFLED, INVERTED = "true", "shuffled", "inverted"
SHARES = {"quarter": 0.25, "half": 0.5}
"""Of the votes on trained prompts, by the name of their file."""


@dataclass(frozen=True)
class VoteFile:
    """One file of votes: which share of its prompts is held out, and how many votes are not."""

    path: Path
    heldout: float
    num_votes: int
    sha256: str

    def check(self) -> None:
        """LoopError where the file is no longer what it was."""
        if not self.path.is_file() or file_sha256(self.path) != self.sha256:
            raise LoopError(
                f"{self.path}: is not as the loop wrote it; give --restart to begin it anew"
            )


def export_votes(
    settings: LoopSettings, sources: Sequence[str], folder: LoopFolder
) -> dict[str, Any]:
    """Read, split and write all votes; counts, and each file by its name.

    DataError and FormatError name what cannot be read; LoopError where no prompt can be held out.
    """
    preferences = read_preferences(sources, settings.data_options, settings.seed)
    preferences.require_pairs()
    labels = len(preferences.labelled)
    preferences = replace(preferences, labelled=())
    if any(pair.strength is not None for pair in preferences.pairs):
        preferences.require_strength()
    train, held = split_by_prompt(preferences, settings.heldout, settings.seed)
    prompts = {prompt_of(lesson) for lesson in held.lessons}
    if not held.pairs or not train.pairs:
        every = {prompt_of(lesson) for lesson in preferences.lessons}
        raise LoopError(
            f"votes on {len(every):,} prompts: a share of {settings.heldout:g} leaves "
            f"{len(held.pairs):,} votes to hold out and {len(train.pairs):,} to learn from; "
            "collect votes on more prompts, or give another --heldout"
        )
    kept: dict[str, list[Lesson]] = {
        TRUE: [*train.lessons, *held.lessons],
        SHUFFLED: [*_shuffled(train, settings.seed), *_shuffled(held, settings.seed + 1)],
        INVERTED: [_opposite(one) for one in (*train.lessons, *held.lessons)],
    }
    for name, share in SHARES.items():
        kept[name] = [*part_of(train.lessons, share, settings.seed), *held.lessons]
    files = {name: _write(folder, name, lessons, len(prompts)) for name, lessons in kept.items()}
    return {
        "files": files,
        "ledger": preferences.ledger.to_json(),
        "num_votes": {"trained": len(train), "heldout": len(held)},
        "num_pairs": {"trained": len(train.pairs), "heldout": len(held.pairs)},
        "num_prompts": {
            "trained": len({prompt_of(lesson) for lesson in train.lessons}),
            "heldout": len(prompts),
        },
        "num_voters": len({v for item in preferences.lessons if (v := item.origin.voter)}),
        "labels_left_out": labels,
    }


def vote_file(folder: LoopFolder, exported: Mapping[str, Any], name: str) -> VoteFile:
    """One of the files that `export_votes` wrote."""
    told = exported["files"][name]
    path = folder.path / "votes" / f"{name}.jsonl"
    return VoteFile(path, told["heldout"], told["num_votes"], told["sha256"])


def split_votes(file: VoteFile, seed: int) -> tuple[Preferences, Preferences]:
    """(train, held out) of a file, as every run of the loop parts it."""
    file.check()
    return split_by_prompt(read_preferences([str(file.path)], None, seed), file.heldout, seed)


def prompt_of(lesson: Lesson) -> str:
    """What makes two prompts the same to the split."""
    return prompt_key(lesson.prompt).lower()


def part_of(lessons: Sequence[Lesson], share: float, seed: int) -> list[Lesson]:
    """All votes on so many prompts, drawn by `seed`, as give about `share` of the votes.

    A smaller share is part of a larger one.
    """
    prompts = sorted({prompt_of(lesson) for lesson in lessons})
    random.Random(f"{seed} share").shuffle(prompts)
    counts: dict[str, int] = dict.fromkeys(prompts, 0)
    for lesson in lessons:
        counts[prompt_of(lesson)] += 1
    chosen: set[str] = set()
    total = 0
    for prompt in prompts:
        if total >= share * len(lessons):
            break
        chosen.add(prompt)
        total += counts[prompt]
    return [lesson for lesson in lessons if prompt_of(lesson) in chosen]


def _shuffled(part: Preferences, seed: int) -> list[Lesson]:
    """Of every two pairs of like difference in length one the wrong way round; ties as they are.

    Which one is drawn by `seed`, so that each vote is turned as often as any other; so is the one
    of an odd number that stays. Turned without regard
    to length, the shorter answer, say, is left with a few votes more than the longer one. Where
    length goes along with worth a model that learned only this agrees with nearly all true votes,
    or with nearly none, and the control seems to know something.
    """
    draw = random.Random(f"{seed} shuffled")
    pairs = part.pairs
    order = sorted(range(len(pairs)), key=lambda at: (_longer(pairs[at]), draw.random()))
    if len(order) % 2:
        order.pop(draw.randrange(len(order)))
    turned = {draw.choice(two) for two in zip(order[::2], order[1::2], strict=True)}
    shuffled = [_opposite(pair) if at in turned else pair for at, pair in enumerate(pairs)]
    return [*shuffled, *part.ties]


def _longer(pair: Pair) -> int:
    """By how many characters the chosen answer is longer."""
    return len(text_of(pair.chosen)) - len(text_of(pair.rejected))


def _opposite(lesson: Lesson) -> Lesson:
    """A pair with its winner exchanged; a tie as it is."""
    if not isinstance(lesson, Pair):
        return lesson
    return replace(
        lesson,
        chosen=lesson.rejected,
        rejected=lesson.chosen,
        models=lesson.models[::-1],
        ratings=lesson.ratings[::-1],
    )


def _write(folder: LoopFolder, name: str, lessons: Iterable[Lesson], held: int) -> dict[str, Any]:
    lessons = list(lessons)
    path = folder.keep_rows(name, [_row(lesson) for lesson in lessons], "votes")
    prompts = len({prompt_of(lesson) for lesson in lessons})
    return {
        # Half a prompt more than are held out, so that no rounding makes it one less.
        "heldout": (held + 0.5) / prompts,
        "num_votes": len(lessons),
        "sha256": file_sha256(path),
    }


def _row(lesson: Lesson) -> dict[str, Any]:
    """A judgement as `arena export --format votes` writes it."""
    if isinstance(lesson, Pair):
        first, second, winner = lesson.chosen, lesson.rejected, "model_a"
    else:
        assert isinstance(lesson, Tie)
        first, second = lesson.first, lesson.second
        winner = "both_bad" if lesson.both_bad else "tie"
    row = {
        "prompt": list(lesson.prompt),
        "completion_a": list(first),
        "completion_b": list(second),
        "winner": winner,
        "model_a": lesson.models[0],
        "model_b": lesson.models[1],
        "margin": getattr(lesson, "strength", None),
        "weight": lesson.weight,
        "voter": lesson.origin.voter,
        "vote_id": lesson.origin.row,
    }
    return {key: value for key, value in row.items() if value is not None}
