"""Puts together the parts that a training needs: loaded base, plan, arguments, batches.

Knows settings and libraries; holds no state of a run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from tuning.config import TuningConfig
from tuning.data.batching import Collator, Plan, plan_run
from tuning.data.encode import TokenRow
from tuning.fused.loss import label_loss
from tuning.fused.model import Lean, make_lean
from tuning.hardware import pick_attention
from tuning.models.loading import load_model
from tuning.training.distributed import is_sharded, num_processes
from tuning.training.trackers import PROJECT
from tuning.training.trainer import NonFiniteLossError, RunTrainer
from tuning.variant.checkpoint import read_model_config

HELDOUT_BATCH = 32


def load_base(
    config: TuningConfig, folder: Path, precision: str, longest: int
) -> tuple[Any, torch.dtype]:
    """The loaded base and the dtype it is stored in.

    A frozen base stored in bf16 stays in it under bf16 autocast, which saves casting its weights
    at every step and rounds nothing; weights that are trained are always fp32.
    """
    stored = read_model_config(folder).dtype
    stored = stored if isinstance(stored, torch.dtype) else torch.float32
    keep_half = config.method != "full" and precision == "bf16" and stored == torch.bfloat16
    model = load_model(
        folder,
        dtype=torch.bfloat16 if keep_half else torch.float32,
        attention=pick_attention(longest),
        four_bit=config.method == "qlora",
    )
    if config.method == "qlora":
        from peft import prepare_model_for_kbit_training

        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    return model, stored


def lean_of(
    config: TuningConfig,
    model: Any,
    rows: Sequence[TokenRow],
    pad_id: int,
    say: Callable[[str], None],
) -> Lean | None:
    """Make the model's layers lean where that is known to change nothing: on a CPU, unsharded.

    On a GPU, and under FSDP and DeepSpeed, which put their own hands on the layers, they stay.
    Where they stay since the model would be another with them, `say` gets a line about it.
    """
    if not config.training.lean or torch.cuda.is_available() or is_sharded():
        return None
    packed, few = config.training.packing, rows[:2]
    collate = Collator(pad_id, packed)
    batch = collate([few] if packed else [[row] for row in few])
    virtual = config.prefix.virtual_tokens if config.method == "prompt" else 0

    def loss(lean: Lean | None) -> torch.Tensor:
        return label_loss(model, batch, virtual_tokens=virtual, lean=lean)[0]

    was_training = model.training
    model.eval()
    try:
        return make_lean(
            model, loss, lambda why: say(f"training.lean: the plain layers are kept ({why})")
        )
    finally:
        model.train(was_training)


def plan_of(
    config: TuningConfig, rows: Sequence[TokenRow], order: Sequence[int], max_length: int
) -> Plan:
    """The order of all rows of the run."""
    options = config.training
    return plan_run(
        [len(row) for row in rows],
        order,
        epochs=options.epochs,
        max_steps=options.max_steps,
        batch=options.batch_size * options.accumulation * num_processes(),
        seed=config.seed,
        pack_length=max_length if options.packing else None,
    )


def arguments(config: TuningConfig, precision: str, rate: float, steps: int, scratch: Path) -> Any:
    """Arguments of the Trainer; when to log, evaluate and save is for `callbacks`."""
    from transformers import TrainingArguments

    options = config.training
    return TrainingArguments(
        output_dir=str(scratch),
        per_device_train_batch_size=options.batch_size,
        gradient_accumulation_steps=options.accumulation,
        max_steps=steps,
        learning_rate=rate,
        weight_decay=options.weight_decay,
        max_grad_norm=options.clip,
        optim="adamw_torch_fused",
        bf16=precision == "bf16",
        use_cpu=not torch.cuda.is_available(),
        train_sampling_strategy="sequential",
        remove_unused_columns=False,
        dataloader_num_workers=0,
        dataloader_pin_memory=torch.cuda.is_available(),
        logging_strategy="no",
        save_strategy="no",
        eval_strategy="no",
        report_to="none",  # `trackers` are callbacks of our own
        run_name=config.name,
        project=PROJECT,
        disable_tqdm=True,
        seed=config.seed,
        neftune_noise_alpha=options.neftune,
        logging_nan_inf_filter=False,
        average_tokens_across_devices=True,
    )


def remove_printers(trainer: RunTrainer) -> None:
    """Our own callbacks decide when to log, evaluate and save; nothing prints between them."""
    from transformers import DefaultFlowCallback, PrinterCallback

    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(DefaultFlowCallback)


def let_zero3_gather(trainer: RunTrainer) -> None:
    """Switch on what DeepSpeed's stage 3 needs to give whole weights, before its engine is made.

    Unless its config says so, the engine refuses to gather, which would show only at the end.
    """
    if trainer.is_deepspeed_enabled:
        config = trainer.accelerator.state.deepspeed_plugin.deepspeed_config
        zero = config.get("zero_optimization", {})
        if zero.get("stage") == 3:
            zero["stage3_gather_16bit_weights_on_model_save"] = True


def whole_weights(trainer: RunTrainer) -> dict[str, torch.Tensor] | None:
    """The whole weights of a model that is spread over the processes; None where it is not.

    Every process has to call it, since each gives its part.
    """
    if not (trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled):
        return None
    state: dict[str, torch.Tensor] = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    return state


def refuse_non_finite(
    model: torch.nn.Module, weights: Mapping[str, torch.Tensor] | None, step: int
) -> None:
    """NonFiniteLossError when a step left no numbers in what is to be saved, of `weights` or else
    of what `model` trains: after the last step no loss tells.
    """
    trained = ((name, part) for name, part in model.named_parameters() if part.requires_grad)
    for name, part in trained if weights is None else weights.items():
        if part.is_floating_point() and not bool(torch.isfinite(part).all()):
            raise NonFiniteLossError(
                f"step {step} left {name} NaN or infinite; lower training.learning_rate"
            )


def tied_names(model: torch.nn.Module) -> set[str]:
    """Further names of parameters that the model has under another name already.

    Gathered weights are copies: what is tied lies there twice, and a checkpoint holds it once.
    """
    once = {name for name, _ in model.named_parameters()}
    return {name for name, _ in model.named_parameters(remove_duplicate=False)} - once


def heldout_batches(rows: Sequence[TokenRow], collate: Collator) -> list[dict[str, torch.Tensor]]:
    """Held-out rows, those of like length together."""
    ordered = sorted(rows, key=len)
    return [
        collate([[row] for row in ordered[start : start + HELDOUT_BATCH]])
        for start in range(0, len(ordered), HELDOUT_BATCH)
    ]
