"""Judging a prompt set, one prompt after another: which is next, and the battle to judge it by.

Answers given in advance are taken where the store has them; else the models are asked live.
Knows the battle service and the sets of a home folder; knows no page.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from arena.battles.prompt_sets import PromptSet, list_sets, load_set
from arena.battles.service import BattleService, SetPosition
from arena.battles.view import BattleAccess
from arena.storage import set_progress
from arena.storage.set_progress import SetProgress
from arena.values.battle import Battle


@dataclass(frozen=True)
class NextPrompt:
    """What to judge now (None when the set is done), and how far the voter is."""

    access: BattleAccess | None
    index: int | None
    progress: SetProgress


class SetJudging:
    """Hands out the prompts of sets to voters; each goes on where they left."""

    def __init__(self, service: BattleService, home: Path) -> None:
        self.service = service
        self._home = home

    async def names(self) -> list[str]:
        """The sets there are."""
        return await asyncio.to_thread(list_sets, self._home)

    async def progress(self, voter: str, name: str) -> SetProgress:
        """How far a voter is. Raises SetError."""
        return (await self._look(voter, name))[1]

    async def next(self, voter: str, name: str, source: str = "page") -> NextPrompt:
        """The battle to judge next: one left open, answers in advance, or a live one.

        Raises SetError, and what `BattleService.open_blind` raises.
        """
        chosen, progress = await self._look(voter, name)
        index = progress.next_index
        if index is None:
            return NextPrompt(None, None, progress)
        if index in progress.open:
            return NextPrompt(BattleAccess(voter, progress.open[index]), index, progress)
        ready = await asyncio.to_thread(
            set_progress.in_advance, self.service.store, name, chosen.prompts, index
        )
        if ready is not None:
            access = await self._take_over(voter, ready)
        else:
            position = SetPosition(name, index)
            access = await self.service.open_blind(voter, chosen.prompts[index], source, position)
        return NextPrompt(access, index, progress)

    async def _look(self, voter: str, name: str) -> tuple[PromptSet, SetProgress]:
        def read() -> tuple[PromptSet, SetProgress]:
            chosen = load_set(self._home, name)
            prompts = chosen.prompts
            passed = [i for i, prompt in enumerate(prompts) if not self.service.can_ask(prompt)]
            found = set_progress.progress(self.service.store, voter, name, prompts, passed)
            return chosen, found

        return await asyncio.to_thread(read)

    async def _take_over(self, voter: str, ready: Battle) -> BattleAccess:
        names = [participant.name for participant in ready.participants]
        drawn = await self.service.sampler.draw(names)
        battle_id, token = await asyncio.to_thread(
            set_progress.take_over,
            self.service.store,
            ready,
            (names.index(drawn.left), names.index(drawn.right)),
            voter,
            sampler=self.service.sampler.drawing.label,
            propensity=drawn.propensity,
        )
        return BattleAccess(voter, battle_id, token)
