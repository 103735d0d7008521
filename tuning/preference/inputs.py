"""The inputs of a run on preferences: pairs, ties and labelled answers, split and encoded.

Knows rows and tokens; knows no model in memory and no loss.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from tuning.config import TuningConfig
from tuning.data.folders import DataError
from tuning.data.preferences.encode import (
    Encoded,
    EncodedLabelled,
    EncodedPair,
    EncodedTie,
    Encoder,
    answers_of,
)
from tuning.data.preferences.load import read_preferences
from tuning.data.preferences.pairs import (
    BOTH_BAD,
    TIE,
    Lesson,
    PreferenceLedger,
    Preferences,
)
from tuning.data.preferences.split import split_by_prompt
from tuning.data.rendering import is_dated
from tuning.errors import ConfigError
from tuning.training.inputs import Start, find_start, name_template
from tuning.variant.folder import file_sha256


@dataclass(frozen=True)
class Lessons:
    """Encoded preferences of one side of the split."""

    pairs: tuple[EncodedPair, ...] = ()
    ties: tuple[EncodedTie, ...] = ()
    labelled: tuple[EncodedLabelled, ...] = ()

    @property
    def all(self) -> tuple[Encoded, ...]:
        """All of them, pairs first."""
        return (*self.pairs, *self.ties, *self.labelled)


@dataclass(frozen=True)
class PreparedPreferences(Start):
    """The inputs of a run on preferences; `rows` and `heldout` are what the objective trains on.

    A batch's `examples` are positions into `rows`.
    """

    rows: tuple[Any, ...]
    heldout: tuple[Any, ...]
    train: Lessons
    held: Lessons
    day: date | None
    ledger: PreferenceLedger
    sources: dict[str, str]

    @property
    def order(self) -> tuple[int, ...]:
        """Every row is seen once in an epoch."""
        return tuple(range(len(self.rows)))

    @property
    def data_sha256(self) -> str:
        """Fingerprint of the judgements that are trained on."""
        return lessons_sha256(map(_lesson_of, self.train.all))

    @property
    def heldout_sha256(self) -> str:
        """Fingerprint of the judgements that are held out."""
        return lessons_sha256(map(_lesson_of, self.held.all))

    @property
    def tokens_sha256(self) -> str:
        """Fingerprint of all ids, lesson by lesson."""
        digest = hashlib.sha256()
        for lesson in (*self.train.all, *self.held.all):
            for ids in _ids_of(lesson):
                digest.update(np.asarray([len(ids), *ids], dtype="<i4").tobytes())
        return digest.hexdigest()

    def made_of(self, precision: str) -> list[str]:
        """Fingerprints of all that the start's log-probabilities follow from."""
        weights = [self.base.sha256, self.parent.weights_sha256]
        return [*weights, self.tokens_sha256, precision]

    @property
    def drawn(self) -> list[dict[str, Any]]:
        """None: preferences are in no mixture."""
        return []

    def place(self, example: int) -> str:
        """Where the row at `example` came from; rows tell it by their `origin`."""
        return str(self.rows[example].origin)


@dataclass(frozen=True)
class Judgements:
    """Encoded preferences of both sides of the split, before an objective makes rows of them."""

    start: Start
    train: Lessons
    held: Lessons
    day: date | None
    ledger: PreferenceLedger
    sources: dict[str, str]

    def as_inputs(self, rows: Sequence[Any], heldout: Sequence[Any]) -> PreparedPreferences:
        """The inputs of a run on these rows; DataError where there are none."""
        if not rows:
            left = [f"{count:,} {why}" for why, count in sorted(self.ledger.left_out.items())]
            raise DataError(
                f"data: nothing is left to train on ({', '.join(left) or 'all is held out'}); give "
                "more data, shorter rows or a smaller data_options.heldout"
            )
        return PreparedPreferences(
            **vars(self.start),
            rows=tuple(rows),
            heldout=tuple(heldout),
            train=self.train,
            held=self.held,
            day=self.day,
            ledger=self.ledger,
            sources=self.sources,
        )


