"""Reading and judging battles: what is shown or judged comes from the store, never from a browser.

Knows the store and the battles that are being written; knows no server, no Gradio and no HTTP.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

from arena.battles.running import RunningBattles
from arena.battles.unsaved import UnsavedAnswers
from arena.battles.view import BattleAccess, BattleView, stored_view
from arena.storage.history_queries import Past
from arena.storage.rows import StoredBattle
from arena.storage.store import Store
from arena.storage.vote_writes import Decide
from arena.values.refusals import StillBlindError, UnfinishedError
from arena.values.vote import Judgement

MOST_PAST = 200


class BattleVoting:
    """Battles as their voters may see and judge them."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.running_battles = RunningBattles()
        self.unsaved = UnsavedAnswers(store)

    async def view(self, access: BattleAccess) -> BattleView:
        """The battle as it is now. Raises UnknownBattleError, WrongTokenError."""
        running = self.running_battles.get(access.battle_id)
        if running is not None and running.is_known(access):
            return running.view()
        stored = await asyncio.to_thread(self._read, access)
        return stored_view(stored) if running is None else running.view()

    def is_writing(self, battle_id: str) -> bool:
        """Whether some side of the battle is still being written."""
        running = self.running_battles.get(battle_id)
        return running is not None and running.view().is_running

    def _read(self, access: BattleAccess) -> StoredBattle:
        stored = self.store.load_battle(access.battle_id, token=access.token, voter=access.voter)
        return self.unsaved.applied(stored)

    async def vote(
        self,
        access: BattleAccess,
        judgement: Judgement | Decide,
        *,
        partial: bool = False,
        change: bool = False,
    ) -> BattleView:
        """Store a judgement of the last turn; the view returned is what was committed.

        `partial` allows to judge before the end: what still writes is ended where it is, so that
        what was judged is what is stored. Raises UnfinishedError when a side has not begun, and
        what `Store.cast_vote` raises.
        """

        def write() -> StoredBattle:
            return self.store.cast_vote(
                access.battle_id,
                judgement,
                voter=access.voter,
                token=access.token,
                partial=partial,
                change=change,
            )

        running = self.running_battles.get(access.battle_id)
        if not partial or running is None:
            return stored_view(await asyncio.to_thread(write))
        async with running.judging:
            view = await self.view(access)
            if view.is_running and not view.is_votable_early:
                raise UnfinishedError("an answer has not begun; wait for its first words")
            await running.streams.close()
            return stored_view(await asyncio.to_thread(write))

    async def tokens(self, access: BattleAccess, side: int) -> list[tuple[str, float]]:
        """The tokens of a side's last answer with their log-probabilities; [] if not told.

        Raises StillBlindError before the names may be shown.
        """
        battle = (await asyncio.to_thread(self._read, access)).battle
        if battle.is_blind:
            raise StillBlindError("probabilities are shown after the vote")
        answer = battle.turns[-1].answer(side) if battle.turns else None
        if answer is None:
            return []
        return await asyncio.to_thread(self.store.load_tokens, answer.id)

    async def history(self, voter: str, wanted: str = "", limit: int = MOST_PAST) -> list[Past]:
        """The voter's own battles that hold every word wanted, newest first."""
        return await asyncio.to_thread(self.store.history, voter, wanted, limit=limit)

    async def undo(self, access: BattleAccess) -> BattleView:
        """Take the vote on the last turn back; it stays in the history."""
        return stored_view(
            await asyncio.to_thread(
                self.store.undo_vote, access.battle_id, voter=access.voter, token=access.token
            )
        )

    async def skip(self, access: BattleAccess) -> BattleView:
        """Note that the voter would not judge, and let the names be shown."""

        def write() -> BattleView:
            stored = self.store.skip_turn(access.battle_id, voter=access.voter, token=access.token)
            return replace(stored_view(stored), is_skipped=True)

        running = self.running_battles.get(access.battle_id)
        if running is None:
            return await asyncio.to_thread(write)
        await asyncio.to_thread(self._read, access)  # refuses strangers before anything ends
        async with running.judging:
            await running.streams.close()  # nobody waits for these answers any more
            view = await asyncio.to_thread(write)
            running.is_skipped = True
            return view
