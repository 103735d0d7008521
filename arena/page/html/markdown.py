"""Model text to HTML that is safe by construction: raw HTML in an answer is shown, never obeyed.

Knows Markdown, formulas and code colours; knows nothing of battles, models or Gradio.
"""

from __future__ import annotations

import html
import re
from collections.abc import MutableMapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markdown_it.utils import OptionsDict
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name
from pygments.util import ClassNotFound

from arena.page.html.formulas import add_formulas
from arena.page.html.markdown_rules import add_rules

CLOSED_BY_BLANK_LINE = ("paragraph_open", "heading_open", "hr", "fence", "table_open")
SAFE_SCHEMES = ("http://", "https://", "mailto:")
THOUGHTS = re.compile(r"\s*<(think|thinking)>(.*?)(</\1>|\Z)", re.DOTALL | re.IGNORECASE)
"""What a model thinks before it answers; a text that ends amid it has no end of it."""
Env = MutableMapping[str, Any]


class AnswerLabels(NamedTuple):
    """Words of the page within an answer: of its folded thoughts, and of a button that copies."""

    thoughts: str = "Thoughts"
    copy: str = "Copy"


LABELS = AnswerLabels()


class _AnswerRenderer(RendererHTML):
    """markdown-it's HTML without what could reach outside the answer."""

    def image(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: Env) -> str:
        """An image becomes its words and its address as text, so that nothing is fetched."""
        token = tokens[idx]
        address = html.escape(str(token.attrGet("src") or ""))
        return f'<span class="no-image">{html.escape(token.content)} ({address})</span>'

    def link_open(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: Env) -> str:
        """A link opens a new tab, tells the other site nothing, and has a scheme we know."""
        address = str(tokens[idx].attrGet("href") or "")
        if not address.lower().startswith(SAFE_SCHEMES):
            return "<a>"
        return (
            f'<a href="{html.escape(address)}" target="_blank" rel="noopener noreferrer nofollow">'
        )

    def heading_open(
        self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: Env
    ) -> str:
        """Heads in an answer stay below the page's own heads in the outline."""
        return f"<{_lowered(tokens[idx].tag)}{self.renderAttrs(tokens[idx])}>"

    def heading_close(
        self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: Env
    ) -> str:
        """Close what `heading_open` opened."""
        return f"</{_lowered(tokens[idx].tag)}>\n"

    def fence(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: Env) -> str:
        """A fenced block, coloured when its language is known; focusable, so keys can scroll it."""
        token = tokens[idx]
        language = token.info.strip().split(maxsplit=1)[0] if token.info.strip() else ""
        body = _coloured(token.content, language) if env["coloured"] else html.escape(token.content)
        return _code_box(body, env)

    def code_block(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: Env) -> str:
        """Code by its indent, as a fenced block of no language."""
        return _code_box(html.escape(tokens[idx].content), env)

    def code_inline(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: Env) -> str:
        """Code runs from left to right, whatever stands around it."""
        return f'<code dir="ltr">{html.escape(tokens[idx].content)}</code>'

    def table_open(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: Env) -> str:
        """A table scrolls in a box of its own, also by keys."""
        return f'<div class="table-box" tabindex="0"><table{self.renderAttrs(tokens[idx])}>\n'

    def table_close(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: Env) -> str:
        """Close what `table_open` opened."""
        return "</table></div>\n"


def _code_box(body: str, env: Env) -> str:
    """Code with a button that copies it, once no more of it will come."""
    copy = html.escape(env["labels"].copy)
    button = f'<button type="button" class="copy" data-copy>{copy}</button>' if env["whole"] else ""
    code = f'<pre class="code" dir="ltr" tabindex="0"><code>{body}</code></pre>'
    return f'<div class="code-box">{button}{code}</div>\n'


def _lowered(tag: str) -> str:
    """h1 → h4, h2 → h5, everything deeper → h6."""
    return f"h{min(6, int(tag[1]) + 3)}"


