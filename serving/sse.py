"""Server-sent events: encodes data frames, keeps the line alive, notices a caller who left.

Knows the stream format and connections; does not know what the events say.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from fastapi import Request
from fastapi.sse import EventSourceResponse, format_sse_event

DONE = "[DONE]"


def frame(data: Any) -> bytes:
    """One event; text goes as it is, anything else as JSON."""
    text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)
    return format_sse_event(data_str=text)


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


def stream_response(
    events: AsyncIterator[bytes], headers: Mapping[str, str]
) -> EventSourceResponse:
    """The HTTP answer that sends `events`."""
    return EventSourceResponse(
        events,
        headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no", **headers},
    )
