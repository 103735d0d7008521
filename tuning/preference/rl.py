"""Reinforcement learning: a policy writes answers, a reward judges them, and better ones become
more likely.

RLOO (2402.14740) or GRPO (2402.03300) with one step for each set of answers, so that they are
always the policy's own. Knows prompts, rewards and log-probabilities; knows no run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import torch

from tuning.config import TuningConfig
from tuning.data.batching import Plan
from tuning.data.encode import IGNORED
from tuning.data.folders import DataError
from tuning.data.preferences.encode import Ids
from tuning.data.rendering import is_dated
from tuning.data.template import render_prompts, tokenize
from tuning.errors import ConfigError
from tuning.fused.loss import label_log_probs
from tuning.models.generate import sample_ids
from tuning.preference.answer_rewards import ByChecks, ByModel, Rewards
from tuning.preference.batches import sum_by_completion
from tuning.preference.dpo import heldout_batches, item_labels
from tuning.preference.policy import Policy, StartValues, as_token_rows, build_policy, check_policy
from tuning.preference.policy_gradient import (
    grpo_advantages,
    grpo_losses,
    rloo_advantages,
    rloo_losses,
)
from tuning.preference.prompts import (
    TOO_LONG,
    JudgedPrompt,
    PromptLedger,
    prompts_sha256,
    read_prompts,
    require_checks,
    split_prompts,
)
from tuning.training.inputs import Start, find_start
from tuning.training.objective import Say, answered
from tuning.training.steps import Batch, Measured, Steps

SUITE = "suite"
CLIP = 0.2
"""As TRL's; it clips nothing as long as each set of answers is used for one step."""


@dataclass(frozen=True)
class PromptRow:
    """A prompt as ids of shape (length,), and its number in the run."""

    ids: Ids
    prompt: JudgedPrompt
    example: int

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class PreparedPrompts(Start):
    """The inputs of a run that writes its own answers."""

    rows: tuple[PromptRow, ...]
    heldout: tuple[PromptRow, ...]
    day: date | None
    ledger: PromptLedger
    sources: dict[str, str]

    @property
    def order(self) -> tuple[int, ...]:
        """Every prompt is seen once in an epoch."""
        return tuple(range(len(self.rows)))

    @property
    def data_sha256(self) -> str:
        """Fingerprint of the prompts that are answered in training."""
        return prompts_sha256([row.prompt for row in self.rows])

    @property
    def heldout_sha256(self) -> str:
        """Fingerprint of the prompts that are held out."""
        return prompts_sha256([row.prompt for row in self.heldout])

    @property
    def tokens_sha256(self) -> str:
        """Fingerprint of both as ids."""
        digest = hashlib.sha256()
        for row in (*self.rows, *self.heldout):
            digest.update(np.asarray([len(row.ids), *row.ids], dtype="<i4").tobytes())
        return digest.hexdigest()

    @property
    def drawn(self) -> list[dict[str, Any]]:
        """None: prompts are in no mixture."""
        return []

    def place(self, example: int) -> str:
        """Where a prompt came from."""
        return self.rows[example].prompt.place


