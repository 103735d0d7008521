"""The catalogue of every text on the page, one file a language; knows no page.

Files lie beside it, `<language>.toml`. A key that a language lacks is taken from English.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from arena.errors import ArenaError

FOLDER = Path(__file__).parent
DEFAULT = "en"
TRADITIONAL = "zh-Hant"
TRADITIONAL_REGIONS = {"tw", "hk", "mo", "hant"}
"""Where Chinese is written in traditional signs, as the parts of a language tag have it."""


@dataclass(frozen=True)
class Words:
    """The texts of one language by key, like `vote.tie`."""

    language: str
    texts: Mapping[str, str]

    def __call__(self, key: str, **values: object) -> str:
        """The text of a key with its {names} filled in. A key that does not exist is a bug."""
        text = self.texts[key]
        return text.format(**values) if values else text


def error_text(error: ArenaError, say: Words) -> str:
    """An error in the reader's language; by its own words where the catalogue has none."""
    key = f"error.{error.code}"
    return say(key, **error.values) if error.code and key in say.texts else str(error)


@lru_cache(maxsize=1)
def languages() -> tuple[str, ...]:
    """Codes of the languages that have a file."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.toml")))


@lru_cache(maxsize=16)
def words(language: str = DEFAULT) -> Words:
    """The catalogue of a language, English for what it lacks; the other Chinese before it."""
    texts = _read(DEFAULT)
    if language == TRADITIONAL:
        texts = texts | _read("zh")
    if language != DEFAULT and language in languages():
        texts = texts | _read(language)
    return Words(language, texts)


def _read(language: str) -> dict[str, str]:
    tables = tomllib.loads((FOLDER / f"{language}.toml").read_text(encoding="utf-8"))
    return {f"{table}.{key}": text for table, keys in tables.items() for key, text in keys.items()}


def negotiate(accept_language: str | None) -> str:
    """The best language for an Accept-Language header: highest quality first, else English."""
    wanted: list[tuple[float, str]] = []
    for part in (accept_language or "").split(","):
        code, _, quality = part.strip().partition(";q=")
        try:
            wanted.append((float(quality or 1), _file_of(code.strip())))
        except ValueError:
            continue  # a broken part of a header names no language
    ranked = sorted(wanted, key=lambda item: -item[0])
    return next((code for _, code in ranked if code in languages()), DEFAULT)


def _file_of(tag: str) -> str:
    """The catalogue of a language tag: of its first part, but for the two ways to write Chinese."""
    language, *parts = tag.lower().split("-")
    is_traditional = language == "zh" and "hans" not in parts and TRADITIONAL_REGIONS & set(parts)
    return TRADITIONAL if is_traditional else language
