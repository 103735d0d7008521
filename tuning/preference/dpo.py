"""Direct preference optimisation: a policy learns from pairs, against what it was at the start.

Rafailov et al., 2305.18290, with the other losses of its kind. Knows pairs and log-probabilities;
knows no run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import torch

from tuning.config import TuningConfig
from tuning.data.batching import Plan
from tuning.data.fields import Message
from tuning.data.preferences.encode import EncodedPair, Ids
from tuning.data.preferences.pairs import Lesson, Origin
from tuning.errors import ConfigError
from tuning.preference.agreement import agreement_of
from tuning.preference.batches import Group
from tuning.preference.inputs import PreparedPreferences, prepare_judgements
from tuning.preference.losses import (
    TAKE_MARGINS,
    TAKE_SMOOTHING,
    LossNumbers,
    PairLogProbs,
    check_pair_losses,
    pair_losses,
)
from tuning.preference.policy import (
    Policy,
    as_token_rows,
    build_policy,
    check_policy,
    group_of,
)
from tuning.training.objective import Say, answered
from tuning.training.setup import HELDOUT_BATCH
from tuning.training.steps import Batch, Measured, Steps

DEFAULT_LOSS = ("sigmoid",)


@dataclass(frozen=True)
class PolicyPair:
    """A prompt and two completions, the chosen one first, as ids of shape (length,).

    `factor` multiplies the pair's loss; `margin` is what the scaled difference has to exceed.
    """

    prompt: Ids
    chosen: Ids
    rejected: Ids
    origin: Origin
    example: int
    """Its number in the run."""
    factor: float = 1.0
    margin: float = 0.0

    def __len__(self) -> int:
        return len(self.prompt) + len(self.chosen) + len(self.rejected)

    @property
    def group(self) -> Group:
        """For the layout."""
        return group_of(self.prompt, self.chosen, self.rejected)


class Dpo:
    """Trains a policy on pairs."""

    def __init__(self) -> None:
        self._numbers = LossNumbers()

    def prepare(self, config: TuningConfig, day: date | None) -> PreparedPreferences:
        """Pairs of all sources, split by prompt, with what each counts for."""
        found = prepare_judgements(config, day, cut=True)
        check_policy(config, starts_from_adapter=found.start.adapter is not None)
        self._numbers = _numbers_of(config, [item.pair for item in found.train.pairs])
        _check_losses(config, self._numbers)
        train = pairs_of(config, found.train.pairs)
        return found.as_inputs(train, pairs_of(config, found.held.pairs))

    def build(
        self, config: TuningConfig, inputs: PreparedPreferences, precision: str
    ) -> tuple[Any, torch.dtype]:
        """The start, or a new adapter on it that changes nothing yet."""
        rows = as_token_rows([row.group for row in inputs.rows])
        return build_policy(config, inputs.folder, inputs.adapter, rows, precision)

    def steps(
        self,
        config: TuningConfig,
        inputs: PreparedPreferences,
        model: Any,
        plan: Plan,
        precision: str,
        say: Say,
    ) -> Steps:
        """The losses of pairs, beside log-probabilities that the start gave once."""
        groups = [row.group for row in inputs.rows]
        held = [row.group for row in inputs.heldout]
        policy = Policy(config, model, groups, inputs.tokenizer.pad_token_id, precision, say)
        reference = policy.reference(
            config, inputs.made_of(precision), model, {"train": groups, "heldout": held}
        )
        kinds = config.preference.loss or DEFAULT_LOSS
        weights = config.preference.loss_weights or (1.0,) * len(kinds)
        if self._numbers.label_smoothing:
            say(f"{self._numbers.label_smoothing:.1%} of the votes are taken to be flipped")
        collate = PolicyPairCollator(policy, reference["train"])
        collate_held = PolicyPairCollator(policy, reference["heldout"])

        def loss(model: Any, batch: Batch) -> Measured:
            pairs = pair_log_probs(policy, model, batch)
            return measured(
                pairs, pair_losses(kinds, weights, pairs, self._numbers), batch, self._numbers
            )

        return Steps(
            collate=collate,
            loss=loss,
            heldout=heldout_batches(inputs.heldout, collate_held),
            heldout_loss=loss,
        )

    def sample(
        self, config: TuningConfig, inputs: PreparedPreferences, model: Any
    ) -> list[dict[str, str]]:
        """Held-out prompts, answered greedily."""
        lessons = [item.pair for item in inputs.held.pairs]
        return answered(model, inputs, held_prompts(lessons, config.checks.samples))

    def remarks(self, records: Sequence[Mapping[str, Any]]) -> list[str]:
        """What the history says that a person should know."""
        return remarks_on_rewards(records)


def held_prompts(lessons: Sequence[Lesson], count: int) -> list[tuple[Message, ...]]:
    """The first prompts, each once."""
    return list({json.dumps(item.prompt): item.prompt for item in lessons}.values())[:count]


class PolicyPairCollator:
    """Lays pairs out, with what the start gave them; `reference` is of shape (2 × rows,)."""

    def __init__(self, policy: Policy, reference: torch.Tensor) -> None:
        self._policy = policy
        self._reference = reference.view(-1, 2)

    def __call__(self, items: Sequence[Sequence[PolicyPair]]) -> Batch:
        """The tensors of the policy's layout, whose labels are `scored`; `reference` (pairs, 2),
        `factor`, `margin`, `examples` (pairs,); `labels` (pairs, 2), one item each.
        """
        rows = [row for item in items for row in item]
        batch = self._policy.collate([row.group for row in rows])
        batch["scored"] = batch.pop("labels")
        examples = torch.tensor([row.example for row in rows])
        return {
            **batch,
            "reference": self._reference[examples],
            "factor": torch.tensor([row.factor for row in rows]),
            "margin": torch.tensor([row.margin for row in rows]),
            "labels": item_labels(len(rows)),
            "examples": examples,
        }


def item_labels(count: int) -> torch.Tensor:
    """Labels of shape (count, 2) that stand for one item of the loss each."""
    labels = torch.zeros(count, 2, dtype=torch.long)
    labels[:, 0] = -100
    return labels


def heldout_batches(rows: Sequence[Any], collate: Any) -> list[Batch]:
    """Held-out rows, those of like length together."""
    ordered = sorted(rows, key=len)
    return [
        collate([[row] for row in ordered[start : start + HELDOUT_BATCH]])
        for start in range(0, len(ordered), HELDOUT_BATCH)
    ]


def pair_log_probs(policy: Policy, model: Any, batch: Batch) -> PairLogProbs:
    """What the model and its start give the completions of a batch of pairs."""
    found = policy.log_probs(model, {**batch, "labels": batch["scored"]}).view(-1, 2)
    lengths, margin = batch["lengths"].view(-1, 2), batch["margin"]
    return PairLogProbs(
        chosen=found[:, 0],
        rejected=found[:, 1],
        chosen_reference=batch["reference"][:, 0],
        rejected_reference=batch["reference"][:, 1],
        chosen_lengths=lengths[:, 0],
        rejected_lengths=lengths[:, 1],
        margins=margin if bool(margin.any()) else None,
    )


def measured(pairs: PairLogProbs, losses: torch.Tensor, batch: Batch, by: LossNumbers) -> Measured:
    """The summed loss, and TRL's measures of the implicit rewards."""
    with torch.no_grad():
        chosen, rejected = by.beta * pairs.chosen_ratios, by.beta * pairs.rejected_ratios
        sums = {
            "rewards/chosen": float(chosen.sum()),
            "rewards/rejected": float(rejected.sum()),
            "rewards/accuracies": float((chosen > rejected).sum()),
            "rewards/margins": float((chosen - rejected).sum()),
            "logps/chosen": float(pairs.chosen.sum()),
            "logps/rejected": float(pairs.rejected.sum()),
        }
    return Measured((batch["factor"] * losses).sum(), len(losses), sums)


