"""Model text to HTML that is safe by construction: raw HTML in an answer is shown, never obeyed.

Knows Markdown, formulas and code colours; knows nothing of battles, models or Gradio.
"""

from __future__ import annotations

import html
import re
from collections.abc import MutableMapping, Sequence
from difflib import SequenceMatcher
from functools import lru_cache
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markdown_it.utils import OptionsDict
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name
from pygments.util import ClassNotFound

from arena.page.html.formulas import add_formulas

MOST_PAIRS = 4_000_000  # of words compared: two answers of 2,000 words, about a second
CLOSED_BY_BLANK_LINE = ("paragraph_open", "heading_open", "hr", "fence", "table_open")
SAFE_SCHEMES = ("http://", "https://", "mailto:")
Env = MutableMapping[str, Any]


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
        return f"<{_lowered(tokens[idx].tag)}>"

    def heading_close(
        self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: Env
    ) -> str:
        """Close what `heading_open` opened."""
        return f"</{_lowered(tokens[idx].tag)}>\n"

    def fence(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: Env) -> str:
        """A fenced block, coloured when its language is known; focusable, so keys can scroll it."""
        token = tokens[idx]
        language = token.info.strip().split(maxsplit=1)[0] if token.info.strip() else ""
        body = (
            _coloured(token.content, language) if env.get("final") else html.escape(token.content)
        )
        return f'<pre class="code" tabindex="0"><code>{body}</code></pre>\n'


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
    return markdown


def answer_html(text: str, *, final: bool = True) -> str:
    """The Markdown of one answer as HTML.

    Args:
        text: what the model wrote, in full or so far.
        final: False while it streams; code is coloured only once the answer is whole.
    """
    return str(_markdown().render(text, {"final": final}))


def settled_html(text: str) -> tuple[str, int]:
    """The blocks that no further line can change: their HTML, and how long their text is.

    Args:
        text: whole lines, from the beginning of a block on. Its last block may still grow.
    """
    markdown, env = _markdown(), {"final": True}
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


def marked_html(text: str, other: str) -> str:
    """A text as plain words, those that `other` has not at their place marked."""
    words, others = re.findall(r"\s+|\S+", text), re.findall(r"\s+|\S+", other)
    if len(words) * len(others) > MOST_PAIRS:
        return f'<div class="answer marked" dir="auto">{html.escape(text)}</div>'
    matcher = SequenceMatcher(None, words, others, autojunk=False)
    parts = []
    for kind, start, end, _, _ in matcher.get_opcodes():
        piece = html.escape("".join(words[start:end]))
        is_new = kind != "equal" and piece.strip()
        parts.append(f"<mark>{piece}</mark>" if is_new else piece)
    return f'<div class="answer marked" dir="auto">{"".join(parts)}</div>'


def plain_html(text: str) -> str:
    """A person's own text, escaped; the style sheet keeps its line breaks."""
    return html.escape(text)


def code_css() -> str:
    """Colours of `pre.code` for the light and the dark page."""
    lines: list[str] = []
    for style, where in (("friendly", "pre.code"), ("github-dark", ".dark pre.code")):
        formatter: Any = HtmlFormatter(style=style, classprefix="hl-")
        lines += str(formatter.get_style_defs(where)).splitlines()
    return "\n".join(line for line in lines if ".hl-" in line and "linenos" not in line)
