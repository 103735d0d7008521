"""Keeps a page's stream of events whole between the end of one event and the next.

Gradio's page reads the results of its events from one stream. When no event is under way it is told
to close the stream, and opens another with its next event. An event that is asked for at that
moment Gradio 6.31 loses, in two ways, and the page waits for its result for ever:

- The page closes the stream while its event is on the way to the server, which takes the closed
  connection for a closed page. Here the stream belongs to the session: a connection that comes
  back within a moment goes on with it.
- The page hears that its event is under way, sees that it has a stream, and only then is told to
  close it. Here it is told when nothing has been asked for a while, and who asks just then is
  answered after the page has heard that.

Plain ASGI; knows two paths of Gradio, nothing of what its events do.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections import deque
from collections.abc import Sequence
from urllib.parse import parse_qs

from starlette.types import ASGIApp, Message, Receive, Scope, Send

PATH = "/gradio_api/queue/data"
JOIN_PATH = "/gradio_api/queue/join"
GRACE_SECONDS = 2.0
LINGER_SECONDS = 1.0
SETTLE_SECONDS = 0.3
UNSURE_SECONDS = 1.0
"""What was sent so shortly before a connection closed may not have arrived: it is sent again. A
page passes over results that it has; steps of a result it would take twice."""
STEP, CLOSE = b'"process_generating"', b'"close_stream"'
END: Message = {"type": "http.response.body", "body": b""}


class SseSessionMiddleware:
    """Middleware: one stream a session, whatever its connections do.

    Args:
        app: what has a Gradio page.
        grace: seconds that a session's stream waits for its page to come back.
        linger: seconds that it stays open after an event, since what follows from one is asked
            for at once.
        settle: seconds that it may take until the page has heard that it is closed.
    """

    def __init__(
        self,
        app: ASGIApp,
        grace: float = GRACE_SECONDS,
        linger: float = LINGER_SECONDS,
        settle: float = SETTLE_SECONDS,
    ) -> None:
        self.app = app
        self.grace, self.linger, self.settle = grace, linger, settle
        self._streams: dict[str, _Stream] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass everything on but a session's stream, which this connection joins or begins."""
        if scope["type"] == "http" and (scope["method"], scope["path"]) == ("POST", JOIN_PATH):
            await self._join(scope, receive, send)
            return
        session = _session(scope)
        if session is None:
            await self.app(scope, receive, send)
            return
        stream = self._streams.get(session)
        if stream is None or stream.is_over:
            owed = stream.owed() if stream is not None else []
            stream = self._streams[session] = _Stream(self.app, scope, owed, self.linger)
        await stream.read(receive, send)
        asyncio.get_running_loop().call_later(self.grace, self._leave, session, stream)

    async def _join(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Ask for an event: before the page hears that it may, its session's stream goes on."""
        body = b""

        async def receive_noting() -> Message:
            nonlocal body
            message = await receive()
            body += message.get("body", b"")
            return message

        async def send_settled(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] == 200:
                stream = self._streams.get(json.loads(body)["session_hash"])
                if stream is not None:
                    stream.go_on()
                    await asyncio.sleep(stream.closed_at + self.settle - time.monotonic())
            await send(message)

        await self.app(scope, receive_noting, send_settled)

    def _leave(self, session: str, stream: _Stream) -> None:
        if not stream.is_read:
            stream.leave()
            if self._streams.get(session) is stream:
                del self._streams[session]


class _Stream:
    """The replies of the application to one session, and the connection that reads them now.

    The application ends its reply when the session has no event under way; the next is asked for
    here. `owed`: messages of the session's stream before that nobody has read.
    """

    def __init__(self, app: ASGIApp, scope: Scope, owed: Sequence[Message], linger: float) -> None:
        self._app, self._scope = app, scope
        self._owed, self._linger = owed, linger
        self._unsent: deque[Message] = deque()
        self._sent: deque[tuple[float, Message]] = deque(maxlen=100)
        self._start: Message | None = None
        self._arrived = asyncio.Event()
        self._left = asyncio.Event()
        self._reader = 0
        self.is_read = True
        self._has_ended = False  # the reply under way: no event was left
        self._close: Message | None = None  # what tells the page to close, while it is held back
        self._close_at = 0.0
        self.closed_at = -math.inf
        self._is_wanted = False  # another reply
        self._task = asyncio.create_task(self._run())

    @property
    def is_over(self) -> bool:
        """The application has ended its reply, or was told that the page has left."""
        return self._task.done() or self._left.is_set()

    def leave(self) -> None:
        """Tell the application that the page has left."""
        self._left.set()

    def go_on(self) -> None:
        """An event was asked for: what was to close the stream does not count."""
        if self._close is None:
            return
        self._close = None
        if self._task.done():
            self._task = asyncio.create_task(self._run())
        else:
            self._is_wanted = True
        self._arrived.set()

    def owed(self) -> list[Message]:
        """What may not have been read, less the end."""
        since = time.monotonic() - UNSURE_SECONDS
        unsure = [m for at, m in self._sent if at >= since and STEP not in m.get("body", b"")]
        return [message for message in (*unsure, *self._unsent) if message.get("body")]

    async def _run(self) -> None:
        while True:
            self._has_ended = self._is_wanted = False
            # A copy, for routers write into it.
            await self._app(dict(self._scope), self._receive, self._take)
            if not self._is_wanted:
                return

    async def _receive(self) -> Message:
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _take(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            if self._start is None:
                self._start = message
                self._unsent.extend([message, *self._owed])
        elif CLOSE in message.get("body", b""):
            self._has_ended = True
            self._close, self._close_at = message, time.monotonic() + self._linger
        elif not self._has_ended:
            self._unsent.append(message)
        self._arrived.set()

    async def read(self, receive: Receive, send: Send) -> None:
        """Send what there is and what comes, until the end, the connection's end, or another."""
        self._reader += 1
        reader, self.is_read = self._reader, True
        if self._start is not None:
            self._unsent = deque([self._start, *self.owed()])
            self._sent.clear()
        closed = asyncio.create_task(_closed(receive))
        try:
            while self._reader == reader and not closed.done():
                if self._unsent:
                    message = self._unsent.popleft()
                    self._sent.append((time.monotonic(), message))
                    await send(message)
                elif self._close is not None and time.monotonic() >= self._close_at:
                    await self._shut(self._close, send)
                    return
                elif self._close is None and self._task.done():
                    self._task.result()  # an error of the application is the server's to tell
                    return
                else:
                    await self._wait(closed)
            if self._reader != reader:
                await send(END)
        finally:
            closed.cancel()
            self.is_read = self._reader != reader

    async def _shut(self, close: Message, send: Send) -> None:
        self._close = None
        self.closed_at = time.monotonic()
        await send(close)
        await send(END)

    async def _wait(self, closed: asyncio.Task[None]) -> None:
        """Until there is a message, or nobody to read it, or none will come."""
        self._arrived.clear()
        arrived = asyncio.create_task(self._arrived.wait())
        waited = {arrived, closed} if self._task.done() else {arrived, closed, self._task}
        left = None if self._close is None else max(0.0, self._close_at - time.monotonic())
        await asyncio.wait(waited, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        arrived.cancel()


def _session(scope: Scope) -> str | None:
    if scope["type"] != "http" or scope["path"] != PATH or scope["method"] != "GET":
        return None
    query = parse_qs(scope["query_string"].decode("latin-1"))
    return next(iter(query.get("session_hash", [])), None)


async def _closed(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
