"""A transformers Trainer that follows the planned order and computes what the objective asks.

Knows tensors, steps and the clock; knows neither data files nor variant folders.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, Protocol

import torch
from safetensors.torch import load_file, save_file
from transformers import Trainer

from tuning.errors import TuningError
from tuning.training.distributed import from_main
from tuning.training.steps import Measured, Steps

TRAINED_FILE = "trained.safetensors"


class NonFiniteLossError(TuningError):
    """The loss or its gradient became NaN or infinite; names the step and the rows of its batch."""


class Checkpoints(Protocol):
    """Where the trainer leaves checkpoints; `tuning.training.save` puts them into a run folder."""

    def prepare(self) -> Path:
        """An empty folder in which the next checkpoint is written."""
        ...

    def commit(self, folder: Path, step: int) -> None:
        """Take over the written folder."""
        ...


class RunTrainer(Trainer):  # type: ignore[misc]
    """Trains on the rows of a `PlannedRows` with the loss of its `steps`."""

    loss_is_scaled_for_ga = True

    def __init__(
        self,
        *args: Any,
        steps: Steps,
        factor: Callable[[int], float],
        name_rows: Callable[[list[int]], str],
        on_log: Callable[[dict[str, Any], dict[str, float]], None],
        on_batch: Callable[[int], None],
        checkpoints: Checkpoints,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, data_collator=steps.collate, **kwargs)
        self._checkpoints = checkpoints
        self.model_accepts_loss_kwargs = True
        self._steps = steps
        self._factor = factor
        self._name_rows = name_rows
        self._on_log = on_log
        self._on_batch = on_batch
        self._since = Means()
        self.num_tokens_seen = 0
        self._examples: list[int] = []
        """Of the batches since the last optimizer step, to name rows by."""

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """The loss of the batch, as its share of the mean over all items of the whole step."""
        assert not return_outputs
        measured = self._steps.loss(model, inputs)
        self._since.add(measured)
        if num_items_in_batch is None:
            return measured.total / measured.items
        # Gradients are averaged over processes, while num_items counts the items of them all.
        return measured.total * self.accelerator.num_processes / num_items_in_batch

    def training_step(self, model: Any, inputs: dict[str, torch.Tensor], *args: Any) -> Any:
        """One forward and backward pass; a loss that is no number stops the run before the step."""
        examples = inputs["examples"].tolist()
        loss = super().training_step(model, inputs, *args)
        if not torch.isfinite(loss):
            self._refuse("loss", loss.item(), examples)
        self._examples += examples
        self.num_tokens_seen += inputs["input_ids"].numel()
        self._on_batch(inputs["input_ids"].numel())
        return loss

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        """The norm of the step's gradient; one that is no number stops the run before the step."""
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        examples, self._examples = self._examples, []
        if not math.isfinite(norm):
            self._refuse("gradient", float(norm), examples)
        return norm

    def _refuse(self, what: str, value: float, examples: list[int]) -> NoReturn:
        raise NonFiniteLossError(
            f"{what} is {value} at step {self.state.global_step + 1} (rows "
            f"{self._name_rows(examples)}); lower training.learning_rate or mend these rows"
        )

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """A schedule that follows steps or the clock, whichever is further."""
        if self.lr_scheduler is None:
            self.lr_scheduler: Any = torch.optim.lr_scheduler.LambdaLR(
                optimizer or self.optimizer, self._factor
            )
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Let the Trainer write into a temporary folder, which becomes a checkpoint when whole."""
        self.args.output_dir = str(self._checkpoints.prepare())
        try:
            super()._save_checkpoint(model, trial)
        except RuntimeError as error:  # so torch.save calls it when the disk is full
            raise OSError(str(error)) from error
        written = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        self._checkpoints.commit(written, self.state.global_step)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write the trained parameters, as they are, with nothing that is frozen."""
        if self.is_deepspeed_enabled:
            return  # its engine writes them beside its optimizer's state
        if self.is_fsdp_enabled:
            super().save_model(output_dir, _internal_call)
            return
        assert output_dir is not None
        Path(output_dir).mkdir(parents=True, exist_ok=True)
        if self.args.should_save:
            save_file(self._trained(), Path(output_dir) / TRAINED_FILE)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Copy the parameters of a checkpoint back into the model."""
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        stored = load_file(Path(resume_from_checkpoint) / TRAINED_FILE)
        parameters = self._trained()
        assert stored.keys() == parameters.keys()
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(stored[name])

    def _trained(self) -> dict[str, torch.Tensor]:
        return {
            name: parameter.detach()
            for name, parameter in self.model.named_parameters()
            if parameter.requires_grad
        }

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Not counted: the Trainer's estimate walks all parameters at every step."""
        return 0

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Keep the Trainer's own record and pass it on, with what was measured since the last."""
        super().log(logs, start_time)
        measures = self._since.take() if "loss" in logs else {}
        self._on_log({"step": self.state.global_step, **logs}, measures)

    @torch.no_grad()
    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Mean loss per item of the held-out rows; every process computes it whole."""
        sharded = self.is_fsdp_enabled or self.is_deepspeed_enabled
        wrapped = self.model_wrapped
        model = wrapped if sharded else self.accelerator.unwrap_model(wrapped)
        model.eval()
        total, items, means = 0.0, 0, Means()
        for batch in self._steps.heldout:
            measured = self._steps.heldout_loss(model, self._prepare_inputs(batch))
            total, items = total + float(measured.total), items + int(measured.items)
            means.add(measured)
        model.train()
        # What all do next hangs on it, and machines may differ in the last bit.
        metrics = {"eval_loss": from_main(total / items)}
        super().log(dict(metrics))
        measures = {f"eval_{name}": value for name, value in means.take().items()}
        self._on_log({"step": self.state.global_step, **metrics}, measures)
        self.control: Any = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics


class Means:
    """The means of what the batches measured since they were last asked for."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._items = 0.0

    def add(self, measured: Measured) -> None:
        """Count one batch in; one that measured nothing costs nothing."""
        if measured.sums:
            self._items += float(measured.items)
            for name, value in measured.sums.items():
                self._sums[name] = self._sums.get(name, 0.0) + value

    def take(self) -> dict[str, float]:
        """The means by name, and begin anew."""
        means = {name: value / self._items for name, value in self._sums.items()}
        self._sums, self._items = {}, 0.0
        return means
