"""Who can take part: asks each server what it serves and keeps the answer for a few seconds.

Knows `/v1/models` and `/info`; knows no battle and no page. A server that does not answer is
kept as down, with the reason, and its models are left out of the draw.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal
from urllib.parse import urlsplit

import httpx2

from arena.backends.client import Target, WireApi, http_client, key_of
from arena.config.arena_toml import ArenaConfig, ParticipantConfig
from arena.errors import ArenaError
from arena.values.battle import AskAs, Participant, SamplingSettings

PROBE_SECONDS = 3.0
Fault = Literal["", "answered", "silent", "no_list", "not_served", "no_model"]
NO_ACCESS = (401, 403)  # of HTTP: the server is there, and not for us
FRESH_SECONDS = 5.0
FRESH_SECONDS_DOWN = 0.5  # a server that is starting should be seen as soon as it is up


class ParticipantError(ArenaError):
    """A participant that was asked for is not there, or there are too few."""


@dataclass(frozen=True)
class Backend:
    """One server as it answered the last probe; `problem` is empty while it is up.

    `fault` and `about` tell the same problem by a word of the catalogue (`problem.<fault>`).
    """

    url: str
    wire: WireApi = "openai"
    targets: tuple[Target, ...] = ()
    problem: str = ""
    fault: Fault = ""
    about: str = ""

    @property
    def is_up(self) -> bool:
        """The server answered and named its models."""
        return not self.problem


class BackendPool:
    """The participants of all servers, refreshed on demand."""

    def __init__(
        self,
        urls: Sequence[str],
        sampling: SamplingSettings,
        arena_config: ArenaConfig | None = None,
    ) -> None:
        self._config = arena_config or ArenaConfig()
        self._urls = tuple(dict.fromkeys(url.rstrip("/") for url in urls))
        self._sampling = sampling
        self._backends: tuple[Backend, ...] = ()
        self._probed_at = float("-inf")
        self._lock = asyncio.Lock()
        self.off: frozenset[str] = frozenset()

    async def backends(self, *, fresh: bool = False) -> tuple[Backend, ...]:
        """All servers, probed again when the last answer is older than a few seconds."""
        async with self._lock:
            is_up = all(backend.is_up for backend in self._backends)
            age = time.monotonic() - self._probed_at
            if fresh or age > (FRESH_SECONDS if is_up else FRESH_SECONDS_DOWN):
                probes = [probe(url, self._sampling) for url in self._urls]
                probes += [
                    probe_configured(configured, self._sampling)
                    for configured in self._config.participants
                ]
                self._backends = _unique_names(await asyncio.gather(*probes))
                self._probed_at = time.monotonic()
            return self._backends

    async def targets(self, *, all_known: bool = False) -> dict[str, Target]:
        """The participants that can be asked now, by name, in the servers' order.

        `all_known`: also those that an admin switched off.
        """
        backends = await self.backends()
        left_out = {*self._config.hidden, *(() if all_known else self.off)}
        return {
            target.name: target
            for backend in backends
            for target in backend.targets
            if target.name not in left_out
        }

    async def pick(self, names: Sequence[str]) -> list[Target]:
        """The named participants, in that order; RosterError names one that is missing."""
        known = await self.targets()
        for name in names:
            if name not in known:
                raise ParticipantError(
                    f"participant {name!r} is not served now; choose another"
                ).coded("not_served", name=name)
        return [known[name] for name in names]

    async def reach(self, participant: Participant) -> Target:
        """The way to a participant of an older battle, still asked as it was then."""
        for target in (await self.targets(all_known=True)).values():
            same = target.participant.model == participant.model
            if same and target.participant.weights_sha256 == participant.weights_sha256:
                return replace(target, participant=participant)
        gone = ParticipantError("a side of this battle is no longer served; start a new battle")
        raise gone.coded("side_gone")


def lineage(targets: Mapping[str, Target]) -> list[tuple[str, str]]:
    """The pairs of a base and a variant of it on the same server, by name."""
    return [
        (base, variant)
        for base, one in targets.items()
        for variant, other in targets.items()
        if one.url == other.url and one.participant.model == other.participant.base
    ]


def server_lines(backends: Sequence[Backend]) -> list[str]:
    """A line for each server: by which API it answers and how its participants are asked."""
    apis = {"tgi": "the TGI API", "openai": "the OpenAI API"}
    lines = []
    for backend in backends:
        asked = ", ".join(
            f"{target.name} ({target.participant.ask_as})" for target in backend.targets
        )
        lines.append(
            f"{backend.url} answers by {apis[backend.wire]}: {asked}"
            if backend.is_up
            else f"{backend.url} is down: {backend.problem}; it is left out until it answers"
        )
    return lines


async def probe_configured(configured: ParticipantConfig, sampling: SamplingSettings) -> Backend:
    """The participant of arena.toml as its server offers it, asked as the file says."""
    backend = await probe(configured.url, sampling, configured.key_env, named=configured.model)
    if not backend.is_up:
        return backend
    offered = {target.participant.model: target for target in backend.targets}
    model = (
        configured.model
        if configured.model is not None or len(offered) > 1
        else next(iter(offered))
    )
    if model is None or model not in offered:
        named = model or "one model"
        return replace(
            backend,
            targets=(),
            problem=f"it does not serve {named}",
            fault="not_served",
            about=model or "?",
        )
    target = offered[model]
    participant = replace(
        target.participant,
        name=configured.name,
        ask_as=configured.mode or target.participant.ask_as,
        system_prompt=configured.system_prompt,
        sampling=configured.sampling(sampling),
    )
    return replace(backend, targets=(replace(target, participant=participant),))


async def probe(
    url: str, sampling: SamplingSettings, key_env: str | None = None, *, named: str | None = None
) -> Backend:
    """Ask one server what it is and what it serves; never raises for what a server does.

    Some servers answer and list no models; `named` is then taken as the one that they have.
    """
    try:
        async with http_client(timeout=PROBE_SECONDS) as client:
            client.headers.update({"authorization": f"Bearer {key_of(key_env)}"})
            # First: a server whose list fails may close the connection that it failed on.
            wire = await _wire(client, url)
            reply = await client.get(f"{url}/v1/models")
            if reply.status_code == 200:
                entries = reply.json()["data"]
            elif named is not None and reply.status_code not in NO_ACCESS:
                entries = [{"id": named}]
            else:
                problem = f"/v1/models answered HTTP {reply.status_code}"
                return Backend(url, "openai", (), problem, "answered", str(reply.status_code))
        models = {str(entry["id"]): entry for entry in entries}
    except httpx2.HTTPError as error:
        name = type(error).__name__
        return Backend(url, "openai", (), f"no answer ({name})", "silent", name)
    except (ValueError, KeyError, TypeError) as error:
        name = type(error).__name__
        problem = f"/v1/models is no model list ({name})"
        return Backend(url, "openai", (), problem, "no_list", name)
    targets = tuple(
        replace(_target(url, wire, entry, models, sampling), key_env=key_env)
        for entry in entries
        if entry.get("kind") != "reward"
    )
    if not targets:
        return Backend(url, wire, (), "it serves no model", "no_model")
    return Backend(url, wire, targets)


async def _wire(client: httpx2.AsyncClient, url: str) -> WireApi:
    """`tgi` for a server that describes itself as text-generation-inference does."""
    reply = await client.get(f"{url}/info")
    if reply.status_code != 200:
        return "openai"
    try:
        info = reply.json()
    except ValueError:
        return "openai"
    return "tgi" if isinstance(info, Mapping) and "max_total_tokens" in info else "openai"


def _target(
    url: str,
    wire: WireApi,
    entry: Mapping[str, Any],
    models: Mapping[str, Mapping[str, Any]],
    sampling: SamplingSettings,
) -> Target:
    """One line of `/v1/models`; what a server does not tell stays empty, never guessed."""
    model = str(entry["id"])
    kind = str(entry.get("kind") or "")
    parent = entry.get("parent")
    is_plain_base = kind == "base" and not entry.get("chat_template", False)
    participant = Participant(
        name=model,
        model=model,
        ask_as=AskAs.COMPLETION if is_plain_base else AskAs.CHAT,
        kind=kind,
        weights_sha256=entry.get("weights_sha256"),
        base=parent,
        base_sha256=models.get(str(parent), {}).get("weights_sha256"),
        sampling=sampling,
    )
    length = entry.get("max_model_len")
    return Target(
        participant,
        url,
        wire,
        adapter_id=model if kind else None,
        max_model_len=length if isinstance(length, int) else None,
    )


def _unique_names(backends: Sequence[Backend]) -> tuple[Backend, ...]:
    """Equal model ids of two servers get the server's address behind the name."""
    seen = [target.name for backend in backends for target in backend.targets]
    return tuple(
        replace(
            backend,
            targets=tuple(
                _renamed(target) if seen.count(target.name) > 1 else target
                for target in backend.targets
            ),
        )
        for backend in backends
    )


def _renamed(target: Target) -> Target:
    place = urlsplit(target.url).netloc
    participant = replace(target.participant, name=f"{target.name} @ {place}")
    return replace(target, participant=participant)
