"""The life of a battle: opened, asked, watched, stopped, judged. The page and the API act here.

Joins the store, the roster of servers and the running streams; what is shown or judged is read
from the store, never from a browser. Knows no Gradio and no HTTP.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from arena.asking.client import Entrant, stream_answer, varied
from arena.asking.playbook import Drawing
from arena.asking.roster import Roster
from arena.asking.streams import Race, Side
from arena.battles.rates import Rates
from arena.battles.sampler import Sampler
from arena.battles.scene import Access, Scene, overlaid, stored_sides
from arena.battles.scribe import Scribe
from arena.errors import ArenaError
from arena.settings import PageConfig
from arena.storage import overseeing
from arena.storage.ledger import Ledger
from arena.storage.store import Store
from arena.values.battle import Battle, Mode
from arena.values.judgement import Judgement, Vote
from arena.values.refusals import AlreadyVotedError, StillBlindError, UnfinishedError
from arena.values.texts import check_text


class PromptError(ArenaError):
    """The prompt cannot be asked; the message tells the writer why."""

    code = "prompt_unsendable"


class BusyError(ArenaError):
    """As many battles run as the page takes on."""


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
    propensity: float | None = None
    place: Place | None = None


@dataclass
class _Running:
    """A race with those who watch it; the last one to leave ends it."""

    race: Race
    indices: tuple[int, ...]  # which sides of the battle it writes
    num_followers: int = 0
    judging: asyncio.Lock = field(default_factory=asyncio.Lock)  # held by who votes early


class Stage:
    """All running battles of one page, over one store and one roster."""

    def __init__(
        self, store: Store, roster: Roster, config: PageConfig, drawing: Drawing | None = None
    ) -> None:
        self.store = store
        self.roster = roster
        self.config = config
        self.ledger = Ledger(store)
        self.sampler = Sampler(self.ledger, drawing or Drawing())
        self.roster.off = overseeing.switched_off(store)
        self._running: dict[str, _Running] = {}
        self._voters: dict[str, str] = {}
        self._rates = Rates(config.limits.battles_per_minute, 60.0)
        self._keepers: set[asyncio.Task[None]] = set()

    @property
    def num_running(self) -> int:
        """Battles in which some side is still writing."""
        return len(self._running)

    async def switch_off(self, names: Collection[str]) -> None:
        """Leave exactly these participants out of new battles, also after a restart."""
        await asyncio.to_thread(overseeing.switch_off, self.store, names)
        self.roster.off = frozenset(names)

    def updates_per_second(self) -> float:
        """How often each page is told: less when many battles run, so that all stay prompt."""
        return max(1.0, min(self.config.limits.updates_per_second, 250 / max(1, self.num_running)))

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
        self, voter: str, prompt: str, source: str = "page", place: Place | None = None
    ) -> Access:
        """Draw a pair, shuffle the sides, ask both."""
        prompt = self.check_prompt(prompt)
        entrants = await self.roster.entrants()
        drawn = await self.sampler.draw(list(entrants))
        pair = [entrants[drawn.left], entrants[drawn.right]]
        how = _Opening(Mode.BLIND, source, drawn.propensity, place)
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
        battle_id, token = await asyncio.to_thread(
            self.store.create_battle,
            [entrant.participant for entrant in entrants],
            voter=voter,
            mode=how.mode,
            sampler="" if how.propensity is None else self.sampler.drawing.label,
            propensity=how.propensity,
            set_name=how.place.name if how.place else None,
            set_index=how.place.index if how.place else None,
            source=how.source,
        )
        access = Access(voter or "", battle_id, token)
        await self._ask(access, prompt, entrants, None)
        return access

    def _check_room(self, access: Access | None = None, voter: str | None = None) -> None:
        if voter is not None and not self._rates.allow(voter):
            often = TooManyError("You asked very often in the last minute. Wait a little.")
            raise often.coded("too_often")
        if access is not None and access.battle_id in self._running:
            writing = BusyError("The models are still writing. Wait, or stop them first.")
            raise writing.coded("still_writing")
        if self.num_running >= self.config.limits.running_battles:
            full = BusyError("All places are taken just now. Try again in a few seconds.")
            raise full.coded("no_place")

    async def next_turn(self, access: Access, prompt: str, shared_side: int | None = None) -> None:
        """Ask on: every side after its own answers, or all after those of `shared_side`."""
        prompt = self.check_prompt(prompt)
        battle, _ = await asyncio.to_thread(self._read, access)
        self._check_room(access, access.voter)
        entrants = [await self.roster.reach(participant) for participant in battle.participants]
        await self._ask(access, prompt, entrants, shared_side)

    async def regenerate(self, access: Access, side: int | None = None) -> None:
        """Ask one side, or all, again; the earlier answers are kept as superseded.

        A side that takes the likeliest token each time would only repeat itself, so it draws.
        """
        battle, _ = await asyncio.to_thread(self._read, access)
        self._check_room(access, access.voter)
        indices = range(battle.num_sides) if side is None else [side]
        entrants = {i: varied(await self.roster.reach(battle.participants[i])) for i in indices}
        await self._answer(battle, entrants)

    async def _ask(
        self, access: Access, prompt: str, entrants: Sequence[Entrant], shared_side: int | None
    ) -> None:
        """Append a turn and let every side answer it."""
        await asyncio.to_thread(
            self.store.add_turn, access.battle_id, prompt, shared_side=shared_side
        )
        battle, _ = await asyncio.to_thread(self._read, access)
        await self._answer(battle, dict(enumerate(entrants)))

    async def _answer(self, battle: Battle, entrants: Mapping[int, Entrant]) -> None:
        """Let these sides answer the last turn."""
        turn = len(battle.turns) - 1
        scribes = []
        for side, entrant in entrants.items():
            messages = battle.context(turn, side)
            scribes.append(Scribe(self.store, battle, turn, side, entrant, messages))
        await asyncio.gather(*(scribe.open() for scribe in scribes))

        async def record(index: int, side: Side) -> None:
            await scribes[index].close(side, race.tokens[index])

        race = Race(
            [stream_answer(scribe.entrant, scribe.messages) for scribe in scribes],
            self.config.deadlines,
            self.config.limits.answer_chars,
            on_end=record,
            on_finish=lambda: self._running.pop(battle.id),
        )
        self._running[battle.id] = _Running(race, tuple(entrants))
        await race.start()

    # -- watching -------------------------------------------------------------------------

    async def scene(self, access: Access) -> Scene:
        """The battle as it is now. Raises UnknownBattleError, WrongTokenError."""
        running = self._running.get(access.battle_id)
        battle, votes = await asyncio.to_thread(self._read, access)
        if running is None:
            return Scene(battle, tuple(votes))
        live = overlaid(stored_sides(battle), running.race.sides, running.indices)
        return Scene(battle, tuple(votes), live)

    def _read(self, access: Access) -> tuple[Battle, list[Vote]]:
        battle = self.store.load_battle(access.battle_id, token=access.token, voter=access.voter)
        return battle, self.store.votes_of(access.battle_id)

    async def follow(self, access: Access) -> AsyncGenerator[Scene, None]:
        """The scene now, and again as the answers grow, until all sides have ended.

        When the last follower leaves before the end, the servers are told to stop at once.
        """
        running = self._running.get(access.battle_id)
        scene = await self.scene(access)
        if running is None:
            yield scene
            return
        running.num_followers += 1
        stored = stored_sides(scene.battle)
        try:
            async for sides in running.race.watch(self.updates_per_second):
                yield replace(scene, live=overlaid(stored, sides, running.indices))
        finally:
            running.num_followers -= 1
            if running.num_followers == 0 and not running.race.is_finished:
                await running.race.close()
        async with running.judging:  # so that the last scene has the vote that ended the race
            scene = await self.scene(access)
        yield scene

    async def keep(self, access: Access) -> bool:
        """Let a running battle go on to its end without a page; whether there is one."""
        running = self._running.get(access.battle_id)
        await asyncio.to_thread(self._read, access)  # refuses strangers
        if running is None or running.race.is_finished:
            return False

        async def watch() -> None:
            async for _ in running.race.watch(lambda: 1.0):
                pass

        running.num_followers += 1  # it never leaves: deadlines end the race
        keeper = asyncio.create_task(watch())
        self._keepers.add(keeper)
        keeper.add_done_callback(self._keepers.discard)
        return True

    async def stop(self, access: Access, side: int | None = None) -> None:
        """End one side, or all, where they are."""
        await asyncio.to_thread(self._read, access)  # refuses strangers
        running = self._running.get(access.battle_id)
        if running is None:
            return
        if side is None:
            await running.race.close()
        elif side in running.indices:
            running.race.stop(running.indices.index(side))

    async def close(self) -> None:
        """End every running battle; what was written so far is kept."""
        await asyncio.gather(*(running.race.close() for running in list(self._running.values())))

    # -- judging --------------------------------------------------------------------------

    async def vote(
        self, access: Access, judgement: Judgement, *, partial: bool = False, change: bool = False
    ) -> Vote:
        """Store a judgement of the last turn; only then note that the names may be shown.

        `partial` allows to judge before the end: what still writes is ended where it is, so that
        what was judged is what is stored. Raises UnfinishedError when a side has not begun.
        """

        def write() -> Vote:
            battle, votes = self._read(access)
            turn = len(battle.turns) - 1
            if any(vote.turn == turn and vote.voter != access.voter for vote in votes):
                raise AlreadyVotedError("this battle has been judged from another device").coded(
                    "other_device"
                )
            vote = self.store.cast_vote(
                access.battle_id,
                judgement,
                voter=access.voter,
                token=access.token,
                turn=turn,
                partial=partial,
                change=change,
            )
            self.store.reveal(access.battle_id, token=access.token, voter=access.voter)
            return vote

        running = self._running.get(access.battle_id)
        if not partial or running is None:
            return await asyncio.to_thread(write)
        async with running.judging:
            scene = await self.scene(access)
            if scene.is_running and not scene.is_votable_early:
                raise UnfinishedError("an answer has not begun; wait for its first words")
            await running.race.close()
            return await asyncio.to_thread(write)

    async def tokens(self, access: Access, side: int) -> list[tuple[str, float]]:
        """The tokens of a side's last answer with their log-probabilities; [] if not told.

        Raises StillBlindError before the names may be shown.
        """
        battle, _ = await asyncio.to_thread(self._read, access)
        if battle.is_blind:
            raise StillBlindError("probabilities are shown after the vote")
        answer = battle.turns[-1].answer(side) if battle.turns else None
        if answer is None:
            return []
        return await asyncio.to_thread(self.store.load_tokens, answer.id)

    async def undo(self, access: Access) -> None:
        """Take the vote on the last turn back; it stays in the history."""

        def write() -> None:
            battle, _ = self._read(access)
            turn = len(battle.turns) - 1
            self.store.undo_vote(
                access.battle_id, voter=access.voter, token=access.token, turn=turn
            )

        await asyncio.to_thread(write)

    async def skip(self, access: Access) -> None:
        """Note that the voter would not judge, and let the names be shown."""

        def write() -> None:
            battle, _ = self._read(access)
            turn = len(battle.turns) - 1
            self.store.skip_turn(
                access.battle_id, voter=access.voter, token=access.token, turn=turn
            )
            self.store.reveal(access.battle_id, token=access.token, voter=access.voter)

        await asyncio.to_thread(write)
