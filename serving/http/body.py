"""Reads a request's JSON body, or refuses it with TGI's status codes.

A body that is read whole takes one of the server's places, which `http.edge` gives back when the
answer is over. Knows HTTP and pydantic's errors; does not know what a body asks for.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
import zlib
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from fastapi import Request
from pydantic import ValidationError

from serving.http.state import server_of
from serving.protocol.problems import Problem

T = TypeVar("T")
BODY_SECONDS = 60.0


async def read_body(request: Request, parse: Callable[[Any], T], *, admit: bool = True) -> T:
    """Read, decode and check a JSON body; Problem with TGI's status codes when it is none.

    With `admit` the request takes a place: Problem 429 when all are taken.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if not (kind == "application/json" or kind.endswith("+json")):
        raise Problem(415, "validation", "Expected request with `Content-Type: application/json`")
    limit = server_of(request).config.limits.max_body_bytes
    request.state.received = time.monotonic()
    unpack = _unpacker(request)
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                body += unpack(chunk, limit + 1 - len(body))
                if len(body) > limit:
                    raise Problem(413, "validation", f"The body is larger than {limit} bytes")
    except TimeoutError as error:
        raise Problem(
            408, "validation", f"The body did not come within {BODY_SECONDS:g} seconds"
        ) from error
    try:
        value = json.loads(bytes(body), parse_constant=_refuse_constant, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise Problem(400, "validation", f"Failed to parse the request body: {error}") from error
    try:
        parsed = parse(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "body"
        raise Problem(422, "validation", f"{place}: {first['msg']}", param=place) from error
    if admit:
        server_of(request).admission.take(request.scope)
    return parsed


def _unpacker(request: Request) -> Callable[[bytes, int], bytes]:
    """What turns received bytes into those of the body, given the most that are wanted."""
    coding = request.headers.get("content-encoding", "identity").strip().lower()
    if coding in ("identity", ""):
        return lambda chunk, most: chunk
    if coding not in ("gzip", "x-gzip"):
        raise Problem(415, "validation", f"Content-Encoding {coding!r} is not read; send gzip")
    packed = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)

    def unpack(chunk: bytes, most: int) -> bytes:
        try:
            return packed.decompress(chunk, most)
        except zlib.error as error:
            raise Problem(400, "validation", f"The body is no gzip: {error}") from error

    return unpack


def _finite(digits: str) -> float:
    """1e999 is JSON, and infinity to Python: as a value it would slip past checks too."""
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"{digits[:20]} is too large a number")
    return number


def _refuse_constant(name: str) -> None:
    """Python reads NaN and Infinity, which are no JSON; as values they would slip past checks."""
    raise ValueError(f"{name} is no JSON")


def body_schema(model: Mapping[str, Any]) -> dict[str, Any]:
    """The part of the OpenAPI page that describes a body read by `read_body`."""
    schema = _whole(dict(model), model.get("$defs", {}))
    return {
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": schema}},
        }
    }


def _whole(part: Any, parts: Mapping[str, Any]) -> Any:
    """A schema with what it refers to put in place: a reference would not resolve in the page."""
    if isinstance(part, list):
        return [_whole(item, parts) for item in part]
    if not isinstance(part, dict):
        return part
    name = str(part.get("$ref", "")).removeprefix("#/$defs/")
    if name:
        return _whole(parts[name], parts)
    return {key: _whole(value, parts) for key, value in part.items() if key != "$defs"}
