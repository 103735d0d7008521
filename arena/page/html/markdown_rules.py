"""Rules of Markdown that the standard parser lacks: emphasis beside Chinese and Japanese signs,
line breaks in the cells of tables, and a direction of its own for each block.

Knows tokens of markdown-it; knows no HTML but the names of its attributes.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from functools import partial

from markdown_it import MarkdownIt
from markdown_it.common.utils import isMdAsciiPunct, isPunctChar, isWhiteSpace
from markdown_it.rules_core import StateCore
from markdown_it.rules_inline import StateInline
from markdown_it.rules_inline.emphasis import tokenize as emphasis
from markdown_it.rules_inline.state_inline import Scanned
from markdown_it.rules_inline.strikethrough import tokenize as strikethrough
from markdown_it.token import Token

BREAK = re.compile(r"<br\s*/?>", re.IGNORECASE)
LEAVES = {"paragraph_open", "heading_open", "th_open", "td_open"}
HOLDERS = {
    "bullet_list_open",
    "ordered_list_open",
    "list_item_open",
    "blockquote_open",
    "table_open",
}


def add_rules(markdown: MarkdownIt) -> None:
    """Let a parser know them."""
    for name, rule in (("emphasis", emphasis), ("strikethrough", strikethrough)):
        markdown.inline.ruler.at(name, _beside_cjk(rule))
    markdown.core.ruler.after("inline", "cell_breaks", _cell_breaks)
    markdown.core.ruler.push("directions", _directions)


def _beside_cjk(
    rule: Callable[[StateInline, bool], bool],
) -> Callable[[StateInline, bool], bool]:
    """The rule with another idea of where marks may open and close."""

    def wrapped(state: StateInline, silent: bool) -> bool:
        vars(state)["scanDelims"] = partial(_scan, state)
        return rule(state, silent)

    return wrapped


def _scan(state: StateInline, start: int, can_split_word: bool) -> Scanned:
    """Where a run of marks may open or close, as the proposal "CommonMark for CJK" has it.

    CommonMark wants a space between a mark at punctuation and a letter: `**注意：**请看` has none,
    as no text in these scripts has. Punctuation of theirs counts as a letter, and a letter of
    theirs as a space (https://github.com/tats-u/markdown-cjk-friendly).
    """
    src, marker = state.src, state.src[start]
    end = start
    while end < state.posMax and src[end] == marker:
        end += 1
    before = src[start - 1] if start > 0 else " "
    after = src[end] if end < state.posMax else " "
    before_stops, after_stops = _is_stop(before), _is_stop(after)
    before_parts = isWhiteSpace(ord(before)) or before_stops or _is_cjk(before)
    after_parts = isWhiteSpace(ord(after)) or after_stops or _is_cjk(after)
    left = not isWhiteSpace(ord(after)) and (not after_stops or before_parts)
    right = not isWhiteSpace(ord(before)) and (not before_stops or after_parts)
    if can_split_word:
        return Scanned(left, right, end - start)
    return Scanned(
        left and (not right or before_stops), right and (not left or after_stops), end - start
    )


def _is_stop(char: str) -> bool:
    """Punctuation, but for that of Chinese, Japanese and Korean."""
    is_punctuation = isMdAsciiPunct(ord(char)) or isPunctChar(char)
    return is_punctuation and not _is_cjk(char)


def _is_cjk(char: str) -> bool:
    """A sign as wide as those of these scripts, but no picture."""
    is_wide = unicodedata.east_asian_width(char) in ("W", "F", "H")
    return is_wide and unicodedata.category(char) != "So"


def _cell_breaks(state: StateCore) -> None:
    """`<br>` in a cell is a line break: a table has no other way to write one."""
    in_cell = False
    for token in state.tokens:
        if token.type in ("th_open", "td_open", "th_close", "td_close"):
            in_cell = token.nesting == 1
        elif in_cell and token.children and BREAK.search(token.content):
            token.children = [part for child in token.children for part in _broken(child)]


def _broken(token: Token) -> list[Token]:
    if token.type != "text" or not BREAK.search(token.content):
        return [token]
    parts: list[Token] = []
    for i, text in enumerate(BREAK.split(token.content)):
        if i:
            parts.append(Token("hardbreak", "br", 0, level=token.level))
        parts.append(token.copy(content=text))
    return parts


def _directions(state: StateCore) -> None:
    """Each block runs as its own words do; what holds blocks, as the first of its words."""
    for i, token in enumerate(state.tokens):
        if token.type in LEAVES:
            token.attrSet("dir", "auto")
        elif token.type in HOLDERS:
            token.attrSet("dir", _direction(state.tokens, i))


def _direction(tokens: Sequence[Token], start: int) -> str:
    for token in tokens[start + 1 :]:
        if token.level == tokens[start].level and token.nesting == -1:
            break
        for char in token.content if token.type == "inline" else "":
            kind = unicodedata.bidirectional(char)
            if kind in ("L", "R", "AL"):
                return "ltr" if kind == "L" else "rtl"
    return "ltr"
