"""Reading and judging battles: what is shown or judged comes from the store, never from a browser.

Knows the store and the battles that are being written; knows no server, no Gradio and no HTTP.
"""

from __future__ import annotations

import asyncio

from arena.battles.running import RunningBattles
from arena.battles.view import BattleAccess, BattleView
from arena.storage.history_queries import Past
from arena.storage.store import Store
from arena.values.battle import Battle
from arena.values.refusals import AlreadyVotedError, StillBlindError, UnfinishedError
from arena.values.vote import Judgement, Vote

MOST_PAST = 200


class BattleVoting:
    """Battles as their voters may see and judge them."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.running_battles = RunningBattles()

    async def view(self, access: BattleAccess) -> BattleView:
        """The battle as it is now. Raises UnknownBattleError, WrongTokenError."""
        running = self.running_battles.get(access.battle_id)
        if running is not None and running.is_known(access):
            return running.view()
        battle, votes = await asyncio.to_thread(self._read, access)
        return BattleView(battle, tuple(votes)) if running is None else running.view()

    def _read(self, access: BattleAccess) -> tuple[Battle, list[Vote]]:
        battle = self.store.load_battle(access.battle_id, token=access.token, voter=access.voter)
        return battle, self.store.votes_of(access.battle_id)

    async def vote(
        self,
        access: BattleAccess,
        judgement: Judgement,
        *,
        partial: bool = False,
        change: bool = False,
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

        running = self.running_battles.get(access.battle_id)
        if not partial or running is None:
            return await asyncio.to_thread(write)
        async with running.judging:
            view = await self.view(access)
            if view.is_running and not view.is_votable_early:
                raise UnfinishedError("an answer has not begun; wait for its first words")
            await running.streams.close()
            return await asyncio.to_thread(write)

    async def tokens(self, access: BattleAccess, side: int) -> list[tuple[str, float]]:
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

    async def history(self, voter: str, wanted: str = "", limit: int = MOST_PAST) -> list[Past]:
        """The voter's own battles that hold every word wanted, newest first."""
        return await asyncio.to_thread(self.store.history, voter, wanted, limit=limit)

    async def undo(self, access: BattleAccess) -> None:
        """Take the vote on the last turn back; it stays in the history."""

        def write() -> None:
            battle, _ = self._read(access)
            turn = len(battle.turns) - 1
            self.store.undo_vote(
                access.battle_id, voter=access.voter, token=access.token, turn=turn
            )

        await asyncio.to_thread(write)

    async def skip(self, access: BattleAccess) -> None:
        """Note that the voter would not judge, and let the names be shown."""

        def write() -> None:
            battle, _ = self._read(access)
            turn = len(battle.turns) - 1
            self.store.skip_turn(
                access.battle_id, voter=access.voter, token=access.token, turn=turn
            )
            self.store.reveal(access.battle_id, token=access.token, voter=access.voter)

        running = self.running_battles.get(access.battle_id)
        if running is None:
            await asyncio.to_thread(write)
            return
        await asyncio.to_thread(self._read, access)  # refuses strangers before anything ends
        async with running.judging:
            await running.streams.close()  # nobody waits for these answers any more
            await asyncio.to_thread(write)
            running.is_skipped = True
