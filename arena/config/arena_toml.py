"""Reads `arena.toml`: who else takes part, how each is asked, how pairs are drawn, the limits.

Knows the file's words and refuses all others; knows no server and no page. A key is never
in the file, only the name of the environment variable that holds it.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    Strict,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic.dataclasses import dataclass
from pydantic_core import PydanticCustomError

from arena.config.chat_template import ChatTemplate, read_chat_template
from arena.config.page_config import PageLimits, StrictWhole, check_url, server_root
from arena.errors import ArenaError
from arena.values.battle import AskAs, SamplingSettings

FILE = "arena.toml"
LEAST_WEIGHT, MOST_WEIGHT = 1e-6, 1e6
"""Between these no sum of weights loses one of them, and no product leaves the doubles."""
WEIGHTS = f"give 0, or {LEAST_WEIGHT:f} to {MOST_WEIGHT:,.0f}"
Strategy = Literal["uniform", "under_voted_first", "information_seeking"]


class ArenaConfigError(ArenaError):
    """A line of arena.toml that makes no sense; the message names file, key and remedy."""


def _address(url: str) -> str:
    check_url(url)
    return server_root(url)


def _filled_variable(name: str | None) -> str | None:
    if name and not os.environ.get(name):
        raise ValueError(f"environment variable {name!r} is empty; put the server's key there")
    return name


def _read_template(named: Any, info: ValidationInfo) -> ChatTemplate | None:
    if named is None or isinstance(named, ChatTemplate):
        return named
    if not isinstance(named, str) or not named or "\0" in named:
        raise ValueError(f"{named!r} is no path; name a variant folder or a Jinja file")
    return read_chat_template((info.context or {}).get("folder", Path()) / named)


def _weight(weight: float) -> float:
    if weight != 0 and not LEAST_WEIGHT <= weight <= MOST_WEIGHT:
        raise PydanticCustomError("weight", "no weight")
    return weight


def _two_names(pair: tuple[str, str]) -> tuple[str, str]:
    if pair[0] == pair[1]:
        raise ValueError(f"required pair {list(pair)!r} needs two different names")
    return pair


NOT_BLANK = r"\S"
NUMBER = "give a number"
WHOLE = "give a whole number"
StrictNumber = Annotated[int, Strict()] | Annotated[float, Strict()]
Weight = Annotated[StrictNumber, AfterValidator(_weight)]
NamePair = Annotated[tuple[str, str], AfterValidator(_two_names)]
FILE_TABLE = ConfigDict(extra="forbid")


# The description of a field is what to do when its value is refused.
@dataclass(frozen=True, config=FILE_TABLE)
class ParticipantConfig:
    """A participant of the file: a model of a server, asked in its own way.

    `model` may be left out where the server has one model; `key_env` names the environment
    variable with the server's key. `template` is a variant folder or a Jinja file, seen from the
    file's folder: the page fills it in and asks by completion. With `best_of` so many answers are
    drawn each time, and the server's reward model `reward` picks one.
    """

    name: str = Field(pattern=NOT_BLANK, description="give it a name")
    url: Annotated[str, AfterValidator(_address)] = Field(description="give the server's address")
    model: str | None = Field(default=None, description="give the model's name on the server")
    mode: AskAs | None = Field(default=None, description="use chat or completion")
    template: Annotated[ChatTemplate | None, BeforeValidator(_read_template)] = None
    system_prompt: str = Field(default="", description="give a text")
    key_env: Annotated[str | None, AfterValidator(_filled_variable)] = Field(
        default=None, description="give the name of an environment variable"
    )
    temperature: StrictNumber | None = Field(default=None, description=NUMBER)
    top_p: StrictNumber | None = Field(default=None, description=NUMBER)
    top_k: StrictWhole | None = Field(default=None, description=WHOLE)
    repetition_penalty: StrictNumber | None = Field(default=None, description=NUMBER)
    max_new_tokens: StrictWhole | None = Field(
        default=None, ge=1, description=f"{WHOLE}, 1 or more"
    )
    seed: StrictWhole | None = Field(default=None, description=WHOLE)
    stop: tuple[Annotated[str, Field(min_length=1)], ...] | None = Field(
        default=None, description="give a list of texts"
    )
    best_of: StrictWhole | None = Field(default=None, ge=2, description=f"{WHOLE}, 2 or more")
    reward: str | None = Field(
        default=None, pattern=NOT_BLANK, description="give the name of a reward model of the server"
    )

    @model_validator(mode="after")
    def _template_is_for_completion(self) -> Self:
        if self.template is not None and self.mode is AskAs.CHAT:
            raise ValueError('template and mode = "chat" exclude each other; drop one of them')
        return self

    def sampling(self, default: SamplingSettings) -> SamplingSettings:
        """The page's sampling with what the file says instead."""
        words = [field.name for field in fields(SamplingSettings)]
        given = {word: value for word in words if (value := getattr(self, word)) is not None}
        if self.best_of is not None:  # the likeliest answer would be drawn each time
            given.setdefault("temperature", 1.0)
        return SamplingSettings(**{**vars(default), **given})

    def fault_of_picking(self) -> str:
        """Why its answers cannot be picked from as the file says; empty where they can."""
        if (self.best_of is None) != (self.reward is None):
            return "best_of and reward go together; give both or neither"
        if self.best_of is None:
            return ""
        if self.mode is AskAs.COMPLETION or self.template is not None:
            return "best_of picks answers of a chat; leave mode and template out"
        return "best_of needs a temperature above 0; give one" if self.temperature == 0 else ""