@lru_cache(maxsize=256)
def _coloured(code: str, language: str) -> str:
    try:
        lexer = get_lexer_by_name(language, stripnl=False) if language else None
    except ClassNotFound:
        lexer = None
    if lexer is None:
        return html.escape(code)
    return str(highlight(code, lexer, HtmlFormatter(nowrap=True, classprefix="hl-")))


@lru_cache(maxsize=1)
def _markdown() -> MarkdownIt:
    options = {"html": False, "linkify": False, "breaks": True}
    markdown = MarkdownIt("js-default", options, renderer_cls=_AnswerRenderer)
    add_formulas(markdown)
    add_rules(markdown)
    return markdown


def answer_html(
    text: str, labels: AnswerLabels = LABELS, *, whole: bool = True, coloured: bool = True
) -> str:
    """The Markdown of one answer as HTML.

    Args:
        text: what the model wrote, in full or so far.
        labels: words of the page within it; without a word for thoughts none are looked for.
        whole: False while it streams; code is coloured only once the answer is whole.
        coloured: whether code is.
    """
    head, rest = _thoughts_html(text, labels)
    env = {"whole": whole, "coloured": whole and coloured, "labels": labels}
    return head + str(_markdown().render(text[rest:], env))


def settled_html(text: str, labels: AnswerLabels = LABELS) -> tuple[str, int]:
    """The blocks that no further line can change: their HTML, and how long their text is.

    Args:
        text: whole lines, from the beginning of a block on. Its last block may still grow.
        labels: as of `answer_html`.
    """
    thoughts = THOUGHTS.match(text) if labels.thoughts else None
    if thoughts is not None and not text[thoughts.end() :].strip():
        return "", 0  # they stay open until something follows
    head, start = _thoughts_html(text, labels)
    blocks, length = _settled_blocks(text[start:], labels)
    return head + blocks, start + length


def _settled_blocks(text: str, labels: AnswerLabels) -> tuple[str, int]:
    markdown, env = _markdown(), {"whole": True, "coloured": True, "labels": labels}
    tokens = markdown.parse(text, env)
    starts = [i for i, token in enumerate(tokens) if token.map and not token.level]
    starts = [i for i in starts if tokens[i].nesting >= 0]
    if not starts:
        return "", 0
    last, lines = tokens[starts[-1]], [found.end() for found in re.finditer(r"\r\n?|\n", text)]
    assert last.map is not None
    first_line, end_line = last.map
    is_closed = last.type in CLOSED_BY_BLANK_LINE and end_line < len(lines)
    whole = tokens if is_closed else tokens[: starts[-1]]
    length = len(text) if is_closed else [0, *lines][first_line]
    return str(markdown.renderer.render(whole, markdown.options, env)), length


def _thoughts_html(text: str, labels: AnswerLabels) -> tuple[str, int]:
    """What a model thought before it answered, folded, and where the answer begins.

    It is shown as plain words; open while it grows, and when nothing came after it.
    """
    found = THOUGHTS.match(text) if labels.thoughts else None
    if found is None:
        return "", 0
    if not found[2].strip():
        return "", found.end()
    is_open = "" if text[found.end() :].strip() else " open"
    return (
        f'<details class="thoughts"{is_open}><summary>{html.escape(labels.thoughts)}</summary>'
        f'<div class="plain" dir="auto">{html.escape(found[2].strip())}</div></details>\n'
    ), found.end()


def plain_html(text: str) -> str:
    """A text as it was written, escaped; the style sheet keeps its line breaks."""
    return html.escape(text)


def code_css() -> str:
    """Colours of `pre.code` for the light and the dark page."""
    lines: list[str] = []
    for style, where in (("friendly", "pre.code"), ("github-dark", ".dark pre.code")):
        formatter: Any = HtmlFormatter(style=style, classprefix="hl-")
        lines += str(formatter.get_style_defs(where)).splitlines()
    return "\n".join(line for line in lines if ".hl-" in line and "linenos" not in line)
