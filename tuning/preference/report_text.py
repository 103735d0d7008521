"""Writes the report of a reward model down: JSON, Markdown for people, a picture.

Knows the report's value alone, as `tuning.preference.report` makes it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

REPORT_JSON, REPORT_TEXT, REPORT_PLOT = (f"reward_report.{end}" for end in ("json", "md", "png"))
MOST_VOTERS = 20


def write_report(folder: Path, report: Mapping[str, Any]) -> None:
    """`reward_report.json`, `.md` and `.png` in a folder that is there."""
    text = json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False)
    (folder / REPORT_JSON).write_text(text + "\n", encoding="utf-8")
    (folder / REPORT_TEXT).write_text(report_markdown(report), encoding="utf-8")
    draw_report(report, folder / REPORT_PLOT)


def share(found: Mapping[str, Any] | None) -> str:
    """An agreement in words: `81.2 % (76.0 to 85.4, 250 pairs)`."""
    if found is None:
        return "no such pair"
    ends = f"{found['lower']:.1%} to {found['upper']:.1%}"
    return f"{found['share']:.1%} ({ends}, {found['num_pairs']:,} pairs)"


def report_markdown(report: Mapping[str, Any]) -> str:
    """The report as a page."""
    parts = [
        f"# Reward model {report['name']}",
        f"Trained on {report['num_trained']:,} judgements from {report['start']}; compared with "
        f"{report['num_pairs']:,} votes on {report['num_prompts']:,} prompts that it has not seen. "
        "Intervals are of 95 %, votes on one prompt taken together.",
        *_agreement(report),
        *_kinds(report),
        *_voters(report),
        *_calibration(report["calibration"]),
        *_length(report["length"]),
        *_curve(report["curve"]),
        *_styles(report["styles"]),
    ]
    return "\n\n".join(parts) + "\n"


def _table(head: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _agreement(report: Mapping[str, Any]) -> Iterator[str]:
    yield "## Agreement with held-out votes"

    def rows() -> Iterator[tuple[str, ...]]:
        yield ("**this reward model**", share(report["agreement"]), share(report["same_model"]), "")
        for found in report["baselines"].values():
            cells = (share(found["agreement"]), share(found["same_model"]))
            yield (found["about"], *cells, f"reward model: {found['reward_is']}")
        for what, found in report["beside"].items():
            yield (f"this reward model, {what}", share(found), "", "")

    yield _table(("", "all pairs", "pairs of one and the same model", ""), rows())
    ceiling = report["ceiling"]
    if ceiling["ceiling"] is None:
        yield f"Ceiling: {ceiling['note']}."
        return
    yield (
        f"Two votes agree on {ceiling['rate']:.1%} of {ceiling['compared']:,} comparisons of the "
        "same two answers, so a judge without fault would agree with "
        f"{ceiling['ceiling']:.1%} of single votes ({ceiling['ceiling_lower']:.1%} to "
        f"{ceiling['ceiling_upper']:.1%}): {report['agreement']['share']:.1%} of a possible "
        f"{ceiling['ceiling']:.1%}. {ceiling['num_ties']:,} ties are not counted."
    )


def _kinds(report: Mapping[str, Any]) -> Iterator[str]:
    if not report["kinds"]:
        return
    yield "## By what is wrong with the rejected answer"
    rows = ((kind, share(found), found["verdict"]) for kind, found in report["kinds"].items())
    yield _table(("kind of error", "agreement", ""), iter(rows))
    missing = [kind for kind, item in report["kinds"].items() if item["verdict"] != "learned"]
    if missing:
        yield f"The mean above hides this: {', '.join(missing)} was not learned."


def _voters(report: Mapping[str, Any]) -> Iterator[str]:
    if not report["voters"]:
        return
    yield "## By voter"
    names = sorted(report["voters"], key=lambda name: -report["voters"][name]["num_pairs"])
    rows = ((name, share(report["voters"][name])) for name in names[:MOST_VOTERS])
    yield _table(("voter", "agreement"), iter(rows))
    if len(names) > MOST_VOTERS:
        yield f"{len(names) - MOST_VOTERS:,} voters with fewer votes are in {REPORT_JSON}."


def _calibration(found: Mapping[str, Any]) -> Iterator[str]:
    yield "## Calibration"
    after = found["with_temperature"]

    def rows() -> Iterator[tuple[str, ...]]:
        for name, key, coin in (
            ("expected calibration error", "ece", ""),
            ("Brier score", "brier", "0.250"),
            ("log loss, nats", "log_loss", "0.693"),
        ):
            yield (name, f"{found[key]:.3f}", f"{after[key]:.3f}", coin)

    yield _table(("", "as trained", "with one temperature", "a coin"), rows())
    if found["temperature"] is None:
        yield "No temperature helps: the scores point the wrong way more than the right one."
    else:
        yield (
            f"The temperature that fits all held-out votes is {found['temperature']:.3g}; the "
            "column was fitted on one half of the prompts and measured on the other."
        )
    bins = (
        (f"{part['certainty']:.1%}", f"{part['agreement']:.1%}", f"{part['num_pairs']:,}")
        for part in found["reliability"]
    )
    yield _table(("certainty of the scores", "agreement", "pairs"), iter(bins))


def _length(found: Mapping[str, Any]) -> Iterator[str]:
    yield "## Length"
    groups, parts = found["agreement"], found["regression"]
    yield "\n".join(
        [
            f"- The voters took the longer answer in {share(found['longer_wins'])}.",
            f"- Agreement where the longer answer won: {share(groups['longer_won'])}; where the "
            f"shorter won: {share(groups['shorter_won'])}; where both are alike within 10 %: "
            f"{share(groups['alike'])}.",
            "- Rank correlation of the difference in score with that in length: "
            + ("none can be told." if (r := found["correlation"]) is None else f"{r:+.2f}."),
            "- Regression of the vote on both, each in its own spread: score "
            f"{parts['score']['coefficient']:+.2f} ± {1.96 * parts['score']['error']:.2f}, length "
            f"{parts['length']['coefficient']:+.2f} ± {1.96 * parts['length']['error']:.2f}.",
        ]
    )


def _curve(found: Mapping[str, Any]) -> Iterator[str]:
    if not found["points"]:
        return
    yield "## Learning curve"
    rows = ((f"{point['num_votes']:,}", share(point)) for point in found["points"])
    yield _table(("votes trained on", "agreement"), iter(rows))
    if found["next"] is not None:
        yield (
            f"A doubling of the votes brought {found['per_doubling'] * 100:+.1f} points; "
            f"{found['next']['num_votes']:,} votes would bring about "
            f"{found['next']['agreement']:.1%}, if the line goes on."
        )


def _styles(found: Mapping[str, Any] | None) -> Iterator[str]:
    if not found:
        return
    yield "## Right against wrong, by style"
    names = ("terse", "wordy", "marked up")
    rows = (
        (f"right answer {name}", *(f"{cell:.1%}" for cell in line))
        for name, line in zip(names, found["matrix"], strict=True)
    )
    yield _table(("", *(f"wrong answer {name}" for name in names)), iter(rows))
    yield (
        f"Hard (the wrong one is the fancier) {found['hard']:.1%}, normal {found['normal']:.1%}, "
        f"easy {found['easy']:.1%}, over {found['num_prompts']:,} pairs."
    )


def draw_report(report: Mapping[str, Any], path: Path) -> None:
    """Four panels: agreement beside baselines and ceiling, reliability, kinds or length, curve."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 7.5), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, 2)
    bars = {"reward model": report["agreement"]} | {
        name: found["agreement"] for name, found in report["baselines"].items()
    }
    _bars(panels[0, 0], bars, "Agreement with held-out votes")
    if (ceiling := report["ceiling"]["ceiling"]) is not None:
        panels[0, 0].axvline(ceiling, color="black", linestyle="--", linewidth=1)
        panels[0, 0].annotate("ceiling", (ceiling, -0.6), fontsize=8, ha="right")
    bins = report["calibration"]["reliability"]
    panels[0, 1].plot([0.5, 1], [0.5, 1], color="grey", linewidth=1)
    panels[0, 1].plot(
        [part["certainty"] for part in bins], [part["agreement"] for part in bins], marker="o"
    )
    panels[0, 1].set(title="Reliability", xlabel="certainty of the scores", ylabel="agreement")
    groups = report["kinds"] or report["length"]["agreement"]
    title = "Agreement by kind of error" if report["kinds"] else "Agreement by length"
    _bars(panels[1, 0], {name.replace("_", " "): item for name, item in groups.items()}, title)
    points = report["curve"]["points"]
    ends = [
        [point["share"] - point["lower"] for point in points],
        [point["upper"] - point["share"] for point in points],
    ]
    if points:
        panels[1, 1].errorbar(
            [point["num_votes"] for point in points],
            [point["share"] for point in points],
            yerr=ends,
            marker="o",
            capsize=3,
        )
        panels[1, 1].set_xscale("log", base=2)
    panels[1, 1].axhline(0.5, color="grey", linewidth=1)
    panels[1, 1].set(title="Learning curve", xlabel="votes trained on", ylabel="agreement")
    figure.savefig(path, dpi=110)


def _bars(axes: Any, found: Mapping[str, Mapping[str, Any] | None], title: str) -> None:
    """A bar for each agreement with its interval, and a line at chance."""
    there = {name: item for name, item in found.items() if item is not None}
    for at, item in enumerate(there.values()):
        axes.barh(at, item["share"], color="tab:blue" if at == 0 else "tab:grey", alpha=0.7)
        axes.plot([item["lower"], item["upper"]], [at, at], color="black", linewidth=1.5)
    axes.axvline(0.5, color="grey", linewidth=1)
    axes.set_yticks(range(len(there)), list(there))
    axes.invert_yaxis()
    axes.set(title=title, xlim=(0, 1))
