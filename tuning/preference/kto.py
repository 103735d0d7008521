"""Kahneman-Tversky optimisation: a policy learns from single answers that were called good or bad.

Ethayarajh et al., 2402.01306. It takes votes of both-bad, which pairs cannot. Knows labelled
answers and log-probabilities; knows no run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import torch

from tuning.config import TuningConfig
from tuning.data.batching import Plan
from tuning.data.preferences.encode import EncodedLabelled, Ids
from tuning.data.preferences.pairs import Origin
from tuning.errors import ConfigError
from tuning.preference.batches import Group
from tuning.preference.dpo import held_prompts, heldout_batches, item_labels, remarks_on_rewards
from tuning.preference.inputs import PreparedPreferences, prepare_judgements
from tuning.preference.losses import LABEL_LOSSES, label_losses, mismatched_kl
from tuning.preference.policy import (
    Policy,
    as_token_rows,
    build_policy,
    check_policy,
    group_of,
)
from tuning.training.objective import Say, answered
from tuning.training.steps import Batch, Measured, Steps

GOOD_OVER_BAD = 1.0
"""Share of good answers in the loss over that of bad ones; the paper asks for 1 to 4/3."""


@dataclass(frozen=True)
class LabelledRow:
    """A prompt, a completion that is good or bad, and a completion of another prompt.

    The last one, put behind this prompt, measures how far the policy is from its start.
    """

    prompt: Ids
    completion: Ids
    mismatched: Ids
    label: bool
    origin: Origin
    example: int
    """Its number in the run."""
    factor: float = 1.0

    def __len__(self) -> int:
        return len(self.prompt) + len(self.completion)

    @property
    def groups(self) -> tuple[Group, Group]:
        """The row, and its prompt with the other prompt's completion, for the layout."""
        return group_of(self.prompt, self.completion), group_of(self.prompt, self.mismatched)


class Kto:
    """Trains a policy on answers with labels."""

    def prepare(self, config: TuningConfig, day: date | None) -> PreparedPreferences:
        """Every judged answer of all sources, split by prompt, both classes weighing the same."""
        _check_losses(config)
        found = prepare_judgements(config, day, cut=True, unpaired=True)
        check_policy(config, starts_from_adapter=found.start.adapter is not None)
        room = found.start.max_length
        train = labelled_rows(config, found.train.labelled, room)
        if len({row.label for row in train}) == 1:
            only = "good" if train[0].label else "bad"
            raise ConfigError(
                f"data: all {len(train):,} answers that are left to train on are {only}, and KTO "
                "needs both; give more votes, or a lower data_options.heldout"
            )
        # Held-out answers may be to one prompt only, so trained ones are compared with as well.
        held = labelled_rows(config, found.held.labelled, room, found.train.labelled)
        return found.as_inputs(train, held)

    def build(
        self, config: TuningConfig, inputs: PreparedPreferences, precision: str
    ) -> tuple[Any, torch.dtype]:
        """The start, or a new adapter on it that changes nothing yet."""
        rows = as_token_rows([row.groups[0] for row in inputs.rows])
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
        """KTO's loss, beside log-probabilities that the start gave once."""
        groups = [group for row in inputs.rows for group in row.groups]
        held = [group for row in inputs.heldout for group in row.groups]
        policy = Policy(config, model, groups, inputs.tokenizer.pad_token_id, precision, say)
        reference = policy.reference(
            config, inputs.made_of(precision), model, {"train": groups, "heldout": held}
        )
        say(_classes(inputs.rows))
        kind, beta = (config.preference.loss or LABEL_LOSSES[:1])[0], config.preference.beta

        def loss(model: Any, batch: Batch) -> Measured:
            return measured(policy, model, batch, kind, beta)

        return Steps(
            collate=LabelCollator(policy, reference["train"]),
            loss=loss,
            heldout=heldout_batches(inputs.heldout, LabelCollator(policy, reference["heldout"])),
            heldout_loss=loss,
        )

    def sample(
        self, config: TuningConfig, inputs: PreparedPreferences, model: Any
    ) -> list[dict[str, str]]:
        """Held-out prompts, answered greedily."""
        lessons = [item.labelled for item in inputs.held.labelled]
        return answered(model, inputs, held_prompts(lessons, config.checks.samples))

    def remarks(self, records: Sequence[Mapping[str, Any]]) -> list[str]:
        """What the history says that a person should know."""
        return remarks_on_rewards(records)


