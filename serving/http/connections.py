"""Connections that cost nothing to keep open: those that say nothing, or do not listen, are closed.

Knows uvicorn's protocol and the event loop; does not know requests.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

logger = logging.getLogger(__name__)
# From the connection, or from a request's first byte, to the end of its headers.
HEADER_SECONDS = 10.0
# Without having taken what was written to it, 64 KiB at most.
DEAF_SECONDS = 60.0
COMPLAINT_SECONDS = 10.0
BACKLOG = 2048
# Asyncio calls this its backlog as well. Of several that cannot be accepted for want of
# descriptors each would set a timer, and all of those would try again: tens of thousands soon.
ACCEPTED_AT_ONCE = 1


class BoundedProtocol(H11Protocol):
    """Uvicorn's protocol with a bound on the time for headers, and for callers who do not read."""

    _waiting: asyncio.TimerHandle | None = None
    _deaf: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Headers are awaited from now on."""
        super().connection_made(transport)
        self._waiting = self.loop.call_later(HEADER_SECONDS, self._give_up)

    def data_received(self, data: bytes) -> None:
        """Bytes of headers do not buy more time; whole ones end the wait."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_waiting()
        elif self._waiting is None:
            self._waiting = self.loop.call_later(HEADER_SECONDS, self._give_up)

    def connection_lost(self, exc: Exception | None) -> None:
        """No timer outlives its connection."""
        self._stop_waiting()
        self.resume_writing()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The caller does not keep up."""
        super().pause_writing()
        if self._deaf is None:
            self._deaf = self.loop.call_later(DEAF_SECONDS, self._give_up)

    def resume_writing(self) -> None:
        """The caller has read."""
        super().resume_writing()
        if self._deaf is not None:
            self._deaf.cancel()
            self._deaf = None

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _give_up(self) -> None:
        if not self.transport.is_closing():
            self.transport.abort()


class QuietLoop:
    """Tells of connections that cannot be accepted, but not thousands of times a second.

    They are accepted as soon as others were closed.
    """

    def __init__(self) -> None:
        self._told, self._untold = float("-inf"), 0

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """The loop's handler of what nobody else handles."""
        error = context.get("exception")
        if isinstance(error, ValueError) and "_start_serving" in str(context.get("handle")):
            return  # It was to accept again, and the server has ended meanwhile.
        if not (isinstance(error, OSError) and "accept()" in str(context.get("message"))):
            loop.default_exception_handler(context)
            return
        self._untold += 1
        now = time.monotonic()
        if now - self._told >= COMPLAINT_SECONDS:
            logger.warning(
                "connections cannot be accepted (%s; %d times since the last such line): close "
                "some, or allow more files with ulimit -n", error.strerror, self._untold,
            )  # fmt: skip
            self._told, self._untold = now, 0