class PolicyGradient:
    """Trains a policy on the rewards of its own answers."""

    def __init__(self) -> None:
        self._rewards: Rewards = ByChecks()

    def prepare(self, config: TuningConfig, day: date | None) -> PreparedPrompts:
        """Prompts of all sources, split, as ids."""
        _check_settings(config)
        self._rewards = judged_by(config)
        start = find_start(config)
        check_policy(config, starts_from_adapter=start.adapter is not None)
        ledger = PromptLedger()
        prompts = read_prompts(config.data, config.data_options, config.seed, ledger)
        if config.preference.reward == SUITE:
            require_checks(prompts)
        day = day or date.today()
        room = start.max_length - config.preference.answer_tokens
        rendered = render_prompts(start.tokenizer, [prompt.messages for prompt in prompts], day)
        ids = dict(zip(map(id, prompts), tokenize(start.tokenizer, rendered), strict=True))
        fitting = [
            prompt
            for prompt in prompts
            if 0 < len(ids[id(prompt)]) <= room and self._reads(prompt, config)
        ]
        assert ledger.left_out is not None
        ledger.left_out[TOO_LONG] = len(prompts) - len(fitting)
        if not fitting:
            raise DataError(
                f"data: no prompt leaves room for preference.answer_tokens="
                f"{config.preference.answer_tokens} within {start.max_length} tokens and what the "
                "reward model reads; lower it"
            )
        train, held = (
            tuple(
                PromptRow(np.asarray(ids[id(prompt)], dtype=np.int32), prompt, at)
                for at, prompt in enumerate(side)
            )
            for side in split_prompts(fitting, config.data_options.heldout, config.seed)
        )
        ledger.trained, ledger.heldout = len(train), len(held)
        return PreparedPrompts(
            **vars(start),
            rows=train,
            heldout=held,
            day=day if is_dated(start.tokenizer.chat_template) else None,
            ledger=ledger,
            sources={source: prompts_sha256(prompts) for source in config.data},
        )

    def _reads(self, prompt: JudgedPrompt, config: TuningConfig) -> bool:
        """Whether the reward reads the longest answer that may be written to a prompt."""
        room = self._rewards.room(prompt)
        return room is None or room >= config.preference.answer_tokens

    def build(
        self, config: TuningConfig, inputs: PreparedPrompts, precision: str
    ) -> tuple[Any, torch.dtype]:
        """The start, or a new adapter on it that changes nothing yet."""
        stop = [inputs.stop_ids[0]]
        longest = max(inputs.rows, key=len)
        room = config.preference.answer_tokens
        rows = as_token_rows([(row.ids.tolist(), [stop]) for row in (longest, *inputs.rows[:64])])
        rows[0] = as_token_rows([(longest.ids.tolist(), [stop * room])])[0]
        return build_policy(config, inputs.folder, inputs.adapter, rows, precision)

    def steps(
        self,
        config: TuningConfig,
        inputs: PreparedPrompts,
        model: Any,
        plan: Plan,
        precision: str,
        say: Say,
    ) -> Steps:
        """Answers are written within each step, judged, and learned from."""
        writer = AnswerWriter(config, inputs, model, precision, say, self._rewards)

        def collate(items: Sequence[Sequence[PromptRow]]) -> Batch:
            return collate_prompts([row for item in items for row in item], writer.pad_id)

        held = {row.example: row.prompt for row in inputs.heldout}
        trained = {row.example: row.prompt for row in inputs.rows}
        return Steps(
            collate=collate,
            loss=lambda model, batch: writer.learn(model, batch, trained),
            heldout=heldout_batches(inputs.heldout, collate),
            heldout_loss=lambda model, batch: writer.try_out(model, batch, held),
        )

    def sample(
        self, config: TuningConfig, inputs: PreparedPrompts, model: Any
    ) -> list[dict[str, str]]:
        """Held-out prompts, answered greedily."""
        chosen = inputs.heldout[: config.checks.samples]
        return answered(model, inputs, [row.prompt.messages for row in chosen])

    def remarks(self, records: Sequence[Mapping[str, Any]]) -> list[str]:
        """How far the policy went, and what for."""
        found = [item for item in records if "kl" in item]
        if not found:
            return []
        part = max(1, len(found) // 10)
        first, last = (
            {key: sum(item[key] for item in some) / len(some) for key in ("reward", "kl")}
            for some in (found[:part], found[-part:])
        )
        unread = sum(item.get("unread", 0.0) for item in found) / len(found)
        said = (
            f"{unread:.1%} of the answers could not be read by the reward model and were the worst"
        )
        return [
            f"reward {first['reward']:.3f} at the start, {last['reward']:.3f} at the end, "
            f"{last['kl']:.2f} nats from the start",
            *([f"{said} of their prompts"] if unread else []),
        ]


class AnswerWriter:
    """Lets a policy write answers, has them judged, and says what to learn from that."""

    def __init__(
        self,
        config: TuningConfig,
        inputs: PreparedPrompts,
        model: Any,
        precision: str,
        say: Say,
        rewards: Rewards,
    ) -> None:
        self._options = config.preference
        self._inputs = inputs
        self.pad_id = int(inputs.tokenizer.pad_token_id)
        self._rewards = rewards
        self._start = StartValues(model)
        few = [(row.ids.tolist(), [[inputs.stop_ids[0]] * 2] * 2) for row in inputs.rows[:2]]
        self._policy = Policy(config, model, few, self.pad_id, precision, say)

    def learn(self, model: Any, batch: Batch, prompts: Mapping[int, JudgedPrompt]) -> Measured:
        """One set of answers to each prompt, and the loss of all of them."""
        options = self._options
        asked, rows = self._prompts_of(batch)
        drawn = self._write(model, rows, options.generations, options.sampling_temperature)
        groups = list(zip(rows, drawn, strict=True))
        flat = [answer for answers in drawn for answer in answers]
        each = [prompts[number] for number in asked for _ in range(options.generations)]
        judged = self._rewards(each, self._texts(flat))
        rewards = torch.tensor(judged.rewards)
        laid_out = {
            name: part.to(model.device) for name, part in self._policy.collate(groups).items()
        }
        now = self._each(model, laid_out)
        with torch.no_grad(), self._start.back(model):
            before = self._each(model, laid_out)
        total, sums = self._loss(now, before, laid_out, rewards)
        ended = sum(answer[-1] in self._inputs.stop_ids for answer in flat)
        share = 1 / options.generations
        sums |= {
            "reward": float(rewards.sum()) * share,
            "answer_tokens": sum(map(len, flat)) * share,
            "ended": ended * share,
            "unread": judged.unread * share,
        }
        return Measured(total * share, len(rows), sums)

    def _loss(
        self, now: torch.Tensor, before: torch.Tensor, batch: Batch, rewards: torch.Tensor
    ) -> tuple[torch.Tensor, dict[str, float]]:
        """The sum over answers, and the sum of their divergence for each prompt."""
        options = self._options
        count = options.generations
        policy = sum_by_completion(now, batch)
        kl = policy.detach() - sum_by_completion(before, batch)
        sums = {"kl": float(kl.sum()) / count}
        if options.policy_gradient == "rloo":
            advantages = rloo_advantages(rewards - options.kl * kl.cpu(), count)
            losses = rloo_losses(policy, policy.detach(), advantages.to(policy.device), CLIP)
            return losses.sum(), sums
        counted, (own, start) = _as_matrix(batch, now, before)
        advantages = grpo_advantages(rewards, count).to(own.device)
        losses = grpo_losses(
            own, own.detach(), start, advantages, counted, clip=CLIP, beta=options.kl
        )
        return losses.sum(), sums

    def try_out(self, model: Any, batch: Batch, prompts: Mapping[int, JudgedPrompt]) -> Measured:
        """The reward of the likeliest answers to held-out prompts; the loss is minus it."""
        asked, rows = self._prompts_of(batch)
        answers = [drawn[0] for drawn in self._write(model, rows, 1, 0.0)]
        judged = self._rewards([prompts[number] for number in asked], self._texts(answers))
        total = sum(judged.rewards)
        length = float(sum(map(len, answers)))
        sums = {"reward": total, "answer_tokens": length, "unread": float(judged.unread)}
        return Measured(torch.tensor(-total), len(rows), sums)

    def _prompts_of(self, batch: Batch) -> tuple[list[int], list[list[int]]]:
        """Numbers and ids of the prompts of a batch."""
        lengths = batch["prompt_lengths"].tolist()
        rows = [row[:n] for row, n in zip(batch["input_ids"].tolist(), lengths, strict=True)]
        return batch["examples"].tolist(), rows

    def _write(
        self, model: Any, rows: Sequence[list[int]], count: int, temperature: float
    ) -> list[list[list[int]]]:
        return sample_ids(
            model,
            rows,
            count=count,
            max_new_tokens=self._options.answer_tokens,
            temperature=temperature,
            stop_ids=self._inputs.stop_ids,
            pad_id=self.pad_id,
        )

    def _texts(self, answers: Sequence[list[int]]) -> list[str]:
        decoded = self._inputs.tokenizer.batch_decode(answers, skip_special_tokens=True)
        return [text.strip() for text in decoded]

    def _each(self, model: Any, batch: Batch) -> torch.Tensor:
        """Log-probability of each token of the answers, at the temperature they were drawn with."""
        return label_log_probs(
            model,
            batch,
            virtual_tokens=self._policy.virtual_tokens,
            lean=self._policy.lean,
            temperature=self._options.sampling_temperature,
        )


def collate_prompts(rows: Sequence[PromptRow], pad_id: int) -> Batch:
    """`input_ids` of shape (prompts, width), padded on the right; `prompt_lengths` and `examples`
    (prompts,); `labels` (prompts, 2), one item each.
    """
    width = max(map(len, rows))
    ids = np.full((len(rows), width), pad_id, dtype=np.int64)
    for at, row in enumerate(rows):
        ids[at, : len(row)] = row.ids
    return {
        "input_ids": torch.from_numpy(ids),
        "prompt_lengths": torch.tensor([len(row) for row in rows]),
        "examples": torch.tensor([row.example for row in rows]),
        "labels": item_labels(len(rows)),
    }


def _as_matrix(
    batch: Batch, *values: torch.Tensor
) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
    """Numbers of all labels as (completions, longest), and which places hold one."""
    owner = batch["owner"][batch["labels"] != IGNORED]
    lengths = batch["lengths"]
    first = lengths.cumsum(0) - lengths
    # Labels lie in the order of their completions.
    column = torch.arange(len(owner), device=owner.device) - first[owner]
    shape = (len(lengths), int(lengths.max()))
    counted = values[0].new_zeros(shape).index_put((owner, column), values[0].new_ones(len(owner)))
    placed = tuple(part.new_zeros(shape).index_put((owner, column), part) for part in values)
    return counted, placed


def judged_by(config: TuningConfig) -> Rewards:
    """The reward that the settings name: the checks of a suite, or a reward model."""
    name = config.preference.reward
    if name == SUITE:
        return ByChecks()
    from tuning.models.scorer import load_scorer

    assert name is not None
    return ByModel(load_scorer(name, config.home))


def _check_settings(config: TuningConfig) -> None:
    options = config.preference
    if options.reward is None:
        raise ConfigError(
            "preference.reward: rl needs a reward; give the name of a reward model, or suite for "
            "the checks of --data starter or of a suite file"
        )
    if options.loss:
        raise ConfigError(
            f"preference.loss: {', '.join(options.loss)} is for dpo and kto; rl takes "
            "preference.policy_gradient=rloo or grpo"
        )
