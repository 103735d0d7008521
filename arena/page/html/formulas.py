"""LaTeX in an answer to MathML: finds the formulas in Markdown and writes them, safe by a list.

Browsers draw MathML themselves, so no script, font or style comes with it. The converter is
not made for hostile input (it passes `<script>`, `href` and `style` on): only elements and
attributes listed here leave this module. Knows Markdown's rules; knows no battle and no page.

The rules that find formulas are ours: mdit-py-plugins 0.7 (dollarmath, and texmath for brackets)
takes "6 or US" in "$5 and $6 or US$ 7" for a formula, and shows one in brackets that ends a list
item or stands amid a line as text.
"""

from __future__ import annotations

import html
import re
from collections.abc import MutableMapping, Sequence
from functools import lru_cache
from typing import Any
from xml.etree.ElementTree import Element

from latex2mathml.converter import Converter
from markdown_it import MarkdownIt
from markdown_it.rules_block import StateBlock
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token
from markdown_it.utils import OptionsDict


def _names(words: str) -> frozenset[str]:
    return frozenset(words.split())


DELIMITERS = (("$$", "$$", True), (r"\[", r"\]", True), (r"\(", r"\)", False), ("$", "$", False))
"""Opening, closing, and whether the formula stands on a line of its own."""

MOST_CHARS = 2_000
MOST_LINES = 40
MOST_DEPTH = 40  # of braces: the converter recurses
REFUSED = re.compile(r"\\(?:newcommand|renewcommand|def|let|require|input|include)\b")
ELEMENTS = _names(
    "math mrow mi mn mo mtext mspace mfrac msqrt mroot msub msup msubsup munder mover munderover"
    " mtable mtr mtd mstyle mpadded mphantom menclose mmultiscripts mprescripts none"
)
ATTRIBUTES = _names(
    "display displaystyle scriptlevel mathvariant stretchy fence separator form lspace rspace"
    " minsize maxsize accent accentunder movablelimits symmetric largeop linethickness width"
    " columnalign columnspacing columnlines rowspacing rowlines notation"
)
SAFE_VALUE = re.compile(r"[-\w.% ]{1,40}")


def add_formulas(markdown: MarkdownIt) -> None:
    """Let a Markdown parser know formulas between the DELIMITERS."""
    markdown.block.ruler.before(
        "fence", "formula_block", _block, {"alt": ["paragraph", "blockquote", "list"]}
    )
    markdown.inline.ruler.before("escape", "formula", _inline)
    markdown.add_render_rule("formula", _render)


def formula_html(tex: str, *, is_display: bool) -> str:
    """A formula as MathML; its source as code where it cannot be read."""
    element = None if _is_too_much(tex) else _converted(tex.strip(), is_display)
    if element is None:
        return f'<code class="formula-source">{html.escape(tex.strip())}</code>'
    return element


@lru_cache(maxsize=1024)
def _converted(tex: str, is_display: bool) -> str | None:
    display = "block" if is_display else "inline"
    try:
        return _written(Converter(display=display).convert_to_element(tex), tex)
    except Exception:  # a parser of others on a model's text: its errors have no common class
        return None


def _is_too_much(tex: str) -> bool:
    if len(tex) > MOST_CHARS or REFUSED.search(tex):
        return True
    depth = deepest = 0
    for mark in re.findall(r"[{}]|\\left\b|\\right\b|\\begin\b|\\end\b", tex):
        depth += 1 if mark in ("{", r"\left", r"\begin") else -1
        deepest = max(deepest, depth)
    return deepest > MOST_DEPTH


def _written(element: Element, tex: str = "") -> str:
    """The element as text; of what is not listed only the words remain."""
    inner = html.escape(html.unescape(element.text or ""))
    inner += "".join(_written(child) for child in element)
    tail = html.escape(html.unescape(element.tail or ""))
    if element.tag not in ELEMENTS:
        return inner + tail
    attributes = {
        name: value
        for name, value in element.attrib.items()
        if name in ATTRIBUTES and SAFE_VALUE.fullmatch(value)
    }
    if tex:
        attributes["alttext"] = tex
    given = "".join(f' {name}="{html.escape(value)}"' for name, value in attributes.items())
    return f"<{element.tag}{given}>{inner}</{element.tag}>{tail}"


def _block(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    """A formula that begins a line and whose closing mark ends one."""
    if state.is_code_block(start):
        return False
    first = state.bMarks[start] + state.tShift[start]
    found = next((d for d in DELIMITERS if d[2] and state.src.startswith(d[0], first)), None)
    if found is None:
        return False
    opening, closing, _ = found
    for line in range(start, min(end, start + MOST_LINES)):
        begin = first + len(opening) if line == start else state.bMarks[line]
        text = state.src[begin : state.eMarks[line]].rstrip()
        if line > start and (not text or state.sCount[line] < state.blkIndent):
            return False
        if not text.endswith(closing):
            continue
        tex = state.getLines(start, line + 1, state.blkIndent, False).strip()
        body = tex[len(opening) : -len(closing)]
        if not body.strip() or closing in body:
            return False
        if not silent:
            state.line = line + 1
            token = state.push("formula", "", 0)
            token.content, token.meta, token.map = body, {"is_display": True}, [start, line + 1]
        return True
    return False


def _inline(state: StateInline, silent: bool) -> bool:
    """A formula within a paragraph."""
    found = next((d for d in DELIMITERS if state.src.startswith(d[0], state.pos)), None)
    if found is None:
        return False
    opening, closing, is_display = found
    start = state.pos + len(opening)
    end = state.src.find(closing, start, min(state.posMax, start + MOST_CHARS))
    if end < 0:
        return False
    body = state.src[start:end]
    if not body.strip() or "\n\n" in body:
        return False
    if opening == "$" and not _is_no_price(state, start, end):
        return False
    if not silent:
        token = state.push("formula", "", 0)
        token.content, token.meta = body, {"is_display": is_display}
    state.pos = end + len(closing)
    return True


def _is_no_price(state: StateInline, start: int, end: int) -> bool:
    """Single dollars hug a formula: "$x$" is one, "$5 and $6" and "$6 or US$ 5" are none."""
    if state.src[start].isdigit() and re.search(
        r"(?<![\\A-Za-z{])[A-Za-z]{2}", state.src[start:end]
    ):
        return False
    before = state.src[start - 2 : start - 1] if start >= 2 else ""
    after = state.src[end + 1 : end + 2]
    hugged = not state.src[start].isspace() and not state.src[end - 1].isspace()
    return hugged and not after.isalnum() and not before.isalnum() and state.src[end - 1] != "\\"


def _render(
    _: Any,
    tokens: Sequence[Token],
    idx: int,
    options: OptionsDict,
    env: MutableMapping[str, Any],
) -> str:
    token = tokens[idx]
    text = formula_html(token.content, is_display=bool(token.meta.get("is_display")))
    return f'<p class="formula">{text}</p>\n' if token.block else text
