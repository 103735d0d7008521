"""The pictures of a loop's report: accuracy, families, over-optimisation, learning curve, kinds.

Each takes the report's value and a path, and says whether there was something to draw. Knows
neither models nor text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tuning.loop.models import START
from tuning.loop.votes import INVERTED, SHUFFLED, TRUE

LoopReport = Mapping[str, Any]
WORDS = {START: "start", TRUE: "votes", SHUFFLED: "shuffled votes", INVERTED: "opposite votes"}
COLOURS = {START: "tab:grey", TRUE: "tab:blue", SHUFFLED: "tab:orange", INVERTED: "tab:red"}


@contextmanager
def _figure(path: Path, width: float = 8, height: float = 4.2) -> Iterator[Any]:
    """Axes that become the PNG file at `path`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    yield axes
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


def draw_accuracy(report: LoopReport, path: Path) -> bool:
    """Share of instructions followed by the start, each policy and each control."""
    bars: list[tuple[str, Mapping[str, Any], str]] = []
    for policy in report["policies"]:
        for which, found in policy["measured"].items():
            if "accuracy" in found and not (which == START and bars):
                word = WORDS[which] if which == START else f"{policy['objective']}, {WORDS[which]}"
                bars.append((word, found, COLOURS[which]))
    if len(bars) < 2:
        return False
    with _figure(path, height=1 + 0.45 * len(bars)) as axes:
        for at, (_, found, colour) in enumerate(bars):
            axes.barh(at, found["accuracy"], color=colour, alpha=0.7)
            axes.plot([found["lower"], found["upper"]], [at, at], color="black", linewidth=1.5)
        axes.set_yticks(range(len(bars)), [word for word, _, _ in bars])
        axes.invert_yaxis()
        axes.set(xlabel="share of instructions followed", xlim=(0, 1))
    return True


def draw_families(report: LoopReport, path: Path) -> bool:
    """Before and after by family, of the first policy."""
    families = report["policies"][0]["families"]
    if not families:
        return False
    with _figure(path, height=1.2 + 0.28 * len(families)) as axes:
        for at, found in enumerate(families.values()):
            change = "tab:green" if found["after"] >= found["before"] else "tab:red"
            axes.plot([found["before"], found["after"]], [at, at], color=change, linewidth=2)
        places = range(len(families))
        for word, marker in (("before", "o"), ("after", "D")):
            values = [found[word] for found in families.values()]
            axes.plot(values, places, marker, label=word, color="black",
                      fillstyle="none" if word == "before" else "full")  # fmt: skip
        axes.set_yticks(places, list(families))
        axes.invert_yaxis()
        axes.set(xlabel="share of instructions followed", xlim=(-0.02, 1.02))
        axes.legend()
    return True


def draw_over_optimisation(report: LoopReport, path: Path) -> bool:
    """What the checks and what the reward say, over the distance from the start."""
    points = [point for point in report["over_optimisation"] if point["reward"] is not None]
    if len(points) < 2:
        return False
    best = [point for point in points if point["what"].startswith("best of")]
    with _figure(path) as axes:
        other = axes.twinx()
        for on, key, colour in ((axes, "verified", "tab:blue"), (other, "reward", "tab:orange")):
            on.plot([p["root_kl"] for p in best], [p[key] for p in best], "o-", color=colour)
            for point in points[len(best) :]:
                on.plot(point["root_kl"], point[key], "D", color=colour)
        for point in points:
            axes.annotate(point["what"], (point["root_kl"], point["verified"]), fontsize=8,
                          xytext=(3, -11), textcoords="offset points")  # fmt: skip
        axes.set(xlabel="square root of the distance from the start (nats; of best-of-n its bound)")
        axes.set_ylabel("share of instructions followed (checks)", color="tab:blue")
        other.set_ylabel("what the reward model says", color="tab:orange")
    return True


def draw_learning_curve(report: LoopReport, path: Path) -> bool:
    """Agreement of reward models by the number of votes they learned from."""
    curves = {
        "held-out votes": report["curve"]["votes"],
        "checks in place of votes": report["curve"]["without_noise"],
    }
    if all(len(curve["points"]) < 2 for curve in curves.values()):
        return False
    with _figure(path) as axes:
        for (word, curve), colour in zip(curves.items(), ("tab:blue", "tab:green"), strict=True):
            points: Sequence[Mapping[str, Any]] = curve["points"]
            if not points:
                continue
            x = [point["num_votes"] for point in points]
            y = [point["share"] for point in points]
            ends = [
                [point["share"] - point["lower"] for point in points],
                [point["upper"] - point["share"] for point in points],
            ]
            axes.errorbar(x, y, yerr=ends, marker="o", capsize=3, color=colour, label=word)
            if curve["next"] is not None:
                after = curve["next"]
                axes.plot([x[-1], after["num_votes"]], [y[-1], after["agreement"]], "--",
                          color=colour, marker="o", fillstyle="none")  # fmt: skip
        axes.axhline(0.5, color="grey", linewidth=1)
        axes.set_xscale("log", base=2)
        axes.set(xlabel="votes learned from (dashed: the next doubling)", ylabel="agreement")
        axes.legend()
    return True


def draw_kinds(report: LoopReport, path: Path) -> bool:
    """Agreement by what is wrong with the worse answer, beside the controls'."""
    found = report["agreement"]
    kinds = list(found.get(TRUE, {}).get("kinds", {}))
    if not kinds:
        return False
    with _figure(path, height=1.2 + 0.6 * len(kinds)) as axes:
        for shift, which in ((-0.22, TRUE), (0.0, SHUFFLED), (0.22, INVERTED)):
            own = found.get(which, {}).get("kinds", {})
            for at, kind in enumerate(kinds):
                if (one := own.get(kind)) is not None:
                    axes.plot([one["lower"], one["upper"]], [at + shift] * 2, color=COLOURS[which])
                    axes.plot(one["share"], at + shift, "o", color=COLOURS[which],
                              label=WORDS[which] if at == 0 else None)  # fmt: skip
        axes.axvline(0.5, color="grey", linewidth=1)
        axes.set_yticks(range(len(kinds)), kinds)
        axes.invert_yaxis()
        axes.set(xlabel="agreement with the checks", xlim=(0, 1))
        axes.legend(fontsize=8)
    return True


PICTURES: dict[str, tuple[Callable[[LoopReport, Path], bool], str]] = {
    "accuracy": (draw_accuracy, "Instructions followed by the start, the policies, the controls"),
    "families": (draw_families, "Instructions followed before and after, by family"),
    "over_optimisation": (draw_over_optimisation, "Checks and reward over the distance"),
    "curve": (draw_learning_curve, "Agreement by number of votes"),
    "kinds": (draw_kinds, "Agreement by kind of error"),
}
"""Each picture of a report with what it shows."""
