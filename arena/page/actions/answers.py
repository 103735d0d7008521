"""Asking, asking again, stopping: each act as the changes of the page's elements it leads to.

These acts start or end answers, so many may come at once: they are plain requests of the page's
script (see `live_routes`) and no events of Gradio. Knows the battle service and the page's
elements; no HTTP.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from arena.battles.service import BattleService
from arena.battles.set_judging import SetJudging
from arena.battles.view import BattleAccess
from arena.errors import ArenaError
from arena.i18n import Words, error_text
from arena.page.html.panes import view_status
from arena.page.html.set_progress import none_html, progress_html
from arena.page.render import Changes, Renderer
from arena.values.battle import SIDES
from arena.values.refusals import RefusedError


@dataclass(frozen=True)
class Question:
    """What stood in the composer: the prompt, whom to ask, and what it goes on from.

    `following` is `new`, `own`, or the letter of the side whose answers all go on from. An example
    is a prompt that the page offers.
    """

    prompt: str
    mode: str = "blind"
    models: Sequence[str] = ()
    following: str = "new"
    is_example: bool = False


class AnswerActions:
    """The acts of one page that write answers. Every right is checked in the battle service."""

    def __init__(self, service: BattleService, set_judging: SetJudging, renderer: Renderer) -> None:
        self.service = service
        self.set_judging = set_judging
        self.renderer = renderer
        self.page = renderer.page

    async def send(self, shown: BattleAccess, question: Question, say: Words) -> Changes:
        """Open a battle with this prompt, or go on with the one shown."""
        note = ""
        try:
            if shown.battle_id and question.following != "new":
                access = shown
                side = SIDES.find(question.following) if question.following != "own" else None
                await self.service.next_turn(shown, question.prompt, side)
            else:
                if await is_open(self.service, shown):
                    note = say("status.kept")
                access = await self._open(shown.voter, question, say)
        except ArenaError as error:
            return self.renderer.status(error_text(error, say), say, "bad")
        changes = await self._asked(access, say, note)
        changes[self.page.next] |= {"value": "new"}
        return changes | {self.page.prompt: ""}

    async def _open(self, voter: str, question: Question, say: Words) -> BattleAccess:
        if question.mode != "named":
            example = question.is_example
            return await self.service.open_blind(voter, question.prompt, is_example=example)
        names = list(dict.fromkeys(question.models))
        if len(names) < 2:
            raise ArenaError(say("status.choose_two"))
        return await self.service.open_named(voter, names, question.prompt)

    async def again(self, shown: BattleAccess, side: int | None, say: Words) -> Changes:
        """Ask one side again, or all."""
        try:
            await self.service.regenerate(shown, side)
        except ArenaError as error:
            return self.renderer.status(error_text(error, say), say, "bad")
        return await self._asked(shown, say)

    async def stop(self, shown: BattleAccess, side: int | None, say: Words) -> Changes:
        """End one side where it is, or all; what follows from it the page is told anyway."""
        try:
            await self.service.stop(shown, side)
        except RefusedError as error:
            return self.renderer.status(error_text(error, say), say, "bad")
        return {}

    async def next_in_set(self, shown: BattleAccess, name: str, say: Words) -> Changes:
        """The next prompt of the set: its answers given in advance, or the models live."""
        if not name:
            return {self.page.set_progress: none_html(say)}
        try:
            if await is_open(self.service, shown):
                await self.service.keep(shown)  # what is still being written is not cut off
            task = await self.set_judging.next(shown.voter, name)
        except ArenaError as error:
            return self.renderer.status(error_text(error, say), say, "bad")
        progress = {self.page.set_progress: progress_html(task.progress, say)}
        if task.access is None:
            text = say("set.finished", total=task.progress.total)
            return self.renderer.blank() | progress | self.renderer.status(text, say, "good")
        return await self._asked(task.access, say) | progress

    async def shown(self, access: BattleAccess, say: Words, *, marked: bool = False) -> Changes:
        """The battle as it is now."""
        view = await self.service.view(access)
        return await self.renderer.view(view, say, marked=marked) | self.renderer.link(access)

    async def _asked(self, access: BattleAccess, say: Words, note: str = "") -> Changes:
        """The battle right after it was asked; `note` stands before the status."""
        view = await self.service.view(access)
        self.service.await_page(access)
        changes = await self.renderer.view(view, say) | self.renderer.link(access)
        if note:
            text, tone = view_status(view, say)
            changes |= self.renderer.status(f"{note} {text}", say, tone)
        return changes


async def is_open(service: BattleService, access: BattleAccess) -> bool:
    """Whether the battle waits for a judgement, so that leaving it is told."""
    try:
        return bool(access.battle_id) and (await service.view(access)).vote is None
    except RefusedError:
        return False  # not this voter's battle, so not theirs to come back to
