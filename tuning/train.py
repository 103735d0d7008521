"""Makes a variant: `tune(config)` reads from top to bottom what `arena tune` does.

Knows how the parts fit together; each part (data, model, trainer, folder) knows its own job.
"""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from tuning.card import write_card
from tuning.collate import Collator, PlannedRows, plan_run
from tuning.config import TuningConfig
from tuning.generate import greedy_answers
from tuning.methods import (
    build_model,
    count_parameters,
    default_learning_rate,
    load_model,
    pick_attention,
    pick_precision,
)
from tuning.plots import draw_losses
from tuning.prepare import Prepared, check_home, prepare
from tuning.progress import Display, History, RunControl
from tuning.quiet import known_warnings_hidden, quiet_libraries
from tuning.sealing import publish, seal_variant
from tuning.template import render_prompts
from tuning.trainer import Clock, SftTrainer, schedule_factor
from tuning.variant import Variant, read_variant

PACKAGES = ("torch", "transformers", "peft", "accelerate", "tokenizers", "safetensors")
HELDOUT_BATCH = 32
SAMPLE_TOKENS = 48


@dataclass(frozen=True)
class Outcome:
    """What a finished training leaves: the model and the numbers for `variant.json`."""

    model: Any
    history: History
    run: dict[str, Any]
    metrics: dict[str, Any]


def tune(
    config: TuningConfig,
    *,
    console: Console | None = None,
    replayed: Mapping[int, float] | None = None,
) -> Variant:
    """Make the variant that `config` describes and return it; its folder is whole or absent.

    Progress goes to `console` (none by default). Raises a TuningError for a mistake in the
    settings, the data or the base, and for a loss that is no number. `replayed` gives the
    progress of each step of an earlier run, to repeat a run that was bounded by the clock.
    """
    started = time.monotonic()
    quiet_libraries()
    out = console or Console(quiet=True)
    check_home(config)
    prepared = prepare(config)
    with known_warnings_hidden():
        outcome = train_model(config, prepared, started, out, replayed)
        if is_main_process():
            save_variant(config, prepared, outcome)
    wait_for_all()
    return read_variant(config.folder)


def train_model(
    config: TuningConfig,
    prepared: Prepared,
    started: float,
    out: Console,
    replayed: Mapping[int, float] | None = None,
) -> Outcome:
    """Build the model, plan the rows, train, and gather what is to be told about it."""
    from transformers import set_seed

    options = config.training
    precision = pick_precision(options.precision)
    set_seed(config.seed)
    model, base_dtype = _base_model(config, prepared, precision)
    model = build_model(config, model, prepared.rows)
    rate = options.learning_rate or default_learning_rate(
        config.method, model.get_input_embeddings().embedding_dim
    )
    plan = plan_run(
        [len(row) for row in prepared.rows],
        prepared.order,
        epochs=options.epochs,
        max_steps=options.max_steps,
        batch=options.batch_size * options.accumulation * num_processes(),
        seed=config.seed,
        pack_length=prepared.max_length if options.packing else None,
    )
    prepared.ledger.sequences = len(plan.sequences)
    trained, total = count_parameters(model)
    for line in prepared.ledger.lines():
        out.print(line, highlight=False)
    out.print(
        f"{config.method}: {trained:,} of {total:,} parameters, {precision}, learning rate "
        f"{rate:g}, {plan.num_steps:,} steps of {plan.batch} sequences"
        + (f" or {options.max_minutes:g} minutes" if options.max_minutes else ""),
        highlight=False,
    )
    seconds = options.max_minutes * 60 if options.max_minutes else None
    clock = Clock(plan.num_steps, seconds, started, replayed)
    history = History(None)
    display = Display(out, clock, history)
    control = RunControl(
        clock,
        config.checks,
        history,
        has_heldout=bool(prepared.heldout),
        sample=lambda step: _sample(model, prepared, config, history, step),
    )
    with tempfile.TemporaryDirectory(prefix="arena-trainer-") as scratch:
        trainer = SftTrainer(
            model=model,
            args=_arguments(config, precision, rate, plan.num_steps, Path(scratch)),
            train_dataset=PlannedRows(prepared.rows, plan),
            data_collator=Collator(prepared.tokenizer.pad_token_id, options.packing),
            callbacks=[control, display],
            virtual_tokens=config.prefix.virtual_tokens if config.method == "prompt" else 0,
            factor=lambda step: schedule_factor(
                clock.progress(step), options.schedule, options.warmup
            ),
            name_rows=lambda examples: _name_rows(prepared, examples),
            on_log=lambda record: _keep(record, clock, history),
            on_batch=display.count,
            heldout=_heldout_batches(prepared),
        )
        _remove_printers(trainer)
        began = time.monotonic()
        try:
            trainer.train()
        finally:
            display.close()
        trained_seconds = time.monotonic() - began
    model = trainer.accelerator.unwrap_model(trainer.model_wrapped, keep_fp32_wrapper=False)
    if config.method == "full":
        model.to(base_dtype)
    run = _describe_run(config, prepared, precision, rate, started)
    run["steps"] = trainer.state.global_step
    run["training_seconds"] = round(trained_seconds, 2)
    run["tokens_per_second"] = round(trainer.num_tokens_seen / max(1e-9, trained_seconds), 1)
    run["stopped_early"] = control.stopped_early
    run["parameters"] = {"trained": trained, "all": total}
    return Outcome(model, history, run, _metrics(history))