class LabelCollator:
    """Lays rows out twice, with their own and the other prompt's completion.

    `reference`, of shape (2 × rows,), is what the start gave both.
    """

    def __init__(self, policy: Policy, reference: torch.Tensor) -> None:
        self._policy = policy
        self._reference = reference.view(-1, 2)

    def __call__(self, items: Sequence[Sequence[LabelledRow]]) -> Batch:
        """The tensors of the policy's layout, whose labels are `scored`, and again with names that
        begin with `other_`; `reference` (rows, 2); `label`, `factor`, `examples` (rows,);
        `labels` (rows, 2), one item each.
        """
        rows = [row for item in items for row in item]
        own = self._policy.collate([row.groups[0] for row in rows])
        other = self._policy.collate([row.groups[1] for row in rows])
        own["scored"] = own.pop("labels")
        examples = torch.tensor([row.example for row in rows])
        return {
            **own,
            **{f"other_{name}": part for name, part in other.items()},
            "reference": self._reference[examples],
            "label": torch.tensor([row.label for row in rows]),
            "factor": torch.tensor([row.factor for row in rows]),
            "labels": item_labels(len(rows)),
            "examples": examples,
        }


def measured(policy: Policy, model: Any, batch: Batch, kind: str, beta: float) -> Measured:
    """The summed loss of a batch, and the implicit rewards of good and bad answers."""
    with torch.no_grad():
        other = {
            name.removeprefix("other_"): part
            for name, part in batch.items()
            if name.startswith("other_")
        }
        kl = mismatched_kl(policy.log_probs(model, other), batch["reference"][:, 1])
    found = policy.log_probs(model, {**batch, "labels": batch["scored"]})
    ratios, good = found - batch["reference"][:, 0], batch["label"]
    losses = batch["factor"] * label_losses(kind, ratios, good, kl, beta)
    with torch.no_grad():
        rewards = beta * ratios
        # Means over one class, as sums over all items.
        share = len(good) / good.sum().clamp(min=1), len(good) / (~good).sum().clamp(min=1)
        chosen = float(rewards[good].sum() * share[0])
        rejected = float(rewards[~good].sum() * share[1])
        sums = {
            "rewards/chosen": chosen,
            "rewards/rejected": rejected,
            "rewards/margins": chosen - rejected,
            "kl": float(kl) * len(good),
        }
    return Measured(losses.sum(), len(losses), sums)


def labelled_rows(
    config: TuningConfig,
    labelled: Sequence[EncodedLabelled],
    max_length: int,
    others: Sequence[EncodedLabelled] = (),
) -> list[LabelledRow]:
    """Rows in which good and bad answers count the same, each with another prompt's completion,
    of these or of `others`.
    """
    if not labelled:
        return []
    pool = [*labelled, *others]
    partners = mismatches([item.prompt_ids for item in pool], config.seed)[: len(labelled)]
    weights = [item.labelled.weight if config.preference.row_weights else 1.0 for item in labelled]
    mass = {
        label: sum(
            weight
            for item, weight in zip(labelled, weights, strict=True)
            if item.labelled.label is label
        )
        for label in (True, False)
    }
    share = GOOD_OVER_BAD / (1 + GOOD_OVER_BAD)
    shares = {True: share * len(labelled), False: (1 - share) * len(labelled)}
    return [
        LabelledRow(
            item.prompt_ids,
            item.completion_ids,
            pool[partner].completion_ids[: max(1, max_length - len(item.prompt_ids))],
            item.labelled.label,
            item.labelled.origin,
            index,
            weight * shares[item.labelled.label] / mass[item.labelled.label],
        )
        for index, (item, weight, partner) in enumerate(
            zip(labelled, weights, partners, strict=True)
        )
    ]


def mismatches(prompts: Sequence[Ids], seed: int) -> list[int]:
    """For each row another one with another prompt, each row taken about once.

    Rows are shuffled and rotated, so that the other answer to a prompt is not its mismatch, which
    would hide how far the policy went. ConfigError where all prompts are the same.
    """
    keys = [prompt.tobytes() for prompt in prompts]
    if len(set(keys)) < 2:
        raise ConfigError(
            "data: all answers are to one and the same prompt, and KTO compares each with answers "
            "to other prompts; add prompts, or give --objective dpo"
        )
    order = np.random.default_rng(seed).permutation(len(keys)).tolist()
    found = [0] * len(keys)
    for place, row in enumerate(order):
        later = (order[(place + step) % len(order)] for step in range(1, len(order)))
        found[row] = next(other for other in later if keys[other] != keys[row])
    return found


def _classes(rows: Sequence[LabelledRow]) -> str:
    told = []
    for label, name in ((True, "good"), (False, "bad")):
        factors = [row.factor for row in rows if row.label is label]
        mean = sum(factors) / len(factors)
        told.append(f"{len(factors):,} {name} answers weigh {mean:.2f} each")
    return f"kto: {', '.join(told)}, so that both kinds count the same"


def _check_losses(config: TuningConfig) -> None:
    options = config.preference
    if len(options.loss) > 1 or (options.loss and options.loss[0] not in LABEL_LOSSES):
        raise ConfigError(
            f"preference.loss: {', '.join(options.loss)} is not for single answers; give one of "
            f"{', '.join(LABEL_LOSSES)}, or --objective dpo"
        )
    if options.loss_weights or options.label_smoothing:
        name = "loss_weights" if options.loss_weights else "label_smoothing"
        raise ConfigError(f"preference.{name}: changes nothing in KTO; leave it out")
