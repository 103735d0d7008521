"""The life of a battle: opened, asked, watched, stopped, judged. The page and the API act here.

Joins the store, the roster of servers and the running streams. Knows no Gradio and no HTTP.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from arena.backends.client import Entrant, stream_answer, varied
from arena.backends.pool import Roster, lineage
from arena.backends.streams import Race, Side
from arena.battles.answer_recorder import Scribe
from arena.battles.pairing import Sampler
from arena.battles.rate_limit import Rates
from arena.battles.running import ARRIVAL_SECONDS, Running
from arena.battles.view import Access, Scene
from arena.battles.voting import Judging
from arena.config.arena_toml import Drawing
from arena.config.page_config import PageConfig
from arena.errors import ArenaError
from arena.storage import admin_queries
from arena.storage.battle_writes import Asked, NewBattle, Opened
from arena.storage.pair_cache import Ledger
from arena.storage.store import Store
from arena.values.battle import Mode
from arena.values.texts import check_text
from arena.values.vote import Vote

MANY = 20
"""Battles at once from which on streams are read as seldom as pages are told."""
RUSH_SECONDS = 0.5
EXAMPLE_SAMPLER = "base-and-variant/1"


class PromptError(ArenaError):
    """The prompt cannot be asked; the message tells the writer why."""

    code = "prompt_unsendable"


class BusyError(ArenaError):
    """As many battles run as the page takes on."""


class StillWritingError(BusyError):
    """The battle's answers are being written; it takes no further question yet."""

    code = "still_writing"


class TooManyError(BusyError):
    """One voter asks for more than their share."""


@dataclass(frozen=True)
class Place:
    """Which prompt of which prompt set a battle is about."""

    name: str
    index: int


@dataclass(frozen=True)
class _Opening:
    """How a battle comes about; a pair that was drawn has a propensity."""

    mode: Mode
    source: str
    sampler: str = ""
    propensity: float | None = None
    place: Place | None = None


