"""The life of a battle: opened, asked, watched, stopped, judged. The page and the API act here.

Joins the store, the pool of servers and the running streams. Knows no Gradio and no HTTP.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from arena.backends.client import Target, stream_answer, varied
from arena.backends.pool import BackendPool, examples_pairs, visitors_pairs
from arena.backends.streams import AnswerError, AnswerStreams, Side
from arena.battles.answer_recorder import AnswerRecorder
from arena.battles.asking_limits import Asker, AskingLimits
from arena.battles.leaks import telling_words
from arena.battles.pairing import PairSampler
from arena.battles.prompts import PromptError as PromptError
from arena.battles.prompts import check_prompt
from arena.battles.running import ARRIVAL_SECONDS, RunningBattle
from arena.battles.view import BattleAccess, BattleView
from arena.battles.voting import BattleVoting
from arena.config.arena_toml import PairingConfig
from arena.config.page_config import Deadlines, PageLimits
from arena.errors import ArenaError
from arena.storage import admin_queries
from arena.storage.battle_writes import Asked, BattleDraft, Opened
from arena.storage.database import StoreError
from arena.storage.health import StoreHealth
from arena.storage.pair_cache import PairCache
from arena.storage.store import Store
from arena.values.battle import Battle, Mode
from arena.values.examples import OPEN_EXAMPLES
from arena.values.vote import Vote

MANY = 20
"""Battles at once from which on streams are read as seldom as pages are told."""
BURST_SECONDS = 0.5
LOOK_SECONDS = 10.0
MOST_ASKERS = 50_000
SIGNED_IN = "user:"
"""How the secret begins by which somebody is known who signed in."""
SHUT_DOWN = "shut-down", "The server was shut down while this answer was being written."
SHUT_DOWN_SOON = "The server is shutting down. Try again in a moment."
EXAMPLE_SAMPLER = "base-and-variant/1"
APART = "+not-two-starters/1"


class BusyError(ArenaError):
    """As many battles run as the page takes on."""


class StillWritingError(BusyError):
    """The battle's answers are being written; it takes no further question yet."""

    code = "still_writing"


class TooManyError(BusyError):
    """One voter asks for more than their share."""


@dataclass(frozen=True)
class SetPosition:
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
    position: SetPosition | None = None


