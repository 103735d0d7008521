"""Reads a request's JSON body, or refuses it with TGI's status codes.

Knows HTTP and pydantic's errors; does not know what a body asks for.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from fastapi import Request
from pydantic import ValidationError

from serving.http.state import server_of
from serving.protocol.problems import Problem

T = TypeVar("T")
BODY_SECONDS = 60.0


async def read_body(request: Request, parse: Callable[[Any], T]) -> T:
    """Read, decode and check a JSON body; Problem with TGI's status codes when it is none."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if not (kind == "application/json" or kind.endswith("+json")):
        raise Problem(415, "validation", "Expected request with `Content-Type: application/json`")
    limit = server_of(request).config.limits.max_body_bytes
    request.state.received = time.monotonic()
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                body += chunk
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
        return parse(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "body"
        raise Problem(422, "validation", f"{place}: {first['msg']}", param=place) from error


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
