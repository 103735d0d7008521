"""What happens when somebody acts on the page: each handler turns an act into element changes.

Knows the stage and the page's elements; every right is checked in the stage, by the store.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import gradio as gr

from arena.errors import ArenaError
from arena.guard import VOTER_COOKIE
from arena.judgement import Judgement, Winner
from arena.page import Page
from arena.panes import (
    asked_html,
    pane_html,
    reveal_html,
    scene_status,
    servers_text,
    status_html,
)
from arena.refusals import RefusedError
from arena.scene import Access, Scene
from arena.stage import Stage
from arena.wording import Words, negotiate, words

Changes = dict[Any, Any]
WINNERS = {
    "a": Winner.MODEL_A,
    "b": Winner.MODEL_B,
    "tie": Winner.TIE,
    "both_bad": Winner.BOTH_BAD,
}


class Handlers:
    """The acts of one page over one stage."""

    def __init__(self, stage: Stage, page: Page) -> None:
        self.stage = stage
        self.page = page

    # -- acts -----------------------------------------------------------------------------

    async def on_load(self, request: gr.Request) -> AsyncGenerator[Changes, None]:
        """Restore the battle of the page's link, or say what can be asked."""
        say = _words(request)
        battle = str(request.query_params.get("battle") or "")
        token = str(request.query_params.get("t") or "")
        if not battle:
            yield await self._welcome(say)
            return
        access = await self._access(request, battle, token)
        try:
            async for changes in self._follow(access, say):
                yield changes
        except RefusedError as error:
            yield self._blank() | self._status(str(error), say, "bad")

    async def on_send(
        self, prompt: str, mode: str, models: list[str] | None, request: gr.Request
    ) -> AsyncGenerator[Changes, None]:
        """Open a battle with this prompt and show the answers as they are written."""
        say = _words(request)
        try:
            voter = await self.stage.voter(_secret(request))
            if mode == "named":
                if len(set(models or [])) < 2:
                    raise ArenaError(say("status.choose_two"))
                access = await self.stage.open_named(
                    voter, list(dict.fromkeys(models or [])), prompt
                )
            else:
                access = await self.stage.open_blind(voter, prompt)
        except ArenaError as error:
            yield self._status(str(error), say, "bad")
            return
        async for changes in self._follow(access, say, first={self.page.prompt: ""}):
            yield changes

    async def on_stop(self, battle: str, token: str, request: gr.Request) -> Changes:
        """End all sides where they are."""
        say = _words(request)
        try:
            access = await self._access(request, battle, token)
            await self.stage.stop(access)
        except RefusedError as error:
            return self._status(str(error), say, "bad")
        return {self.page.stop: gr.update(interactive=False)}

    async def on_vote(self, choice: str, battle: str, token: str, request: gr.Request) -> Changes:
        """Store the vote, then show the names."""
        say = _words(request)
        access = await self._access(request, battle, token)
        try:
            if choice == "skip":
                await self.stage.skip(access)
            else:
                await self.stage.vote(access, Judgement(winner=WINNERS[choice]))
        except RefusedError as error:
            return self._status(str(error), say, "bad")
        except ArenaError as error:
            return self._status(say("status.not_saved", reason=str(error)), say, "bad")
        scene = await self.stage.scene(access)
        changes = self._paint(scene, say)
        if choice == "skip":
            changes |= self._buttons(can_vote=False, running=False)
            text = f"{say('status.skipped')} {say('status.names_shown')}"
            changes |= self._status(text, say)
        return changes

    async def on_new(self, request: gr.Request) -> Changes:
        """Clear the page; the battle before stays in the store."""
        say = _words(request)
        return self._blank() | await self._welcome(say) | {self.page.prompt: gr.update(value="")}

    async def on_mode(self, mode: str, request: gr.Request) -> Changes:
        """Name the participants to choose from; only now, a blind page never learns them."""
        if mode != "named":
            return {self.page.models: gr.update(visible=False, choices=[], value=[])}
        names = list(await self.stage.roster.entrants())
        return {self.page.models: gr.update(visible=True, choices=names, value=names[:2])}

    # -- painting -------------------------------------------------------------------------

    async def _follow(
        self, access: Access, say: Words, first: Changes | None = None
    ) -> AsyncGenerator[Changes, None]:
        """Paint the whole scene once, then what changes, then the whole again at the end."""
        shown: dict[Any, str] = {}
        is_first = True
        async for scene in self.stage.follow(access):
            if is_first or not scene.is_running:
                changes = self._paint(scene, say) | self._link(access)
                changes |= (first or {}) if is_first else {}
            else:
                changes = self._paint_live(scene, say)
            is_first = False
            fresh = {
                k: v for k, v in changes.items() if not isinstance(v, str) or shown.get(k) != v
            }
            shown |= {k: v for k, v in fresh.items() if isinstance(v, str)}
            # An empty change is sent too: Gradio learns at a yield only that the reader left.
            yield fresh or {self.page.status: gr.skip()}

    def _paint(self, scene: Scene, say: Words) -> Changes:
        """Every element of a battle as the scene has it."""
        text, tone = scene_status(scene, say)
        num_sides = scene.battle.num_sides
        changes: Changes = {
            self.page.empty: gr.update(visible=False),
            self.page.panes_row: gr.update(visible=True),
            self.page.vote_bar: gr.update(visible=True),
            self.page.asked: asked_html(scene, say),
            self.page.reveal: reveal_html(scene, say),
        }
        for i, pane in enumerate(self.page.panes):
            if i < num_sides:
                changes[pane] = gr.update(value=pane_html(scene, i, say), visible=True)
            elif i >= 2:
                changes[pane] = gr.update(value="", visible=False)
        changes |= self._status(text, say, tone)
        return changes | self._buttons(can_vote=self._can_vote(scene), running=scene.is_running)

    def _paint_live(self, scene: Scene, say: Words) -> Changes:
        """The answers and the status line while they are written."""
        text, tone = scene_status(scene, say)
        changes: Changes = {
            pane: pane_html(scene, i, say)
            for i, pane in enumerate(self.page.panes[: scene.battle.num_sides])
        }
        return changes | self._status(text, say, tone)

    def _can_vote(self, scene: Scene) -> bool:
        return scene.is_votable and not scene.is_running

    def _buttons(self, *, can_vote: bool, running: bool) -> Changes:
        changes = {b: gr.update(interactive=can_vote) for b in self.page.votes.values()}
        changes[self.page.send] = gr.update(interactive=not running)
        changes[self.page.stop] = gr.update(interactive=running)
        return changes

    def _blank(self) -> Changes:
        page = self.page
        return {
            page.empty: gr.update(visible=True),
            page.asked: "",
            page.panes_row: gr.update(visible=False),
            **dict.fromkeys(page.panes, ""),
            page.vote_bar: gr.update(visible=False),
            page.reveal: "",
            page.battle: "",
            page.token: "",
            **self._buttons(can_vote=False, running=False),
        }

    async def _welcome(self, say: Words) -> Changes:
        text, tone = servers_text(await self.stage.roster.backends(), say)
        return self._status(text, say, tone)

    def _status(self, text: str, say: Words, tone: str = "") -> Changes:
        return {self.page.status: status_html(text, say, tone=tone)}

    def _link(self, access: Access) -> Changes:
        return {self.page.battle: access.battle_id, self.page.token: access.token or ""}

    async def _access(self, request: gr.Request, battle: str, token: str) -> Access:
        voter = await self.stage.voter(_secret(request))
        return Access(voter, battle, token or None)


def _secret(request: gr.Request) -> str:
    """What tells one browser from another: our cookie, or this session where there is none."""
    cookie = request.cookies.get(VOTER_COOKIE) if request.cookies else None
    return str(cookie or f"session:{request.session_hash}")


def _words(request: gr.Request) -> Words:
    return words(negotiate(request.headers.get("accept-language")))
