"""Draws loss curves and accuracies as PNG files; knows histories and numbers only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tuning.errors import TuningError
from tuning.json_lines import JsonError, load_records
from tuning.variant.folder import HISTORY_FILE

NUMBERS = {"step", "loss", "eval_loss", "progress"}


class PlotError(TuningError):
    """A history that is missing or cannot be read."""


def read_history(folder: Path) -> list[dict[str, Any]]:
    """Records of a variant's `history.jsonl`."""
    path = folder / HISTORY_FILE
    try:
        records = load_records(path)
    except (OSError, JsonError) as error:
        raise PlotError(f"{path}: no history to draw ({error}); tune the variant again") from error
    for number, record in enumerate(records, 1):
        for key in NUMBERS & record.keys():
            if isinstance(record[key], bool) or not isinstance(record[key], int | float):
                raise PlotError(
                    f"{path}: record {number} has {key} {record[key]!r}, no number; tune the "
                    "variant again"
                )
        if "step" not in record:
            raise PlotError(f"{path}: record {number} has no step; tune the variant again")
    return records


def smooth(values: Sequence[float], window: int) -> list[float]:
    """Running mean over the last `window` values."""
    sums, total = [], 0.0
    for index, value in enumerate(values):
        total += value
        if index >= window:
            total -= values[index - window]
        sums.append(total / min(index + 1, window))
    return sums


def draw_losses(
    histories: Mapping[str, Sequence[Mapping[str, Any]]], path: Path, unit: str = "response token"
) -> None:
    """Training loss (thin, and smoothed) and held-out loss (points) over steps, one colour each."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for index, (name, records) in enumerate(histories.items()):
        colour = f"C{index}"
        train = [(item["step"], item["loss"]) for item in records if "loss" in item]
        heldout = [(item["step"], item["eval_loss"]) for item in records if "eval_loss" in item]
        if train:
            steps, losses = zip(*train, strict=True)
            axes.plot(steps, losses, color=colour, alpha=0.25, linewidth=0.8)
            smoothed = smooth(losses, max(1, len(losses) // 25))
            axes.plot(steps, smoothed, color=colour, label=f"{name}: training")
        if heldout:
            steps, losses = zip(*heldout, strict=True)
            axes.plot(steps, losses, "o--", color=colour, markersize=4, label=f"{name}: held out")
    axes.set_xlabel("optimizer step")
    axes.set_ylabel(f"loss per {unit} (nats)")
    drawn = [
        item[key]
        for records in histories.values()
        for item in records
        for key in ("loss", "eval_loss")
        if key in item
    ]
    if min(drawn, default=0) >= 0:  # what rl minimises is below
        axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)


MEASURES = {
    "rewards.png": (
        "implicit reward (beta × log-ratio to the start)",
        {"rewards/chosen": "chosen", "rewards/rejected": "rejected", "rewards/margins": "margin"},
    ),
    "reward_and_kl.png": ("reward; nats from the start", {"reward": "reward", "kl": "KL"}),
}
"""Pictures of what runs on preferences and rewards measure: the label of the axis, the curves."""


def draw_measures(records: Sequence[Mapping[str, Any]], folder: Path) -> list[str]:
    """Draw into `folder` what the history measured beside losses; the names of the files."""
    drawn = []
    for name, (label, curves) in MEASURES.items():
        if all(any(key in item for item in records) for key in list(curves)[:2]):
            _draw_curves(records, folder / name, label, curves)
            drawn.append(name)
    return drawn


def _draw_curves(
    records: Sequence[Mapping[str, Any]], path: Path, label: str, curves: Mapping[str, str]
) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for index, (key, name) in enumerate(curves.items()):
        train = [(item["step"], item[key]) for item in records if key in item]
        heldout = [(item["step"], item[f"eval_{key}"]) for item in records if f"eval_{key}" in item]
        if train:
            steps, values = zip(*train, strict=True)
            axes.plot(steps, values, color=f"C{index}", alpha=0.25, linewidth=0.8)
            smoothed = smooth(values, max(1, len(values) // 25))
            axes.plot(steps, smoothed, color=f"C{index}", label=name)
        if heldout:
            steps, values = zip(*heldout, strict=True)
            axes.plot(
                steps, values, "o--", color=f"C{index}", markersize=4, label=f"{name}: held out"
            )
    axes.axhline(0, color="black", linewidth=0.6)
    axes.set_xlabel("optimizer step")
    axes.set_ylabel(label)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)


def draw_accuracies(results: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Accuracy per family as grouped bars with their intervals; one colour for each model."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    families = ["all", *sorted({name for item in results for name in item["families"]})]
    figure = Figure(figsize=(max(7.0, 0.6 * len(families)), 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    width = 0.8 / len(results)
    for index, item in enumerate(results):
        scores = [item, *(item["families"].get(name) for name in families[1:])]
        for at, score in enumerate(scores):
            if score is None:
                continue
            spread = [
                [score["accuracy"] - score["lower"]],
                [score["upper"] - score["accuracy"]],
            ]
            axes.bar(
                at + index * width,
                score["accuracy"],
                width,
                yerr=spread,
                color=f"C{index}",
                error_kw={"linewidth": 0.8},
                label=item["name"] if at == 0 else None,
            )
    axes.set_xticks([at + 0.4 - width / 2 for at in range(len(families))], families, rotation=60)
    axes.set_ylim(0, 1)
    axes.set_ylabel("share of instructions followed")
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)
