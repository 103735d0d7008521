"""What an objective decides of a run, and supervised tuning, the plain one.

A run (`tuning.training.train`) has its folder, clock, checkpoints and variant whatever it is for;
rows, model, loss and samples are the objective's. Others than supervised tuning are in
`tuning.preference`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import date
from typing import Any, Protocol

import torch

from tuning.config import TuningConfig
from tuning.data.batching import Collator, Plan
from tuning.data.rendering import render
from tuning.fused.loss import label_loss
from tuning.hardware import pick_width_step
from tuning.methods.adapters import build_model
from tuning.models.generate import greedy_answers
from tuning.training.distributed import is_sharded
from tuning.training.inputs import Inputs, Prepared, prepare
from tuning.training.packing import check_packing
from tuning.training.setup import heldout_batches, lean_of, load_base
from tuning.training.steps import Batch, Measured, Steps

SAMPLE_TOKENS = 48
Say = Callable[[str], None]


class Objective(Protocol):
    """The parts of a run that hang on what it is for."""

    def prepare(self, config: TuningConfig, day: date | None) -> Any:
        """The checked inputs of the run (`Inputs`), which the other methods are given."""
        ...

    def build(self, config: TuningConfig, inputs: Any, precision: str) -> tuple[Any, torch.dtype]:
        """The model to train, and the dtype that its base is stored in."""
        ...

    def steps(
        self,
        config: TuningConfig,
        inputs: Any,
        model: Any,
        plan: Plan,
        precision: str,
        say: Say,
    ) -> Steps:
        """What the steps of `plan` compute; `say` takes a line for the user."""
        ...

    def sample(self, config: TuningConfig, inputs: Any, model: Any) -> list[dict[str, str]]:
        """A few held-out prompts, each with the answer that the model gives now."""
        ...

    def remarks(self, records: Sequence[Mapping[str, Any]]) -> list[str]:
        """What the finished run's history says that a person should know."""
        ...


class Supervised:
    """Supervised tuning: the loss of the answers in the rows."""

    def prepare(self, config: TuningConfig, day: date | None) -> Prepared:
        """Conversations of all sources, encoded."""
        return prepare(config, day)

    def build(
        self, config: TuningConfig, inputs: Prepared, precision: str
    ) -> tuple[Any, torch.dtype]:
        """The base, or an adapter on it."""
        rows = inputs.rows
        longest = inputs.max_length if config.training.packing else max(map(len, rows))
        base, stored = load_base(config, inputs.folder, precision, longest)
        return build_model(config, base, rows, is_tried=not is_sharded()), stored

    def steps(
        self,
        config: TuningConfig,
        inputs: Prepared,
        model: Any,
        plan: Plan,
        precision: str,
        say: Say,
    ) -> Steps:
        """Cross entropy over label positions."""
        packing, rows, pad_id = config.training.packing, inputs.rows, inputs.tokenizer.pad_token_id
        # One that is spread over the processes is not whole yet, and cannot be asked.
        if packing and not is_sharded():
            check_packing(model, rows, plan)
        lean = lean_of(config, model, rows, pad_id, say)
        plan.count(inputs.ledger, [len(row) for row in rows])
        step, most = pick_width_step(precision), inputs.max_length
        virtual = config.prefix.virtual_tokens if config.method == "prompt" else 0

        def loss(model: Any, batch: Batch) -> Measured:
            return Measured(*label_loss(model, batch, virtual_tokens=virtual, lean=lean))

        return Steps(
            collate=Collator(pad_id, packing, step, most),
            loss=loss,
            heldout=heldout_batches(inputs.heldout, Collator(pad_id, step=step, most=most)),
            heldout_loss=loss,
        )

    def sample(self, config: TuningConfig, inputs: Prepared, model: Any) -> list[dict[str, str]]:
        """Held-out prompts, answered greedily."""
        usable = dict.fromkeys(row.example for row in inputs.heldout)
        examples = [inputs.corpus.heldout[at] for at in list(usable)[: config.checks.samples]]
        conversations = [example.messages[:-1] for example in examples]
        tools = [example.tools for example in examples]
        return answered(model, inputs, conversations, tools)

    def remarks(self, records: Sequence[Mapping[str, Any]]) -> list[str]:
        """None."""
        return []


def answered(
    model: Any, inputs: Inputs, conversations: Sequence[Any], tools: Sequence[Any] = ()
) -> list[dict[str, str]]:
    """The last message of each conversation, and the model's greedy answer to it.

    A prompt that fills the context has none.
    """
    if not conversations:
        return []
    prompts = render(inputs.tokenizer, conversations, prompt=True, day=inputs.day, tools=tools)
    answers = greedy_answers(
        model,
        inputs.tokenizer,
        prompts,
        max_new_tokens=SAMPLE_TOKENS,
        stop_ids=inputs.stop_ids,
    )
    return [
        {"prompt": messages[-1]["content"], "answer": answer.strip()}
        for messages, answer in zip(conversations, answers, strict=True)
        if answer is not None
    ]
