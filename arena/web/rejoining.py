"""Keeps a page's stream of events when the browser closes one connection and opens the next.

Gradio's page reads the results of its events from one stream, which it closes when none is under
way. An event that was just asked for is on the way to the server then: Gradio 6.31 takes the closed
connection for a closed page and throws that event's result away, and the page waits for it for
ever. Here the stream belongs to the session: a connection that comes back within a moment goes on
with it. Plain ASGI; knows one path of Gradio, nothing of events.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from urllib.parse import parse_qs

from starlette.types import ASGIApp, Message, Receive, Scope, Send

PATH = "/gradio_api/queue/data"
GRACE_SECONDS = 2.0
UNSURE_SECONDS = 1.0
"""What was sent so shortly before a connection closed may not have arrived: it is sent again. A
page passes over results that it has; steps of a result it would take twice."""
STEP, CLOSE = b'"process_generating"', b'"close_stream"'


class Rejoining:
    """Middleware: one stream a session, whatever its connections do.

    `grace`: seconds that a session's stream waits for its page to come back.
    """

    def __init__(self, app: ASGIApp, grace: float = GRACE_SECONDS) -> None:
        self.app = app
        self.grace = grace
        self._streams: dict[str, _Stream] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass everything on but a session's stream, which this connection joins or begins."""
        session = _session(scope)
        if session is None:
            await self.app(scope, receive, send)
            return
        stream = self._streams.get(session)
        if stream is None or stream.is_over:
            owed = stream.owed() if stream is not None else []
            stream = self._streams[session] = _Stream(self.app, scope, owed)
        await stream.read(receive, send)
        asyncio.get_running_loop().call_later(self.grace, self._leave, session, stream)

    def _leave(self, session: str, stream: _Stream) -> None:
        if not stream.is_read:
            stream.leave()
            if self._streams.get(session) is stream:
                del self._streams[session]


class _Stream:
    """The reply of the application to one session, and the connection that reads it now.

    `owed`: messages of the session's stream before that nobody has read.
    """

    def __init__(self, app: ASGIApp, scope: Scope, owed: Sequence[Message]) -> None:
        self._owed = owed
        self._unsent: deque[Message] = deque()
        self._sent: deque[tuple[float, Message]] = deque(maxlen=100)
        self._start: Message | None = None
        self._news = asyncio.Event()
        self._left = asyncio.Event()
        self._reader = 0
        self.is_read = True
        self._task = asyncio.create_task(self._run(app, scope))

    @property
    def is_over(self) -> bool:
        """The application has ended its reply, or was told that the page has left."""
        return self._task.done() or self._left.is_set()

    def leave(self) -> None:
        """Tell the application that the page has left."""
        self._left.set()

    def owed(self) -> list[Message]:
        """What may not have been read, less the end."""
        since = time.monotonic() - UNSURE_SECONDS
        unsure = [m for at, m in self._sent if at >= since and STEP not in m.get("body", b"")]
        owed = [message for message in (*unsure, *self._unsent) if message.get("body")]
        return [message for message in owed if CLOSE not in message["body"]]

    async def _run(self, app: ASGIApp, scope: Scope) -> None:
        await app(scope, self._receive, self._take)

    async def _receive(self) -> Message:
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _take(self, message: Message) -> None:
        self._unsent.append(message)
        if message["type"] == "http.response.start":
            self._start = message
            self._unsent.extend(self._owed)
        self._news.set()

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
                elif self._task.done():
                    self._task.result()  # an error of the application is the server's to tell
                    return
                else:
                    await self._wait(closed)
            if self._reader != reader:
                await send({"type": "http.response.body", "body": b""})
        finally:
            closed.cancel()
            self.is_read = self._reader != reader

    async def _wait(self, closed: asyncio.Task[None]) -> None:
        """Until there is a message, or nobody to read it, or none will come."""
        self._news.clear()
        news = asyncio.create_task(self._news.wait())
        await asyncio.wait({news, closed, self._task}, return_when=asyncio.FIRST_COMPLETED)
        news.cancel()


def _session(scope: Scope) -> str | None:
    if scope["type"] != "http" or scope["path"] != PATH or scope["method"] != "GET":
        return None
    query = parse_qs(scope["query_string"].decode("latin-1"))
    return next(iter(query.get("session_hash", [])), None)


async def _closed(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
