"""Reads `arena.toml`: who else takes part, how each is asked, and how pairs are drawn.

Knows the file's words and refuses all others; knows no server and no page. A key is never
in the file, only the name of the environment variable that holds it.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from arena.config.page_config import SettingsError, check_url
from arena.errors import ArenaError
from arena.values.battle import AskAs, SamplingParams

FILE = "arena.toml"
STRATEGIES = ("uniform", "under_voted_first", "information_seeking")


class PlaybookError(ArenaError):
    """A line of arena.toml that makes no sense; the message names file, key and remedy."""


@dataclass(frozen=True)
class Guest:
    """A participant of the file: a model of a server, asked in its own way.

    `model` may be left out where the server has one model; `key_env` names the environment
    variable with the server's key.
    """

    name: str
    url: str
    model: str | None = None
    mode: AskAs | None = None
    system_prompt: str = ""
    key_env: str | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    repetition_penalty: float | None = None
    max_new_tokens: int | None = None
    seed: int | None = None
    stop: tuple[str, ...] | None = None

    def sampling(self, default: SamplingParams) -> SamplingParams:
        """The page's sampling with what the file says instead."""
        words = [field.name for field in fields(SamplingParams)]
        given = {word: value for word in words if (value := getattr(self, word)) is not None}
        return SamplingParams(**{**vars(default), **given})


@dataclass(frozen=True)
class Drawing:
    """How pairs of a blind battle are drawn. `required` pairs get `required_share` of the draws."""

    strategy: str = "uniform"
    weights: Mapping[str, float] = field(default_factory=dict)
    required: tuple[tuple[str, str], ...] = ()
    required_share: float = 0.25

    @property
    def label(self) -> str:
        """What is stored with each battle that is drawn this way."""
        parts = [
            self.strategy,
            "weighted" if self.weights else "",
            "required" if self.required else "",
        ]
        return "+".join(part for part in parts if part) + "/1"


@dataclass(frozen=True)
class Playbook:
    """The whole file."""

    guests: tuple[Guest, ...] = ()
    drawing: Drawing = field(default_factory=Drawing)
    hidden: tuple[str, ...] = ()  # participants that a server offers and that stay out


def read_playbook(path: Path) -> Playbook:
    """The file's content; a missing file is an empty one. Raises PlaybookError."""
    if not path.exists():
        return Playbook()
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise PlaybookError(f"{path}: cannot be read as TOML ({error}); correct it") from error
    _known(path, "", content, {"participant", "drawing", "hidden"})
    guests = tuple(_guest(path, table) for table in content.get("participant", []))
    names = [guest.name for guest in guests]
    for name in names:
        if names.count(name) > 1:
            raise PlaybookError(f"{path}: participant {name!r} is there twice; rename one")
    drawing = _drawing(path, content.get("drawing", {}))
    return Playbook(guests, drawing, tuple(map(str, content.get("hidden", []))))


def _guest(path: Path, table: Mapping[str, Any]) -> Guest:
    _known(path, "participant.", table, {field.name for field in fields(Guest)})
    for key in ("name", "url"):
        if not isinstance(table.get(key), str) or not table[key].strip():
            raise PlaybookError(f"{path}: a participant has no {key}; give one")
    try:
        check_url(table["url"])
    except SettingsError as error:
        raise PlaybookError(f"{path}: participant {table['name']!r}: {error}") from error
    try:
        mode = AskAs(table["mode"]) if "mode" in table else None
    except ValueError as error:
        raise PlaybookError(
            f"{path}: mode {table['mode']!r} of {table['name']!r} is unknown; "
            "use chat or completion"
        ) from error
    key_env = table.get("key_env")
    if key_env and not os.environ.get(key_env):
        raise PlaybookError(
            f"{path}: environment variable {key_env!r} of {table['name']!r} is empty; "
            "put the server's key there"
        )
    stop = table.get("stop")
    if stop is not None and not (
        isinstance(stop, list) and all(isinstance(text, str) and text for text in stop)
    ):
        raise PlaybookError(f"{path}: stop of {table['name']!r} is {stop!r}; give a list of texts")
    changed = {"mode": mode, "url": table["url"].rstrip("/"), "stop": stop and tuple(stop)}
    guest = Guest(**{**table, **changed})
    _check_types(path, guest)
    return guest


def _check_types(path: Path, guest: Guest) -> None:
    whole_numbers = ("top_k", "max_new_tokens", "seed")
    for key in ("temperature", "top_p", "repetition_penalty", *whole_numbers):
        value = getattr(guest, key)
        whole = key in whole_numbers
        fits = isinstance(value, int) or (isinstance(value, float) and not whole)
        if value is not None and (not fits or isinstance(value, bool)):
            raise PlaybookError(f"{path}: {key} of {guest.name!r} is {value!r}; give a number")
    if guest.max_new_tokens is not None and guest.max_new_tokens < 1:
        raise PlaybookError(f"{path}: max_new_tokens of {guest.name!r} is below 1; give 1 or more")


def _drawing(path: Path, table: Mapping[str, Any]) -> Drawing:
    _known(path, "drawing.", table, {field.name for field in fields(Drawing)})
    strategy = table.get("strategy", "uniform")
    if strategy not in STRATEGIES:
        raise PlaybookError(
            f"{path}: strategy {strategy!r} is unknown; use one of {', '.join(STRATEGIES)}"
        )
    weights = table.get("weights", {})
    for name, weight in weights.items():
        if not isinstance(weight, int | float) or not 0 <= weight < float("inf"):
            raise PlaybookError(f"{path}: weight of {name!r} is {weight!r}; give 0 or more")
    share = table.get("required_share", 0.25)
    if not isinstance(share, int | float) or not 0 <= share < 1:
        raise PlaybookError(f"{path}: required_share is {share!r}; give 0 <= share < 1")
    required = []
    for pair in table.get("required", []):
        if not isinstance(pair, list) or len(pair) != 2 or pair[0] == pair[1]:
            raise PlaybookError(f"{path}: required pair {pair!r} needs two different names")
        required.append((str(pair[0]), str(pair[1])))
    return Drawing(strategy, dict(weights), tuple(required), float(share))


def _known(path: Path, where: str, table: Mapping[str, Any], known: set[str]) -> None:
    for key in table:
        if key not in known:
            raise PlaybookError(
                f"{path}: {where}{key} is unknown; known are {', '.join(sorted(known))}"
            )