class Stage(Judging):
    """All running battles of one page, over one store and one roster."""

    def __init__(
        self, store: Store, roster: Roster, config: PageConfig, drawing: Drawing | None = None
    ) -> None:
        super().__init__(store)
        self.roster = roster
        self.config = config
        self.ledger = Ledger(store)
        self.sampler = Sampler(self.ledger, drawing or Drawing())
        self.roster.off = admin_queries.switched_off(store)
        self._voters: dict[str, str] = {}
        self._asked_at = 0.0
        self._rates = Rates(config.limits.battles_per_minute, 60.0)

    @property
    def num_running(self) -> int:
        """Battles in which some side is still writing."""
        return len(self.runs)

    async def switch_off(self, names: Collection[str]) -> None:
        """Leave exactly these participants out of new battles, also after a restart."""
        await asyncio.to_thread(admin_queries.switch_off, self.store, names)
        self.roster.off = frozenset(names)

    def updates_per_second(self) -> float:
        """How often each page is told: less when many battles run, so that all stay prompt."""
        return max(1.0, min(self.config.limits.updates_per_second, 250 / max(1, self.num_running)))

    def _calm(self) -> float:
        """Seconds between two looks at a stream: none while few battles run, then as the pages.

        While many begin, their first words go before the further words of the others.
        """
        if self.num_running < MANY:
            return 0.0
        is_rush = time.monotonic() - self._asked_at < RUSH_SECONDS
        return 2 * RUSH_SECONDS if is_rush else 1 / self.updates_per_second()

    async def voter(self, secret: str) -> str:
        """The pseudonym of a browser, by its secret cookie."""
        if secret not in self._voters:
            self._voters[secret] = await asyncio.to_thread(self.store.ensure_voter, secret)
        return self._voters[secret]

    # -- asking ---------------------------------------------------------------------------

    def check_prompt(self, prompt: str) -> str:
        """The prompt as it will be asked; PromptError for what cannot be."""
        limit = self.config.limits.prompt_chars
        if not prompt.strip():
            empty = PromptError("The prompt is empty. Write a question or an instruction first.")
            raise empty.coded("prompt_empty")
        if len(prompt) > limit:
            raise PromptError(
                f"The prompt has {len(prompt)} characters; at most {limit} are taken. Shorten it."
            ).coded("prompt_long", count=len(prompt), limit=limit)
        try:
            return check_text("prompt", prompt)
        except ArenaError as error:
            unsendable = PromptError(f"The prompt cannot be sent: {error}")
            raise unsendable.coded("prompt_unsendable", **error.values) from error

    async def open_blind(
        self,
        voter: str,
        prompt: str,
        source: str = "page",
        place: Place | None = None,
        *,
        is_example: bool = False,
    ) -> Access:
        """Draw a pair, shuffle the sides, ask both.

        An example is there to show what tuning does: it meets a base and a variant of it,
        where there are such.
        """
        prompt = self.check_prompt(prompt)
        entrants = await self.roster.entrants()
        kin = lineage(entrants) if is_example else ()
        drawn = await self.sampler.draw(list(entrants), kin)
        pair = [entrants[drawn.left], entrants[drawn.right]]
        label = EXAMPLE_SAMPLER if kin else self.sampler.drawing.label
        how = _Opening(Mode.BLIND, source, label, drawn.propensity, place)
        return await self._open(voter, prompt, pair, how)

    async def open_named(
        self, voter: str, names: Sequence[str], prompt: str, source: str = "page"
    ) -> Access:
        """Ask chosen participants, their names known from the start."""
        prompt = self.check_prompt(prompt)
        entrants = await self.roster.pick(names)
        return await self._open(voter, prompt, entrants, _Opening(Mode.NAMED, source))

    async def open_in_advance(self, names: Sequence[str], prompt: str, place: Place) -> Access:
        """Ask participants for a prompt set; the battle belongs to nobody (see `setbook`)."""
        prompt = self.check_prompt(prompt)
        entrants = await self.roster.pick(names)
        return await self._open(None, prompt, entrants, _Opening(Mode.BLIND, "set", place=place))

    async def _open(
        self, voter: str | None, prompt: str, entrants: Sequence[Entrant], how: _Opening
    ) -> Access:
        self._check_room(voter=voter)
        new = NewBattle(
            [entrant.participant for entrant in entrants],
            voter,
            how.mode,
            sampler=how.sampler,
            propensity=how.propensity,
            set_name=how.place.name if how.place else None,
            set_index=how.place.index if how.place else None,
            source=how.source,
        )
        asked = [_asked(entrant) for entrant in entrants]
        opened = await asyncio.to_thread(self.store.open_battle, new, prompt, asked)
        access = Access(voter or "", new.battle_id, new.token)
        await self._answer(access, opened, dict(enumerate(entrants)))
        return access

    def _check_room(self, access: Access | None = None, voter: str | None = None) -> None:
        if voter is not None and not self._rates.allow(voter):
            often = TooManyError("You asked very often in the last minute. Wait a little.")
            raise often.coded("too_often")
        if access is not None and self.runs.get(access.battle_id):
            raise StillWritingError("The models are still writing. Wait, or stop them first.")
        if self.num_running >= self.config.limits.running_battles:
            full = BusyError("All places are taken just now. Try again in a few seconds.")
            raise full.coded("no_place")

    async def next_turn(self, access: Access, prompt: str, shared_side: int | None = None) -> None:
        """Ask on: every side after its own answers, or all after those of `shared_side`."""
        prompt = self.check_prompt(prompt)
        battle, votes = await asyncio.to_thread(self._read, access)
        self._check_room(access, access.voter)
        entrants = [await self.roster.reach(participant) for participant in battle.participants]
        asked = [_asked(entrant) for entrant in entrants]
        opened = await asyncio.to_thread(
            self.store.ask, battle.id, prompt, asked, shared_side=shared_side
        )
        await self._answer(access, opened, dict(enumerate(entrants)), votes)

    async def regenerate(self, access: Access, side: int | None = None) -> None:
        """Ask one side, or all, again; the earlier answers are kept as superseded.

        A side that takes the likeliest token each time would only repeat itself, so it draws.
        """
        battle, votes = await asyncio.to_thread(self._read, access)
        self._check_room(access, access.voter)
        indices = range(battle.num_sides) if side is None else [side]
        entrants = {i: varied(await self.roster.reach(battle.participants[i])) for i in indices}
        asked = {i: _asked(entrant) for i, entrant in entrants.items()}
        opened = await asyncio.to_thread(self.store.ask_again, battle.id, asked)
        await self._answer(access, opened, entrants, votes)

    async def _answer(
        self,
        access: Access,
        opened: Opened,
        entrants: Mapping[int, Entrant],
        votes: Sequence[Vote] = (),
    ) -> None:
        """Let these sides answer the last turn."""
        battle = opened.battle
        turn = len(battle.turns) - 1
        scribes = [
            Scribe(self.store, battle, opened.answer_ids[i], entrant, battle.context(turn, i))
            for i, entrant in entrants.items()
        ]

        async def record(index: int, side: Side) -> None:
            await scribes[index].close(side, race.tokens[index])

        race = Race(
            [stream_answer(scribe.entrant, scribe.messages) for scribe in scribes],
            self.config.deadlines,
            self.config.limits.answer_chars,
            on_end=record,
            on_finish=lambda: self.runs.remove(running),
            calm=self._calm,
        )
        running = Running(race, battle, access, tuple(entrants), tuple(votes))
        self.runs.add(running)
        self._asked_at = time.monotonic()
        await race.start()

    # -- watching -------------------------------------------------------------------------

    async def follow(
        self, access: Access, *, grace: float = 0.0, idle: float | None = None
    ) -> AsyncGenerator[Scene, None]:
        """The scene now, and again as the answers grow, until all sides have ended.

        When the last follower leaves before the end, the servers are told to stop, at once or
        `grace` seconds later. `idle` as of `Race.watch`.
        """
        running = self.runs.get(access.battle_id)
        if running is None:
            yield await self.scene(access)
            return
        if not running.is_known(access):
            await asyncio.to_thread(self._read, access)  # refuses strangers
        async with self.runs.watched(running, grace):
            async for _ in running.race.watch(self.updates_per_second, idle):
                yield running.scene()
        async with running.judging:  # the last scene has the vote that ended the race
            scene = await self.scene(access)
        yield replace(scene, is_skipped=running.is_skipped)

    async def keep(self, access: Access) -> bool:
        """Let a running battle go on to its end without a page; whether there is one."""
        await asyncio.to_thread(self._read, access)  # refuses strangers
        running = self.runs.get(access.battle_id)
        if running is None:
            return False
        running.is_kept = True  # deadlines end the race
        return True

    def await_page(self, access: Access) -> None:
        """A page of who asked is on its way to the answers; if it never looks at them, they end."""
        running = self.runs.get(access.battle_id)
        if running is not None and running.is_known(access):
            self.runs.expect(running, ARRIVAL_SECONDS)

    async def stop(self, access: Access, side: int | None = None) -> None:
        """End one side, or all, where they are."""
        await asyncio.to_thread(self._read, access)  # refuses strangers
        running = self.runs.get(access.battle_id)
        if running is None:
            return
        if side is None:
            await running.race.close()
        elif side in running.indices:
            running.race.stop(running.indices.index(side))

    async def close(self) -> None:
        """End every running battle; what was written so far is kept."""
        await self.runs.close()


def _asked(entrant: Entrant) -> Asked:
    return Asked(entrant.participant.model, entrant.sampling())
