"""Measures the style of an answer: length, headings, list items, bold spans; knows no model."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from arena.ratings.vote_table import Floats

FEATURES = ("length", "headers", "lists", "bold")
"""Names of the style features, in the order of `Style.counts`."""

_CODE = re.compile(r"```.*?(?:```|\Z)", re.S)
_HEADER = re.compile(r"^ {0,3}(#{1,6})[ \t]", re.M)
_ORDERED = re.compile(r"^[ \t]*\d{1,9}[.)][ \t]", re.M)
_UNORDERED = re.compile(r"^[ \t]*[-*+][ \t]", re.M)
_BOLD_STAR = re.compile(r"\*\*[^*\n]+?\*\*")
_BOLD_LINE = re.compile(r"__[^_\n]+?__")


@dataclass(frozen=True, slots=True)
class Style:
    """Counts of one answer; `num_words` stands for its length. Code blocks have no markup."""

    num_words: int
    headers: tuple[int, ...]
    ordered: int
    unordered: int
    bold_stars: int
    bold_lines: int

    @property
    def counts(self) -> tuple[int, int, int, int]:
        """The numbers of FEATURES."""
        lists = self.ordered + self.unordered
        return (self.num_words, sum(self.headers), lists, self.bold_stars + self.bold_lines)


def measure_style(text: str) -> Style:
    """The style of one answer in Markdown."""
    prose = _CODE.sub("", text) if "```" in text else text
    levels = [0] * 6
    for mark in _HEADER.findall(prose):
        levels[len(mark) - 1] += 1
    return Style(
        num_words=len(text.split()),
        headers=tuple(levels),
        ordered=len(_ORDERED.findall(prose)),
        unordered=len(_UNORDERED.findall(prose)),
        bold_stars=len(_BOLD_STAR.findall(prose)),
        bold_lines=len(_BOLD_LINE.findall(prose)),
    )


def style_differences(left: Floats, right: Floats) -> Floats:
    """N x F: (left - right) / (left + right) of counts, 0 where both are 0, in units of its
    standard deviation. Not centred, so that swapping sides flips the sign. A feature that
    never differs becomes a column of zeros.
    """
    total = left + right
    share = np.divide(left - right, total, out=np.zeros_like(total), where=total > 0)
    spread = share.std(axis=0)
    return np.asarray(
        np.divide(share, spread, out=np.zeros_like(share), where=spread > 0), np.float64
    )
