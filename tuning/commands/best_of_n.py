"""What `arena reward best-of` prints: how far a reward model's choice of n answers gets."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from tuning.commands.edge import told
from tuning.commands.outputs import PICTURES, check_output

if TYPE_CHECKING:
    from tuning.preference.best_of_n import Point


@told
def run_best_of(
    name: str,
    reward: str,
    home: Path,
    *,
    suite: str,
    samples: int,
    limit: int | None,
    temperature: float,
    max_new_tokens: int,
    seed: int,
    plot: Path | None,
    json_out: bool,
) -> None:
    """`arena reward best-of`: the curve over n, verified by the checks of a suite."""
    from tuning.evaluation.suites import SuiteItem, load_suite
    from tuning.models.loading import load_variant
    from tuning.models.scorer import load_scorer
    from tuning.preference.best_of_n import curve, draw_curve, draw_samples, sizes_up_to
    from tuning.quiet import known_warnings_hidden, quiet_libraries

    if plot is not None:
        check_output(plot, PICTURES)
    quiet_libraries()
    items = load_suite(suite, limit)
    with known_warnings_hidden(), Progress(console=Console(stderr=True)) as progress:
        scorer, loaded = load_scorer(reward, home), load_variant(name, home)
        task = progress.add_task("answers", total=len(items))

        def judge(asked: Sequence[SuiteItem], answers: Sequence[str]) -> list[float]:
            return scorer.scores(
                [
                    (
                        [{"role": "user", "content": item.prompt}],
                        [{"role": "assistant", "content": answer}],
                    )
                    for item, answer in zip(asked, answers, strict=True)
                ]
            )

        drawn = draw_samples(
            loaded,
            items,
            judge,
            count=samples,
            temperature=temperature,
            max_new_tokens=max_new_tokens,
            seed=seed,
            on_prompt=lambda count: progress.advance(task, count),
        )
    points = curve(drawn, sizes_up_to(samples))
    if plot is not None:
        draw_curve(points, plot, f"{name}, picked by {reward}, {len(drawn)} prompts of {suite}")
    if json_out:
        content = {
            "model": name,
            "reward": reward,
            "weights_sha256": scorer.variant.weights_sha256,
            "suite": suite,
            "num_prompts": len(drawn),
            "left_out": len(items) - len(drawn),
            "samples": samples,
            "temperature": temperature,
            "seed": seed,
            "curve": [point.to_json() for point in points],
        }
        print(json.dumps(content, ensure_ascii=False))
        return
    print_curve(points, f"best of n: {name}, picked by {reward} ({len(drawn)} prompts of {suite})")


def print_curve(points: Sequence[Point], title: str) -> None:
    """The curve as a table, a line for each n."""
    table = Table(title=title)
    for head in ("n", "passed", "95 %", "any of n", "reward", "tokens", "KL ≤", "wins ≤"):
        table.add_column(head, justify="right")
    for point in points:
        shown = point.to_json()
        table.add_row(
            str(point.n),
            f"{point.gold:.1%}",
            f"{point.lower:.1%}–{point.upper:.1%}",
            f"{point.most:.1%}",
            f"{point.reward:.3f}",
            f"{point.length:.1f}",
            f"{shown['kl_bound']:.2f}",
            f"{shown['win_rate_bound']:.1%}",
        )
    Console().print(table)
