"""What the `arena tune`, `arena eval` and `arena models` commands print.

Turns results into tables and JSON; the work itself is in the modules it calls.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from tuning.errors import TuningError
from tuning.variant import VariantError, list_variants, read_variant


class CommandError(TuningError):
    """A command that cannot be carried out as asked."""


def run_tune(config_file: Path | None, settings: Mapping[str, Any], *, json_out: bool) -> None:
    """`arena tune`: make a variant and say where it is."""
    from tuning.settings import load_config

    config = load_config(config_file, settings)
    from tuning.train import tune

    console = Console(stderr=True)
    variant = tune(config, console=console)
    if json_out:
        print(json.dumps({"folder": str(variant.folder), **variant.to_json()}, ensure_ascii=False))
        return
    metrics = ", ".join(f"{key} {value:.4f}" for key, value in variant.metrics.items())
    Console().print(
        f"Made {variant.name} ({variant.kind}) in {variant.run['seconds']:.0f} s: "
        f"{variant.folder}\n{metrics}\nScore it with `arena eval {variant.name}`; the next "
        "`arena up` shows it.",
        highlight=False,
        soft_wrap=True,
    )


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
    from tuning import evaluate as scoring
    from tuning.quiet import quiet_libraries
    from tuning.suites import load_suite

    quiet_libraries()
    documents = scoring.starter_documents() if forgetting else []
    results: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
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
            results.append(result.to_json())
            rows.extend(result.rows())
            if limit is None:
                _keep_metrics(name, home, suite, results[-1], write)
    if answers is not None:
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        answers.write_text("".join(lines), encoding="utf-8")
    if plot is not None:
        from tuning.plots import draw_accuracies

        draw_accuracies(results, plot)
    if json_out:
        print(json.dumps({"suite": suite, "results": results}, ensure_ascii=False))
    elif markdown:
        from tuning.scoretable import markdown_table

        print(markdown_table(results))
    else:
        print_results(suite, results)


def print_results(suite: str, results: Sequence[Mapping[str, Any]]) -> None:
    """The table of `arena eval`: families down, models across, intervals beside."""
    from tuning.evaluate import COMPLETION_NOTE

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
    console.print(table)
    for result in results:
        if result["mode"] == "completion":
            console.print(f"{result['name']}: {COMPLETION_NOTE}", highlight=False)


def _cell(score: Mapping[str, Any]) -> str:
    return f"{score['accuracy']:.1%} [{score['lower']:.1%}, {score['upper']:.1%}]"


def _keep_metrics(
    name: str, home: Path, suite: str, result: Mapping[str, Any], write: bool
) -> None:
    from tuning.base import resolve_base
    from tuning.evaluate import metrics_of
    from tuning.sealing import store_metrics
    from tuning.variant import VARIANT_FILE

    folder = resolve_base(name, home)
    ours = folder.parent == Path(home) / "models"
    if (ours or write) and (folder / VARIANT_FILE).is_file():
        store_metrics(folder, metrics_of(suite, result))


def run_list(home: Path, *, json_out: bool) -> None:
    """`arena models list`: the packaged models and the variants under home."""
    from tuning.starter import shipped_models

    rows = [_describe(folder, "packaged") for folder in shipped_models().values()]
    rows += [_describe(folder, str(home)) for folder in list_variants(home)]
    if json_out:
        print(json.dumps({"models": rows}, ensure_ascii=False))
        return
    table = Table()
    for column in ("name", "kind", "base", "weights", "where", "problem"):
        table.add_column(column)
    for row in rows:
        table.add_row(*(str(row[key] or "") for key in row))
    Console().print(table)


def _describe(folder: Path, where: str) -> dict[str, Any]:
    try:
        variant = read_variant(folder)
    except VariantError as error:
        return {
            "name": folder.name,
            "kind": None,
            "base": None,
            "weights_sha256": None,
            "where": where,
            "problem": str(error),
        }
    return {
        "name": variant.name,
        "kind": variant.kind,
        "base": variant.base.id if variant.base else None,
        "weights_sha256": variant.weights_sha256[:12],
        "where": where,
        "problem": None,
    }


def run_verify(names: Sequence[str], home: Path, base: str | None) -> None:
    """`arena models verify`: hashes, keys, shapes, finite values, delta, base fingerprint."""
    from tuning.base import BaseError, resolve_base
    from tuning.inspection import verify_variant
    from tuning.loading import find_base

    for name in names:
        folder = resolve_base(name, home)
        variant = read_variant(folder)
        base_folder = None
        if variant.base is not None or base is not None:
            try:
                base_folder = find_base(variant, home, base)
            except BaseError as error:
                print(f"{name}: without its base: {error}", file=sys.stderr)
        verify_variant(folder, base_folder)
        against = f" against {base_folder}" if base_folder else ""
        print(f"{name}: {variant.kind}, {len(variant.files)} files and all tensors good{against}")


def run_remove(name: str, home: Path, *, yes: bool) -> None:
    """`arena models remove`: delete a variant under home; packaged models stay."""
    folder = Path(home) / "models" / name
    if folder not in list_variants(home):
        known = ", ".join(path.name for path in list_variants(home)) or "none"
        raise CommandError(f"{name}: no variant under {home}; there are: {known}")
    if not yes:
        import typer

        typer.confirm(f"Remove {folder} for good?", abort=True)
    # Renamed first, so that a removal cut short leaves no half variant under its name.
    doomed = folder.with_name(f".{name}.removed.tmp")
    folder.rename(doomed)
    shutil.rmtree(doomed)
    print(f"removed {folder}")
