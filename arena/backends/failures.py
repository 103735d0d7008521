"""Failures of the wire in words for a voter: no address, no model name, one stable kind each."""

from __future__ import annotations

import httpx2
from huggingface_hub.errors import (
    HfHubHTTPError,
    InferenceTimeoutError,
    OverloadedError,
    TextGenerationError,
    ValidationError,
)

from arena.backends.bounds import MovedError, TooMuchError
from arena.backends.streams import AnswerError

# What a client library raises when a server is down, refuses, or writes nonsense.
WIRE_ERRORS = (
    HfHubHTTPError,
    httpx2.HTTPError,
    httpx2.InvalidURL,
    httpx2.StreamError,
    InferenceTimeoutError,
    TextGenerationError,
    TimeoutError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    OverflowError,
    RecursionError,  # JSON that is nested for ever
)


def answer_error_of(error: Exception) -> AnswerError:
    """A failure of the wire in words for a voter: no address, no model name."""
    detail = f"{type(error).__name__}: {error}"[:2000]
    if isinstance(error, HfHubHTTPError):
        return http_refusal(error.response.status_code, detail)
    if isinstance(error, OverloadedError):
        return http_refusal(429, detail)
    if isinstance(error, ValidationError):
        return http_refusal(422, detail)
    if isinstance(error, TextGenerationError):
        return AnswerError("server-error", "The server failed while it wrote.", detail)
    if isinstance(error, TooMuchError):
        return AnswerError("malformed", "The server sent more than an answer holds.", detail)
    if isinstance(error, MovedError):
        return AnswerError("server-error", "The server has moved elsewhere.", detail)
    if isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout):
        return AnswerError("down", "The server cannot be reached.", detail)
    if isinstance(error, httpx2.HTTPError | InferenceTimeoutError):
        return AnswerError("cut-off", "The connection to the server was lost.", detail)
    return AnswerError("malformed", "The server sent something that is no answer.", detail)


def http_refusal(status: int, detail: str) -> AnswerError:
    """What an HTTP status means for the voter."""
    if status == 429:
        return AnswerError("overloaded", "The server is busy; try again in a moment.", detail)
    if status in (401, 403):
        return AnswerError("no-access", "The server refused access; its key is missing.", detail)
    if status == 404:
        return AnswerError("gone", "The server no longer has this model.", detail)
    if status in (400, 413, 422):
        return AnswerError(
            "refused", "The server refused the request; the prompt may be too long for it.", detail
        )
    return AnswerError("server-error", f"The server failed (HTTP {status}).", detail)
