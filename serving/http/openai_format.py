"""OpenAI's answer shapes, in TGI's dialect and OpenAI's own. Pure: completions in, JSON out."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from serving.completion.completion import Completion, TokenText
from serving.completion.token_bytes import TokenBytes
from serving.engine.request import FinishReason
from serving.http.state import VERSION
from serving.models.registry import ServedModel
from serving.protocol.problems import from_exception

FINGERPRINT = f"{VERSION}-native"


@dataclass(frozen=True)
class Identity:
    """What all parts of one answer carry: dialect, id, time, the model that answers."""

    model: ServedModel
    openai: bool
    prefix: str
    created: int = field(default_factory=lambda: int(time.time()))
    unique: str = field(default_factory=lambda: uuid.uuid4().hex)

    def wrap(self, kind: str, choices: list[dict[str, Any]], usage: Any) -> dict[str, Any]:
        """An answer or chunk of this identity; TGI leaves the id empty."""
        return {
            "object": kind,
            "id": f"{self.prefix}-{self.unique}" if self.openai else "",
            "created": self.created,
            "model": self.model.name,
            "system_fingerprint": FINGERPRINT,
            "choices": choices,
            "usage": usage,
            "weights_sha256": self.model.weights_sha256,
        }

    def finish(self, reason: FinishReason | None) -> str | None:
        """The finish reason as the dialect says it."""
        if reason is None:
            return None
        if reason is FinishReason.EOS_TOKEN:
            return "stop"
        return "stop" if self.openai and reason is FinishReason.STOP_SEQUENCE else str(reason)


def usage_of(completions: Sequence[Completion], answers: int = 1) -> dict[str, int]:
    """Token counts over all completions; a prompt counts once for its several answers."""
    prompt = sum(len(completion.job.prompt) for completion in completions) // answers
    made = sum(completion.num_generated for completion in completions)
    return {"prompt_tokens": prompt, "completion_tokens": made, "total_tokens": prompt + made}


def logprob_json(token: TokenText, top: list[TokenText], known: TokenBytes) -> dict[str, Any]:
    """OpenAI's log probability entry of one token; its bytes tell parts of a character apart."""

    def entry(item: TokenText) -> dict[str, Any]:
        raw = known.written(item.id, item.text)
        return {"token": item.text, "logprob": item.logprob, "bytes": list(raw)}

    return {**entry(token), "top_logprobs": [entry(item) for item in top]}


def stream_error(error: Exception) -> dict[str, Any]:
    """An error inside a /v1 stream, with its true status."""
    problem = from_exception(error)
    return {
        "error": {
            "message": problem.message,
            "http_status_code": problem.status,
            "type": problem.error_type,
            "code": problem.status,
        }
    }
