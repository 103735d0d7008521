"""Failures of the wire in words for a voter: no address, no model name, one stable kind each.

What the server itself said goes beside them, cleaned and shortened; who is blind is shown it only
where it names nobody (`hushed`).
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Collection, Mapping
from typing import Any

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


SAID_CHARS = 300
_PLACE = re.compile(r"\w+://\S+|(?<![\w.])(?:/[\w.@+-]+){2,}/?|(?:\d{1,3}\.){3}\d{1,3}(?::\d+)?")


def answer_error_of(error: Exception) -> AnswerError:
    """A failure of the wire in words for a voter: no address, no model name."""
    detail = f"{type(error).__name__}: {error}"[:2000]
    if isinstance(error, HfHubHTTPError):
        return http_refusal(error.response.status_code, detail, error.response.text)
    if isinstance(error, OverloadedError):
        return http_refusal(429, detail, str(error))
    if isinstance(error, ValidationError):
        return http_refusal(422, detail, str(error))
    if isinstance(error, TextGenerationError):
        return failed_midway(detail, str(error))
    if isinstance(error, TooMuchError):
        return AnswerError("malformed", "The server sent more than an answer holds.", detail)
    if isinstance(error, MovedError):
        return AnswerError("server-error", "The server has moved elsewhere.", detail)
    if isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout):
        return AnswerError("down", "The server cannot be reached.", detail)
    if isinstance(error, httpx2.HTTPError | InferenceTimeoutError):
        return AnswerError("cut-off", "The connection to the server was lost.", detail)
    return AnswerError("malformed", "The server sent something that is no answer.", detail)


def http_refusal(status: int, detail: str, body: str = "") -> AnswerError:
    """What an HTTP status means for the voter, and what the server said with it."""
    said = said_in(body)
    if status == 429:
        return AnswerError("overloaded", "The server is busy; try again in a moment.", detail, said)
    if status in (401, 403):  # what it says may hold a part of the key
        return AnswerError("no-access", "The server refused access; its key is missing.", detail)
    if status == 404:
        return AnswerError("gone", "The server no longer has this model.", detail, said)
    if status in (400, 413, 422):
        return AnswerError("refused", "The server refused the request.", detail, said)
    return AnswerError("server-error", f"The server failed (HTTP {status}).", detail, said)


def failed_midway(detail: str, body: str) -> AnswerError:
    """The server told of a fault in the middle of its answer."""
    return AnswerError("server-error", "The server failed while it wrote.", detail, said_in(body))


def said_in(body: str) -> str:
    """The server's own words for what was wrong, as one short line without addresses or paths."""
    text = body
    if body.lstrip()[:1] in ("{", "["):
        with contextlib.suppress(ValueError, RecursionError):  # then it is shown as it is
            text = _message(json.loads(body))
    elif body.lstrip()[:1] == "<":
        return ""  # a page of markup for people with a browser
    text = "".join(char if char.isprintable() else " " for char in text[: 10 * SAID_CHARS])
    text = " ".join(_PLACE.sub("…", text).replace("|", "¦").split())
    return text if len(text) <= SAID_CHARS else text[: SAID_CHARS - 1] + "…"


def _message(told: Any) -> str:
    """The text of an error as TGI, OpenAI, vLLM, FastAPI and others write it; "" where none is."""
    if isinstance(told, str):
        return told
    if isinstance(told, list):
        return "; ".join(text for one in told[:5] if (text := _message(one)))
    if isinstance(told, Mapping):
        for key in ("error", "message", "detail", "msg"):
            if text := _message(told.get(key)):
                return text
    return ""


def hushed(error: AnswerError, secrets: Collection[str]) -> AnswerError:
    """The error, without the server's own words where they hold one of `secrets`."""
    said = error.said.casefold()
    if not any(secret.casefold() in said for secret in secrets if secret):
        return error
    return AnswerError(error.kind, str(error), error.detail)
