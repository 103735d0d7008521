"""A report as blocks, and the same blocks as Markdown and as one HTML page.

Knows headings, paragraphs, tables and pictures; knows nothing of what they say.
"""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Heading:
    """A heading; level 1 is the page's."""

    text: str
    level: int = 2


@dataclass(frozen=True)
class Paragraph:
    """A paragraph; **…** is bold."""

    text: str


@dataclass(frozen=True)
class PageTable:
    """A table of texts; the columns from `numbers` on stand on the right."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: int = 1


@dataclass(frozen=True)
class PagePicture:
    """A PNG file of the report's folder, and what it shows."""

    path: Path
    about: str


PageBlock = Heading | Paragraph | PageTable | PagePicture

STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0; display: block; overflow-x: auto; }
th, td { border: 1px solid #8886; padding: .25rem .6rem; text-align: left; vertical-align: top; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
img { max-width: 100%; background: white; }
td { white-space: pre-wrap; overflow-wrap: anywhere; }
"""


def as_markdown(blocks: Sequence[PageBlock]) -> str:
    """The blocks as GitHub's Markdown; pictures are linked beside the page."""
    return "\n\n".join(map(_markdown, blocks)) + "\n"


def _markdown(block: PageBlock) -> str:
    match block:
        case Heading(text, level):
            return f"{'#' * level} {_escaped(text)}"
        case Paragraph(text):
            return text
        case PagePicture(path, about):
            return f"![{about}]({path.parent.name}/{path.name})"
        case PageTable(head, rows, numbers):
            marks = ["---" if at < numbers else "--:" for at in range(len(head))]
            lines = [head, marks, *rows]
            return "\n".join(f"| {' | '.join(map(_escaped, line))} |" for line in lines)


def _escaped(text: str) -> str:
    """Text that a cell of a table or a heading shows as it is."""
    kept = re.sub(r"\s*\n\s*", " ⏎ ", text.strip())
    return re.sub(r"([\\|<>`\[\]])", r"\\\1", kept)


def as_html(title: str, blocks: Sequence[PageBlock]) -> str:
    """The blocks as a page that needs no other file: pictures lie in it."""
    body = "\n".join(map(_html, blocks))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n"
        f"<body>\n{body}\n</body>\n</html>\n"
    )


def _html(block: PageBlock) -> str:
    match block:
        case Heading(text, level):
            return f"<h{level}>{html.escape(text)}</h{level}>"
        case Paragraph(text):
            return f"<p>{_bold(text)}</p>"
        case PagePicture(path, about):
            data = base64.b64encode(path.read_bytes()).decode("ascii")
            return f'<p><img src="data:image/png;base64,{data}" alt="{html.escape(about)}"></p>'
        case PageTable(head, rows, numbers):
            lines = [_row(head, "th", numbers), *(_row(row, "td", numbers) for row in rows)]
            return "\n".join(["<table>", *lines, "</table>"])


def _row(cells: Sequence[str], tag: str, numbers: int) -> str:
    kinds = ("" if at < numbers else ' class="number"' for at in range(len(cells)))
    made = (
        f"<{tag}{kind}>{html.escape(text)}</{tag}>" for kind, text in zip(kinds, cells, strict=True)
    )
    return f"<tr>{''.join(made)}</tr>"


def _bold(text: str) -> str:
    return re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", html.escape(text))
