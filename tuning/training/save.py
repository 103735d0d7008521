"""Writes what a run leaves: checkpoints while it goes on, the variant folder when it is done.

Knows folders and what goes into `variant.json`; trains nothing.
"""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from tuning.config import TuningConfig
from tuning.hardware import describe_device
from tuning.models.tokenizers import WRITE_ERRORS, save_tokenizer
from tuning.training.checkpoints import CheckpointError, RunFolder
from tuning.training.clock import Clock
from tuning.training.distributed import is_main_process, num_processes, wait_for_all
from tuning.training.history import History
from tuning.training.inputs import Inputs
from tuning.variant.card import write_card
from tuning.variant.folder import HISTORY_FILE, Variant
from tuning.variant.manifest import seal_variant, sweep, whole_folder
from tuning.variant.plots import draw_losses, draw_measures

PACKAGES = ("torch", "transformers", "peft", "accelerate", "tokenizers", "safetensors")
BAD_ROWS_FILE = "bad_rows.jsonl"
MIXTURE_FILE = "mixture_rows.jsonl"
UNITS = {"sft": "response token", "reward": "pair", "dpo": "pair", "kto": "answer", "rl": "prompt"}
"""What the loss of an objective is the mean of."""


@dataclass(frozen=True)
class Outcome:
    """What a finished training leaves: the model and the numbers for `variant.json`."""

    model: Any
    weights: dict[str, torch.Tensor] | None
    """The whole weights where `model` holds a part of them only."""
    history: History
    run: dict[str, Any]
    metrics: dict[str, Any]
    finish: Callable[[Any, Path], dict[str, float]] | None = None
    """Writes further files of the model into its folder, and gives further metrics."""


class RunCheckpoints:
    """Takes checkpoints from the trainer into the run's folder, with the history so far."""

    def __init__(
        self, folder: RunFolder, clock: Clock, history: History, *, keeps_best: bool
    ) -> None:
        self._folder = folder
        self._clock = clock
        self._history = history
        self._keeps_best = keeps_best

    def prepare(self) -> Path:
        """An empty folder for the next checkpoint."""
        if is_main_process():
            try:
                self._folder.begin()
                shutil.rmtree(self._folder.saving, ignore_errors=True)
                self._folder.saving.mkdir()
            except OSError as error:
                raise self.failure(error) from error
        wait_for_all()
        return self._folder.saving

    def commit(self, folder: Path, step: int) -> None:
        """Seal and rename what the trainer wrote; every process waits for it."""
        wait_for_all()
        if is_main_process():
            try:
                history = History(folder / HISTORY_FILE)
                for record in self._history.records:
                    history.add(record)
                best = self._history.best_step if self._keeps_best else None
                self._folder.commit(folder, step, self._clock.elapsed, spare=best)
            except OSError as error:
                raise self.failure(error) from error
        wait_for_all()

    def failure(self, error: Exception) -> CheckpointError:
        """The error of a checkpoint that could not be written; the one before stays."""
        shutil.rmtree(self._folder.saving, ignore_errors=True)
        reason = " ".join(str(error).split())
        return CheckpointError(
            f"{self._folder.folder}: a checkpoint could not be written ({reason}); {self.kept}; "
            "make room and repeat the command to go on"
        )

    @property
    def kept(self) -> str:
        """Says which checkpoint is the last whole one."""
        whole = sorted(self._folder.folder.glob("step-*"))
        return f"the last good one is {whole[-1]}" if whole else "there is none before it"


def save_variant(config: TuningConfig, prepared: Inputs, outcome: Outcome) -> None:
    """Write everything to a temporary folder beside the final one, seal it, rename it."""
    sweep(config.folder)
    try:
        with whole_folder(config.folder, replace=config.overwrite) as folder:
            _fill(folder, config, prepared, outcome)
    except WRITE_ERRORS as error:
        raise CheckpointError(
            f"{config.folder}: the variant could not be written ({' '.join(str(error).split())}); "
            "make room and repeat the command"
        ) from error


def write_step(
    config: TuningConfig,
    prepared: Inputs,
    model: Any,
    step: int,
    history: History,
    run: dict[str, Any],
) -> None:
    """Write the adapter as it is now to `NAME@STEP` beside the variant's folder.

    OSError and VariantError where that fails; the folder is whole or absent.
    """
    target = config.folder.with_name(f"{config.name}@{step}")
    outcome = Outcome(model, None, history, run, {})
    with whole_folder(target, replace=True) as folder:
        pad_id = prepared.tokenizer.pad_token_id
        _save_weights(outcome, folder, list(prepared.stop_ids), pad_id, adapts=prepared.base.id)
        save_tokenizer(prepared.tokenizer, folder)
        seal_variant(
            folder,
            name=target.name,
            kind=config.kind,
            base=prepared.base,
            run=run,
            metrics=metrics_of(history, step),
            parent=prepared.parent.name,
        )


