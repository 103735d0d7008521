"""LaTeX in an answer to MathML: finds the formulas in Markdown and writes them, safe by a list.

Browsers draw MathML themselves, so no script, font or style sheet comes with it. `math-core` reads
LaTeX strictly: what it does not know is shown as it was written, never as other maths. Only
elements, attributes and styles listed here leave this module. Knows Markdown's rules; knows no
battle and no page.

The rules that find formulas are ours: mdit-py-plugins 0.7 (dollarmath, and texmath for brackets)
takes "6 or US" in "$5 and $6 or US$ 7" for a formula, and shows one in brackets that ends a list
item or stands amid a line as text.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import MutableMapping, Sequence
from functools import lru_cache
from html.parser import HTMLParser
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.rules_block import StateBlock
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token
from markdown_it.utils import OptionsDict
from math_core import LatexError, LatexToMathML


def _names(words: str) -> frozenset[str]:
    return frozenset(words.split())


DELIMITERS = (("$$", "$$", True), (r"\[", r"\]", True), (r"\(", r"\)", False), ("$", "$", False))
"""Opening, closing, and whether the formula stands on a line of its own."""
ENVIRONMENT = re.compile(r"\\begin\{((?:align|gather|equation|multline|alignat|flalign)\*?)\}")
"""What begins a formula without any delimiter, as in LaTeX."""
OTHER_NAMES = {"split": "aligned", "smallmatrix": "matrix"}
"""Environments that the converter knows by the name of a near one."""

LINES = re.compile(r"\\(?:(?P<enters>begin)\b|(?P<leaves>end)\b|\\|newline\b|cr\b)")
MOST_CHARS = 2_000
MOST_LINES = 40
MOST_DEPTH = 40  # the converter recurses
NESTING = re.compile(r"[{}]|\\left\b|\\right\b|\\begin\b|\\end\b")
REFUSED = re.compile(r"\\(?:(?:re)?newcommand|providecommand|def|let|require|input|include)\b")
ELEMENTS = _names(
    "math mrow mi mn mo mtext mspace mfrac msqrt mroot msub msup msubsup munder mover munderover"
    " mtable mtr mtd mstyle mpadded mphantom menclose mmultiscripts mprescripts b i"
)
ATTRIBUTES = _names(
    "display displaystyle scriptlevel mathvariant stretchy fence separator form lspace rspace"
    " minsize maxsize accent accentunder movablelimits symmetric largeop linethickness width height"
    " depth voffset columnalign columnspacing columnlines rowspacing rowlines notation"
)
SAFE_VALUE = re.compile(r"[-+\w.% ]{1,40}")
SAFE_STYLE = re.compile(
    r"(?:text-align|justify-items|padding(?:-left|-right)?|width|border-(?:left|right|top|bottom))"
    r": ?[\w.% ]{1,40}"
)


def add_formulas(markdown: MarkdownIt) -> None:
    """Let a Markdown parser know formulas between the DELIMITERS, and bare environments."""
    markdown.block.ruler.before(
        "fence", "formula_block", _block, {"alt": ["paragraph", "blockquote", "list"]}
    )
    markdown.inline.ruler.before("escape", "formula", _inline)
    markdown.add_render_rule("formula", _render)


def formula_html(tex: str, *, is_display: bool) -> str:
    """A formula as MathML; its source as code where it cannot be read."""
    element = None if _is_too_much(tex) else _converted(tex.strip(), is_display)
    if element is None:
        return f'<code class="formula-source" dir="ltr">{html.escape(tex.strip())}</code>'
    return element


@lru_cache(maxsize=1)
def _converter() -> LatexToMathML:
    return LatexToMathML(fancy_error=False, max_expansions=0)


@lru_cache(maxsize=1024)
def _converted(tex: str, is_display: bool) -> str | None:
    known = tex
    for name, other in OTHER_NAMES.items():
        known = re.sub(rf"\\(begin|end)\{{{name}\}}", rf"\\\1{{{other}}}", known)
    try:
        found = _converter().convert_with_local_state(known, displaystyle=is_display)
    except LatexError:
        return None
    writer = _Writer("block" if is_display else "inline", tex)
    writer.feed(found)
    writer.close()
    return "".join(writer.parts)


def _is_too_much(tex: str) -> bool:
    if len(tex) > MOST_CHARS or REFUSED.search(tex) or _breaks_lines(tex):
        return True
    depth = deepest = 0
    for mark in NESTING.findall(tex):
        depth += 1 if mark in ("{", r"\left", r"\begin") else -1
        deepest = max(deepest, depth)
    return deepest > MOST_DEPTH


def _breaks_lines(tex: str) -> bool:
    """Ends a line outside of every environment, which the converter would drop: other maths."""
    depth = 0
    for mark in LINES.finditer(tex):
        if mark["enters"]:
            depth += 1
        elif mark["leaves"]:
            depth -= 1
        elif depth < 1:
            return True
    return False


class _Writer(HTMLParser):
    """Writes MathML anew; of what is not listed only the words remain."""

    def __init__(self, display: str, tex: str) -> None:
        super().__init__()
        self.parts: list[str] = []
        self._given = {"display": display, "alttext": tex}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ELEMENTS:
            return
        kept = {name: value or "" for name, value in attrs if _is_safe(name, value or "")}
        kept |= self._given if tag == "math" else {}
        given = "".join(f' {name}="{html.escape(value)}"' for name, value in kept.items())
        self.parts.append(f"<{tag}{given}>")

    def handle_endtag(self, tag: str) -> None:
        if tag in ELEMENTS:
            self.parts.append(f"</{tag}>")

    def handle_data(self, data: str) -> None:
        self.parts.append(html.escape(data))


def _is_safe(name: str, value: str) -> bool:
    if name == "style":
        parts = [part.strip() for part in value.split(";") if part.strip()]
        return all(SAFE_STYLE.fullmatch(part) for part in parts)
    return name in ATTRIBUTES and SAFE_VALUE.fullmatch(value) is not None


def _block(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    """A formula that begins a line and whose closing mark ends one."""
    if state.is_code_block(start):
        return False
    first = state.bMarks[start] + state.tShift[start]
    bare = ENVIRONMENT.match(state.src, first)
    found = next((d for d in DELIMITERS if d[2] and state.src.startswith(d[0], first)), None)
    if found is None and bare is None:
        return False
    opening, closing = ("", f"\\end{{{bare[1]}}}") if bare else (found or DELIMITERS[0])[:2]
    for line in range(start, min(end, start + MOST_LINES)):
        begin = first + len(opening) if line == start else state.bMarks[line]
        text = state.src[begin : state.eMarks[line]].rstrip()
        if line > start and (not text or state.sCount[line] < state.blkIndent):
            return False
        if not text.endswith(closing):
            continue
        tex = state.getLines(start, line + 1, state.blkIndent, False).strip()
        body = tex if bare else tex[len(opening) : -len(closing)]
        if not bare and (not body.strip() or closing in body):
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
    end = _end_of(state.src, closing, start, min(state.posMax, start + MOST_CHARS))
    if end < 0:
        return False
    body = state.src[start:end]
    if not body.strip() or "\n\n" in body:
        return False
    if opening.startswith("$") and not _is_no_price(state.src, start, end, opening):
        return False
    if not silent:
        token = state.push("formula", "", 0)
        token.content, token.meta = body, {"is_display": is_display}
    state.pos = end + len(closing)
    return True


def _end_of(src: str, closing: str, start: int, most: int) -> int:
    """Where the closing mark is, -1 for nowhere; a dollar after a backslash is a sign of money."""
    end = src.find(closing, start, most)
    while closing.startswith("$") and end > 0 and src[end - 1] == "\\":
        end = src.find(closing, end + 1, most)
    return end


def _is_no_price(src: str, start: int, end: int, mark: str) -> bool:
    """Dollars around a formula, and not signs of money.

    Single ones hug it: "$x$" is one, "$5 and $6" and "$6 or US$ 5" are none. Double ones stand
    alone: "$$ or $$$" are prices of two kinds. Either holds whole brackets and more than words.
    """
    body = src[start:end]
    before, after = src[: start - len(mark)][-1:], src[end + len(mark) :][:1]
    if "\\" not in body and not _has_whole_brackets(body):
        return False
    if mark == "$$":
        return "$" not in (before, after) and not re.fullmatch(
            r"[^\\\d=+^_<>|]*[^\W\d_]{2}[^\\\d=+^_<>|]*", body
        )
    if body[0].isdigit() and re.search(r"(?<![\\A-Za-z{])[A-Za-z]{2}", body):
        return False
    hugged = not body[0].isspace() and not body[-1].isspace()
    return hugged and not (_joins(before) or _joins(after)) and body[-1] != "\\"


def _has_whole_brackets(body: str) -> bool:
    """None is left open; half-open intervals such as "[0, 1)" and "]0, 1]" are whole."""
    found = re.findall(r"[()\[\]]", body)
    return len(found) % 2 == 0 and found[:1] != [")"] and found[-1:] != ["("]


def _joins(char: str) -> bool:
    """A letter or digit that makes a dollar part of a word; not one that takes no spaces."""
    return char.isalnum() and unicodedata.east_asian_width(char) not in ("W", "F", "H")


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
