"""Answers that are errors: their status, type and text, in the dialect the caller speaks.

Knows HTTP status codes and TGI's and OpenAI's error shapes; does not know what went wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi.responses import JSONResponse

from serving.errors import EngineStopped, OutOfMemoryFailure, UnknownModelError


class Problem(Exception):  # noqa: N818 - an answer of the API, not a defect
    """An error answer: HTTP status, TGI's error type, text; raised anywhere below a route."""

    def __init__(
        self,
        status: int,
        error_type: str,
        message: str,
        *,
        headers: Mapping[str, str] | None = None,
        param: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.error_type = error_type
        self.message = message
        self.headers = dict(headers or {})
        self.param = param

    def tgi(self) -> dict[str, Any]:
        """TGI's error body."""
        return {"error": self.message, "error_type": self.error_type}

    def openai(self) -> dict[str, Any]:
        """OpenAI's error body."""
        kind = "NotFoundError" if self.status == 404 else self.error_type
        return {
            "error": {
                "message": self.message,
                "type": kind,
                "param": self.param,
                "code": self.status,
            }
        }

    def response(self, *, openai: bool) -> JSONResponse:
        """The HTTP answer."""
        content = self.openai() if openai else self.tgi()
        return JSONResponse(content, status_code=self.status, headers=self.headers)


def invalid(message: str, param: str | None = None) -> Problem:
    """422 in TGI's words."""
    return Problem(422, "validation", f"Input validation error: {message}", param=param)


def writes_none(name: str) -> Problem:
    """422: a reward model was asked for text."""
    return invalid(
        f"{name} is a reward model, which scores answers and writes none; POST to /score, or name "
        "a model that writes",
        "model",
    )


def scores_none(name: str, scorers: Sequence[str]) -> Problem:
    """422: a model that writes was asked for a score."""
    known = f"; reward models here are {', '.join(scorers)}" if scorers else "; none is served here"
    return invalid(f"{name} is no reward model and has no head to score with{known}", "model")


def overloaded() -> Problem:
    """429: the queue is full."""
    return Problem(429, "overloaded", "Model is overloaded", headers={"Retry-After": "1"})


def from_exception(error: Exception) -> Problem:
    """What a failure inside the server is answered with."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, UnknownModelError):
        return Problem(404, "adapter_not_found", str(error), param="model")
    if isinstance(error, OutOfMemoryFailure):
        return Problem(503, "overloaded", "Out of memory for this request; make it shorter")
    if isinstance(error, EngineStopped):
        return Problem(503, "generation", f"Request failed during generation: {error}")
    return Problem(424, "generation", f"Request failed during generation: {error}")
