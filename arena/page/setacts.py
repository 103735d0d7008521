"""What happens when somebody judges a prompt set on the page: the next prompt, and how far one is.

Knows the page's elements and the desk that hands out prompts; a battle itself is shown and
judged as any other.
"""

from __future__ import annotations

import html
from typing import Any

import gradio as gr

from arena.battles.setdesk import SetDesk
from arena.errors import ArenaError
from arena.page.handlers import Handlers, Stream, say_for, secret_of
from arena.page.painting import Changes
from arena.storage.setbook import Progress
from arena.wording import Words, told


class SetActs:
    """The acts on prompt sets of one page."""

    def __init__(self, handlers: Handlers) -> None:
        self.handlers = handlers
        self.page = handlers.page
        self.desk = SetDesk(handlers.stage)

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
            names = list(await self.handlers.stage.roster.entrants())
            kept = [name for name in models or [] if name in names] or names[:2]
            changes[page.models] = gr.update(visible=True, choices=names, value=kept)
        else:
            changes[page.models] = gr.update(visible=False, choices=[], value=[])
        if is_set:
            names = await self.desk.names()
            chosen = chosen if chosen in names else next(iter(names), None)
            changes[page.sets] = gr.update(choices=names, value=chosen)
            changes |= await self.on_progress(mode, chosen, request)
        return changes

    async def on_progress(self, mode: str, chosen: str | None, request: gr.Request) -> Changes:
        """How far the voter is with the chosen set."""
        if mode != "set":
            return {}
        say = say_for(request)
        if not chosen:
            return {self.page.set_progress: none_html(say)}
        try:
            voter = await self.handlers.stage.voter(secret_of(request))
            shown = progress_html(await self.desk.progress(voter, chosen), say)
        except ArenaError as error:
            shown = f'<p class="problem">{html.escape(told(error, say))}</p>'
        return {self.page.set_progress: shown}

    async def on_next(
        self, chosen: str | None, battle: str, token: str, request: gr.Request
    ) -> Stream:
        """The next prompt of the set: its answers given in advance, or the models live."""
        say, painter = say_for(request), self.handlers.painter
        if not chosen:
            yield {self.page.set_progress: none_html(say)}
            return
        try:
            await self.handlers.on_leave(battle, token, request)
            voter = await self.handlers.stage.voter(secret_of(request))
            task = await self.desk.next(voter, chosen)
        except ArenaError as error:
            yield painter.status(told(error, say), say, "bad")
            return
        progress = {self.page.set_progress: progress_html(task.progress, say)}
        if task.access is None:
            text = say("set.finished", total=task.progress.total)
            yield painter.blank() | progress | painter.status(text, say, "good")
            return
        async for changes in self.handlers.follow(task.access, say, progress):
            yield changes


def progress_html(progress: Progress, say: Words) -> str:
    """A bar and its words; skipped prompts count as done."""
    text = say("set.progress", done=progress.num_done, total=progress.total)
    if progress.skipped:
        text += " " + say("set.skipped", count=len(progress.skipped))
    return (
        f'<div class="set-progress"><progress max="{progress.total}" value="{progress.num_done}" '
        f'aria-label="{html.escape(text)}"></progress><span>{html.escape(text)}</span></div>'
    )


def none_html(say: Words) -> str:
    """What to do where there is no set yet."""
    return f'<p class="muted">{html.escape(say("set.none"))}</p>'
