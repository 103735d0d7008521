"""Writes a loop's report down: JSON, Markdown, one HTML page, and the pictures of both.

Knows the report's value alone, as `tuning.loop.report` makes it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tuning.loop.document import as_html, as_markdown
from tuning.loop.plots import PICTURES
from tuning.loop.report_pages import blocks_of
from tuning.variant.manifest import dump_json, write_atomically

REPORT = "report"
PLOTS = "plots"


def write_loop_report(folder: Path, report: Mapping[str, Any]) -> None:
    """`report.json`, `report.md`, `report.html` and `plots/*.png` in the loop's folder."""
    plots = folder / PLOTS
    plots.mkdir(exist_ok=True)
    pictures = dict(_drawn(report, plots))
    blocks = blocks_of(report, pictures)
    write_atomically(folder / f"{REPORT}.json", dump_json(dict(report)))
    write_atomically(folder / f"{REPORT}.md", as_markdown(blocks))
    title = f"Loop {report['name']}: {report['verdict']}"
    write_atomically(folder / f"{REPORT}.html", as_html(title, blocks))


def _drawn(report: Mapping[str, Any], plots: Path) -> Iterator[tuple[str, Path]]:
    """The pictures that there is something for; one of an earlier report is removed."""
    for name, (draw, _) in PICTURES.items():
        path = plots / f"{name}.png"
        if draw(report, path):
            yield name, path
        else:
            path.unlink(missing_ok=True)
