"""What the `arena tune` and `arena eval` commands print.

Turns results into tables and JSON; the work itself is in the modules it calls.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from tuning.commands.edge import told
from tuning.commands.outputs import PICTURES, check_output

Sources = Callable[[tuple[str, ...], Path, str], tuple[str, ...]]
"""From the sources of a run, its home and objective to files: what only the arena can read becomes
rows."""


@told
def run_tune(
    config_file: Path | None,
    settings: Mapping[str, Any],
    sources: Sources,
    home: Path,
    *,
    json_out: bool,
) -> None:
    """`arena tune`: make a variant and say where it is; `home` is used where no setting says."""
    from tuning.config_files import load_config, refuse_without_use

    config = load_config(config_file, settings, home)
    refuse_without_use(config)
    config = replace(config, data=sources(config.data, config.home, config.objective))
    from tuning.objectives import tune
    from tuning.training.distributed import is_main_process

    console = Console(stderr=True)
    variant = tune(config, console=console)
    if not is_main_process():
        return
    if json_out:
        print(json.dumps({"folder": str(variant.folder), **variant.to_json()}, ensure_ascii=False))
        return
    metrics = ", ".join(f"{key} {value:.4f}" for key, value in variant.metrics.items())
    then = f"Score it with `arena eval {variant.name}`; the next `arena up` shows it."
    if variant.kind == "reward":
        then = f"Score answers with `arena reward score FILE --model {variant.name}`."
        if (variant.folder / "reward_report.md").is_file():
            then += f" Its report: {variant.folder / 'reward_report.md'}"
    Console().print(
        f"Made {variant.name} ({variant.kind}) in {variant.run['seconds']:.0f} s: "
        f"{variant.folder}\n{metrics}\n{then}",
        highlight=False,
        soft_wrap=True,
    )


@told
def run_preview(
    config_file: Path | None,
    settings: Mapping[str, Any],
    sources: Sources,
    count: int,
    home: Path,
    *,
    json_out: bool,
) -> None:
    """`arena tune --preview N`: show what would be trained, and train nothing."""
    from tuning.config_files import load_config, refuse_without_use

    config = load_config(config_file, {"name": "preview", **settings}, home)
    refuse_without_use(config)
    from tuning.commands.preview import preview_json, show_preview
    from tuning.errors import ConfigError
    from tuning.quiet import quiet_libraries
    from tuning.training.inputs import prepare
    from tuning.verified.rows import with_verified_rows

    if config.objective != "sft":
        raise ConfigError(
            f"objective: {config.objective!r} compares answers, and --preview shows rows of sft; "
            "leave --preview out"
        )
    quiet_libraries()
    say = partial(Console(stderr=True).print, highlight=False)
    config = replace(config, data=sources(config.data, config.home, config.objective))
    prepared = prepare(with_verified_rows(config, say))
    if json_out:
        print(json.dumps(preview_json(prepared, count), ensure_ascii=False))
        return
    show_preview(prepared, count, Console())


@told
def run_reproduce(name: str, home: Path, beside: Sequence[str] = (), *, json_out: bool) -> None:
    """`arena tune --reproduce NAME`: make the variant again and compare every bit.

    `beside` are the settings given with it, which would say another run: they are refused.
    """
    from tuning.models.resolve import resolve_base
    from tuning.objectives import objective_of
    from tuning.training.reproduce import ReproduceError, differences, reproduce

    if beside:
        raise ReproduceError(
            f"--reproduce {name}: repeats the run with the settings it had, and cannot take "
            f"{', '.join(beside)}; leave {'it' if len(beside) == 1 else 'them'} out"
        )
    folder = resolve_base(name, home, what="model")
    result = reproduce(folder, home, Console(stderr=True), objective_of)
    changed = differences(result.variant)
    if json_out:
        content = {"name": name, "same": result.same, "differences": changed}
        print(json.dumps({**content, "weights_sha256": result.weights_sha256}))
    if not result.same:
        what = "; ".join(changed) or "versions and device are what they were"
        raise ReproduceError(
            f"{name}: the same run gave other weights ({result.weights_sha256[:12]}, was "
            f"{result.variant.weights_sha256[:12]}); {what}"
        )
    if not json_out:
        print(f"{name}: the same run gave the same weights, {result.weights_sha256}")


@told
def run_eval(
    names: Sequence[str],
    home: Path,
    *,
    suite: str,
    limit: int | None,
    base: str | None,
    max_new_tokens: int,
    forgetting: bool,
    write: bool,
    answers: Path | None,
    plot: Path | None,
    markdown: bool,
    json_out: bool,
) -> None:
    """`arena eval`: score models on a suite; home variants keep the result in variant.json."""
    from tuning.evaluation import evaluate as scoring
    from tuning.evaluation.suites import STARTER, STARTER_TRAINING, load_suite
    from tuning.quiet import quiet_libraries

    quiet_libraries()
    if answers is not None:
        check_output(answers)
    if plot is not None:
        check_output(plot, PICTURES)
    of_starter = suite in (STARTER, STARTER_TRAINING)
    documents = scoring.plain_documents(of_starter=of_starter) if forgetting else []
    results: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    scored: list[scoring.Result] = []
    items = load_suite(suite, limit)
    with Progress(console=Console(stderr=True), transient=True) as bar:
        for name in names:
            task = bar.add_task(name, total=len(items))
            result = scoring.evaluate(
                name,
                home,
                suite=suite,
                limit=limit,
                base=base,
                max_new_tokens=max_new_tokens,
                documents=documents,
                on_batch=partial(bar.advance, task),
            )
            scored.append(result)
            results.append(result.to_json())
            rows.extend(result.rows())
            if limit is None:
                _keep_metrics(name, home, suite, results[-1], write)
    if answers is not None:
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        answers.write_text("".join(lines), encoding="utf-8")
    if plot is not None:
        from tuning.variant.plots import draw_accuracies

        draw_accuracies(results, plot)
    pairs = scoring.compare_all(scored)
    if json_out:
        content = {"suite": suite, "results": results, "pairs": pairs}
        print(json.dumps(content, ensure_ascii=False))
    elif markdown:
        from tuning.evaluation.score_table import markdown_table

        print(markdown_table(results))
    else:
        print_results(suite, results, pairs)


def print_results(
    suite: str,
    results: Sequence[Mapping[str, Any]],
    pairs: Sequence[Mapping[str, Any]] = (),
) -> None:
    """The table of `arena eval`: families down, models across, intervals beside."""
    from tuning.evaluation.evaluate import COMPLETION_NOTE

    console = Console(width=max(100, 32 + 26 * len(results)))
    count = results[0]["num_prompts"]
    table = Table(title=f"suite {suite}, {count} prompts, greedy, share passed [95 % Wilson]")
    table.add_column("family")
    table.add_column("prompts", justify="right")
    for result in results:
        table.add_column(str(result["name"]), justify="right")
    for family in results[0]["families"]:
        scores = [result["families"][family] for result in results]
        table.add_row(family, str(scores[0]["num_prompts"]), *map(_cell, scores))
    table.add_section()
    table.add_row("all", str(count), *map(_cell, results), style="bold")
    if all("perplexity" in result for result in results):
        cells = [f"{result['perplexity']:.2f}" for result in results]
        table.add_row("perplexity of plain text", "", *cells)
        table.add_row("times its base's", "", *map(_times_base, results))
    console.print(table)
    for result in results:
        if result["mode"] == "completion":
            console.print(f"{result['name']}: {COMPLETION_NOTE}", highlight=False)
        if ids := result.get("too_long"):
            shown = ", ".join(ids[:5]) + (", ..." if len(ids) > 5 else "")
            console.print(
                f"{result['name']}: {len(ids)} prompts fill its whole context and count as failed: "
                f"{shown}",
                highlight=False,
            )
    for pair in pairs:
        console.print(
            f"{pair['a']} against {pair['b']}: only the first passes {pair['only_a']}, only the "
            f"second {pair['only_b']}; p = {pair['p']:.2g} (exact McNemar)",
            highlight=False,
        )


def _times_base(result: Mapping[str, Any]) -> str:
    base = result.get("base_perplexity")
    return f"{result['perplexity'] / base:.3f}" if base else ""


def _cell(score: Mapping[str, Any]) -> str:
    return f"{score['accuracy']:.1%} [{score['lower']:.1%}, {score['upper']:.1%}]"


def _keep_metrics(
    name: str, home: Path, suite: str, result: Mapping[str, Any], write: bool
) -> None:
    from tuning.evaluation.evaluate import metrics_of
    from tuning.models.resolve import resolve_base
    from tuning.variant.folder import VARIANT_FILE
    from tuning.variant.manifest import store_metrics

    folder = resolve_base(name, home, what="model")
    ours = folder.parent == Path(home) / "models"
    if (ours or write) and (folder / VARIANT_FILE).is_file():
        store_metrics(folder, metrics_of(suite, result))
