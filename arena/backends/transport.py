"""Carries the HTTP client's requests by aiohttp, whose parser of the wire is compiled.

Answers are many small pieces on many connections at once; the client's own way takes half as much
time again for each piece, and a third for each stream that is opened. Knows HTTP and sockets; knows
no server, no model and no battle.
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import AsyncIterator, Iterator

import aiohttp
import httpx2
from yarl import URL

# What aiohttp would add by itself; the client has said all that it wants to say.
UNASKED = ("user-agent", "accept", "accept-encoding", "content-type")
# The most special first: many of aiohttp's errors are several of these at once.
ERRORS: tuple[tuple[tuple[type[Exception], ...], type[httpx2.HTTPError]], ...] = (
    ((aiohttp.ConnectionTimeoutError,), httpx2.ConnectTimeout),
    ((aiohttp.ServerTimeoutError, TimeoutError), httpx2.ReadTimeout),
    ((aiohttp.ClientConnectorError,), httpx2.ConnectError),
    ((aiohttp.InvalidURL,), httpx2.UnsupportedProtocol),
    (
        (aiohttp.ServerDisconnectedError, aiohttp.ClientPayloadError, aiohttp.ClientResponseError),
        httpx2.RemoteProtocolError,
    ),
    ((aiohttp.ClientError, ConnectionError), httpx2.ReadError),
)


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """Raise what the client's callers know how to tell."""
    try:
        yield
    except Exception as error:
        for kinds, meant in ERRORS:
            if isinstance(error, kinds):
                raise meant(str(error) or type(error).__name__) from error
        raise


class _Body(httpx2.AsyncByteStream):
    """The body of a reply, in the pieces that it comes in."""

    def __init__(self, reply: aiohttp.ClientResponse) -> None:
        self._reply = reply

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _translated():
            async for part in self._reply.content.iter_any():
                yield part

    async def aclose(self) -> None:
        """Give the connection back, or close it where more would come."""
        self._reply.close()


class CompiledTransport(httpx2.AsyncBaseTransport):
    """The way to the servers of one client; takes no proxy and follows no redirect."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        self._session: aiohttp.ClientSession | None = None

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send one request; its reply, of which the body is still to be read."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, ssl=self._context),
                cookie_jar=aiohttp.DummyCookieJar(),
                skip_auto_headers=UNASKED,
                auto_decompress=False,
                trust_env=False,
            )
        given = request.extensions.get("timeout", {})
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=given.get("connect"), sock_read=given.get("read")
        )
        with _translated():
            reply = await self._session.request(
                request.method,
                URL(str(request.url), encoded=True),
                headers=request.headers.multi_items(),
                data=await request.aread() or None,
                allow_redirects=False,
                timeout=timeout,
            )
        return httpx2.Response(reply.status, headers=list(reply.raw_headers), stream=_Body(reply))

    async def aclose(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()
