"""FLAN's curve on the starter: accuracy on held-out clusters over the number of training families.

For each draw the training families of `flan_starter.yaml` are shuffled cluster by cluster; the
first 1, 2, 4, 8 and 16 of them tune a LoRA variant of the shipped base for the same number of
tokens, and each variant answers the held-out clusters. Every finished point is kept in `--out`, so
a stopped run goes on; points of another base or other settings are made anew. The table in
`docs/mixtures.md` and the plot beside it are rewritten from the points there are.

    python benchmarks/tuning/flan_curve.py --out runs/flan
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import yaml

from tuning import TuningConfig, tune
from tuning.config import CheckOptions, DataOptions, TrainingOptions
from tuning.data.mixture.kept import kept_prompts
from tuning.data.mixture.plan import load_plan
from tuning.data.mixture.rows import read_rows
from tuning.evaluation.evaluate import evaluate
from tuning.evaluation.statistics import wilson
from tuning.quiet import quiet_libraries
from tuning.starter import STARTER, shipped_models
from tuning.training.inputs import prepare
from tuning.variant import read_variant

MIXTURE = Path(__file__).with_name("flan_starter.yaml")
DOCS = Path(__file__).parents[2] / "docs"
PAGE, PLOT = DOCS / "mixtures.md", DOCS / "images" / "flan_curve.png"
BEGIN, END = "<!-- curve -->\n\n", "\n\n<!-- /curve -->"
HELDOUT = "held-out cluster "
SIZES = (1, 2, 4, 8, 16)
ANSWER_TOKENS = 32


@dataclass(frozen=True)
class Settings:
    """What is the same for every point."""

    tokens: int
    """Tokens of the training rows, prompts and answers, over the whole run."""
    batch_size: int = 32
    learning_rate: float = 2e-3


def training_families(mixture: Mapping[str, Any], draw: int) -> list[str]:
    """The families that may be trained, whole clusters after each other, in the order of a draw."""
    clusters: dict[str, list[str]] = {}
    for name, source in sorted(mixture["sources"].items()):
        if source["cluster"] not in mixture["heldout_clusters"]:
            clusters.setdefault(source["cluster"], []).append(name)
    random = Random(f"flan curve {draw}")
    order = sorted(clusters)
    random.shuffle(order)
    for names in clusters.values():
        random.shuffle(names)
    return [name for cluster in order for name in clusters[cluster]]


def subset(mixture: Mapping[str, Any], families: Sequence[str]) -> dict[str, Any]:
    """The mixture with these training families only, and everything that is held out."""
    kept = {
        name: source
        for name, source in mixture["sources"].items()
        if name in families or source["cluster"] in mixture["heldout_clusters"]
    }
    return {**mixture, "sources": kept}


def heldout_suite(mixture: Path, out: Path) -> Path:
    """The prompts of the held-out clusters as a suite of their own."""
    plan = load_plan(mixture)
    kept = kept_prompts(plan, read_rows(plan, plan.seed, deduplicate=True))
    lines = [json.dumps(prompt.to_json()) for prompt in kept if prompt.family.startswith(HELDOUT)]
    path = out / "heldout.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def make_variant(mixture: Path, settings: Settings, home: Path, draw: int) -> int:
    """Tune on the mixture for as many steps as the tokens allow; the number of steps."""
    config = TuningConfig(
        base=STARTER,
        data=(str(mixture),),
        name="point",
        home=home,
        seed=draw,
        data_options=DataOptions(heldout=0.0),
        training=TrainingOptions(
            batch_size=settings.batch_size, learning_rate=settings.learning_rate
        ),
        checks=CheckOptions(save_every=0, samples=0),
    )
    rows = prepare(config).rows
    mean = sum(map(len, rows)) / len(rows)
    steps = max(1, round(settings.tokens / mean / settings.batch_size))
    epochs = steps * settings.batch_size / len(rows) + 1
    training = replace(config.training, max_steps=steps, epochs=epochs)
    tune(replace(config, training=training))
    return steps


def measure(
    families: Sequence[str], mixture: Mapping[str, Any], settings: Settings, suite: Path, draw: int
) -> dict[str, Any]:
    """One point: tune on the families, answer the suite. Without families the base is asked."""
    started = time.process_time()
    steps = 0
    with tempfile.TemporaryDirectory(prefix="flan-curve-") as scratch:
        home, name = Path(scratch), STARTER
        if families:
            path = home / "mixture.yaml"
            path.write_text(yaml.safe_dump(subset(mixture, families)), encoding="utf-8")
            steps = make_variant(path, settings, home, draw)
            name = "point"
        result = evaluate(name, home, suite=str(suite), max_new_tokens=ANSWER_TOKENS)
    passed: dict[str, list[int]] = {}
    for item, ok in zip(result.items, result.passed, strict=True):
        found = passed.setdefault(item.family.removeprefix(HELDOUT), [0, 0])
        found[0] += ok
        found[1] += 1
    return {
        "draw": draw,
        "families": list(families),
        "steps": steps,
        "passed": passed,
        "cpu_seconds": round(time.process_time() - started, 1),
    }


def fingerprint(mixture: Mapping[str, Any], settings: Settings, suite: Path) -> str:
    """Of all that a point depends on but its families: base, mixture, settings, prompts."""
    base = read_variant(shipped_models()[STARTER]).weights_sha256
    content = json.dumps([base, mixture, vars(settings), suite.read_text()], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def total(point: Mapping[str, Any], cluster: str = "") -> tuple[int, int]:
    """(passed, prompts) of a point, in one cluster or in all."""
    counts = [count for name, count in point["passed"].items() if name.startswith(cluster)]
    return sum(count[0] for count in counts), sum(count[1] for count in counts)


def shown(passed: int, prompts: int) -> str:
    """Such as "41.2 [36.0, 46.6]": per cent with the Wilson 95 % interval."""
    lower, upper = wilson(passed, prompts)
    return f"{passed / prompts:.1%} [{lower:.1%}, {upper:.1%}]".replace("%", "")


def table(points: Sequence[Mapping[str, Any]]) -> str:
    """Sizes down, draws across, then the mean of the draws in each held-out cluster."""
    draws = sorted({point["draw"] for point in points if point["families"]})
    clusters = sorted({name.partition(":")[0] for point in points for name in point["passed"]})
    head = ["training families", *(f"draw {draw + 1}" for draw in draws), "mean", *clusters]
    lines = [f"| {' | '.join(head)} |", "|" + "--:|" * len(head)]
    for size in sorted({len(point["families"]) for point in points}):
        chosen = {point["draw"]: point for point in points if len(point["families"]) == size}
        wanted = draws if size else [0] * len(draws)
        cells = [shown(*total(chosen[draw])) if draw in chosen else "" for draw in wanted]
        means = []
        for cluster in ("", *(f"{cluster}:" for cluster in clusters)):
            shares = [
                passed / all_ for passed, all_ in (total(p, cluster) for p in chosen.values())
            ]
            means.append(f"{sum(shares) / len(shares):.1%}".removesuffix("%"))
        lines.append(f"| {size or '0 (base)'} | {' | '.join([*cells, *means])} |")
    return "\n".join(lines)


def draw_plot(points: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Every point with its interval, and a line through the means of the draws."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    tuned = [point for point in points if point["families"]]
    draws = sorted({point["draw"] for point in tuned})
    for number, draw in enumerate(draws):
        mine = sorted((p for p in tuned if p["draw"] == draw), key=lambda p: len(p["families"]))
        shift = 1 + 0.05 * (number - (len(draws) - 1) / 2)
        counts = [total(point) for point in mine]
        shares = [passed / prompts for passed, prompts in counts]
        bounds = [wilson(passed, prompts) for passed, prompts in counts]
        spread = [
            [max(0.0, share - low) for share, (low, _) in zip(shares, bounds, strict=True)],
            [max(0.0, high - share) for share, (_, high) in zip(shares, bounds, strict=True)],
        ]
        places = [len(point["families"]) * shift for point in mine]
        axes.errorbar(places, shares, spread, fmt="o", ms=4, lw=1, label=f"draw {draw + 1}")
    sizes = sorted({len(point["families"]) for point in tuned})
    means = []
    for size in sizes:
        shares = [
            passed / n for passed, n in (total(p) for p in tuned if len(p["families"]) == size)
        ]
        means.append(sum(shares) / len(shares))
    axes.plot(sizes, means, color="black", lw=1.2, label="mean of the draws")
    for point in points:
        if not point["families"]:
            passed, prompts = total(point)
            axes.axhline(passed / prompts, color="grey", ls="--", lw=1, label="base, untuned")
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.set_xlabel("families of instructions tuned on, same number of tokens")
    axes.set_ylabel("share passed, held-out clusters")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=110)


def write_page(points: Sequence[Mapping[str, Any]], settings: Settings) -> None:
    """Rewrite the block of the page between its marks."""
    text = PAGE.read_text(encoding="utf-8")
    head, rest = text[: text.index(BEGIN)], text[text.index(END) :]
    seconds = [point["cpu_seconds"] for point in points if point["families"]]
    note = (
        f"Per cent of {total(points[0])[1]} prompts passed, with the Wilson 95 % interval. Each "
        f"variant saw about {settings.tokens:,} tokens; a point took {min(seconds):.0f} to "
        f"{max(seconds):.0f} seconds of CPU time, tuning and answering."
    )
    PAGE.write_text(f"{head}{BEGIN}{table(points)}\n\n{note}{rest}", encoding="utf-8")


def main() -> None:
    """Make the points that are missing, then the table and the plot."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the points")
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=60_000)
    parser.add_argument("--make", type=int, nargs="*", help="draws to make (from 1); default all")
    arguments = parser.parse_args()
    quiet_libraries()
    arguments.out.mkdir(parents=True, exist_ok=True)
    mixture = yaml.safe_load(MIXTURE.read_text(encoding="utf-8"))
    settings = Settings(arguments.tokens)
    suite = heldout_suite(MIXTURE, arguments.out)
    mark = fingerprint(mixture, settings, suite)
    points = []
    for draw in range(arguments.draws):
        for size in (0, *SIZES) if draw == 0 else SIZES:
            path = arguments.out / f"{draw}-{size}.json"
            stored = json.loads(path.read_text()) if path.exists() else {}
            if stored.get("fingerprint") != mark:
                if arguments.make is not None and draw + 1 not in arguments.make:
                    continue
                families = training_families(mixture, draw)[:size]
                stored = {"fingerprint": mark, **measure(families, mixture, settings, suite, draw)}
                temporary = path.with_suffix(".tmp")
                temporary.write_text(json.dumps(stored, indent=1), encoding="utf-8")
                temporary.rename(path)
            points.append(stored)
            print(f"draw {draw + 1}, {size} families: {shown(*total(stored))}", flush=True)
    write_page(points, settings)
    draw_plot(points, PLOT)


if __name__ == "__main__":
    main()