def save_variant(config: TuningConfig, prepared: Prepared, outcome: Outcome) -> None:
    """Write everything to a temporary folder beside the final one, seal it, rename it."""
    models = config.folder.parent
    temporary = Path(tempfile.mkdtemp(prefix=f".{config.name}.", suffix=".tmp", dir=models))
    temporary.chmod(0o755)
    try:
        _save_weights(config, prepared, outcome, temporary)
        prepared.tokenizer.save_pretrained(temporary)
        history = History(temporary / "history.jsonl")
        for record in outcome.history.records:
            history.add(record)
        draw_losses({config.name: outcome.history.records}, temporary / "loss.png")
        variant = seal_variant(
            temporary,
            name=config.name,
            kind=config.kind,
            base=prepared.base,
            run=outcome.run,
            metrics=outcome.metrics,
            parent=prepared.parent.name,
        )
        (temporary / "README.md").write_text(write_card(variant), encoding="utf-8")
        if config.folder.exists():
            assert config.overwrite
            shutil.rmtree(config.folder)
        publish(temporary, config.folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def is_main_process() -> bool:
    """True on the one process that writes files."""
    return int(os.environ.get("RANK", "0")) == 0


def num_processes() -> int:
    """How many processes train together (torchrun and accelerate launch set it)."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def wait_for_all() -> None:
    """Let no process go on before the others are here."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()


def _base_model(
    config: TuningConfig, prepared: Prepared, precision: str
) -> tuple[Any, torch.dtype]:
    """The loaded base and the dtype it is stored in.

    A frozen base stored in bf16 stays in it under bf16 autocast, which saves casting its weights
    at every step and rounds nothing; weights that are trained are always fp32.
    """
    from transformers import AutoConfig

    stored = AutoConfig.from_pretrained(prepared.folder, local_files_only=True).dtype
    stored = stored if isinstance(stored, torch.dtype) else torch.float32
    frozen_half = config.method != "full" and precision == "bf16" and stored == torch.bfloat16
    longest = prepared.max_length if config.training.packing else max(map(len, prepared.rows))
    model = load_model(
        prepared.folder,
        dtype=torch.bfloat16 if frozen_half else torch.float32,
        attention=pick_attention(longest),
    )
    model.config.use_cache = True
    return model, stored


def _arguments(config: TuningConfig, precision: str, rate: float, steps: int, scratch: Path) -> Any:
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
        report_to="none",
        disable_tqdm=True,
        seed=config.seed,
        neftune_noise_alpha=options.neftune,
        logging_nan_inf_filter=False,
        average_tokens_across_devices=True,
    )


def _remove_printers(trainer: Any) -> None:
    from transformers import DefaultFlowCallback, PrinterCallback

    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(DefaultFlowCallback)


def _heldout_batches(prepared: Prepared) -> list[dict[str, torch.Tensor]]:
    collate = Collator(prepared.tokenizer.pad_token_id)
    rows = sorted(prepared.heldout, key=len)
    return [
        collate([[row] for row in rows[start : start + HELDOUT_BATCH]])
        for start in range(0, len(rows), HELDOUT_BATCH)
    ]


def _keep(record: dict[str, Any], clock: Clock, history: History) -> None:
    """One history record of what the Trainer logs; its summary at the end is not kept."""
    known = ("step", "loss", "grad_norm", "learning_rate", "eval_loss")
    kept = {key: record[key] for key in known if key in record}
    if len(kept) > 1:
        if "loss" in kept:
            kept["progress"] = clock.progress(record["step"])
        history.add({**kept, "seconds": round(clock.elapsed, 2)})


def _sample(
    model: Any, prepared: Prepared, config: TuningConfig, history: History, step: int
) -> None:
    """Answer a few held-out prompts with the model as it is now."""
    examples = prepared.corpus.heldout[: config.checks.samples]
    if not examples or not is_main_process():
        return
    conversations = [example.messages[:-1] for example in examples]
    prompts = render_prompts(prepared.tokenizer, conversations)
    answers = greedy_answers(model, prepared.tokenizer, prompts, max_new_tokens=SAMPLE_TOKENS)
    samples = [
        {"prompt": str(messages[-1]["content"]), "answer": answer.strip()}
        for messages, answer in zip(conversations, answers, strict=True)
    ]
    history.add({"step": step, "samples": samples})


def _name_rows(prepared: Prepared, examples: list[int]) -> str:
    places = [prepared.corpus.train[example].place for example in examples]
    more = f" and {len(places) - 3} more" if len(places) > 3 else ""
    return ", ".join(places[:3]) + more


def _metrics(history: History) -> dict[str, Any]:
    losses = [loss for _, loss in history.losses]
    last = losses[-max(1, len(losses) // 10) :]
    metrics = {"train_loss": round(sum(last) / len(last), 6)}
    if history.eval_losses:
        metrics["eval_loss"] = round(history.eval_losses[-1][1], 6)
    return metrics


def _describe_run(
    config: TuningConfig, prepared: Prepared, precision: str, rate: float, started: float
) -> dict[str, Any]:
    return {
        "config": config.to_json(),
        "data_sha256": prepared.corpus.sha256,
        "sources": prepared.corpus.sources,
        "ledger": prepared.ledger.to_json(),
        "template": "default" if prepared.default_template else "base",
        "max_length": prepared.max_length,
        "learning_rate": rate,
        "precision": precision,
        "seed": config.seed,
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in PACKAGES},
        },
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else _processor(),
        "threads": torch.get_num_threads(),
        "processes": num_processes(),
        "seconds": round(time.monotonic() - started, 2),
    }


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    if path.is_file():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _save_weights(config: TuningConfig, prepared: Prepared, outcome: Outcome, folder: Path) -> None:
    model = outcome.model
    if config.method == "full":
        model.generation_config.eos_token_id = prepared.tokenizer.eos_token_id
        model.generation_config.pad_token_id = prepared.tokenizer.pad_token_id
        model.save_pretrained(folder)
        return
    model.peft_config["default"].base_model_name_or_path = prepared.base.id
    model.save_pretrained(folder, save_embedding_layers=False)
