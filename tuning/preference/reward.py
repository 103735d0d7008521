"""Reward models: a scalar head on a language model, trained so that chosen answers score higher.

The loss is that of Bradley and Terry (1952) as InstructGPT uses it (2203.02155), with TRL's
margin and centring, and the strength of votes as a factor (HelpSteer2-Preference, 2410.01257).
Knows pairs and a model's scores; knows no run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import logsigmoid

from tuning.config import TuningConfig
from tuning.data.batching import Plan
from tuning.data.preferences.encode import EncodedPair, EncodedTie, Ids
from tuning.data.preferences.pairs import Origin
from tuning.errors import ConfigError
from tuning.fused.model import Lean, make_lean
from tuning.hardware import pick_attention, pick_width_step
from tuning.methods.adapters import build_scorer, check_vocabulary
from tuning.models.scorer import load_head, pick_pad, score_ids
from tuning.preference.held_out import pair_scores, report_on
from tuning.preference.inputs import Lessons, PreparedPreferences, prepare_judgements
from tuning.preference.shared_scores import can_fold, fold_pairs, folded_scores
from tuning.training.distributed import is_main_process, is_sharded
from tuning.training.objective import Say
from tuning.training.setup import HELDOUT_BATCH
from tuning.training.steps import Batch, Measured, Steps
from tuning.variant.checkpoint import read_model_config


@dataclass(frozen=True)
class PairRow:
    """Two answers behind one prompt, as whole rows of ids of shape (length,).

    `factor` multiplies the pair's loss, `margin` is taken off the difference of its scores; with
    `is_tie` neither is the better.
    """

    chosen: Ids
    rejected: Ids
    origin: Origin
    example: int
    """Its number in the run."""
    factor: float = 1.0
    margin: float = 0.0
    is_tie: bool = False

    def __len__(self) -> int:
        return max(len(self.chosen), len(self.rejected))


@dataclass(frozen=True)
class PairCollator:
    """Pads pairs on the right: the chosen rows of a batch, then the rejected ones.

    The width is a multiple of `step`, at most `most`, as in `tuning.data.batching.Collator`. With
    `folded` a pair is one sequence in which what both rows begin with lies once.
    """

    pad_id: int
    step: int = 1
    most: int = 0
    folded: bool = False

    def __call__(self, items: Sequence[Sequence[PairRow]]) -> Batch:
        """`input_ids` (2 x pairs, width); `factor`, `margin`, `tie`, `examples` (pairs,);
        `labels` (pairs, 2), one item each."""
        rows = [row for item in items for row in item]
        if self.folded:
            pairs = [(row.chosen, row.rejected) for row in rows]
            return {**fold_pairs(pairs, self.pad_id, self.step), **self._about(rows)}
        longest = max(map(len, rows))
        step = self.step if longest > 2 * self.step else max(1, self.step // 2)
        width = max(longest, min(-(-longest // step) * step, self.most))
        ids = np.full((2 * len(rows), width), self.pad_id, dtype=np.int64)
        for line, row in enumerate([row.chosen for row in rows] + [row.rejected for row in rows]):
            assert row[-1] != self.pad_id, "the end of an answer would be taken for padding"
            ids[line, : len(row)] = row
        return {"input_ids": torch.from_numpy(ids), **self._about(rows)}

    def _about(self, rows: Sequence[PairRow]) -> Batch:
        labels = torch.zeros(len(rows), 2, dtype=torch.long)
        labels[:, 0] = -100
        return {
            "factor": torch.tensor([row.factor for row in rows]),
            "margin": torch.tensor([row.margin for row in rows]),
            "tie": torch.tensor([row.is_tie for row in rows]),
            "labels": labels,
            "examples": torch.tensor([row.example for row in rows]),
        }


def pair_losses(
    chosen: torch.Tensor,
    rejected: torch.Tensor,
    margin: torch.Tensor | float = 0.0,
    tie: torch.Tensor | None = None,
) -> torch.Tensor:
    """Bradley-Terry loss of each pair of scores, all of shape (pairs,): -log s(c - r - margin).

    A tie is half a vote for either side.
    """
    losses = -logsigmoid(chosen - rejected - margin)
    if tie is None:
        return losses
    even = -0.5 * (logsigmoid(chosen - rejected) + logsigmoid(rejected - chosen))
    return torch.where(tie, even, losses)


class RewardModel:
    """Trains a scalar head, and what is below it, on pairs."""

    def prepare(self, config: TuningConfig, day: date | None) -> PreparedPreferences:
        """Pairs of all sources, split by prompt, with what each counts for."""
        if config.method not in ("full", "lora"):
            raise ConfigError(
                f"method {config.method!r}: makes no reward model, which trains a head beside what "
                "it adapts; give lora or full"
            )
        found = prepare_judgements(config, day, cut=False, ties=config.preference.ties == "equal")
        tokenizer = found.start.tokenizer
        text = read_model_config(found.start.folder).get_text_config()
        pad_id = pick_pad(tokenizer, found.start.stop_ids, text.vocab_size)
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(pad_id)
        return found.as_inputs(_rows_of(config, found.train), _rows_of(config, found.held))

    def build(
        self, config: TuningConfig, inputs: PreparedPreferences, precision: str
    ) -> tuple[Any, torch.dtype]:
        """The base with a head, or an adapter and a head on it."""
        rows = inputs.rows
        stored = read_model_config(inputs.folder).dtype
        stored = stored if isinstance(stored, torch.dtype) else torch.float32
        pad_id = inputs.tokenizer.pad_token_id
        model = load_head(
            inputs.folder,
            pad_id,
            dtype=torch.float32,
            attention=pick_attention(max(map(len, rows))),
        )
        largest = max(int(max(row.chosen.max(), row.rejected.max())) for row in rows)
        check_vocabulary(model, max(largest, pad_id))
        return build_scorer(config, model), stored

    def steps(
        self,
        config: TuningConfig,
        inputs: PreparedPreferences,
        model: Any,
        plan: Plan,
        precision: str,
        say: Say,
    ) -> Steps:
        """The loss of pairs; held out it is the plain log loss, by which a run stops early."""
        if not inputs.heldout:
            say(
                f"no pair is held out ({config.data_options.heldout:g} of the prompts is less than "
                "one), so nothing stops the run early; raise data_options.heldout"
            )
        pad_id = inputs.tokenizer.pad_token_id
        collate = PairCollator(pad_id, pick_width_step(precision), inputs.max_length)
        few = inputs.rows[:2]
        tried = collate([few])
        lean = _lean_of(config, model, tried, pad_id, say)
        pairs = [(row.chosen, row.rejected) for row in few]
        if can_fold(model, lean, pairs, tried["input_ids"], pad_id):
            collate = replace(collate, folded=True)
        center = config.preference.center

        def scores(model: Any, batch: Batch) -> tuple[torch.Tensor, ...]:
            if lean is not None and collate.folded:
                return folded_scores(model, batch, lean).chunk(2)
            return score_ids(model, batch["input_ids"], pad_id, lean).chunk(2)

        def loss(model: Any, batch: Batch) -> Measured:
            chosen, rejected = scores(model, batch)
            return measured(chosen, rejected, batch, center)

        def heldout_loss(model: Any, batch: Batch) -> Measured:
            chosen, rejected = scores(model, batch)
            return measured(chosen, rejected, {**batch, "margin": torch.zeros_like(chosen)}, 0.0)

        ordered = sorted(inputs.heldout, key=len)
        batches = [
            collate([[row] for row in ordered[start : start + HELDOUT_BATCH]])
            for start in range(0, len(ordered), HELDOUT_BATCH)
        ]
        return Steps(
            collate=collate,
            loss=loss,
            heldout=batches,
            heldout_loss=heldout_loss,
            finish=_finish(config, inputs, model),
        )

    def sample(
        self, config: TuningConfig, inputs: PreparedPreferences, model: Any
    ) -> list[dict[str, str]]:
        """None: a reward model writes no answers."""
        return []

    def remarks(self, records: Sequence[Mapping[str, Any]]) -> list[str]:
        """None."""
        return []


def _finish(
    config: TuningConfig, inputs: PreparedPreferences, model: Any
) -> Callable[[Any, Path], dict[str, float]] | None:
    """What reports on the finished model, with the scores that the untrained one gives now."""
    if not inputs.held.pairs or is_sharded() or not is_main_process():
        return None
    untuned = pair_scores(model, inputs.held.pairs, inputs.tokenizer.pad_token_id)
    return lambda trained, folder: report_on(trained, inputs, untuned, config.name, folder)


def measured(chosen: torch.Tensor, rejected: torch.Tensor, batch: Batch, center: float) -> Measured:
    """The summed loss of a batch of scores, and how often and by how much the chosen are above.

    The loss of a pair counts `factor` times, and `center` x (chosen + rejected)² is added to it
    (Eisenstein et al., 2312.09244).
    """
    losses = batch["factor"] * pair_losses(chosen, rejected, batch["margin"], batch["tie"])
    total = losses.sum() + center * ((chosen + rejected) ** 2).sum()
    with torch.no_grad():
        gap = chosen - rejected
        right = torch.where(batch["tie"] | (gap == 0), 0.5, (gap > 0).float())
        sums = {
            "accuracy": float(right.sum()),
            "margin": float(gap.sum()),
            "reward": float((chosen + rejected).sum() / 2),
        }
    return Measured(total, len(chosen), sums)


def _rows_of(config: TuningConfig, lessons: Lessons) -> list[PairRow]:
    """Rows with factors whose mean is 1, so that the rate suits whatever weights there are."""
    options = config.preference
    said = [item.pair.strength for item in lessons.pairs]
    missing = [item.pair for item in lessons.pairs if item.pair.strength is None]
    if options.strength != "none" and missing and len(missing) < len(said):
        raise ConfigError(
            f"preference.strength: {options.strength!r}, but {len(missing):,} of {len(said):,} "
            f"pairs do not say by how much the chosen answer is better ({missing[0].origin}); "
            "give all of them a margin, or set preference.strength to none"
        )
    made: list[PairRow] = []
    items: list[EncodedPair | EncodedTie] = [*lessons.pairs, *lessons.ties]
    for item in items:
        lesson = item.pair if isinstance(item, EncodedPair) else item.tie
        first, second = _answers(item)
        strength = getattr(lesson, "strength", None)
        factor = lesson.weight if options.row_weights else 1.0
        if options.strength == "scale" and strength is not None:
            factor *= strength
        if factor == 0:
            continue
        made.append(
            PairRow(
                np.concatenate([item.prompt_ids, first]),
                np.concatenate([item.prompt_ids, second]),
                lesson.origin,
                len(made),
                factor,
                (strength or 0.0) if options.strength == "margin" else 0.0,
                isinstance(item, EncodedTie),
            )
        )
    mean = sum(row.factor for row in made) / max(1, len(made))
    return [replace(row, factor=row.factor / mean) for row in made]


def _answers(item: EncodedPair | EncodedTie) -> tuple[Ids, Ids]:
    if isinstance(item, EncodedPair):
        return item.chosen_ids, item.rejected_ids
    return item.first_ids, item.second_ids


def _lean_of(config: TuningConfig, model: Any, batch: Batch, pad_id: int, say: Say) -> Lean | None:
    """Make the layers lean where that changes nothing: on a CPU, unsharded."""
    if not config.training.lean or torch.cuda.is_available() or is_sharded():
        return None

    def loss(lean: Lean | None) -> torch.Tensor:
        chosen, rejected = score_ids(model, batch["input_ids"], pad_id, lean).chunk(2)
        return measured(chosen, rejected, batch, 0.01).total

    was_training = model.training
    model.eval()
    try:
        return make_lean(
            model, loss, lambda why: say(f"training.lean: the plain layers are kept ({why})")
        )
    finally:
        model.train(was_training)
