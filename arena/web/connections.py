"""Browsers' connections that only cost: those that never ask are closed, those in excess told once.

Knows uvicorn's protocol and the event loop; knows no request and no page.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

log = logging.getLogger(__name__)

ASK_SECONDS = 10.0
"""From the connection, or the first byte of a further request, to the end of its headers."""
TELL_SECONDS = 10.0
BACKLOG = 512
ACCEPTED_AT_ONCE = 1
"""asyncio calls this its backlog as well. Of several that cannot be accepted for want of
descriptors each would set a timer, and all of those would try again: tens of thousands soon."""
MOST_CONNECTIONS = 2000
"""Requests at once, pages that watch included; one more is answered 503."""


class PunctualProtocol(H11Protocol):
    """uvicorn's protocol, with a bound on the time that headers may take."""

    _awaited: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """The first request is awaited from now on."""
        super().connection_made(transport)
        self._await_headers()

    def data_received(self, data: bytes) -> None:
        """Whole headers end the wait; single bytes of them do not lengthen it."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_waiting()
        elif self._awaited is None:
            self._await_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """No timer outlives its connection."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _await_headers(self) -> None:
        self._awaited = self.loop.call_later(ASK_SECONDS, self._close_silent)

    def _stop_waiting(self) -> None:
        if self._awaited is not None:
            self._awaited.cancel()
            self._awaited = None

    def _close_silent(self) -> None:
        self._awaited = None
        is_answering = self.cycle is not None and not self.cycle.response_complete
        if not is_answering and not self.transport.is_closing():
            self.transport.abort()


class AcceptFailures:
    """Tells of connections that cannot be accepted once in a while, not thousands of times.

    They are accepted as soon as others were closed; asyncio tries again each second.
    """

    def __init__(self) -> None:
        self._told_at, self._num_untold = float("-inf"), 0

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """The loop's handler of what nobody else handles."""
        error = context.get("exception")
        if isinstance(error, ValueError) and "_start_serving" in str(context.get("handle")):
            return  # It was to accept again, and the server has ended meanwhile.
        if not (isinstance(error, OSError) and "accept()" in str(context.get("message"))):
            loop.default_exception_handler(context)
            return
        self._num_untold += 1
        if time.monotonic() - self._told_at < TELL_SECONDS:
            return
        log.error(
            "connections cannot be accepted (%s), %d times since this was last told; "
            "raise the limit of open files (ulimit -n)",
            error.strerror,
            self._num_untold,
        )
        self._told_at, self._num_untold = time.monotonic(), 0
