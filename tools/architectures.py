"""Tries every method on a tiny model of every causal architecture, and writes what holds.

    python tools/architectures.py              # all that docs/architectures.json lacks
    python tools/architectures.py llama phi    # these again
    python tools/architectures.py --write      # the page from what is known, trying nothing

Each cell is a real run in this process: tuned, verified, evaluated, merged, served and resumed,
each held against what transformers and PEFT give for the saved files. What was found is kept in
docs/architectures.json as it is found, and docs/architectures.md is written from it.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from tiny_models import SKIPPED, kinds, make_tiny

ROOT = Path(__file__).parents[1]
FOUND = ROOT / "docs" / "architectures.json"
PAGE = ROOT / "docs" / "architectures.md"
METHODS = ("full", "lora", "dora", "ia3", "prefix", "prompt")
STEPS = ("tune", "resume", "verify", "eval", "merge", "serve")
GOOD = "good"
NUM_NEW = 6
HEAD = """\
# Architectures

`tools/architectures.py` writes this page: each method on a tiny random model of a causal
architecture ({count} of the {all} model types; {versions}).
A cell says yes when a run was tuned with the held-out loss that transformers and PEFT give for its
saved files, resumed to the same weights, verified, evaluated to the answers of transformers and
PEFT, merged to the same logits (lora, dora, ia3; virtual tokens merge into no weights), and served
with the same greedy tokens; else which steps are refused and why. A method that does not hold is
refused at the start, before anything is trained, and the refusal names what to use instead; what
serving cannot run it refuses when it loads. Tiny models show what the code of an architecture does,
not how well a method learns on it.
"""
PROMPTS = ("Say red then blue.", "Say one", "Say green then cat number 7 and more.")


class DiffersError(Exception):
    """Something that is not what transformers and PEFT give."""


@dataclass(frozen=True)
class Place:
    """A tiny base with its data, and where its variants go."""

    home: Path
    data: Path

    @property
    def base(self) -> Path:
        return self.home / "base"


def make_place(kind: str, home: Path) -> Place:
    """A tiny base of that architecture, with the tests' tokenizer and rows."""
    from tuning_fixtures import make_tokenizer, rows, write_rows

    tokenizer = make_tokenizer()
    model = make_tiny(kind, len(tokenizer))
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    # Drawn wide, so that greedy answers vary and no two logits are near a tie.
    with torch.no_grad():
        for name, part in model.named_parameters():
            if part.dim() > 1 and "norm" not in name:
                part.mul_(6)
    model.save_pretrained(home / "base")
    tokenizer.save_pretrained(home / "base")
    return Place(home, write_rows(home / "rows.jsonl", rows(16)))


def try_method(place: Place, method: str) -> dict[str, str]:
    """What each step came to: `good`, a refusal in the program's words, or a fault."""
    from tuning.config import (
        CheckOptions,
        DataOptions,
        LoraOptions,
        PrefixOptions,
        TrainingOptions,
        TuningConfig,
    )

    config = TuningConfig(
        base=str(place.base),
        data=(str(place.data),),
        name=method,
        method="lora" if method == "dora" else method,
        home=place.home,
        lora=LoraOptions(rank=2, dora=method == "dora"),
        prefix=PrefixOptions(virtual_tokens=3),
        training=TrainingOptions(max_steps=2, batch_size=4, learning_rate=1e-2, precision="fp32"),
        data_options=DataOptions(heldout=0.2),
        checks=CheckOptions(save_steps=1, samples=0),
    )
    steps: dict[str, Callable[[], None]] = {
        "tune": lambda: _tune(config),
        "resume": lambda: _resume(config),
        "verify": lambda: _verify(place, method),
        "eval": lambda: _evaluate(place, method),
        "merge": lambda: _merge(place, method),
        "serve": lambda: _serve(place, method),
    }
    found: dict[str, str] = {}
    for name in STEPS:
        found[name] = _outcome(steps[name])
        if name == "tune" and found[name] != GOOD:
            break
    return found


def _outcome(step: Callable[[], None]) -> str:
    from serving.errors import EngineFailure, ModelLoadError
    from tuning.errors import TuningError
    from tuning.training.train import InterruptedRunError

    try:
        step()
    except InterruptedRunError:
        raise  # by a signal to this process; it says nothing of the architecture
    except (TuningError, ModelLoadError, EngineFailure) as error:
        return f"refused: {error}"
    except DiffersError as error:
        return f"fault: {error}"
    except Exception as error:
        return f"fault: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return GOOD


