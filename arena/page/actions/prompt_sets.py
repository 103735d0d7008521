"""What happens when somebody chooses how to compare, or a prompt set: and how far they are in it.

Knows the page's elements and how sets are judged; a battle itself is asked, shown and judged as
any other.
"""

from __future__ import annotations

import asyncio
import html
from typing import Any

import gradio as gr

from arena.battles.service import BattleService
from arena.battles.set_judging import SetJudging
from arena.errors import ArenaError
from arena.i18n import Words, error_text
from arena.page.actions.battles import say_for, secret_of
from arena.page.html.set_progress import none_html, progress_html
from arena.page.layout import Page
from arena.page.render import Changes

LOOKS = 10
BETWEEN_LOOKS_S = 0.6


class PromptSetActions:
    """The acts on prompt sets of one page."""

    def __init__(self, service: BattleService, set_judging: SetJudging, page: Page) -> None:
        self.service = service
        self.set_judging = set_judging
        self.page = page

    @property
    def outputs(self) -> list[Any]:
        """What choosing how to compare may change."""
        page = self.page
        return [page.models, page.set_row, page.sets, page.set_progress, *self._composing]

    @property
    def _composing(self) -> list[Any]:
        """What has no use while prompts come from a set."""
        page = self.page
        return [page.prompt, page.send, page.new, page.examples_row]

    async def on_mode(
        self, mode: str, models: list[str] | None, chosen: str | None, request: gr.Request
    ) -> Changes:
        """Show what this way of comparing needs; a blind page never learns the names."""
        page = self.page
        is_set = mode == "set"
        changes: Changes = {
            page.set_row: gr.update(visible=is_set),
            **{element: gr.update(visible=not is_set) for element in self._composing},
        }
        if mode == "named":
            names = await self._names()
            kept = [name for name in models or [] if name in names] or names[:2]
            changes[page.models] = gr.update(visible=True, choices=names, value=kept)
        else:
            changes[page.models] = gr.update(visible=False, choices=[], value=[])
        if is_set:
            names = await self.set_judging.names()
            chosen = chosen if chosen in names else next(iter(names), None)
            changes[page.sets] = gr.update(choices=names, value=chosen)
            changes |= await self.on_progress(mode, chosen, request)
        return changes

    async def _names(self) -> list[str]:
        """Who can be asked; a server that is only just starting is waited for."""
        for _ in range(LOOKS):
            names = list(await self.service.pool.targets())
            if len(names) >= 2:
                break
            await asyncio.sleep(BETWEEN_LOOKS_S)
        return names

    async def on_progress(self, mode: str, chosen: str | None, request: gr.Request) -> Changes:
        """How far the voter is with the chosen set."""
        if mode != "set":
            return {}
        say = say_for(request)
        if not chosen:
            return {self.page.set_progress: none_html(say)}
        voter = await self.service.voter(secret_of(request))
        shown = await shown_progress(self.set_judging, voter, chosen, say)
        return {self.page.set_progress: shown}


async def shown_progress(set_judging: SetJudging, voter: str, chosen: str, say: Words) -> str:
    """How far a voter is with a set, or why that cannot be told."""
    try:
        return progress_html(await set_judging.progress(voter, chosen), say)
    except ArenaError as error:
        return f'<p class="problem">{html.escape(error_text(error, say))}</p>'
