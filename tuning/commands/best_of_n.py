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
    from tuning.data.fields import Message
    from tuning.evaluation.suites import SuiteItem
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
    from tuning.evaluation.suites import load_suite
    from tuning.models.loading import load_variant
    from tuning.models.scorer import load_scorer
    from tuning.preference.answer_rewards import answer_room, score_answers
    from tuning.preference.best_of_n import curve, draw_curve, draw_samples, sizes_up_to
    from tuning.quiet import known_warnings_hidden, quiet_libraries

    if plot is not None:
        check_output(plot, PICTURES)
    quiet_libraries()
    items, unread = load_suite(suite, limit), 0
    with known_warnings_hidden(), Progress(console=Console(stderr=True)) as progress:
        scorer, loaded = load_scorer(reward, home), load_variant(name, home)
        rooms = [answer_room(scorer, _messages(item), f"{suite}: {item.id}") for item in items]
        task = progress.add_task("answers", total=len(items))

        def judge(asked: Sequence[SuiteItem], answers: Sequence[str]) -> list[float]:
            nonlocal unread
            judged = score_answers(scorer, [_messages(item) for item in asked], answers)
            unread += judged.unread
            return judged.rewards

        drawn = draw_samples(
            loaded,
            items,
            judge,
            count=samples,
            temperature=temperature,
            max_new_tokens=max_new_tokens,
            seed=seed,
            rooms=rooms,
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
            "unread": unread,
            "samples": samples,
            "temperature": temperature,
            "seed": seed,
            "curve": [point.to_json() for point in points],
        }
        print(json.dumps(content, ensure_ascii=False))
        return
    print_curve(points, f"best of n: {name}, picked by {reward} ({len(drawn)} prompts of {suite})")
    if len(drawn) < len(items):
        print(f"{len(items) - len(drawn)} prompts left no room for an answer and were left out.")
    if unread:
        print(f"{unread} answers could not be read by {reward}; each is the worst of its prompt.")


def _messages(item: SuiteItem) -> list[Message]:
    return [{"role": "user", "content": item.prompt}]


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
