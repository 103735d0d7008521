"""Renders scores as a Markdown table, for a README or a model card; knows JSON results only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def markdown_table(results: Sequence[Mapping[str, Any]]) -> str:
    """Families down, models across; share passed with its Wilson 95 % interval, in percent.

    `results` are entries as in `arena eval --json`.
    """
    names = [str(result["name"]) for result in results]
    lines = [
        "| family | prompts | " + " | ".join(names) + " |",
        "|---|--:|" + "--:|" * len(names),
    ]
    for family, first in results[0]["families"].items():
        cells = [cell(result["families"][family]) for result in results]
        lines.append(f"| {family} | {first['num_prompts']} | {' | '.join(cells)} |")
    totals = [f"**{cell(result)}**" for result in results]
    lines.append(f"| **all** | **{results[0]['num_prompts']}** | {' | '.join(totals)} |")
    if all("perplexity" in result for result in results):
        plain = [f"{result['perplexity']:.2f}" for result in results]
        lines.append(f"| perplexity of plain text | | {' | '.join(plain)} |")
    return "\n".join(lines)


def cell(score: Mapping[str, Any]) -> str:
    """Such as "93 (91–94)": per cent passed, lower and upper end."""
    shares = (score["accuracy"], score["lower"], score["upper"])
    middle, lower, upper = (round(100 * share) for share in shares)
    return f"{middle} ({lower}–{upper})"
