"""What the person who runs the page does there: look, switch participants, clear flags, export.

Every act asks first whether the visitor is an admin; that the tab is hidden is no protection.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import gradio as gr

from arena.backends.queues import ask_queues
from arena.backends.scoring import ScoresError
from arena.battles.reward_watch import watch_reward
from arena.battles.service import BattleService
from arena.errors import ArenaError
from arena.exports.archive import make_dataset
from arena.exports.dataset import ExportOptions
from arena.i18n import Words, error_text
from arena.page.actions.battles import say_for, visitor_by
from arena.page.admin_tab import AdminTab
from arena.page.html.admin import flagged_html, live_html, votes_html
from arena.page.html.export import made_html
from arena.page.html.panes import status_html
from arena.page.html.reward_watch import reward_watch_html
from arena.page.render import Changes
from arena.storage import admin_queries


class AdminActions:
    """The acts of the admin's tab over one battle service."""

    def __init__(self, service: BattleService, home: Path, tab: AdminTab) -> None:
        self.service = service
        self._home = home
        self.tab = tab

    async def on_open(self, request: gr.Request) -> Changes:
        """Everything as it is now; the live part goes on by itself while the tab is open."""
        if not visitor_by(request).is_admin:
            return {}
        say, tab, store = say_for(request), self.tab, self.service.store
        found, flagged, off = await asyncio.to_thread(
            lambda: (
                admin_queries.activity(store),
                store.flagged_votes(),
                admin_queries.switched_off(store),
            )
        )
        names = [*await self.service.pool.targets(all_known=True)]
        names += sorted(off - set(names))
        return {
            tab.live: await self._live(found.num_voters, say),
            tab.switches: gr.update(
                choices=names, value=[name for name in names if name not in off]
            ),
            tab.votes: votes_html(found, say),
            tab.reward: await self._reward(say),
            tab.flagged: flagged_html(flagged, say),
            tab.timer: gr.update(active=True),
        }

    async def on_tick(self, request: gr.Request) -> Changes:
        """Servers and queues as they are now."""
        if not visitor_by(request).is_admin:
            return {}
        found = await asyncio.to_thread(admin_queries.activity, self.service.store)
        return {self.tab.live: await self._live(found.num_voters, say_for(request))}

    async def on_leave(self) -> Changes:
        """Ask no more when another tab is opened."""
        return {self.tab.timer: gr.update(active=False)}

    async def on_switch(self, ticked: list[str], request: gr.Request) -> Changes:
        """Leave out of new battles whoever is not ticked."""
        say = say_for(request)
        try:
            visitor_by(request).check_admin()
            names = await self.service.pool.targets(all_known=True)
            known = set(names) | await asyncio.to_thread(
                admin_queries.switched_off, self.service.store
            )
            await self.service.switch_off(known - set(ticked))
        except ArenaError as error:
            return self._tell(error_text(error, say), say, "bad")
        return self._tell(say("status.details_saved"), say, "good")

    async def on_clear(self, request: gr.Request, event: gr.EventData) -> Changes:
        """Take one mark off a vote; the record that it was there stays."""
        say, pressed = say_for(request), event._data or {}
        try:
            visitor_by(request).check_admin()
            vote, reason = str(pressed.get("vote")), str(pressed.get("reason"))
            if not vote.isdecimal():
                return {}
            await asyncio.to_thread(self.service.store.clear_flag, int(vote), reason)
        except ArenaError as error:
            return self._tell(error_text(error, say), say, "bad")
        flagged = await asyncio.to_thread(self.service.store.flagged_votes)
        cleared = self._tell(say("admin.cleared"), say, "good")
        return cleared | {self.tab.flagged: flagged_html(flagged, say)}

    async def on_export(self, kind: str, redact: bool, request: gr.Request) -> Changes:
        """Write a dataset into the exports folder, and offer it as a file."""
        say = say_for(request)
        try:
            visitor_by(request).check_admin()
            options = ExportOptions(format=kind, redact=redact)
            made = await asyncio.to_thread(make_dataset, self.service.store, self._home, options)
        except ArenaError as error:
            return self._tell(error_text(error, say), say, "bad")
        return {self.tab.outcome: made_html(made, say)}

    def _tell(self, text: str, say: Words, tone: str) -> dict[Any, Any]:
        return {self.tab.outcome: status_html(text, say, tone=tone)}

    async def _reward(self, say: Words) -> str:
        """A served reward model beside the votes; a line where it gives no scores."""
        service = self.service
        try:
            found = await watch_reward(service.store, service.pool, self._home)
        except ScoresError as error:
            return status_html(error_text(error, say), say, tone="bad")
        return reward_watch_html(found, say)

    async def _live(self, num_voters: int, say: Words) -> str:
        backends = await self.service.pool.backends()
        queues = await ask_queues(backend.url for backend in backends if backend.is_up)
        running = (self.service.num_running, self.service.limits.running_battles)
        return live_html(backends, queues, running, num_voters, say)
