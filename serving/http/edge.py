"""What happens to every request before and after its route: HEAD is answered, places are freed.

Knows ASGI and the server's places; does not know routes or bodies.
"""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from serving.http.state import ServerState, let_go


class Edge:
    """The outermost part of the application."""

    def __init__(self, app: ASGIApp, server: ServerState) -> None:
        self._app = app
        self._server = server

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope.setdefault("state", {})
        if scope["method"] == "HEAD":
            # The same answer as to GET; the server process leaves its body out.
            scope = {**scope, "method": "GET"}
        try:
            await self._app(scope, receive, send)
        finally:
            self._server.admission.give_back(scope)
            let_go(scope, self._server)