def _truth(place: Place, method: str) -> Any:
    """The saved variant as transformers and PEFT load it."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    if method == "full":
        return AutoModelForCausalLM.from_pretrained(place.home / "models" / "full").eval()
    model = AutoModelForCausalLM.from_pretrained(place.base)
    return PeftModel.from_pretrained(model, place.home / "models" / method).eval()


def _tune(config: Any) -> None:
    """The loss on held-out rows that is recorded is that of the saved files, row by row."""
    from tuning import tune
    from tuning.training.inputs import prepare

    made = tune(config)
    model = _truth(Place(config.home, Path(config.data[0])), config.name)
    total, count = 0.0, 0
    for row in prepare(config_again(config)).heldout:
        ids, labels = (torch.from_numpy(part).long() for part in (row.ids, row.labels))
        with torch.no_grad():
            logits = model(input_ids=ids[None]).logits[0, -len(ids) :]
        wanted = labels[1:]
        total += float(
            torch.nn.functional.cross_entropy(logits[:-1].float(), wanted, reduction="sum")
        )
        count += int((wanted != -100).sum())
    loss = made.metrics["eval_loss"]
    if not abs(loss - total / count) <= 1e-3 * abs(loss):
        raise DiffersError(f"held-out loss {loss:.6g}, by transformers {total / count:.6g}")


def config_again(config: Any) -> Any:
    """The same run under a name that is not taken."""
    return replace(config, name=f"{config.name}-again")


def _resume(config: Any) -> None:
    """Ended after its first checkpoint and started again, a run gives the very same weights."""
    from tuning import tune
    from tuning.training.save import RunCheckpoints
    from tuning.variant import read_variant

    commit, again = RunCheckpoints.commit, config_again(config)

    def commit_and_end(self: Any, folder: Path, step: int) -> None:
        commit(self, folder, step)
        raise KeyboardInterrupt

    with patch.object(RunCheckpoints, "commit", commit_and_end), suppress(KeyboardInterrupt):
        tune(again)
    made = tune(again)
    if made.run["resumed_at"] != 1:
        raise DiffersError(f"resumed at {made.run['resumed_at']}")
    if made.weights_sha256 != read_variant(config.folder).weights_sha256:
        raise DiffersError("resumed run gives other weights")


def _verify(place: Place, method: str) -> None:
    from tuning.variant.verify import verify_variant

    verify_variant(place.home / "models" / method, place.base)


def _greedy(model: Any, ids: list[int]) -> list[int]:
    """By transformers and PEFT, one prompt at a time, up to the end of the answer."""
    row = torch.tensor([ids])
    made = model.generate(
        input_ids=row,
        attention_mask=torch.ones_like(row),
        do_sample=False,
        max_new_tokens=NUM_NEW,
        eos_token_id=1,
        pad_token_id=1,
    )[0].tolist()
    # PEFT leaves the prompt out where it passed embeddings.
    return list(made[len(ids) :] if made[: len(ids)] == ids else made)


def _evaluate(place: Place, method: str) -> None:
    """Answers of a batch are those that each prompt gets alone."""
    from tuning.models.generate import greedy_answers
    from tuning.models.loading import load_variant

    loaded, truth = load_variant(method, place.home), _truth(place, method)
    tokenizer = loaded.tokenizer
    answers = greedy_answers(loaded.model, tokenizer, PROMPTS, max_new_tokens=NUM_NEW)
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        if answer != tokenizer.decode(_greedy(truth, ids), skip_special_tokens=True):
            raise DiffersError("answers of a batch are not those of transformers")


def _merge(place: Place, method: str) -> None:
    from tuning.models.merge import merge_variant

    if method == "full":
        return
    merge_variant(method, place.home, f"{method}-merged", str(place.base))


def _serve(place: Place, method: str) -> None:
    """Loaded as a server loads it, the greedy tokens are those of transformers and PEFT."""
    from transformers import AutoTokenizer

    from serving.config import EngineLimits, ServeConfig, ServingLimits
    from serving.errors import ModelLoadError
    from serving.models.registry import Registry

    folder = place.home / "models" / method
    limits = EngineLimits(max_rows=4, kv_tokens=1024, max_total_tokens=128)
    config = ServeConfig(
        base=folder if method == "full" else place.base,
        base_name="base",
        models=() if method == "full" else ((method, folder),),
        dtype="float32",
        device="cpu",
        limits=ServingLimits(**vars(limits)),
    )
    truth, tokenizer = _truth(place, method), AutoTokenizer.from_pretrained(folder)
    with Registry(config) as registry:
        if method in registry.refused:
            raise ModelLoadError(registry.refused[method])
        model = registry.resolve("base" if method == "full" else method)
        for prompt in PROMPTS:
            ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
            tokens = _written(registry, model, ids)
            if tokens != _greedy(truth, ids):
                raise DiffersError("the engine's answer is not that of transformers")


def _written(registry: Any, model: Any, ids: list[int]) -> list[int]:
    """Greedy tokens of a served model."""
    from queue import SimpleQueue

    from serving.engine.request import EngineRequest, FailureEvent, TokenEvent

    events: SimpleQueue[Any] = SimpleQueue()
    request = EngineRequest(
        tuple(ids), NUM_NEW, events.put, adapter=model.adapter, eos_ids=frozenset({1})
    )
    registry.worker.submit(model.engine, request)
    tokens = []
    while True:
        event = events.get(timeout=60)
        if isinstance(event, FailureEvent):
            raise DiffersError(f"no answer: {event}")
        if isinstance(event, TokenEvent):
            tokens.append(event.choice.token)
            if event.finish_reason is not None:
                return tokens


def try_kind(kind: str) -> dict[str, dict[str, str]]:
    """All methods on one architecture."""
    from tuning.quiet import known_warnings_hidden, quiet_libraries

    quiet_libraries()
    with tempfile.TemporaryDirectory() as scratch, known_warnings_hidden():
        place = make_place(kind, Path(scratch))
        found = {method: try_method(place, method) for method in METHODS}
    return {
        method: {step: said.replace(f"{scratch}/", "…/") for step, said in steps.items()}
        for method, steps in found.items()
    }


def read_found() -> dict[str, Any]:
    """What was found before, by architecture."""
    return json.loads(FOUND.read_text(encoding="utf-8")) if FOUND.is_file() else {}


def keep(kind: str, cells: dict[str, dict[str, str]]) -> None:
    """Add one architecture to what was found."""
    place = {"transformers": version("transformers"), "peft": version("peft"), "cells": cells}
    found = {**read_found(), kind: place}
    FOUND.write_text(json.dumps(found, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


def main() -> None:
    """Try what is asked for and write the page."""
    sys.path.insert(0, str(ROOT / "tests" / "support"))
    asked = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
    if "--write" not in sys.argv[1:]:
        known = set() if asked else set(read_found())
        for kind in asked or kinds():
            if kind not in SKIPPED and kind not in known:
                cells = try_kind(kind)
                keep(kind, cells)
                print(kind, {method: summary(steps) for method, steps in cells.items()}, flush=True)
    PAGE.write_text(page(read_found()), encoding="utf-8")


def summary(steps: dict[str, str]) -> str:
    """One cell in a word: all, no, or which steps are refused or at fault."""
    if steps["tune"] != GOOD:
        return "no" if steps["tune"].startswith("refused") else "fault: tune"
    bad = [step for step, outcome in steps.items() if outcome != GOOD]
    return (
        " ".join(f"{step}!" if steps[step].startswith("fault") else step for step in bad) or "all"
    )


def page(found: dict[str, Any]) -> str:
    """The page: what was tried with which versions, a row for each architecture, the reasons."""
    reasons: dict[str, int] = {}
    rows = []
    for kind, entry in sorted(found.items()):
        cells = []
        for method in METHODS:
            steps = entry["cells"][method]
            if steps["tune"] != GOOD:
                cells.append(f"no ({_number(reasons, method, kind, steps['tune'])})")
                continue
            notes = [
                f"{step} ({_number(reasons, method, kind, outcome)})"
                for step, outcome in steps.items()
                if outcome != GOOD and not _is_without_merge(step, method)
            ]
            cells.append("yes" if not notes else f"yes, not {', '.join(notes)}")
        rows.append(f"| {kind} | " + " | ".join(cells) + " |")
    missing = [kind for kind in kinds() if kind not in found and kind not in SKIPPED]
    versions = sorted({(entry["transformers"], entry["peft"]) for entry in found.values()})
    with_versions = "; ".join(f"transformers {one}, PEFT {other}" for one, other in versions)
    lines = [
        *HEAD.format(count=len(found), all=len(kinds()), versions=with_versions).splitlines(),
        "",
        "| model type | " + " | ".join(METHODS) + " |",
        "|---|" + "---|" * len(METHODS),
        *rows,
        "",
        "Reasons, in the program's words where it refuses:",
        "",
        *(f"{number}. {reason}" for reason, number in reasons.items()),
        "",
        "Not in the table:",
        "",
        *(f"- {kind}: {reason}" for kind, reason in SKIPPED.items()),
    ]
    if missing:
        lines.append(f"- not tried yet: {', '.join(missing)}")
    return "\n".join(lines) + "\n"


def _is_without_merge(step: str, method: str) -> bool:
    """Virtual tokens merge into no weight of any architecture."""
    return step == "merge" and method in ("prefix", "prompt")


def _number(reasons: dict[str, int], method: str, kind: str, outcome: str) -> int:
    """The number of a reason, whatever architecture and scratch folder it names."""
    said = outcome.removeprefix("refused: ").removeprefix("fault: ")
    said = re.sub(r"\S*/(?:models/\S+|base): ", "", said)
    said = re.sub(rf"^(?:{'|'.join(METHODS)}): ", "", said)
    said = re.sub(r"off by [\d.e+-]+", "off by …", said)
    said = re.sub(r"\b\w+(?:LMHeadModel|ForCausalLM|ForConditionalGeneration|Decoder)\b", "…", said)
    said = re.sub(r"(name some of the model's layers: ).*", r"\1…", said)
    said = re.sub(r"(target_parameters is )\[.*\]", r"\1[…]", said)
    said = said.replace("`", "'")  # others' words; what stands in backticks here is ours
    if outcome.startswith("fault: "):
        said = f"a fault: {said}"
    return reasons.setdefault(said, len(reasons) + 1)


if __name__ == "__main__":
    main()
