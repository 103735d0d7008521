"""What a foreign server's reply may weigh: bytes in all, bytes of one line, after unpacking.

A reply is read piece by piece through `bound`, which gives way to others between pieces, so that
no server holds the loop or fills the memory. Knows HTTP replies; knows no model and no deadline.
"""

from __future__ import annotations

import asyncio
import re
import zlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import httpx2

PIECE_BYTES = 16_384
"""A piece is looked through in well under a millisecond."""
EVENTS = "text/event-stream"
# Characters that end a line for Python's `splitlines` and not in an event stream; in JSON they may
# be written as escapes as well.
LINE_ENDS = {
    b"\xc2\x85": rb"\u0085",
    b"\xe2\x80\xa8": rb"\u2028",
    b"\xe2\x80\xa9": rb"\u2029",
}
_LINE_END = re.compile(b"|".join(LINE_ENDS))
_HALF_LINE_END = re.compile(rb"(?:\xc2|\xe2\x80?)\Z")


class TooMuchError(httpx2.ReadError):
    """A reply is larger than anything that was asked for."""


class MovedError(httpx2.HTTPError):
    """The server sends us elsewhere; an address comes from whoever runs the page, or not at all."""


@dataclass(frozen=True)
class Bounds:
    """Bytes that a reply may have; of a refusal the beginning is read and the rest is not."""

    body: int
    events: int
    line: int = 1 << 20
    refusal: int = 1 << 16


ANSWER = Bounds(body=1 << 22, events=1 << 26)
"""The longest answer that the page takes, a token an event, with all that servers say beside it."""
LOOKUP = Bounds(body=1 << 22, events=1 << 22)
"""A list of models, a page of metrics, a rendered prompt."""


async def bound(response: httpx2.Response, bounds: Bounds) -> None:
    """Let this reply be read within `bounds`; of a refusal the text is read at once.

    Raises MovedError, httpx2.DecodingError (packed in a way that was not asked for), and whatever
    reading raises; who reads on meets TooMuchError.
    """
    if response.has_redirect_location:
        place = response.headers["location"][:200]
        raise MovedError(f"HTTP {response.status_code} to {place}")
    is_refusal = response.status_code >= 400
    is_events = response.headers.get("content-type", "").startswith(EVENTS)
    assert isinstance(response.stream, httpx2.AsyncByteStream)
    packing = response.headers.pop("content-encoding", "identity").strip().lower()
    response.stream = _BoundedBody(
        response.stream,
        _unpacker(packing),
        most=bounds.refusal if is_refusal else bounds.events if is_events else bounds.body,
        most_of_line=bounds.line if is_events else None,
        cuts=is_refusal,
    )
    response.encoding = "utf-8"  # as JSON and event streams are, whatever the server calls it
    if is_refusal:
        await response.aread()  # its reason can be told once it is read


class _BoundedBody(httpx2.AsyncByteStream):
    """The body of a reply in small pieces, to its end or to its bound."""

    def __init__(
        self,
        stream: httpx2.AsyncByteStream,
        unpack: zlib._Decompress | None,
        most: int,
        most_of_line: int | None,
        *,
        cuts: bool,
    ) -> None:
        self._stream, self._unpack = stream, unpack
        self._most, self._most_of_line, self._cuts = most, most_of_line, cuts

    async def __aiter__(self) -> AsyncIterator[bytes]:
        num_bytes = num_in_line = num_at_a_stretch = 0
        held = b""
        async for raw in self._stream:
            for piece in self._unpacked(raw):
                num_bytes += len(piece)
                if num_bytes > self._most:
                    if self._cuts:
                        return
                    raise TooMuchError(f"more than {self._most} bytes")
                if self._most_of_line is not None:
                    num_in_line = _after_line_end(piece, num_in_line)
                    if num_in_line > self._most_of_line:
                        raise TooMuchError(f"a line of more than {self._most_of_line} bytes")
                    piece, held = _joined(held + piece)
                yield piece
                num_at_a_stretch += len(piece)
                if num_at_a_stretch >= PIECE_BYTES:
                    num_at_a_stretch = 0
                    await asyncio.sleep(0)
        if held:
            yield held

    def _unpacked(self, raw: bytes) -> Iterator[bytes]:
        if self._unpack is None:
            for start in range(0, len(raw), PIECE_BYTES):
                yield raw[start : start + PIECE_BYTES]
            return
        try:
            while raw:
                piece = self._unpack.decompress(raw, PIECE_BYTES)
                raw = self._unpack.unconsumed_tail
                if piece:
                    yield piece
        except zlib.error as error:
            raise httpx2.DecodingError(str(error)) from error

    async def aclose(self) -> None:
        """Close the connection, or give it back."""
        await self._stream.aclose()


def _unpacker(packing: str) -> zlib._Decompress | None:
    """None where nothing is packed. We ask for nothing else; gzip is understood all the same."""
    if packing == "identity":
        return None
    if packing in ("gzip", "x-gzip", "deflate"):
        return zlib.decompressobj(wbits=32 + zlib.MAX_WBITS)  # tells gzip and zlib apart itself
    raise httpx2.DecodingError(f"the reply is packed as {packing[:40]!r}, which was not asked for")


def _after_line_end(piece: bytes, before: int) -> int:
    """Bytes of the line that is still open after this piece."""
    end = max(piece.rfind(b"\n"), piece.rfind(b"\r"))
    return before + len(piece) if end < 0 else len(piece) - 1 - end


def _joined(piece: bytes) -> tuple[bytes, bytes]:
    """The piece with `LINE_ENDS` escaped, and its end if that may be the half of one."""
    half = _HALF_LINE_END.search(piece)
    whole, held = (piece[: half.start()], half[0]) if half else (piece, b"")
    return _LINE_END.sub(lambda found: LINE_ENDS[found[0]], whole), held