class BattleService(BattleVoting):
    """All running battles of one page, over one store and one pool of servers."""

    def __init__(
        self,
        store: Store,
        pool: BackendPool,
        limits: PageLimits | None = None,
        deadlines: Deadlines | None = None,
        drawing: PairingConfig | None = None,
    ) -> None:
        super().__init__(store)
        self.pool = pool
        self.limits = limits or PageLimits()
        self.deadlines = deadlines or Deadlines()
        self.pair_cache = PairCache(store)
        self.health = StoreHealth(store)
        self.sampler = PairSampler(self.pair_cache, drawing or PairingConfig())
        self.pool.off = admin_queries.switched_off(store)
        self._askers: OrderedDict[str, Asker] = OrderedDict()  # by secret
        self._by_voter: dict[str, str] = {}  # secrets by pseudonym
        self._asked_at = 0.0
        self._asking = AskingLimits(self.limits)
        self._is_closing = False

    @property
    def num_running(self) -> int:
        """Battles in which some side is still writing."""
        return len(self.running_battles)

    async def switch_off(self, names: Collection[str]) -> None:
        """Leave exactly these participants out of new battles, also after a restart."""
        await asyncio.to_thread(admin_queries.switch_off, self.store, names)
        self.pool.off = frozenset(names)

    def updates_per_second(self) -> float:
        """How often each page is told: less when many battles run, so that all stay prompt."""
        return max(1.0, min(self.limits.updates_per_second, 250 / max(1, self.num_running)))

    def _pause(self) -> float:
        """Seconds between two looks at a stream: none while few battles run, then as the pages.

        While many begin, their first words go before the further words of the others.
        """
        if self.num_running < MANY:
            return 0.0
        is_burst = time.monotonic() - self._asked_at < BURST_SECONDS
        return 2 * BURST_SECONDS if is_burst else 1 / self.updates_per_second()

    async def voter(self, secret: str, address: str = "") -> str:
        """The pseudonym of a browser, by its secret cookie; noted if it is new.

        `address`: where they ask from now, for the limits; it is stored nowhere.
        """
        asker = self._askers.pop(secret, None)
        if asker is None:
            voter = await asyncio.to_thread(self.store.ensure_voter, secret)
            since = await asyncio.to_thread(self.store.voter_since, voter)
            asker = Asker(voter, since, is_known=secret.startswith(SIGNED_IN))
        self._askers[secret] = replace(asker, address=address or asker.address)
        self._by_voter[asker.voter] = secret
        if len(self._askers) > MOST_ASKERS:
            _, oldest = self._askers.popitem(last=False)
            self._by_voter.pop(oldest.voter, None)
        return asker.voter

    async def known_voter(self, secret: str) -> str:
        """The pseudonym of a browser; nobody's ("") if it has never asked anything."""
        if secret in self._askers:
            return self._askers[secret].voter
        return await asyncio.to_thread(self.store.find_voter, secret) or ""

    # -- asking ---------------------------------------------------------------------------

    def check_prompt(self, prompt: str) -> str:
        """The prompt as it will be asked; PromptError for what cannot be."""
        return check_prompt(prompt, self.limits.prompt_chars)

    def can_ask(self, prompt: str) -> bool:
        """Whether a prompt can be asked as it is."""
        try:
            self.check_prompt(prompt)
        except PromptError:
            return False
        return True

    async def open_blind(
        self,
        voter: str,
        prompt: str,
        source: str = "page",
        position: SetPosition | None = None,
        *,
        is_example: bool = False,
    ) -> BattleAccess:
        """Draw a pair, shuffle the sides, ask both.

        An example is there to show what tuning does: it meets a base and a variant of it,
        where there are such, of the family that it was written for. A prompt of one's own is not
        put to two of the starter's family.
        """
        prompt = self.check_prompt(prompt)
        targets = await self.pool.contenders()
        if len(targets) < 2:
            self.pool.check_not_restarting()
        is_open = prompt in OPEN_EXAMPLES
        family = examples_pairs(targets, is_open=is_open) if is_example else []
        is_own = not is_example or (is_open and not family)
        apart = visitors_pairs(targets) if is_own and position is None else []
        drawn = await self.sampler.draw(list(targets), family, only=apart)
        pair = [targets[drawn.left], targets[drawn.right]]
        label = EXAMPLE_SAMPLER if family else self.sampler.drawing.label
        label += APART if drawn.is_restricted else ""
        how = _Opening(Mode.BLIND, source, label, drawn.propensity, position)
        return await self._open(voter, prompt, pair, how)

    async def open_named(
        self, voter: str, names: Sequence[str], prompt: str, source: str = "page"
    ) -> BattleAccess:
        """Ask chosen participants, their names known from the start."""
        prompt = self.check_prompt(prompt)
        targets = await self.pool.pick(names)
        return await self._open(voter, prompt, targets, _Opening(Mode.NAMED, source))

    async def open_in_advance(
        self, names: Sequence[str], prompt: str, position: SetPosition
    ) -> BattleAccess:
        """Ask participants for a prompt set; the battle belongs to nobody (see `set_progress`)."""
        prompt = self.check_prompt(prompt)
        targets = await self.pool.pick(names)
        return await self._open(
            None, prompt, targets, _Opening(Mode.BLIND, "set", position=position)
        )

    async def _open(
        self, voter: str | None, prompt: str, targets: Sequence[Target], how: _Opening
    ) -> BattleAccess:
        self._check_room(voter=voter)
        new = BattleDraft(
            [target.participant for target in targets],
            voter,
            how.mode,
            sampler=how.sampler,
            propensity=how.propensity,
            set_name=how.position.name if how.position else None,
            set_index=how.position.index if how.position else None,
            source=how.source,
        )
        asked = [_asked(target) for target in targets]
        opened = await asyncio.to_thread(self.store.open_battle, new, prompt, asked)
        access = BattleAccess(voter or "", new.battle_id, new.token)
        await self._answer(access, opened, dict(enumerate(targets)))
        return access

    def _check_room(self, access: BattleAccess | None = None, voter: str | None = None) -> None:
        if self._is_closing:
            raise BusyError(SHUT_DOWN_SOON).coded("shutting_down")
        asker = self._askers.get(self._by_voter.get(voter or "", ""))
        if voter is not None and not self._asking.allow(asker or Asker(voter, 0)):
            often = TooManyError("You asked very often in the last minute. Wait a little.")
            raise often.coded("too_often")
        if access is not None and self.running_battles.get(access.battle_id):
            raise StillWritingError("The models are still writing. Wait, or stop them first.")
        if self.num_running >= self.limits.running_battles:
            full = BusyError("All places are taken just now. Try again in a few seconds.")
            raise full.coded("no_place")

    async def next_turn(
        self, access: BattleAccess, prompt: str, shared_side: int | None = None
    ) -> None:
        """Ask on: every side after its own answers, or all after those of `shared_side`."""
        prompt = self.check_prompt(prompt)
        await self.unsaved.save()  # before it is asked on; refused while the store fails
        stored = await asyncio.to_thread(self._read, access)
        battle = stored.battle
        self._check_room(access, access.voter)
        targets = [await self.pool.reach(participant) for participant in battle.participants]
        asked = [_asked(target) for target in targets]
        opened = await asyncio.to_thread(
            self.store.ask, battle.id, prompt, asked, shared_side=shared_side
        )
        await self._answer(access, opened, dict(enumerate(targets)), stored.votes)

    async def regenerate(self, access: BattleAccess, side: int | None = None) -> None:
        """Ask one side, or all, again; the earlier answers are kept as superseded.

        A side that takes the likeliest token each time would only repeat itself, so it draws.
        """
        await self.unsaved.save()  # before it is asked on; refused while the store fails
        stored = await asyncio.to_thread(self._read, access)
        battle = stored.battle
        self._check_room(access, access.voter)
        indices = range(battle.num_sides) if side is None else [side]
        targets = {i: varied(await self.pool.reach(battle.participants[i])) for i in indices}
        asked = {i: _asked(target) for i, target in targets.items()}
        opened = await asyncio.to_thread(self.store.ask_again, battle.id, asked)
        await self._answer(access, opened, targets, stored.votes)

    async def _answer(
        self,
        access: BattleAccess,
        opened: Opened,
        targets: Mapping[int, Target],
        votes: Sequence[Vote] = (),
    ) -> None:
        """Let these sides answer the last turn."""
        battle = opened.battle
        turn = len(battle.turns) - 1
        recorders = [
            AnswerRecorder(
                self.store,
                opened.answer_ids[i],
                target,
                battle.context(turn, i),
                self.unsaved,
                is_blind=battle.is_blind,
            )
            for i, target in targets.items()
        ]

        async def record(index: int, side: Side) -> None:
            await recorders[index].close(side, streams.tokens[index])

        secrets = _secrets(battle, targets.values()) if battle.is_blind else frozenset()
        streams = AnswerStreams(
            [stream_answer(one.target, one.messages, secrets) for one in recorders],
            self.deadlines,
            self.limits.answer_chars,
            on_end=record,
            on_finish=lambda: self.running_battles.remove(running),
            pause=self._pause,
        )
        answer_ids = tuple(opened.answer_ids[i] for i in targets)
        running = RunningBattle(streams, battle, access, tuple(targets), answer_ids, tuple(votes))
        self.running_battles.add(running)
        self._asked_at = time.monotonic()
        await streams.start()

    # -- watching -------------------------------------------------------------------------

    async def follow(
        self, access: BattleAccess, *, grace: float = 0.0, idle: float | None = None
    ) -> AsyncGenerator[BattleView, None]:
        """The battle now, and again as the answers grow, until all sides have ended.

        When the last follower leaves before the end, the servers are told to stop, at once or
        `grace` seconds later. `idle` as of `AnswerStreams.watch`.
        """
        running = self.running_battles.get(access.battle_id)
        if running is None:
            yield await self.view(access)
            return
        if not running.is_known(access):
            await asyncio.to_thread(self._read, access)  # refuses strangers
        async with self.running_battles.watched(running, grace):
            async for _ in running.streams.watch(self.updates_per_second, idle):
                yield running.view()
        async with running.judging:  # the last view has the vote that ended the streams
            try:
                view = await self.view(access)
            except StoreError:
                view = running.view()  # what cannot be read now is still known here
        yield replace(view, is_skipped=running.is_skipped)

    async def keep(self, access: BattleAccess) -> bool:
        """Let a running battle go on to its end without a page; whether there is one."""
        await asyncio.to_thread(self._read, access)  # refuses strangers
        running = self.running_battles.get(access.battle_id)
        if running is None:
            return False
        running.is_kept = True  # deadlines end its streams
        return True

    def await_page(self, access: BattleAccess) -> None:
        """A page of who asked is on its way to the answers; if it never looks at them, they end."""
        running = self.running_battles.get(access.battle_id)
        if running is not None and running.is_known(access):
            self.running_battles.expect(running, ARRIVAL_SECONDS)

    async def stop(self, access: BattleAccess, side: int | None = None) -> None:
        """End one side, or all, where they are."""
        await asyncio.to_thread(self._read, access)  # refuses strangers
        running = self.running_battles.get(access.battle_id)
        if running is None:
            return
        if side is None:
            await running.streams.close()
        elif side in running.indices:
            running.streams.stop(running.indices.index(side))

    async def watch_store(self) -> None:
        """Look at the store now and then, so that a fault is known before somebody meets it."""
        while True:
            await asyncio.to_thread(self.health.look)
            await asyncio.sleep(LOOK_SECONDS)

    async def end_battles(self) -> None:
        """Take no further battle, and end those that run: each page is told why before it ends."""
        self._is_closing = True
        await self.running_battles.close(AnswerError(*SHUT_DOWN))

    async def close(self) -> None:
        """End every running battle; what was written so far is kept."""
        await asyncio.gather(self.end_battles(), self.pool.close())
        await self.unsaved.close()
        self.store.close()


def _secrets(battle: Battle, targets: Iterable[Target]) -> frozenset[str]:
    """What nobody may read in a blind battle: who takes part, and where."""
    names = [name for one in battle.participants for name in (one.name, one.model, one.base or "")]
    return telling_words(names, [target.url for target in targets])


def _asked(target: Target) -> Asked:
    return Asked(target.participant.model, target.sampling())
