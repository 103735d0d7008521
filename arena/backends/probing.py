"""Asks one server what it is and what it serves, within a deadline and the bounds of a lookup.

Knows `/v1/models` and `/info`; knows no battle, no page and no other server.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

import httpx2

from arena.backends.bounds import MovedError
from arena.backends.client import Target, WireApi
from arena.backends.failures import WIRE_ERRORS
from arena.backends.http import http_client, key_of
from arena.backends.scoring import RewardServer
from arena.backends.wire_values import NAME_CHARS, count_of, name_fault, word_of
from arena.config.arena_toml import ParticipantConfig
from arena.values.battle import AskAs, Participant, SamplingSettings
from arena.values.texts import clean_text

PROBE_SECONDS = 3.0
MOST_MODELS = 1000
MOST_REFUSED = 20
REASON_CHARS = 500
NO_MODEL = "it serves no model"
Fault = Literal[
    "",
    "answered",
    "moved",
    "silent",
    "no_list",
    "not_served",
    "no_model",
    "internal",
    "restarting",
]
NO_ACCESS = (401, 403)  # of HTTP: the server is there, and not for us


@dataclass(frozen=True)
class Backend:
    """One server as it answered the last probe; `problem` is empty while it is up.

    `fault` and `about` tell the same problem by a word of the catalogue (`problem.<fault>`).
    `refused` says of models that were listed and cannot be taken which and why;
    `refused_folders` which folders the server itself refused to serve, and why.
    """

    url: str
    wire: WireApi = "openai"
    targets: tuple[Target, ...] = ()
    problem: str = ""
    fault: Fault = ""
    about: str = ""
    refused: tuple[str, ...] = ()
    refused_folders: tuple[tuple[str, str], ...] = ()
    scorers: tuple[RewardServer, ...] = ()
    """Its reward models, which judge answers and take part in no battle."""

    @property
    def is_up(self) -> bool:
        """The server answered and named its models."""
        return not self.problem


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
    mode = configured.mode or (AskAs.COMPLETION if configured.template else None)
    participant = replace(
        target.participant,
        name=configured.name,
        ask_as=mode or target.participant.ask_as,
        system_prompt=configured.system_prompt,
        sampling=configured.sampling(sampling),
    )
    asked = replace(
        target,
        participant=participant,
        is_mode_open=target.is_mode_open and mode is None,
        template=configured.template,
    )
    return replace(backend, targets=(asked,))


async def probe(
    url: str, sampling: SamplingSettings, key_env: str | None = None, *, named: str | None = None
) -> Backend:
    """Ask one server what it is and what it serves; never raises for what a server does.

    Some servers answer and list no models; `named` is then taken as the one that they have.
    """
    address = f"{url}/v1/models"
    try:
        async with asyncio.timeout(PROBE_SECONDS), http_client() as client:
            client.headers.update({"authorization": f"Bearer {key_of(key_env)}"})
            # First: a server whose list fails may close the connection that it failed on.
            wire, refused_folders = await _wire(client, url)
            reply = await client.get(address)
        if reply.status_code == 200:
            entries = _entries(reply.json())
        elif named is not None and reply.status_code not in NO_ACCESS:
            entries = [{"id": named}]
        else:
            told = f"HTTP {reply.status_code}"
            return _down(url, f"{address} answered {told}", "answered", f"{told}, {address}")
    except MovedError as error:
        problem = f"{address} answered {error}; give that server's address"
        return _down(url, problem, "moved", f"{error}, {address}")
    except (httpx2.TimeoutException, TimeoutError):
        why = f"{PROBE_SECONDS:.0f} s"
        return _down(url, f"no answer from {address} within {why}", "silent", f"{why}, {address}")
    except httpx2.HTTPError as error:
        name = type(error).__name__
        return _down(url, f"no answer from {address} ({name})", "silent", f"{name}, {address}")
    except WIRE_ERRORS as error:
        why = str(error)[:200] if isinstance(error, _ListError) else type(error).__name__
        problem = f"{address} is no list of models ({why})"
        return _down(url, problem, "no_list", f"{why}, {address}")
    backend = _backend(url, wire, entries, sampling, key_env, named)
    return replace(backend, refused_folders=refused_folders)


def _down(url: str, problem: str, fault: Fault, about: str) -> Backend:
    return Backend(url, problem=problem, fault=fault, about=about)


class _ListError(ValueError):
    """What a server sent as its list of models is none."""


def _entries(body: Any) -> list[Mapping[str, Any]]:
    """The lines of `/v1/models`, each a mapping."""
    entries = body.get("data") if isinstance(body, Mapping) else None
    if not isinstance(entries, list) or not all(isinstance(one, Mapping) for one in entries):
        raise _ListError("data is no list of objects")
    return entries


def _backend(
    url: str,
    wire: WireApi,
    entries: Sequence[Mapping[str, Any]],
    sampling: SamplingSettings,
    key_env: str | None,
    named: str | None,
) -> Backend:
    """The server with the models that it lists, or the one of them that is meant."""
    models: dict[str, Mapping[str, Any]] = {}
    refused = []
    for entry in entries:
        model = entry.get("id")
        if (fault := name_fault(model)) is not None:
            refused.append(f"model {str(model)[:80]!r} {fault}")
        else:
            models.setdefault(str(model), entry)
    meant = named if named in models else _model_of_path(url)
    wanted = [meant] if meant in models else list(models)
    if len(wanted) > MOST_MODELS:
        why = f"{len(wanted)} models, more than {MOST_MODELS}"
        problem = f"{url}/v1/models lists {why}; name those that you want in arena.toml"
        return _down(url, problem, "no_list", why)
    targets = tuple(
        replace(_target(url, wire, model, models, sampling), key_env=key_env)
        for model in wanted
        if models[model].get("kind") != "reward"
    )
    scorers = tuple(
        RewardServer(model, url, key_env)
        for model in wanted
        if models[model].get("kind") == "reward"
    )
    left_out = tuple(refused[:MOST_REFUSED])
    backend = Backend(url, wire, targets, refused=left_out, scorers=scorers)
    return backend if targets else replace(backend, problem=NO_MODEL, fault="no_model")


def _model_of_path(url: str) -> str | None:
    """The model of an address `…/models/NAME`, which is that model's alone."""
    path = unquote(urlsplit(url).path)
    return path.partition("/models/")[2] or None


