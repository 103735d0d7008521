"""Who can take part: every server as it last answered, asked again beside what goes on.

Knows servers by their probes; knows no battle and no page. A server that does not answer is
kept as down, with the reason, and its models are left out of the draw. One that is slow to tell
holds nobody up: it is known as it last answered while it is asked again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from urllib.parse import urlsplit

from arena.backends.client import Target
from arena.backends.probing import Backend, probe, probe_configured
from arena.backends.scoring import RewardServer
from arena.backends.template_probe import TemplateMemory
from arena.config.arena_toml import ArenaConfig
from arena.config.page_config import server_root
from arena.errors import ArenaError
from arena.values.battle import Participant, SamplingSettings

log = logging.getLogger(__name__)

STARTER = "starter"
PACKAGED = (STARTER, "starter-full", "starter-lora", "starter-prefix")
FRESH_SECONDS = 5.0
FRESH_SECONDS_DOWN = 0.5  # a server that is starting should be seen as soon as it is up
QUICK_SECONDS = 0.3
"""Who asks waits so long for servers that answered their last probe in that time; for no other."""


class ParticipantError(ArenaError):
    """A participant that was asked for is not there, or there are too few."""


class RestartingError(ArenaError):
    """Too few can take part for the moment: their server is on its way."""

    code = "restarting"


@dataclass
class _Server:
    """One server of the pool: how to ask it, what it last said, and the asking that goes on."""

    url: str
    ask: Callable[[], Awaitable[Backend]]
    backend: Backend | None = None
    asked_at: float = float("-inf")
    probed_at: float = float("-inf")
    is_quick: bool = True
    probing: asyncio.Task[None] | None = None
    templates: TemplateMemory = field(default_factory=TemplateMemory)

    @property
    def is_due(self) -> bool:
        """What it last said is old, and nobody asks it now."""
        is_up = self.backend is not None and self.backend.is_up
        age = time.monotonic() - self.probed_at
        return not self.is_probing and age > (FRESH_SECONDS if is_up else FRESH_SECONDS_DOWN)

    @property
    def is_probing(self) -> bool:
        """It is being asked now."""
        return self.probing is not None and not self.probing.done()

    @property
    def patience(self) -> float:
        """Seconds for which its answer is still awaited: none once it is slower than it was."""
        return self.asked_at + QUICK_SECONDS - time.monotonic() if self.is_quick else 0.0

    def start(self) -> None:
        """Ask it, beside what goes on."""
        self.asked_at = time.monotonic()
        self.probing = asyncio.create_task(self._refresh())

    async def _refresh(self) -> None:
        try:
            backend = await self.ask()
            self.backend = self.templates.applied(backend)
            self.is_quick = time.monotonic() - self.asked_at <= QUICK_SECONDS
            await self.templates.learn(backend)
            self.backend = self.templates.applied(backend)
        except Exception:  # a fault of ours costs one server its place, and is seen in the log
            log.exception("server %s could not be probed", self.url)
            problem = "the arena made an error; its log says which"
            self.backend = Backend(self.url, problem=problem, fault="internal")
        self.probed_at = time.monotonic()


class BackendPool:
    """The participants of all servers, refreshed on demand."""

    def __init__(
        self,
        urls: Sequence[str],
        sampling: SamplingSettings,
        arena_config: ArenaConfig | None = None,
    ) -> None:
        self._config = arena_config or ArenaConfig()
        roots = dict.fromkeys(server_root(url) for url in urls)
        self._servers = [_Server(url, partial(probe, url, sampling)) for url in roots]
        self._servers += [
            _Server(one.url, partial(probe_configured, one, sampling))
            for one in self._config.participants
        ]
        self.off: frozenset[str] = frozenset()
        self.restarting: frozenset[str] = frozenset()  # addresses of servers that are on their way

    def num_variants(self) -> Mapping[str, int]:
        """Of how many variants that are served each model is the base, by its name."""
        return _num_variants(self.known())

    def known(self) -> tuple[Backend, ...]:
        """All servers as they last answered; those that nobody has asked yet are left out."""
        told = [server.backend for server in self._servers if server.backend is not None]
        return _unique_names([self._restarting(one) for one in told])

    def check_not_restarting(self) -> None:
        """For who misses somebody: RestartingError while a server is on its way."""
        if any(backend.fault == "restarting" for backend in self.known()):
            raise RestartingError("the model server is restarting; try again in a moment")

    def _restarting(self, backend: Backend) -> Backend:
        if backend.is_up or backend.url not in self.restarting:
            return backend
        return replace(backend, problem="it is restarting", fault="restarting", about="")

    @property
    def num_servers(self) -> int:
        """Servers and participants that were named, whether they answer or not."""
        return len(self._servers)

    async def backends(self, *, fresh: bool = False) -> tuple[Backend, ...]:
        """All servers, asked again when the last answer is older than a few seconds.

        Waits for those that have never answered and, a moment, for those that answer quickly;
        the others are told as they last were. `fresh` asks all again and waits for them.
        """
        for server in self._servers:
            if server.is_due or (fresh and not server.is_probing):
                server.start()
        asked = [server for server in self._servers if server.is_probing]
        quick = [server for server in asked if server.patience > 0]
        await _wait(quick, max((server.patience for server in quick), default=0.0))
        await _wait([server for server in asked if fresh or server.backend is None])
        return self.known()

    async def close(self) -> None:
        """Stop asking."""
        asking = [server.probing for server in self._servers if server.probing is not None]
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)

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

    async def contenders(self) -> dict[str, Target]:
        """Those that are drawn for blind battles: all but the checkpoints of runs that go on."""
        targets = await self.targets()
        return {name: one for name, one in targets.items() if not one.is_checkpoint}

    async def scorers(self) -> list[RewardServer]:
        """The reward models that are served now, in the servers' order."""
        return [scorer for backend in await self.backends() for scorer in backend.scorers]

    async def pick(self, names: Sequence[str]) -> list[Target]:
        """The named participants, in that order; RosterError names one that is missing."""
        known = await self.targets()
        for name in names:
            if name not in known:
                self.check_not_restarting()
                raise ParticipantError(
                    f"participant {name!r} is not served now; choose another"
                ).coded("not_served", name=name)
        return [known[name] for name in names]

    async def reach(self, participant: Participant) -> Target:
        """The way to a participant of an older battle, still asked as it was then."""
        same = [
            target
            for target in (await self.targets(all_known=True)).values()
            if target.participant.model == participant.model
            and target.participant.weights_sha256 == participant.weights_sha256
        ]
        if not same:
            gone = ParticipantError("a side of this battle is no longer served; start a new battle")
            raise gone.coded("side_gone")
        by_name = [target for target in same if target.name == participant.name]
        return replace((by_name or same)[0], participant=participant)


