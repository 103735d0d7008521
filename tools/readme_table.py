"""Writes README's table of scores from the metrics that `arena eval --write` stored.

`python tools/readme_table.py` rewrites the block; a test compares it with the shipped models.
"""

from __future__ import annotations

from pathlib import Path

from tuning.evaluation.score_table import markdown_table
from tuning.starter import shipped_models
from tuning.variant import read_variant

README = Path(__file__).parent.parent / "README.md"
BEGIN, END = "<!-- eval -->\n\n", "\n\n<!-- /eval -->"
COMMAND = "arena eval starter starter-full starter-lora starter-prefix --markdown"


def render() -> str:
    """The command and the table it prints, from the stored results of all shipped models."""
    results = [
        {"name": name, **read_variant(folder).metrics["eval:starter"]}
        for name, folder in shipped_models().items()
    ]
    return f"```sh\n{COMMAND}\n```\n\n{markdown_table(results)}"


def shown() -> str:
    """The block as README has it now."""
    text = README.read_text(encoding="utf-8")
    return text[text.index(BEGIN) + len(BEGIN) : text.index(END)]


if __name__ == "__main__":
    text = README.read_text(encoding="utf-8")
    head, rest = text[: text.index(BEGIN)], text[text.index(END) :]
    README.write_text(head + BEGIN + render() + rest, encoding="utf-8")
    print(f"wrote the table in {README.name}")
