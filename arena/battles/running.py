"""The battles that are being written now, and who watches them; the last to leave ends them.

Streams are owned by their battle, not by a request: they go on while somebody watches, while it is
kept, and for a moment after a page has left, so that a reload finds them still being written. Knows
streams and views of battles; knows no store, no server and no page.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from arena.backends.streams import AnswerError, AnswerStreams
from arena.battles.view import BattleAccess, BattleView, overlaid, stored_sides
from arena.values.battle import Battle
from arena.values.vote import Vote

GRACE_SECONDS = 0.4
"""How long a page that left may take to come back. Half a second after the last one has closed
its tab nothing may be written any more."""
ARRIVAL_SECONDS = 10.0
"""How long a page may take from its question, or from when it was asked for, to its first look at
the answers. A reload asks for the page before the old one is gone; who closes a tab does not."""


@dataclass
class RunningBattle:
    """A battle some of whose sides are being written, with those who watch it."""

    streams: AnswerStreams
    battle: Battle
    access: BattleAccess  # of who asked
    indices: tuple[int, ...]  # which sides of the battle it writes
    answer_ids: tuple[int, ...]  # the rows of these
    votes: tuple[Vote, ...] = ()  # on earlier turns
    key: str = field(default_factory=lambda: secrets.token_hex(4))  # tells pages run from run
    num_followers: int = 0
    is_skipped: bool = False  # the voter would not judge it
    is_kept: bool = False  # goes on to its end without anybody
    arrival: asyncio.TimerHandle | None = None  # until then a page is expected to watch
    judging: asyncio.Lock = field(default_factory=asyncio.Lock)  # held by who votes early

    def is_known(self, access: BattleAccess) -> bool:
        """Whether this is who asked; anybody else's right is in the store."""
        if access.voter == self.access.voter:
            return True
        token, own = access.token or "", self.access.token or ""
        return bool(own) and hmac.compare_digest(token.encode(), own.encode())

    def view(self) -> BattleView:
        """The battle as it is now; all of it is in memory."""
        live = overlaid(stored_sides(self.battle), self.streams.sides, self.indices)
        return BattleView(self.battle, self.votes, live, self.key)


class RunningBattles:
    """The running battles of one page by id."""

    def __init__(self) -> None:
        self._by_battle: dict[str, RunningBattle] = {}
        self._ends: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._by_battle)

    def __iter__(self) -> Iterator[RunningBattle]:
        return iter(list(self._by_battle.values()))

    def get(self, battle_id: str) -> RunningBattle | None:
        """The running battle of this id; None while nothing of it is being written."""
        return self._by_battle.get(battle_id)

    def add(self, running: RunningBattle) -> None:
        """Take up a battle before its streams start."""
        self._by_battle[running.battle.id] = running

    def remove(self, running: RunningBattle) -> None:
        """Forget a battle whose streams have ended."""
        if self._by_battle.get(running.battle.id) is running:
            del self._by_battle[running.battle.id]

    @asynccontextmanager
    async def watched(self, running: RunningBattle, grace: float = 0.0) -> AsyncIterator[None]:
        """While somebody watches; with a `grace` it outlives its last watcher by that."""
        running.num_followers += 1
        _cancel_arrival(running)
        try:
            yield
        finally:
            running.num_followers -= 1
            if grace:
                asyncio.get_running_loop().call_later(grace, self._end, running)
            else:
                await _let_go(running)

    def expect(self, running: RunningBattle, seconds: float) -> None:
        """Let it go on for so long without anybody; who watches it by then decides."""
        _cancel_arrival(running)
        loop = asyncio.get_running_loop()
        running.arrival = loop.call_later(seconds, self._missed, running)

    def _missed(self, running: RunningBattle) -> None:
        running.arrival = None
        self._end(running)

    def _end(self, running: RunningBattle) -> None:
        task = asyncio.create_task(_let_go(running))
        self._ends.add(task)
        task.add_done_callback(self._ends.discard)

    async def close(self, why: AnswerError) -> None:
        """End all streams, each told why; what was written so far is kept."""
        await asyncio.gather(*(one.streams.close(why) for one in self))


def _cancel_arrival(running: RunningBattle) -> None:
    if running.arrival is not None:
        running.arrival.cancel()
        running.arrival = None


async def _let_go(running: RunningBattle) -> None:
    is_wanted = running.num_followers or running.is_kept or running.arrival is not None
    if not (is_wanted or running.streams.is_finished):
        await running.streams.close()
