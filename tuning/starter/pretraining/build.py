"""`arena starter pretrain`: runs pretraining in a terminal and seals the base as a variant folder.

Knows the terminal and the files; the training itself is `pretrain`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from tuning.starter import STARTER
from tuning.starter.pretraining.earlier import EarlierRun
from tuning.starter.pretraining.pretrain import RECORD_STEPS, BaseSummary, pretrain
from tuning.starter.pretraining.recipe import PretrainConfig
from tuning.variant.manifest import publish, seal_variant, write_atomically
from tuning.variant.plots import draw_losses

LINE_STEPS = 100  # where no bar can be drawn, one line after so many steps


def run_pretrain(config: PretrainConfig, out: Path, *, json_out: bool = False) -> Path:
    """Pretrain with a progress bar and write the variant folder `out/starter`."""
    console = Console(stderr=True)
    columns = (
        TextColumn("pretraining"),
        BarColumn(),
        TextColumn("{task.fields[state]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    earlier = EarlierRun.read(Path(config.go_on)) if config.go_on else EarlierRun()
    if config.minutes is None:
        unit, done, own = "step", earlier.num_steps, config.steps
    else:
        unit, done, own = "seconds", round(60 * earlier.minutes), round(60 * config.minutes)
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=done + own, completed=done, state="starting")

        def report(record: Mapping[str, float]) -> None:
            rate = record["tokens"] / max(record["seconds"], 1e-9)
            state = f"loss {record['loss']:.3f}, {record['tokens'] / 1e6:.2f}M tokens, {rate:.0f}/s"
            progress.update(task, completed=record[unit], state=state)
            if not console.is_terminal and record["step"] % LINE_STEPS < RECORD_STEPS:
                print(f"{record['seconds']:.0f} s: {state}", file=sys.stderr, flush=True)

        summary = pretrain(config, out, report=report)
    folder = seal_base(summary, out / STARTER)
    facts = {"folder": str(folder), **summary.metrics, "num_tokens": summary.run["num_tokens"]}
    if json_out:
        print(json.dumps(facts))
    else:
        print(f"{folder}: perplexity {facts['heldout_perplexity']} on held-out documents")
    return folder


def seal_base(summary: BaseSummary, folder: Path) -> Path:
    """Turn the finished checkpoint into the base's variant folder, replacing an older one."""
    draw_losses({STARTER: summary.history}, summary.folder / "loss.png", unit="token")
    write_atomically(summary.folder / "README.md", base_card(summary))
    seal_variant(
        summary.folder, name=STARTER, kind="base", run=summary.run, metrics=summary.metrics
    )
    publish(summary.folder, folder, replace=True)
    return folder


def base_card(summary: BaseSummary) -> str:
    """The model card, with greedy continuations as they came out."""
    run: dict[str, Any] = summary.run
    samples = "\n".join(
        f"> **{prompt}**{text}\n".replace("\n", "\n> ") for prompt, text in summary.samples
    )
    return f"""---
library_name: transformers
pipeline_tag: text-generation
license: apache-2.0
language: en
tags: [base-model, synthetic-corpus]
---

# starter

A base language model (Qwen3 architecture) of {run["num_parameters"]:,} parameters, pretrained for
{run["minutes"]} minutes on {run["num_tokens"]:,} tokens of generated English about a small world
of true facts ({run["device"]}, {run["precision"]}). It continues text; it does not follow
instructions. `arena starter pretrain` makes it again from its seed.

Perplexity on held-out documents: **{summary.metrics["heldout_perplexity"]}** a token.

![Loss over steps](loss.png)

Greedy continuations (prompt in bold):

{samples}
"""
