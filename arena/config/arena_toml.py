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
from arena.values.battle import AskAs, SamplingSettings

FILE = "arena.toml"
STRATEGIES = ("uniform", "under_voted_first", "information_seeking")


class ArenaConfigError(ArenaError):
    """A line of arena.toml that makes no sense; the message names file, key and remedy."""


@dataclass(frozen=True)
class ParticipantConfig:
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

    def sampling(self, default: SamplingSettings) -> SamplingSettings:
        """The page's sampling with what the file says instead."""
        words = [field.name for field in fields(SamplingSettings)]
        given = {word: value for word in words if (value := getattr(self, word)) is not None}
        return SamplingSettings(**{**vars(default), **given})


@dataclass(frozen=True)
class PairingConfig:
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
class ArenaConfig:
    """The whole file."""

    participants: tuple[ParticipantConfig, ...] = ()
    drawing: PairingConfig = field(default_factory=PairingConfig)
    hidden: tuple[str, ...] = ()  # participants that a server offers and that stay out


def read_arena_config(path: Path) -> ArenaConfig:
    """The file's content; a missing file is an empty one. Raises PlaybookError."""
    if not path.exists():
        return ArenaConfig()
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise ArenaConfigError(f"{path}: cannot be read as TOML ({error}); correct it") from error
    _known(path, "", content, {"participant", "drawing", "hidden"})
    participants = tuple(_participant(path, table) for table in content.get("participant", []))
    names = [participant.name for participant in participants]
    for name in names:
        if names.count(name) > 1:
            raise ArenaConfigError(f"{path}: participant {name!r} is there twice; rename one")
    drawing = _drawing(path, content.get("drawing", {}))
    return ArenaConfig(participants, drawing, tuple(map(str, content.get("hidden", []))))


def _participant(path: Path, table: Mapping[str, Any]) -> ParticipantConfig:
    _known(path, "participant.", table, {field.name for field in fields(ParticipantConfig)})
    for key in ("name", "url"):
        if not isinstance(table.get(key), str) or not table[key].strip():
            raise ArenaConfigError(f"{path}: a participant has no {key}; give one")
    try:
        check_url(table["url"])
    except SettingsError as error:
        raise ArenaConfigError(f"{path}: participant {table['name']!r}: {error}") from error
    try:
        mode = AskAs(table["mode"]) if "mode" in table else None
    except ValueError as error:
        raise ArenaConfigError(
            f"{path}: mode {table['mode']!r} of {table['name']!r} is unknown; "
            "use chat or completion"
        ) from error
    key_env = table.get("key_env")
    if key_env and not os.environ.get(key_env):
        raise ArenaConfigError(
            f"{path}: environment variable {key_env!r} of {table['name']!r} is empty; "
            "put the server's key there"
        )
    stop = table.get("stop")
    if stop is not None and not (
        isinstance(stop, list) and all(isinstance(text, str) and text for text in stop)
    ):
        raise ArenaConfigError(
            f"{path}: stop of {table['name']!r} is {stop!r}; give a list of texts"
        )
    changed = {"mode": mode, "url": table["url"].rstrip("/"), "stop": stop and tuple(stop)}
    participant = ParticipantConfig(**{**table, **changed})
    _check_types(path, participant)
    return participant


def _check_types(path: Path, participant: ParticipantConfig) -> None:
    whole_numbers = ("top_k", "max_new_tokens", "seed")
    for key in ("temperature", "top_p", "repetition_penalty", *whole_numbers):
        value = getattr(participant, key)
        whole = key in whole_numbers
        fits = isinstance(value, int) or (isinstance(value, float) and not whole)
        if value is not None and (not fits or isinstance(value, bool)):
            raise ArenaConfigError(
                f"{path}: {key} of {participant.name!r} is {value!r}; give a number"
            )
    if participant.max_new_tokens is not None and participant.max_new_tokens < 1:
        raise ArenaConfigError(
            f"{path}: max_new_tokens of {participant.name!r} is below 1; give 1 or more"
        )


def _drawing(path: Path, table: Mapping[str, Any]) -> PairingConfig:
    _known(path, "drawing.", table, {field.name for field in fields(PairingConfig)})
    strategy = table.get("strategy", "uniform")
    if strategy not in STRATEGIES:
        raise ArenaConfigError(
            f"{path}: strategy {strategy!r} is unknown; use one of {', '.join(STRATEGIES)}"
        )
    weights = table.get("weights", {})
    for name, weight in weights.items():
        if not isinstance(weight, int | float) or not 0 <= weight < float("inf"):
            raise ArenaConfigError(f"{path}: weight of {name!r} is {weight!r}; give 0 or more")
    share = table.get("required_share", 0.25)
    if not isinstance(share, int | float) or not 0 <= share < 1:
        raise ArenaConfigError(f"{path}: required_share is {share!r}; give 0 <= share < 1")
    required = []
    for pair in table.get("required", []):
        if not isinstance(pair, list) or len(pair) != 2 or pair[0] == pair[1]:
            raise ArenaConfigError(f"{path}: required pair {pair!r} needs two different names")
        required.append((str(pair[0]), str(pair[1])))
    return PairingConfig(strategy, dict(weights), tuple(required), float(share))


def _known(path: Path, where: str, table: Mapping[str, Any], known: set[str]) -> None:
    for key in table:
        if key not in known:
            raise ArenaConfigError(
                f"{path}: {where}{key} is unknown; known are {', '.join(sorted(known))}"
            )
