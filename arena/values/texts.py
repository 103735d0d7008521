"""Texts that every export can carry byte for byte, and one JSON text per value."""

from __future__ import annotations

import json
from typing import Any

from arena.errors import ArenaError


class TextError(ArenaError):
    """A text that no export could carry: a null character or half of a surrogate pair."""

    code = "text_unsendable"


def check_text(name: str, text: str) -> str:
    """The text itself, or TextError if an export could not carry it byte for byte."""
    if "\0" in text:
        place = text.index(chr(0))
        null = TextError(f"{name} holds a null character at {place}; remove it")
        raise null.coded("text_unsendable", place=place + 1)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        half = TextError(
            f"{name} holds half of a surrogate pair at {error.start}; send whole characters"
        )
        raise half.coded("text_unsendable", place=error.start + 1) from error
    return text


def clean_text(text: str) -> str:
    """A model's text with the characters that `check_text` refuses replaced by U+FFFD."""
    return text.replace("\0", "�").encode("utf-16", "surrogatepass").decode("utf-16", "replace")


_CANONICAL = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def canonical_json(value: Any) -> str:
    """One JSON text per value: sorted keys, no spaces, Unicode as it is."""
    return _CANONICAL.encode(value)
