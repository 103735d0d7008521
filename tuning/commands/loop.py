"""What `arena loop` prints: its progress, the verdict, and where the report is."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from tuning.commands.edge import told
from tuning.commands.tune import Sources


@told
def run_loop_command(
    given: Mapping[str, Any],
    sources: Sources,
    *,
    skip: Sequence[str],
    restart: bool,
    json_out: bool,
) -> None:
    """`arena loop`: from votes to a report; `given` are the settings that were given."""
    from tuning.loop.settings import LoopSettings, check_skipped

    settings = LoopSettings(**given)
    skipped = check_skipped(tuple(skip))
    from tuning.loop.run import run_loop

    report = run_loop(
        settings,
        lambda: sources(settings.data, settings.home, "reward"),
        skip=skipped,
        restart=restart,
        console=Console(stderr=True),
    )
    if json_out:
        print(json.dumps({"folder": str(settings.folder), **report}, ensure_ascii=False))
        return
    Console().print(_lines(report, settings.folder), highlight=False, markup=False, soft_wrap=True)


def _lines(report: Mapping[str, Any], folder: Path) -> str:
    lines = [
        f"{policy['objective']}: {policy['verdict']['verdict']} ({policy['verdict']['why']})"
        for policy in report["policies"]
    ]
    made = [policy["model"] for policy in report["policies"] if policy["model"]]
    if made:
        lines.append(f"Made {', '.join(made)}; the next `arena up` shows what is under home.")
    return "\n".join([*lines, f"Report: {folder / 'report.html'}"])
