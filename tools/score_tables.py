"""Writes the tables of scores from the metrics that `arena eval --write` stored.

`python tools/score_tables.py` rewrites README's short table and docs/starter.md's whole one; a
test compares both with the shipped models.
"""

from __future__ import annotations

from pathlib import Path

from tuning.evaluation.score_table import markdown_table
from tuning.starter import shipped_models
from tuning.variant import read_variant

ROOT = Path(__file__).parent.parent
BEGIN, END = "<!-- eval -->\n\n", "\n\n<!-- /eval -->"
COMMAND = "arena eval starter starter-full starter-lora starter-prefix --markdown"
SUMMARY = ("| **all** |", "| perplexity of plain text |")
"""How the rows begin that README keeps of the table."""


def render() -> dict[Path, str]:
    """Per page the command with what it prints of the stored results of all shipped models."""
    results = [
        {"name": name, **read_variant(folder).metrics["eval:starter"]}
        for name, folder in shipped_models().items()
    ]
    table = markdown_table(results).splitlines()
    short = [*table[:2], *(line for line in table if line.startswith(SUMMARY))]
    assert len(short) == 2 + len(SUMMARY)
    return {
        ROOT / "README.md": _block(short),
        ROOT / "docs" / "starter.md": _block(table),
    }


def shown(page: Path) -> str:
    """The block as the page has it now."""
    text = page.read_text(encoding="utf-8")
    return text[text.index(BEGIN) + len(BEGIN) : text.index(END)]


def _block(lines: list[str]) -> str:
    return f"```sh\n{COMMAND}\n```\n\n" + "\n".join(lines)


if __name__ == "__main__":
    for page, block in render().items():
        text = page.read_text(encoding="utf-8")
        head, rest = text[: text.index(BEGIN)], text[text.index(END) :]
        page.write_text(head + BEGIN + block + rest, encoding="utf-8")
        print(f"wrote the table in {page.name}")