@dataclass(frozen=True, config=FILE_TABLE)
class PairingConfig:
    """How pairs of a blind battle are drawn. `required` pairs get `required_share` of the draws."""

    strategy: Strategy = Field(
        default="uniform", description=f"use one of {', '.join(get_args(Strategy))}"
    )
    weights: Mapping[str, Weight] = Field(default_factory=dict, description=WEIGHTS)
    required: tuple[NamePair, ...] = Field(
        default=(), description="give pairs of two different names"
    )
    required_share: StrictNumber = Field(
        default=0.25, ge=0, lt=1, description="give 0 <= share < 1"
    )

    @property
    def label(self) -> str:
        """What is stored with each battle that is drawn this way."""
        parts = [
            self.strategy,
            "weighted" if self.weights else "",
            "required" if self.required else "",
        ]
        return "+".join(part for part in parts if part) + "/1"


@dataclass(frozen=True, config=FILE_TABLE)
class ArenaConfig:
    """The whole file. `hidden` are participants that a server offers and that stay out.

    `limits` are those of the page; without them the program's own.
    """

    participants: tuple[ParticipantConfig, ...] = Field(
        default=(), alias="participant", description="write each as a table [[participant]]"
    )
    drawing: PairingConfig = PairingConfig()
    limits: PageLimits | None = None
    hidden: tuple[str, ...] = Field(default=(), description="give a list of names")


TABLES: Mapping[str, Any] = {
    "participant": ParticipantConfig,
    "drawing": PairingConfig,
    "limits": PageLimits,
}


def read_arena_config(path: Path) -> ArenaConfig:
    """The file's content; a missing file is an empty one. Raises ArenaConfigError."""
    if not path.exists():
        return ArenaConfig()
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:  # ValueError: no UTF-8, no TOML, digits
        raise ArenaConfigError(f"{path}: cannot be read as TOML ({error}); correct it") from error
    try:
        arena_config = TypeAdapter(ArenaConfig).validate_python(
            content, context={"folder": path.parent}
        )
    except ValidationError as error:
        mistake = error.errors(include_url=False)[0]
        raise ArenaConfigError(f"{path}: {_mistake_text(mistake, content)}") from error
    names = [participant.name for participant in arena_config.participants]
    for name in names:
        if names.count(name) > 1:
            raise ArenaConfigError(f"{path}: participant {name!r} is there twice; rename one")
    for participant in arena_config.participants:
        if problem := participant.fault_of_picking():
            raise ArenaConfigError(f"{path}: participant {participant.name!r}: {problem}")
    return arena_config


def _mistake_text(mistake: Mapping[str, Any], content: Mapping[str, Any]) -> str:
    """What pydantic found wrong first, by the file's own words, with the remedy."""
    place, of = list(mistake["loc"]), ""
    table: Any = ArenaConfig
    if place[0] in TABLES and len(place) > 1:
        table = TABLES[place[0]]
        if place[0] == "participant" and isinstance(place[1], int):
            entry = content["participant"][place.pop(1)]
            of = f" of {entry['name']!r}" if isinstance(entry, dict) and "name" in entry else ""
    known = {one.alias or name: one for name, one in table.__pydantic_fields__.items()}
    key = str(place[min(1, len(place) - 1)] if table is not ArenaConfig else place[0])
    if mistake["type"] == "unexpected_keyword_argument":
        return f"{'.'.join(map(str, place))} is unknown; known are {', '.join(sorted(known))}"
    if mistake["type"] == "missing" and place[-1] == key:
        return f"a participant has no {key}; give one"
    if mistake["type"] == "value_error":
        return f"{'.'.join(map(str, place[:2]))}{of}: {mistake['ctx']['error']}"
    remedy = known[key].description if key in known else ""
    depth = 3 if key in ("weights", "required") else 2 if table is not ArenaConfig else 1
    named = ".".join(map(str, place[:depth]))
    return f"{named}{of} is {mistake['input']!r}; {remedy or 'write it as a table'}"
