"""Pretraining of the starter's base model on the generated corpus, from tokenizer to checkpoint.

Run by `arena starter pretrain`; resumable at any moment from the last whole checkpoint. Knows
nothing of instructions' answers: those are tuning's.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from tuning.hardware import pick_precision
from tuning.models.generate import greedy_answers
from tuning.models.perplexity import document_loss
from tuning.starter.pretraining.earlier import EarlierRun, PretrainError
from tuning.starter.pretraining.recipe import (
    END,
    PretrainConfig,
    bound_attention,
    build_model,
    make_optimizers,
    schedule,
    train_tokenizer,
)
from tuning.starter.world import corpus
from tuning.variant.folder import HISTORY_FILE

RECORD_STEPS = 20  # the history has one line after so many steps


@dataclass(frozen=True)
class BaseSummary:
    """A finished run: the checkpoint's folder and what is known of it. Loss in nats a token."""

    folder: Path
    run: dict[str, Any]
    metrics: dict[str, float]
    samples: list[tuple[str, str]]
    history: list[dict[str, float]]


class TokenStream:
    """Rows of `context + 1` token ids cut from the endless corpus; its position can be saved."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerFast, length: int, state: dict[str, Any] | None = None
    ) -> None:
        self.tokenizer, self.length = tokenizer, length
        self.next_document = int(state["next_document"]) if state else 0
        self.rest: list[int] = list(state["rest"]) if state else []

    def state(self) -> dict[str, Any]:
        """What `__init__` needs to go on from here."""
        return {"next_document": self.next_document, "rest": self.rest}

    def batch(self, rows: int) -> torch.Tensor:
        """The next rows, shape `(rows, length)`, dtype int64."""
        wanted = rows * self.length
        while len(self.rest) < wanted:
            texts = [corpus.document(self.next_document + i) for i in range(256)]
            self.next_document += len(texts)
            for ids in self.tokenizer(texts)["input_ids"]:
                self.rest.extend(ids)
        taken, self.rest = self.rest[:wanted], self.rest[wanted:]
        return torch.tensor(taken).view(rows, self.length)


def loss_of(model: PreTrainedModel, batch: torch.Tensor, *, autocast: bool) -> torch.Tensor:
    """Mean next-token cross entropy in nats; `batch` has shape `(rows, context + 1)`."""
    with torch.autocast(batch.device.type, torch.bfloat16, enabled=autocast):
        logits = model(input_ids=batch[:, :-1], use_cache=False).logits
    flat = logits.float().flatten(0, 1)
    return torch.nn.functional.cross_entropy(flat, batch[:, 1:].flatten())


def heldout_loss(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> float:
    """Mean nats a token over the held-out documents, each read from its beginning."""
    model.eval()
    texts = [text + END for text in corpus.heldout_documents()]
    loss = document_loss(model, tokenizer, texts)
    model.train()
    return loss


SAMPLE_PROMPTS = (
    "The capital of France is",
    "One day, Anna went to the forest.",
    "Of apple, pear, hammer and plum, the odd one out is",
    "What is the capital of Italy?",
)


def continuations(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> list[tuple[str, str]]:
    """Greedy continuations of a few prompts, for the card."""
    texts = greedy_answers(
        model, tokenizer, SAMPLE_PROMPTS, max_new_tokens=48, special_tokens=True, batch_size=1
    )
    return [(prompt, text or "") for prompt, text in zip(SAMPLE_PROMPTS, texts, strict=True)]


def pretrain(
    config: PretrainConfig,
    out: Path,
    *,
    report: Callable[[dict[str, float]], None] = lambda record: None,
) -> BaseSummary:
    """Train for the configured steps or minutes and write a base checkpoint to `out/model`.

    Interrupted, the same call goes on from `out/checkpoint`; more steps or minutes prolong a
    finished run. `report` receives one record every few steps.
    Raises `PretrainError` if `out` holds a run with another configuration.
    """
    run = _PretrainRun.start(config, out)
    began, spent_before = time.monotonic(), run.seconds
    saved_at = began
    while run.progress < 1:
        loss = run.train_step()
        run.seconds = spent_before + time.monotonic() - began
        if run.step % RECORD_STEPS == 0:
            record = run.record(loss)
            report(record)
        if time.monotonic() - saved_at > config.checkpoint_minutes * 60:
            run.save()
            saved_at = time.monotonic()
    return run.finish()


class _PretrainRun:
    """Model, optimizers, data position and history of one run."""

    def __init__(self, config: PretrainConfig, out: Path, state: dict[str, Any] | None) -> None:
        self.config, self.out = config, out
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.autocast = pick_precision(config.precision) == "bf16"
        self.earlier = EarlierRun.read(Path(config.go_on)) if config.go_on else EarlierRun()
        self.tokenizer: PreTrainedTokenizerFast
        if state:
            self.tokenizer = PreTrainedTokenizerFast.from_pretrained(out / "checkpoint")
        elif config.go_on:
            self.tokenizer = PreTrainedTokenizerFast.from_pretrained(config.go_on)
        else:
            self.tokenizer = train_tokenizer(config)
        if config.go_on:
            self.model = AutoModelForCausalLM.from_pretrained(config.go_on, dtype=torch.float32)
            self.model.train()
        else:
            self.model = build_model(config, self.tokenizer)
        self.model.to(self.device)
        self.optimizers = make_optimizers(self.model, config)
        self.base_rates = [[g["lr"] for g in o.param_groups] for o in self.optimizers]
        first = {"next_document": self.earlier.num_documents, "rest": []}
        self.stream = TokenStream(
            self.tokenizer, config.context + 1, state["stream"] if state else first
        )
        self.step = int(state["step"]) if state else 0
        self.seconds = float(state["seconds"]) if state else 0.0
        history = state["history"] if state else self.earlier.history
        self.history: list[dict[str, float]] = list(history)
        if state:
            self.model.load_state_dict(state["model"])
            for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
                optimizer.load_state_dict(saved)

    @classmethod
    def start(cls, config: PretrainConfig, out: Path) -> _PretrainRun:
        """A new run, or the one whose whole checkpoint lies in `out`."""
        out.mkdir(parents=True, exist_ok=True)
        old, path = out / "checkpoint.old", out / "checkpoint" / "state.pt"
        if old.is_dir() and not path.is_file():  # ended between the two renames of a save
            old.rename(out / "checkpoint")
        if not path.is_file():
            return cls(config, out, None)
        # Our own training state, read with the restricted unpickler; never published.
        state = torch.load(path, weights_only=True)
        budget = {key: state["config"][key] for key in ("steps", "minutes")}
        if state["config"] != asdict(config) | budget:
            raise PretrainError(
                f"{out} holds a run with another configuration; choose another --out or remove it"
            )
        return cls(config, out, state)

    def train_step(self) -> float:
        """One optimizer step; returns the loss in nats a token."""
        factor = schedule(self.config, self.step, self.progress)
        for optimizer, rates in zip(self.optimizers, self.base_rates, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * factor
        batch = self.stream.batch(self.config.batch_size).to(self.device)
        loss = loss_of(self.model, batch, autocast=self.autocast)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        bound_attention(self.model, self.config.logit_limit)
        self.step += 1
        return loss.item()

    @property
    def progress(self) -> float:
        """The share of the run that is done: of its minutes where they are given, else steps."""
        minutes = self.config.minutes
        spent, whole = (
            (self.step, self.config.steps) if minutes is None else (self.seconds, 60 * minutes)
        )
        return spent / whole if spent < whole else 1.0

    @property
    def num_tokens(self) -> int:
        """Tokens trained on so far, those of an earlier run included."""
        own = self.step * self.config.batch_size * self.config.context
        return self.earlier.num_tokens + own

    def record(self, loss: float) -> dict[str, float]:
        """Add to and return the newest line of the history."""
        self.history.append(
            {
                "step": self.earlier.num_steps + self.step,
                "tokens": self.num_tokens,
                "seconds": round(60 * self.earlier.minutes + self.seconds, 1),
                "loss": round(loss, 4),
            }
        )
        return self.history[-1]

    def save(self) -> None:
        """Write `out/checkpoint` whole or not at all."""
        part = self.out / "checkpoint.part"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        self.tokenizer.save_pretrained(part)
        state = {
            "config": asdict(self.config),
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "stream": self.stream.state(),
            "step": self.step,
            "seconds": self.seconds,
            "history": self.history,
        }
        with (part / "state.pt").open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        final, old = self.out / "checkpoint", self.out / "checkpoint.old"
        shutil.rmtree(old, ignore_errors=True)
        if final.exists():
            final.rename(old)
        part.rename(final)
        shutil.rmtree(old, ignore_errors=True)

    def finish(self) -> BaseSummary:
        """Write the bf16 checkpoint with its history and tokenizer to `out/model`."""
        self.save()
        loss = heldout_loss(self.model, self.tokenizer)
        samples = continuations(self.model, self.tokenizer)
        folder = self.out / "model"
        shutil.rmtree(folder, ignore_errors=True)
        self.model.to(torch.bfloat16).save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        lines = "".join(json.dumps(record) + "\n" for record in self.history)
        (folder / HISTORY_FILE).write_text(lines, encoding="utf-8")
        run = {
            # The base gone on from is told by its own run and hash below, not by where it lay.
            "config": asdict(self.config) | {"go_on": Path(self.config.go_on).name},
            "num_parameters": sum(p.numel() for p in self.model.parameters()),
            "num_tokens": self.num_tokens,
            "num_documents": self.stream.next_document,
            "num_steps": self.earlier.num_steps + self.step,
            "minutes": round(self.earlier.minutes + self.seconds / 60, 1),
            "device": self.device,
            "precision": "bf16 autocast" if self.autocast else "fp32",
            "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        }
        if self.earlier.run:
            run["earlier_run"] = self.earlier.run
        metrics = {"heldout_loss": round(loss, 4), "heldout_perplexity": round(math.exp(loss), 3)}
        return BaseSummary(folder, run, metrics, samples, self.history)
