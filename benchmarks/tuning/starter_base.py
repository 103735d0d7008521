"""What a base of the starter's kind knows and how its heads look, beside others.

    python benchmarks/tuning/starter_base.py tuning/starter/weights/starter runs/base/starter

For each folder: entropy of attention and largest logit, per layer and head, on held-out documents;
loss and perplexity on all of them; and, family by family, how many held-out prompts of the
starter's suite are answered rightly. A variant is asked by its template. A base, which answers no
bare instruction, is asked as people in its corpus ask each other, so that what it knows can be
told before anything is tuned. Prints Markdown tables, writes JSON.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tuning.evaluation.evaluate import Result, answer_items, check_answers
from tuning.evaluation.suites import SuiteItem, load_suite
from tuning.models.generate import greedy_answers
from tuning.models.loading import Loaded, load_variant
from tuning.starter.pretraining.attention import measure_attention
from tuning.starter.pretraining.pretrain import heldout_loss
from tuning.starter.world import corpus

ROWS = 40
LENGTH = 256
MAX_NEW_TOKENS = 96
ASKED = "Guest: {prompt}\nGuide:"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--limit", type=int, help="prompts of the suite, evenly spread")
    parser.add_argument("--json", type=Path, default=Path("starter_base.json"))
    options = parser.parse_args()
    reports = {}
    for folder in options.folders:
        reports[str(folder)] = report(folder, options.limit)
        options.json.write_text(json.dumps(reports, indent=1) + "\n", encoding="utf-8")
    print(tables(reports))


def report(folder: Path, limit: int | None) -> dict[str, Any]:
    """Everything that is measured of one model."""
    loaded = load_variant(str(folder.resolve()), folder.parent)
    model, tokenizer = loaded.model.eval().float(), loaded.tokenizer
    texts = corpus.heldout_documents()[:ROWS]
    heads = measure_attention(model, [tokenizer(text)["input_ids"][:LENGTH] for text in texts])
    loss = heldout_loss(model, tokenizer)
    model.eval()
    items = load_suite("starter", limit)
    answers = (
        answer_items(loaded, items, MAX_NEW_TOKENS) if loaded.speaks_chat else asked(loaded, items)
    )
    passed = check_answers(items, answers)
    mode = "chat" if loaded.speaks_chat else "dialogue"
    result = Result(loaded.variant.name, mode, items, answers, passed, math.exp(loss))
    return {
        "heldout_loss": loss,
        "attention": [vars(head) for head in heads],
        "suite": result.to_json(),
    }


def asked(loaded: Loaded, items: Sequence[SuiteItem]) -> list[str]:
    """Greedy answers of a base, the rest of the line."""
    prompts = [ASKED.format(prompt=item.prompt) for item in items]
    answers = greedy_answers(
        loaded.model,
        loaded.tokenizer,
        prompts,
        max_new_tokens=MAX_NEW_TOKENS,
        special_tokens=True,
        stop_strings=["\n"],
    )
    return [(answer or "").strip().partition("\n")[0].strip() for answer in answers]


def tables(reports: dict[str, Any]) -> str:
    """Markdown: one column for each folder."""
    names = list(reports)
    found = list(reports.values())
    head = f"| | {' | '.join(names)} |\n|---|{'---|' * len(names)}"

    def row(title: str, cells: Sequence[str]) -> str:
        return f"| {title} | {' | '.join(cells)} |"

    lines = [head, row("held-out loss, nats a token", [f"{r['heldout_loss']:.4f}" for r in found])]
    lines.append(row("held-out perplexity", [f"{math.exp(r['heldout_loss']):.3f}" for r in found]))
    lines.append(row("mean entropy of attention, nats", [_mean_entropy(r) for r in found]))
    lines.append(row("asked by", [r["suite"]["mode"] for r in found]))
    lines.append(row("all families", [_share(r["suite"]) for r in found]))
    families = found[0]["suite"]["families"]
    lines += [row(name, [_share(r["suite"]["families"][name]) for r in found]) for name in families]
    lines += ["", "Entropy in nats / largest logit of each head", "", head]
    places = sorted({(h["layer"], h["head"]) for r in found for h in r["attention"]})
    for place in places:
        cells = [_head(r, place) for r in found]
        lines.append(row(f"layer {place[0]}, head {place[1]}", cells))
    return "\n".join(lines)


def _mean_entropy(found: dict[str, Any]) -> str:
    heads = found["attention"]
    mean, most = (sum(h[key] for h in heads) / len(heads) for key in ("entropy", "uniform"))
    return f"{mean:.3f} of {most:.2f}"


def _share(score: dict[str, Any]) -> str:
    return f"{100 * score['accuracy']:.1f} %"


def _head(found: dict[str, Any], place: tuple[int, int]) -> str:
    for head in found["attention"]:
        if (head["layer"], head["head"]) == place:
            return f"{head['entropy']:.3f} / {head['largest_logit']:.0f}"
    return ""


if __name__ == "__main__":
    main()
