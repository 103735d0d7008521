"""Values from a server's JSON, checked: a number that is none counts as not told.

An answer's text is what a voter judges; a count or a probability beside it that no store and no
sum can take (`inf`, `nan`, 1e400, a text) says nothing and costs no answer.
"""

from __future__ import annotations

import math
from typing import Any

from arena.values.texts import clean_text

MOST_COUNTED = 10**9
NAME_CHARS = 200


def count_of(value: Any) -> int | None:
    """A number of tokens or requests, 0 to 10^9; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if not 0 <= value <= MOST_COUNTED:  # false for nan
        return None
    return int(value)


def logprob_of(value: Any) -> float | None:
    """A finite number; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def word_of(value: Any) -> str | None:
    """A short text: a name, a reason, a hash; None for anything else."""
    if not isinstance(value, str) or not 0 < len(value) <= NAME_CHARS:
        return None
    return clean_text(value)


def name_fault(value: Any) -> str | None:
    """Why this cannot be a model's name, in words; None if it can."""
    if not isinstance(value, str):
        return "is no text"
    if not value.strip():
        return "is empty"
    if len(value) > NAME_CHARS:
        return f"has {len(value)} characters; at most {NAME_CHARS} are taken"
    if not value.isprintable():
        return "holds characters that cannot be shown"
    return None


def piece_of(value: Any) -> str:
    """A piece of an answer's text; TypeError for what is neither text nor left out."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise TypeError(f"a piece of text is of type {type(value).__name__}")
    return value


class WholeCharacters:
    """Joins characters whose halves come in two pieces; half of one for itself becomes U+FFFD."""

    def __init__(self) -> None:
        self._half = ""

    def take(self, piece: str) -> str:
        """The text that is whole now."""
        if piece.isascii() and not self._half and "\0" not in piece:
            return piece
        text = self._half + piece
        self._half = text[-1:] if "\ud800" <= text[-1:] <= "\udbff" else ""
        return clean_text(text.removesuffix(self._half) if self._half else text)

    def rest(self) -> str:
        """What is left when no more comes."""
        return clean_text(self._half)
