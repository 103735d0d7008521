"""The compiled way to a server tells the same as the client's own way, of good and bad servers."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import httpx2
import pytest

from arena.backends.transport import CompiledTransport

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"
PACKED = gzip.compress("größer".encode())
REPLIES = {
    "whole": HEAD + b"content-length: 5\r\n\r\nhello",
    "chunked": CHUNKED + b"3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n",
    "until closed": HEAD + b"\r\nhello",
    "packed": HEAD + b"content-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(PACKED) + PACKED,
    "two cookies": HEAD + b"set-cookie: a=1\r\nset-cookie: b=2\r\ncontent-length: 0\r\n\r\n",
    "moved": b"HTTP/1.1 302 Found\r\nlocation: /there\r\ncontent-length: 0\r\n\r\n",
    "refused": b"HTTP/1.1 422 Unprocessable\r\ncontent-length: 2\r\n\r\n{}",
    "nothing": b"",
    "no http": b"SSH-2.0-OpenSSH_9.2\r\n",
    "cut in its length": HEAD + b"content-length: 50\r\n\r\nhello",
    "cut in a chunk": CHUNKED + b"ff\r\nhello",
    "cut between chunks": CHUNKED + b"5\r\nhello\r\n",
}
Ask = Callable[[httpx2.AsyncClient, str], Coroutine[Any, Any, Any]]


@contextlib.asynccontextmanager
async def serving(reply: bytes, *, hangs: bool = False) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A server that answers every request with these bytes, then closes, or says no more."""
    asked: list[bytes] = []
    answering: list[asyncio.Task[None]] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = head.lower().partition(b"content-length: ")[2].partition(b"\r")[0]
        asked.append(head + await reader.readexactly(int(length or b"0")))
        writer.write(reply)
        if hangs:
            with contextlib.suppress(ConnectionError):
                await reader.read()  # until the other side leaves
            asked.append(b"left")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answering.append(asyncio.ensure_future(answer(reader, writer)))
        await asyncio.wait(answering[-1:])
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", asked
        for task in answering:
            task.cancel()
        await asyncio.gather(*answering, return_exceptions=True)
        await asyncio.sleep(0.05)  # the connections are closed


def clients() -> list[httpx2.AsyncClient]:
    """One that goes its own way, and one that goes ours."""
    ours = CompiledTransport(httpx2.create_ssl_context())
    return [
        httpx2.AsyncClient(trust_env=False, timeout=5),
        httpx2.AsyncClient(transport=ours, trust_env=False, timeout=5),
    ]


async def told(client: httpx2.AsyncClient, url: str) -> Any:
    """What a request comes to: the reply, or the kind of its failure."""
    try:
        reply = await client.post(f"{url}/a%20b?c=d%2Fe", json={"say": "é"})
    except httpx2.HTTPError as error:
        return type(error)
    return reply.status_code, reply.headers.multi_items(), reply.text


@pytest.mark.parametrize("reply", REPLIES.values(), ids=REPLIES)
def test_both_ways_are_told_the_same(reply: bytes) -> None:
    async def main() -> None:
        own, ours = clients()
        async with own, ours, serving(reply) as (url, asked):
            assert await told(ours, url) == await told(own, url)
        mine, theirs = (sorted(one.lower().split(b"\r\n")) for one in asked)
        assert mine == theirs, "the servers are asked the same"

    asyncio.run(main())


def test_server_that_is_not_there_or_says_nothing() -> None:
    async def main() -> None:
        async with serving(b"") as (gone, _):
            pass
        async with serving(HEAD, hangs=True) as (silent, _):
            for client in clients():
                async with client:
                    assert await told(client, gone) is httpx2.ConnectError
                    client.timeout = httpx2.Timeout(0.2)
                    assert await told(client, silent) is httpx2.ReadTimeout

    asyncio.run(main())


def test_leaving_a_stream_closes_its_connection() -> None:
    async def main() -> None:
        _, ours = clients()
        async with ours, serving(CHUNKED + b"5\r\nhello\r\n", hangs=True) as (url, asked):
            async with ours.stream("GET", url) as reply:
                assert await anext(reply.aiter_text()) == "hello"
                assert len(asked) == 1
            for _ in range(500):
                if len(asked) == 2:
                    break
                await asyncio.sleep(0.01)
            assert asked[1] == b"left"

    asyncio.run(main())
