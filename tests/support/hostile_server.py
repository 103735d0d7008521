"""Servers on loopback that do what no honest server does: trickle, flood, lie about their packing.

A server is a table of routes to acts; an act writes whatever bytes it likes to the open connection.
It runs in a thread with a loop of its own, so that what it does to its client's loop can be seen.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
import zlib
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

HEAD = b"HTTP/1.1 200 OK\r\n"
EVENTS = HEAD + b"content-type: text/event-stream\r\n\r\n"
JSON = HEAD + b"content-type: application/json\r\n\r\n"
Write = Callable[[bytes], Coroutine[Any, Any, None]]
Act = Callable[[Write], Coroutine[Any, Any, None]]


@dataclass
class HostileServer:
    """A running server; `asked` are the request lines it was sent, `num_bytes` what it got rid of.

    A route is the beginning of `METHOD /path`; what no route meets is answered 404.
    """

    routes: Mapping[str, Act]
    url: str = ""
    asked: list[str] = field(default_factory=list)
    heads: list[bytes] = field(default_factory=list)
    num_bytes: int = 0

    def __enter__(self) -> HostileServer:
        self._thread = threading.Thread(target=asyncio.run, args=(self._serve(),), daemon=True)
        self._thread.start()
        limit = time.monotonic() + 20
        while not self.url:
            assert time.monotonic() < limit, "the hostile server did not start"
            time.sleep(0.01)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(10)
        assert not self._thread.is_alive()

    async def _serve(self) -> None:
        self._loop, self._ended = asyncio.get_running_loop(), asyncio.Event()
        answering: set[asyncio.Task[None]] = set()

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.ensure_future(self._answer(reader, writer))
            answering.add(task)
            await asyncio.wait([task])
            answering.discard(task)
            writer.close()

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        await self._ended.wait()
        server.close()
        for task in answering:
            task.cancel()
        await asyncio.gather(*answering, return_exceptions=True)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def write(part: bytes) -> None:
            writer.write(part)
            self.num_bytes += len(part)
            await writer.drain()

        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            length = head.lower().partition(b"content-length: ")[2].partition(b"\r")[0]
            await reader.readexactly(int(length or b"0"))
            line = head.partition(b" HTTP/")[0].decode()
            self.asked.append(line)
            self.heads.append(head)
            for route, act in self.routes.items():
                if line.startswith(route):
                    await act(write)
                    return
            await write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")


def says(reply: bytes) -> Act:
    """Writes these bytes and closes."""

    async def act(write: Write) -> None:
        await write(reply)

    return act


def lists(*models: Any, **more: Any) -> Act:
    """A list of models, each a name or a whole entry."""
    entries = [one if isinstance(one, dict) else {"id": one, **more} for one in models]
    return says(JSON + json.dumps({"object": "list", "data": entries}).encode())


def events(*values: Any, done: bool = True) -> Act:
    """An event stream of JSON values, and OpenAI's last line."""
    lines = [b"data: " + json.dumps(value).encode() + b"\n\n" for value in values]
    return says(EVENTS + b"".join(lines) + (b"data: [DONE]\n\n" if done else b""))


def trickles(begin: bytes, part: bytes = b" ", pause: float = 0.1) -> Act:
    """Says its beginning, then one more part again and again, and never ends."""

    async def act(write: Write) -> None:
        await write(begin)
        while True:
            await write(part)
            await asyncio.sleep(pause)

    return act


def floods(begin: bytes, part: bytes) -> Act:
    """Says its beginning, then as many parts as the other side takes."""

    async def act(write: Write) -> None:
        await write(begin)
        while True:
            await write(part)
            await asyncio.sleep(0)

    return act


def bomb(num_bytes: int, begin: bytes = b"") -> bytes:
    """A gzip reply, small on the wire, of so many spaces."""
    packer = zlib.compressobj(9, wbits=31)
    parts = [packer.compress(begin)]
    parts += [packer.compress(b" " * (1 << 20)) for _ in range(num_bytes >> 20)]
    body = b"".join([*parts, packer.flush()])
    return HEAD + b"content-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(body) + body


@contextlib.asynccontextmanager
async def longest_halt() -> AsyncIterator[Callable[[], float]]:
    """Seconds of computing between two turns of this loop, at the longest, since it was entered.

    Computing, not waiting: another program that takes the processor halts nobody's loop.
    """
    worst, last = 0.0, time.thread_time()

    async def tick() -> None:
        nonlocal worst, last
        while True:
            await asyncio.sleep(0)
            now = time.thread_time()
            worst, last = max(worst, now - last), now

    ticking = asyncio.ensure_future(tick())
    try:
        yield lambda: max(worst, time.thread_time() - last)
    finally:
        ticking.cancel()


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    """What is inside took no longer."""
    began = time.monotonic()
    yield
    took = time.monotonic() - began
    assert took <= seconds, f"took {took:.1f} s, more than {seconds} s"