async def _wait(servers: Sequence[_Server], seconds: float | None = None) -> None:
    """Until these have said what they are asked, or the time is over."""
    if asking := [server.probing for server in servers if server.probing is not None]:
        await asyncio.wait(asking, timeout=seconds)


def lineage(targets: Mapping[str, Target]) -> list[tuple[str, str]]:
    """The pairs of a base and a variant of it on the same server, by name."""
    return [
        (base, variant)
        for base, one in targets.items()
        for variant, other in targets.items()
        if one.url == other.url and one.participant.model == other.participant.base
    ]


def examples_pairs(
    targets: Mapping[str, Target], *, is_open: bool = False
) -> list[tuple[str, str]]:
    """The pairs that an example is put to: a base and its variant, the starter's where served.

    An open example was written for other models: it meets another base and its variant.
    """
    pairs = lineage(targets)
    toy = _starters(targets)
    if is_open:
        return [pair for pair in pairs if not toy & set(pair)]
    return [pair for pair in pairs if toy.issuperset(pair)] or pairs


def has_others(targets: Mapping[str, Target]) -> bool:
    """Whether a model outside the starter's family is served."""
    return len(_starters(targets)) < len(targets)


def visitors_pairs(targets: Mapping[str, Target]) -> list[tuple[str, str]]:
    """The pairs that a visitor's own prompt may be put to; none where all may.

    The starter knows a small world and nothing else: a prompt from outside it says nothing of
    two of its family, so at least one side is another model, where there is one.
    """
    toy = _starters(targets)
    if not toy or len(toy) == len(targets):
        return []
    names = sorted(targets)
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    return [pair for pair in pairs if not toy.issuperset(pair)]


def _starters(targets: Mapping[str, Target]) -> set[str]:
    """The starter, its packaged variants and the adapters on it, by their names on the wire."""
    return {
        name
        for name, one in targets.items()
        if one.participant.model in PACKAGED or one.participant.base == STARTER
    }


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
        lines += [f"{backend.url}: {reason}; it is left out" for reason in backend.refused]
    return lines


def _num_variants(backends: Sequence[Backend]) -> Counter[str]:
    targets = {target.name: target for backend in backends for target in backend.targets}
    return Counter(base for base, _ in lineage(targets))


def _unique_names(backends: Sequence[Backend]) -> tuple[Backend, ...]:
    """Equal model ids of two servers get the server's address behind the name."""
    seen = Counter(target.name for backend in backends for target in backend.targets)
    return tuple(
        replace(
            backend,
            targets=tuple(
                _renamed(target) if seen[target.name] > 1 else target for target in backend.targets
            ),
        )
        for backend in backends
    )


def _renamed(target: Target) -> Target:
    parts = urlsplit(target.url)
    name = f"{target.name} @ {parts.netloc}{parts.path}"
    return replace(target, participant=replace(target.participant, name=name))
