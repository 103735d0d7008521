"""Server-sent events: encodes data frames, keeps the line alive, notices a caller who left.

Knows the stream format and connections; does not know what the events say.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import orjson
from fastapi import Request
from fastapi.sse import EventSourceResponse
from starlette.types import Receive, Scope, Send

DONE = "[DONE]"


def frame(data: Any) -> bytes:
    """One event; a word goes as it is, anything else as JSON, which has no line breaks."""
    content = data.encode() if isinstance(data, str) else orjson.dumps(data)
    return b"data: " + content + b"\n\n"


@asynccontextmanager
async def cancel_on_disconnect(request: Request, cancel: Callable[[], None]) -> AsyncIterator[None]:
    """Call `cancel` as soon as the caller closes the connection while the body runs."""

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        cancel()

    watcher = asyncio.create_task(watch())
    try:
        yield
    finally:
        watcher.cancel()


class StreamedAnswer(EventSourceResponse):
    """Events of rows that run already; `give_up` is called at the end, also of no beginning."""

    def __init__(
        self,
        events: AsyncIterator[bytes],
        headers: Mapping[str, str],
        give_up: Callable[[], None],
    ) -> None:
        fixed = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        super().__init__(events, headers={**fixed, **headers})
        self._give_up = give_up

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._give_up()
