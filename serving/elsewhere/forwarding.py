"""Hands a request of /v1 to vLLM, where that answers as our own engine would, and back its answer.

The request was read and checked here: only words that mean the same to both go on. The answer says
whose weights wrote it. Knows vLLM's bodies; does not know how vLLM is kept up (`follower`).
"""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx2

from serving.completion.jobs import CompletionJob
from serving.elsewhere.follower import Follower
from serving.models.registry import ServedModel
from serving.protocol.sse import DONE, frame

logger = logging.getLogger(__name__)
CONNECT_SECONDS = 5.0
SHARED = {
    "model", "adapter_id", "max_tokens", "temperature", "top_p", "seed", "stop", "n", "stream",
    "stream_options", "frequency_penalty", "presence_penalty", "repetition_penalty", "top_k",
    "min_p", "ignore_eos", "min_tokens",
}  # fmt: skip
"""What a request may say; one that says more is answered by our own engine."""
ASKED = {
    "/v1/chat/completions": SHARED | {"messages", "logprobs", "top_logprobs"},
    "/v1/completions": SHARED | {"prompt"},
}
IGNORED = {"user", "metadata", "store", "service_tier"}
"""What changes no answer and goes no further."""


class Forwarder:
    """The way to one vLLM; `close` lets its connections go."""

    def __init__(self, follower: Follower, deadline: float) -> None:
        self._follower = follower
        timeout = httpx2.Timeout(deadline, connect=CONNECT_SECONDS)
        limits = httpx2.Limits(max_connections=None)
        self._client = httpx2.AsyncClient(timeout=timeout, limits=limits, trust_env=False)

    async def close(self) -> None:
        """Let all connections go."""
        await self._client.aclose()

    async def answer(
        self, path: str, given: Mapping[str, Any], job: CompletionJob
    ) -> Forwarded | None:
        """vLLM's answer to a checked request as its job says it; None when it is not vLLM's.

        `given` are the words that the request has. A caller closes what it gets.
        """
        name = self._follower.name_of(job.model)
        if name is None or not set(given) <= ASKED[path] | IGNORED or not has_content(given):
            return None
        body = wanted(given, job, name, is_chat="messages" in given)
        request = self._client.build_request("POST", self._follower.url + path, json=body)
        try:
            reply = await self._client.send(request, stream=True)
        except httpx2.TransportError as error:
            logger.warning("vLLM was not reached (%s); our own engine answers", error)
            self._follower.lost()
            return None
        if reply.status_code != 200:  # a checked request: a limit of vLLM's own, or its fault
            await reply.aclose()
            logger.warning("vLLM answered %d; our own engine does", reply.status_code)
            return None
        return Forwarded(reply, job.model)


def has_content(given: Mapping[str, Any]) -> bool:
    """Whether all messages are texts of the four plain roles, which every template is given."""
    messages = given.get("messages", [])
    return all(
        isinstance(one.get("content"), str)
        and set(one) <= {"role", "content"}
        and one.get("role") in ("system", "user", "assistant")
        for one in messages
    )


def wanted(
    given: Mapping[str, Any], job: CompletionJob, name: str, *, is_chat: bool
) -> dict[str, Any]:
    """The body for vLLM: the same words, with what our engine would take for those left out."""
    kept = {key: value for key, value in given.items() if key not in IGNORED | {"adapter_id"}}
    body = {key: value for key, value in kept.items() if value is not None}
    body |= {"model": name, "max_tokens": job.max_new_tokens}
    body["temperature"] = job.sampling.temperature if job.sampling.do_sample else 0.0
    if job.stops:
        body["include_stop_str_in_output"] = job.keep_stop
    if not job.ignore_eos:
        body["stop_token_ids"] = sorted(job.eos_ids)
    if is_chat:
        body["chat_template"] = job.model.tokenizer.chat_template
    return body


class Forwarded:
    """One answer on its way back: a JSON object, or events; each says the model and its weights."""

    broken = httpx2.HTTPError
    """What an answer that breaks off raises."""

    def __init__(self, reply: httpx2.Response, model: ServedModel) -> None:
        self._reply = reply
        self._model = model

    async def whole(self) -> Any:
        """The answer as one object."""
        try:
            content = json.loads(await self._reply.aread())
        finally:
            await self._reply.aclose()
        return self._signed(content)

    async def events(self) -> AsyncIterator[bytes]:
        """The events as frames; the connection is closed at the end, also of no end."""
        try:
            async for line in self._reply.aiter_lines():
                if not line.startswith("data:"):
                    continue
                data = line.removeprefix("data:").strip()
                yield frame(DONE) if data == DONE else frame(self._signed(json.loads(data)))
        except (httpx2.HTTPError, ValueError) as error:
            logger.warning("vLLM broke off: %s", error)
            message = "The engine broke off in the middle of the answer."
            yield frame({"error": {"message": message, "type": "generation", "code": 503}})
            yield frame(DONE)
        finally:
            await self._reply.aclose()

    async def close(self) -> None:
        """Tell vLLM that nobody waits."""
        await self._reply.aclose()

    def _signed(self, content: Any) -> Any:
        if not isinstance(content, dict) or "error" in content:
            return content
        signed = {"model": self._model.name, "weights_sha256": self._model.weights_sha256}
        return {**content, **signed}