def _fill(folder: Path, config: TuningConfig, prepared: Inputs, outcome: Outcome) -> None:
    tokenizer = prepared.tokenizer
    adapts = None if config.method == "full" else prepared.base.id
    if config.objective == "reward":
        _save_scorer(outcome, folder, adapts=adapts)
    else:
        stop_ids = list(prepared.stop_ids)
        _save_weights(outcome, folder, stop_ids, tokenizer.pad_token_id, adapts=adapts)
    save_tokenizer(tokenizer, folder)
    history = History(folder / HISTORY_FILE)
    for record in outcome.history.records:
        history.add(record)
    _write_lines(folder / BAD_ROWS_FILE, [vars(bad) for bad in prepared.ledger.bad_rows])
    _write_lines(folder / MIXTURE_FILE, prepared.drawn)
    draw_losses(
        {config.name: outcome.history.records}, folder / "loss.png", UNITS[config.objective]
    )
    draw_measures(outcome.history.records, folder)
    more = {} if outcome.finish is None else outcome.finish(outcome.model, folder)
    variant = seal_variant(
        folder,
        name=config.name,
        kind=config.kind,
        base=prepared.base,
        run=outcome.run,
        metrics={**outcome.metrics, **{key: round(value, 6) for key, value in more.items()}},
        parent=prepared.parent.name,
    )
    (folder / "README.md").write_text(write_card(variant), encoding="utf-8")


def _write_lines(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """Records as JSON Lines; no file where there is none."""
    lines = [json.dumps(record, ensure_ascii=False) for record in records]
    if lines:
        path.write_text("\n".join(lines) + "\n", encoding="utf-8", errors="backslashreplace")


def _save_weights(
    outcome: Outcome, folder: Path, stop_ids: list[int], pad_id: int, *, adapts: str | None
) -> None:
    """The weights and where generation stops; `adapts` names the base of an adapter."""
    from transformers import GenerationConfig

    model = outcome.model
    generation = model.generation_config if adapts is None else GenerationConfig()
    generation.eos_token_id = stop_ids
    generation.pad_token_id = pad_id
    if adapts is None:
        model.save_pretrained(folder, state_dict=outcome.weights)
        return
    generation.save_pretrained(folder)
    model.peft_config["default"].base_model_name_or_path = adapts
    model.save_pretrained(folder, save_embedding_layers=False, state_dict=outcome.weights)


def _save_scorer(outcome: Outcome, folder: Path, *, adapts: str | None) -> None:
    """The weights of a reward model, its head among them; it writes nothing, so stops nowhere."""
    model = outcome.model
    if adapts is None:
        model.save_pretrained(folder, state_dict=outcome.weights)
        return
    model.peft_config["default"].base_model_name_or_path = adapts
    model.save_pretrained(folder, save_embedding_layers=False, state_dict=outcome.weights)


def metrics_of(history: History, step: int) -> dict[str, Any]:
    """Training loss over the last tenth of the run, and what the held-out rows said after `step`,
    or last."""
    losses = [loss for _, loss in history.losses]
    last = losses[-max(1, len(losses) // 10) :]
    metrics = {"train_loss": round(sum(last) / len(last), 6)}
    evaluated = [item for item in history.records if "eval_loss" in item]
    if evaluated:
        taken = next((item for item in evaluated if item["step"] == step), evaluated[-1])
        said = {key: value for key, value in taken.items() if key.startswith("eval_")}
        metrics |= {key: round(value, 6) for key, value in said.items()}
    return metrics


def describe_run(
    config: TuningConfig, prepared: Inputs, precision: str, rate: float
) -> dict[str, Any]:
    """The part of `variant.json` that says what was run, on what and with what."""
    # Where the home lay says nothing of the variant, and a folder's name may say much of a person.
    settings = {key: value for key, value in config.to_json().items() if key != "home"}
    return {
        "config": settings,
        "data_sha256": prepared.data_sha256,
        "sources": prepared.sources,
        "ledger": prepared.ledger.to_json(),
        "template": prepared.template,
        "template_day": prepared.day and prepared.day.isoformat(),
        "tokens_sha256": prepared.tokens_sha256,
        "max_length": prepared.max_length,
        "learning_rate": rate,
        "precision": precision,
        "seed": config.seed,
        "start": _start_of(prepared.parent),
        "versions": package_versions(),
        "device": describe_device(),
        "threads": torch.get_num_threads(),
        "processes": num_processes(),
    }


def _start_of(parent: Variant) -> dict[str, str] | None:
    """The adapter that the run went on with, where it did."""
    if not parent.is_adapter:
        return None
    return {"name": parent.name, "sha256": parent.weights_sha256}


def package_versions() -> dict[str, str]:
    """Versions of Python and of the libraries that make the weights."""
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
    }
