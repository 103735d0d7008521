"""What the routes of one server share, and how a request's body is read.

Knows the application's state; does not know any route.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from fastapi import Request
from pydantic import ValidationError

from serving.config import ServeConfig
from serving.generation import Admission, Completion
from serving.problems import Problem
from serving.registry import Registry, ServedModel
from serving.validation import Job

logger = logging.getLogger(__name__)
T = TypeVar("T")
VERSION = "3.3.6-dev0"


@dataclass
class Server:
    """State of one running server, kept in `app.state.server`."""

    registry: Registry
    config: ServeConfig
    admission: Admission = field(init=False)

    def __post_init__(self) -> None:
        self.admission = Admission(self.config.limits.max_concurrent_requests)

    def complete(self, job: Job) -> Completion:
        """A completion of the job, not yet running."""
        return Completion(job, self.registry.worker, self.config.limits.deadline_seconds)


def server_of(request: Request) -> Server:
    """The server that answers this request."""
    server: Server = request.app.state.server
    return server


def speaks_openai(request: Request) -> bool:
    """Whether the caller wants OpenAI's forms: its SDK's headers say so, or the setting does."""
    if server_of(request).config.openai_dialect:
        return True
    return any(name.startswith("x-stainless-") for name in request.headers)


def model_headers(model: ServedModel) -> dict[str, str]:
    """Headers that say which weights answer."""
    return {"x-adapter-id": model.name, "x-weights-sha256": model.weights_sha256}


async def read_body(request: Request, parse: Callable[[Any], T]) -> T:
    """Read, decode and check a JSON body; Problem with TGI's status codes when it is none."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if not (kind == "application/json" or kind.endswith("+json")):
        raise Problem(415, "validation", "Expected request with `Content-Type: application/json`")
    limit = server_of(request).config.limits.max_body_bytes
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise Problem(413, "validation", f"The body is larger than {limit} bytes")
    try:
        value = json.loads(bytes(body))
    except (ValueError, RecursionError) as error:
        raise Problem(400, "validation", f"Failed to parse the request body: {error}") from error
    try:
        return parse(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "body"
        raise Problem(422, "validation", f"{place}: {first['msg']}", param=place) from error


def body_schema(model: Mapping[str, Any]) -> dict[str, Any]:
    """The part of the OpenAPI page that describes a body read by `read_body`."""
    return {
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": dict(model)}},
        }
    }
