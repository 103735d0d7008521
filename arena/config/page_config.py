"""What the person who starts the page may set, as small frozen dataclasses; each default once.

Knows no model, no page and no wire.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import ConfigDict, Field, Strict
from pydantic.dataclasses import dataclass as checked_dataclass

from arena.errors import ArenaError
from arena.values.battle import SamplingSettings


class SettingsError(ArenaError):
    """A setting has a value that cannot work; the message names it and the remedy."""


def default_sampling() -> SamplingSettings:
    """The likeliest token each time, and an end: a base model does not stop by itself."""
    return SamplingSettings(temperature=0.0, max_new_tokens=160)


@dataclass(frozen=True)
class Deadlines:
    """Seconds that a side may take; past one of them the side has failed, the others go on."""

    first_token: float = 30.0
    idle: float = 15.0
    total: float = 300.0


def _limit(default: int, meaning: str) -> Any:
    """A whole number of at least 1; `meaning` stands in docs/arena.md."""
    told = "give a whole number, 1 to 1000000000"
    return Field(default=default, ge=1, le=10**9, title=meaning, description=told)


StrictWhole = Annotated[int, Strict()]


# The title of a field is its meaning, the description what to do when its value is refused.
@checked_dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class PageLimits:
    """What one page takes on; they protect the machine, not the ranking."""

    prompt_chars: StrictWhole = _limit(8_000, "characters of a prompt")
    answer_chars: StrictWhole = _limit(40_000, "characters of an answer; past them it is cut off")
    body_bytes: StrictWhole = _limit(65_536, "bytes of a request's body")
    running_battles: StrictWhole = _limit(200, "battles that are written at once")
    waiting_battles: StrictWhole = _limit(50, "acts of pages that wait for their turn")
    updates_per_second: Annotated[int, Strict()] | Annotated[float, Strict()] = Field(
        default=5.0,
        gt=0,
        le=100,
        title="how often a page is told of new words, at most",
        description="give a number above 0, at most 100",
    )
    requests_per_minute: StrictWhole = _limit(600, "requests of one voter in a minute")
    battles_per_minute: StrictWhole = _limit(30, "questions of one voter in a minute")
    new_voter_battles: StrictWhole = _limit(10, "the same, of a voter in their first ten minutes")
    address_battles_per_minute: StrictWhole = _limit(
        120, "questions of all voters of one address in a minute"
    )
    new_voters_per_minute: StrictWhole = _limit(30, "new voters of one address in a minute")


@dataclass(frozen=True)
class PublicAddress:
    """Where a browser finds the page when something stands in front of it.

    `root_path`: the path it lies under, such as `/arena`. `proxies`: addresses or networks of
    proxies whose forwarded headers are believed. `origins`: addresses such as
    `https://example.org` that pages may send from although the proxy asks by another name.
    """

    root_path: str = ""
    proxies: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not re.fullmatch(r"(?:/[\w.~-]+)*", self.root_path):
            raise SettingsError(
                f"root path {self.root_path!r} is none; write it like /arena, or leave it out"
            )
        for proxy in self.proxies:
            try:
                ipaddress.ip_network(proxy, strict=False)
            except ValueError as error:
                raise SettingsError(
                    f"proxy {proxy!r} is no address; write it like 127.0.0.1 or 10.0.0.0/8"
                ) from error
        for origin in self.origins:
            if not re.fullmatch(r"https?://(?:[\w.-]+|\[[\da-fA-F:.]+\])(?::\d{1,5})?", origin):
                raise SettingsError(
                    f"origin {origin!r} is none; write it like https://example.org, without a path"
                )


@dataclass(frozen=True)
class PageConfig:
    """All that `arena ui` needs: where the servers are, where the votes go, where to listen."""

    backends: tuple[str, ...]
    home: Path
    host: str = "127.0.0.1"
    port: int = 7860
    allowed_hosts: tuple[str, ...] = ()
    public: PublicAddress = PublicAddress()
    sampling: SamplingSettings = field(default_factory=default_sampling)
    deadlines: Deadlines = field(default_factory=Deadlines)
    limits: PageLimits = field(default_factory=PageLimits)

    def __post_init__(self) -> None:
        for url in self.backends:
            check_url(url)

    @property
    def database(self) -> Path:
        """The SQLite file of battles and votes."""
        return self.home / "arena.db"

    @property
    def page_url(self) -> str:
        """The address to open on this machine."""
        host = "127.0.0.1" if self.host in ("0.0.0.0", "::", "") else self.host
        return f"http://{host}:{self.port}"


def check_url(url: str) -> None:
    """Refuse what is not the address of an HTTP server."""
    try:
        parts = urlsplit(url)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # half of an IPv6 address, a port that is no number
        is_address = False
    if not is_address or not url.isprintable() or " " in url:
        raise SettingsError(f"backend {url!r} is no address; write it like http://127.0.0.1:8080")
    if parts.username or parts.password:
        raise SettingsError(
            f"backend {parts.hostname!r} carries a password in its address; "
            "put the key in an environment variable"
        )
    if parts.query or parts.fragment:
        raise SettingsError(
            f"backend {url!r} has more than an address behind it; leave out what follows ? or #"
        )


def server_root(url: str) -> str:
    """The address under which a server has `/v1/...`: without a slash or `/v1` at its end.

    An OpenAI client is given `http://host/v1`, a TGI client `http://host`; both mean one server.
    """
    return url.rstrip("/").removesuffix("/v1").rstrip("/")