def prepare_judgements(
    config: TuningConfig,
    day: date | None,
    *,
    cut: bool,
    unpaired: bool = False,
    ties: bool = False,
) -> Judgements:
    """Find the base, read, split and encode the data; every user's mistake is raised here.

    With `cut` an answer beyond the longest row loses its end, without it is left out. `unpaired`
    makes single labelled answers of all that was judged; `ties` keeps ties beside the pairs, which
    else are counted as left out.
    """
    day = day or date.today()
    start = find_start(config)
    options = config.data_options
    if options.heldout_file is not None:
        raise ConfigError(
            f"data_options.heldout_file: {options.heldout_file!r} is for sft; preferences are "
            "split by prompt, by data_options.heldout"
        )
    preferences = read_preferences(config.data, options, config.seed)
    preferences = _kinds(preferences, unpaired=unpaired, ties=ties)
    train, held = split_by_prompt(preferences, options.heldout, config.seed)
    lessons = []
    for part, is_held in ((train, False), (held, True)):
        encoder = Encoder(
            start.tokenizer,
            start.max_length,
            preferences.ledger,
            cut=cut,
            template_of=name_template(config),
            day=day,
            held=is_held,
        )
        if not is_held:
            encoder.check_template(preferences)
        lessons.append(
            Lessons(
                tuple(encoder.pairs(part.pairs)),
                tuple(encoder.ties(part.ties)),
                tuple(encoder.labelled(part.labelled)),
            )
        )
    return Judgements(
        start=start,
        train=lessons[0],
        held=lessons[1],
        day=day if is_dated(start.tokenizer.chat_template) else None,
        ledger=preferences.ledger,
        sources={source: _source_sha256(source, preferences) for source in config.data},
    )


def _kinds(preferences: Preferences, *, unpaired: bool, ties: bool) -> Preferences:
    """What the objective learns from; the rest is counted as left out, by its kind."""
    ledger = preferences.ledger
    if unpaired:
        preferences.require_labels()
        labels = preferences.labels()
        # A judgement of two answers makes two labels.
        ledger.read["labels"] += len(labels) - len(preferences.labelled)
        for kind, count in (
            ("pairs", len(preferences.pairs)),
            ("ties", sum(not tie.both_bad for tie in preferences.ties)),
            ("both bad", sum(tie.both_bad for tie in preferences.ties)),
        ):
            ledger.read[kind] -= count
        ledger.read = +ledger.read
        return Preferences(labelled=labels, ledger=ledger)
    preferences.require_pairs()
    kept = tuple(tie for tie in preferences.ties if ties and not tie.both_bad)
    for tie in preferences.ties:
        if not (ties and not tie.both_bad):
            ledger.left_out[BOTH_BAD if tie.both_bad else TIE] += 1
    if preferences.labelled:
        ledger.left_out["label without another answer"] += len(preferences.labelled)
    return Preferences(pairs=preferences.pairs, ties=kept, ledger=ledger)


def lessons_sha256(lessons: Iterable[Lesson]) -> str:
    """Fingerprint of judgements in their order: sha256 of one line of JSON each."""
    digest = hashlib.sha256()
    for lesson in lessons:
        content = {
            "prompt": list(lesson.prompt),
            "answers": [list(answer) for answer in answers_of(lesson)],
            "weight": lesson.weight,
            "strength": getattr(lesson, "strength", None),
            "label": getattr(lesson, "label", None),
            "both_bad": getattr(lesson, "both_bad", None),
        }
        line = json.dumps(content, ensure_ascii=False, sort_keys=True)
        digest.update(line.encode("utf-8", "surrogatepass") + b"\n")
    return digest.hexdigest()


def _lesson_of(encoded: Encoded) -> Lesson:
    if isinstance(encoded, EncodedPair):
        return encoded.pair
    return encoded.tie if isinstance(encoded, EncodedTie) else encoded.labelled


def _ids_of(encoded: Encoded) -> tuple[Any, ...]:
    if isinstance(encoded, EncodedPair):
        return encoded.prompt_ids, encoded.chosen_ids, encoded.rejected_ids
    if isinstance(encoded, EncodedTie):
        return encoded.prompt_ids, encoded.first_ids, encoded.second_ids
    return encoded.prompt_ids, encoded.completion_ids


def _source_sha256(source: str, preferences: Preferences) -> str:
    path = Path(source).expanduser()
    return file_sha256(path) if path.is_file() else lessons_sha256(preferences.lessons)