def _numbers_of(config: TuningConfig, pairs: Sequence[Any]) -> LossNumbers:
    asked = config.preference.label_smoothing
    if asked != "auto":
        return LossNumbers(config.preference.beta, float(asked))
    found = agreement_of(pairs)
    if found is None:
        raise ConfigError(
            "preference.label_smoothing: auto needs answers that were voted on twice, and there "
            "are none; repeat some prompts of a set, or give the share of wrong votes as a number"
        )
    if found.flip_rate >= 0.5:
        raise ConfigError(
            f"preference.label_smoothing: auto finds {found.agreed} of {found.compared} repeated "
            "votes alike, no more than by chance, so nothing can be learned from them"
        )
    return LossNumbers(config.preference.beta, found.flip_rate)


def _check_losses(config: TuningConfig, by: LossNumbers) -> None:
    """Refuse losses of other objectives, and numbers that the losses make nothing of."""
    kinds = config.preference.loss or DEFAULT_LOSS
    for kind in ("kto", "apo_zero_unpaired"):
        if kind in kinds:
            raise ConfigError(
                f"preference.loss: {kind!r} is for single answers; give --objective kto, or one of "
                "DPO's losses"
            )
    check_pair_losses(kinds, by)
    if config.preference.label_smoothing and not TAKE_SMOOTHING.intersection(kinds):
        raise ConfigError(
            f"preference.label_smoothing: {config.preference.label_smoothing} changes nothing in "
            f"{', '.join(kinds)}; give preference.loss={'/'.join(sorted(TAKE_SMOOTHING))}"
        )
    if config.preference.strength == "margin" and not TAKE_MARGINS.intersection(kinds):
        raise ConfigError(
            f"preference.strength: margin changes nothing in {', '.join(kinds)}; give scale or none"
        )


