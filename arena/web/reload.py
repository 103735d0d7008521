"""Notes that a page which shows a running battle is being loaded, so that its answers go on.

A browser that reloads asks for the page while the old one still stands, and takes up the answers
once the new one's script runs, which a slow line or a busy machine may put off for seconds. Plain
ASGI; knows the page's link and the battle service.
"""

from __future__ import annotations

from dataclasses import replace

from starlette.types import ASGIApp, Receive, Scope, Send

from arena.battles.service import BattleService
from arena.battles.view import BattleAccess
from arena.web.visitors import caller_secret


class ReloadMiddleware:
    """Middleware: who is let in and asks for the page with a battle of theirs will look at it."""

    def __init__(self, app: ASGIApp, service: BattleService) -> None:
        self.app = app
        self.service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass everything on."""
        if scope["type"] == "http" and scope["path"] == "/" and scope["method"] == "GET":
            shown = BattleAccess.by_link("", scope["query_string"].decode("latin-1"))
            if self.service.running_battles.get(shown.battle_id) is not None:
                voter = await self.service.known_voter(caller_secret(scope))
                self.service.await_page(replace(shown, voter=voter))
        await self.app(scope, receive, send)