async def _wire(
    client: httpx2.AsyncClient, url: str
) -> tuple[WireApi, tuple[tuple[str, str], ...]]:
    """`tgi` for a server that describes itself as text-generation-inference does.

    With it the folders that one of ours refused, each with the reason.
    """
    try:
        reply = await client.get(f"{url}/info")
        info = reply.json() if reply.status_code == 200 else None
    except (MovedError, ValueError, RecursionError):
        return "openai", ()
    if not isinstance(info, Mapping) or "max_total_tokens" not in info:
        return "openai", ()
    told = info.get("refused")
    refused = told.items() if isinstance(told, Mapping) else ()
    return "tgi", tuple(
        (clean_text(name)[:NAME_CHARS], clean_text(" ".join(why.split()))[:REASON_CHARS])
        for name, why in islice(refused, MOST_REFUSED)
        if isinstance(why, str)
    )


def _target(
    url: str,
    wire: WireApi,
    model: str,
    models: Mapping[str, Mapping[str, Any]],
    sampling: SamplingSettings,
) -> Target:
    """One line of `/v1/models`; what a server does not tell stays empty, never guessed."""
    entry = models[model]
    kind, parent = word_of(entry.get("kind")) or "", word_of(entry.get("parent"))
    is_plain_base = kind == "base" and not entry.get("chat_template", False)
    participant = Participant(
        name=model,
        model=model,
        ask_as=AskAs.COMPLETION if is_plain_base else AskAs.CHAT,
        kind=kind,
        weights_sha256=word_of(entry.get("weights_sha256")),
        base=parent,
        base_sha256=word_of(models.get(parent or "", {}).get("weights_sha256")),
        sampling=sampling,
    )
    return Target(
        participant,
        url,
        wire,
        adapter_id=model if kind else None,
        max_model_len=count_of(entry.get("max_model_len")) or None,
        is_mode_open=not is_plain_base and "chat_template" not in entry,
        is_checkpoint=word_of(entry.get("checkpoint_of")) is not None,
    )