def pairs_of(config: TuningConfig, pairs: Sequence[EncodedPair]) -> list[PolicyPair]:
    """Rows with factors whose mean is 1, so that the rate suits whatever weights there are."""
    options = config.preference
    missing = [item.pair for item in pairs if item.pair.strength is None]
    if options.strength != "none" and missing and len(missing) < len(pairs):
        raise ConfigError(
            f"preference.strength: {options.strength!r}, but {len(missing):,} of {len(pairs):,} "
            f"pairs do not say by how much the chosen answer is better ({missing[0].origin}); "
            "give all of them a margin, or set preference.strength to none"
        )
    made = []
    for item in pairs:
        strength = 1.0 if item.pair.strength is None else item.pair.strength
        factor = item.pair.weight if options.row_weights else 1.0
        if options.strength == "scale":
            factor *= strength
        if factor:
            margin = 0.0
            if options.strength == "margin" and item.pair.strength is not None:
                margin = strength
            made.append((item, factor, margin))
    mean = sum(factor for _, factor, _ in made) / max(1, len(made))
    return [
        PolicyPair(
            item.prompt_ids,
            item.chosen_ids,
            item.rejected_ids,
            item.pair.origin,
            index,
            factor / mean,
            margin,
        )
        for index, (item, factor, margin) in enumerate(made)
    ]


def remarks_on_rewards(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """Says so where the chosen answers became less likely too, and what helps."""
    found = [item for item in records if "rewards/chosen" in item]
    last = found[-max(1, len(found) // 10) :]
    if not last:
        return []
    chosen, rejected = (
        sum(item[key] for item in last) / len(last)
        for key in ("rewards/chosen", "rewards/rejected")
    )
    if chosen >= 0:
        return []
    return [
        f"the chosen answers became less likely too (reward {chosen:.2f}, rejected "
        f"{rejected:.2f}): only the distance between the two is learned, and answers that are "
        "neither may gain. If they got worse, mix in the chosen ones (preference.loss=sigmoid,sft),"
        " lower training.learning_rate, raise preference.beta, or take preference.loss=apo_zero"
    ]
