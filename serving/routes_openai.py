"""OpenAI's routes as TGI speaks them: chat completions. Turns completions into chat JSON."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from fastapi.sse import KEEPALIVE_COMMENT

from serving.context import (
    VERSION,
    Server,
    body_schema,
    model_headers,
    read_body,
    server_of,
    speaks_openai,
)
from serving.generation import Completion, Piece, TokenText
from serving.problems import from_exception, invalid
from serving.registry import ServedModel
from serving.request import FinishReason
from serving.schema import ChatRequest, OpenAIRequest
from serving.sse import DONE, cancel_on_disconnect, frame, stream_response
from serving.validation import Job, encode, openai_job, render_chat

router = APIRouter(tags=["OpenAI"])
FINGERPRINT = f"{VERSION}-native"


@router.post("/v1/chat/completions", openapi_extra=body_schema(ChatRequest.model_json_schema()))
async def chat_completions(request: Request) -> Response:
    """Answer a chat, whole or as a stream of chunks."""
    body = await read_body(request, ChatRequest.model_validate)
    server, openai = server_of(request), speaks_openai(request)
    model = resolve(request, server, body)
    job = chat_job(server, model, body, openai=openai)
    completion = server.complete(job)
    identity = Identity(model, openai=openai, kind="chat.completion")
    if body.stream:
        return chat_stream(request, server, body, completion, identity)
    server.admission.check()
    with server.admission:
        async with cancel_on_disconnect(request, completion.cancel):
            await completion.run()
    return JSONResponse(chat_response(completion, body, identity), headers=model_headers(model))


def resolve(request: Request, server: Server, body: OpenAIRequest) -> ServedModel:
    """The model that path, `model` and `adapter_id` mean; they may not contradict each other."""
    registry = server.registry
    path = request.path_params.get("model")
    if path is not None:
        return registry.resolve(path)
    named, adapter = body.model, body.adapter_id
    if adapter and named and named != adapter and not registry.is_base_alias(named):
        raise invalid(f"`model` {named!r} and `adapter_id` {adapter!r} differ; give one", "model")
    return registry.resolve(adapter or named)


def chat_job(server: Server, model: ServedModel, body: ChatRequest, *, openai: bool) -> Job:
    """Check a chat request and turn it into a job."""
    limits = server.config.limits
    if body.response_format is not None and body.response_format.type != "text":
        raise invalid("grammar is not supported")
    if body.tools and body.tool_choice != "none":
        raise invalid("tools are not supported", "tools")
    num_top = 0
    if body.logprobs:
        num_top = body.top_logprobs or 0
        if not 0 <= num_top <= limits.max_top_n_tokens:
            raise invalid(
                f"`top_logprobs` must be >= 0 and <= {limits.max_top_n_tokens}. Given: {num_top}"
            )
    text = render_chat(model, body)
    ids = encode(model.tokenizer, text, special=False)
    return openai_job(model, ids, body, limits, keep_stop=not openai, num_top=num_top)


class Identity:
    """What all parts of one answer carry: id, time, the model that answers."""

    def __init__(self, model: ServedModel, *, openai: bool, kind: str) -> None:
        self.model = model
        self.openai = openai
        self.kind = kind
        self.created = int(time.time())
        self.id = f"chatcmpl-{uuid.uuid4().hex}" if openai else ""

    def wrap(self, kind: str, choices: list[dict[str, Any]], usage: Any) -> dict[str, Any]:
        """An answer or chunk of this identity."""
        return {
            "object": kind,
            "id": self.id,
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


def usage_of(completion: Completion) -> dict[str, int]:
    """Token counts."""
    prompt, made = len(completion.job.prompt), completion.num_generated
    return {"prompt_tokens": prompt, "completion_tokens": made, "total_tokens": prompt + made}


def logprob_json(token: TokenText, top: list[TokenText]) -> dict[str, Any]:
    """OpenAI's log probability entry of one token."""

    def entry(item: TokenText) -> dict[str, Any]:
        raw = list(item.text.encode("utf-8"))
        return {"token": item.text, "logprob": item.logprob, "bytes": raw}

    return {**entry(token), "top_logprobs": [entry(item) for item in top]}


def chat_response(completion: Completion, body: ChatRequest, identity: Identity) -> dict[str, Any]:
    """The whole answer."""
    logprobs = None
    if body.logprobs:
        pairs = zip(completion.tokens, completion.tops, strict=True)
        logprobs = {"content": [logprob_json(token, top) for token, top in pairs]}
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": completion.text},
        "logprobs": logprobs,
        "finish_reason": identity.finish(completion.finish_reason),
    }
    return identity.wrap("chat.completion", [choice], usage_of(completion))


def chat_stream(
    request: Request,
    server: Server,
    body: ChatRequest,
    completion: Completion,
    identity: Identity,
) -> Response:
    """The answer as chunks; a full queue is a real 429 before the first byte."""
    server.admission.check()

    async def events() -> AsyncIterator[bytes]:
        with server.admission:
            async with cancel_on_disconnect(request, completion.cancel):
                async for event in chat_events(completion, body, identity):
                    yield event

    return stream_response(events(), model_headers(identity.model))


async def chat_events(
    completion: Completion, body: ChatRequest, identity: Identity
) -> AsyncIterator[bytes]:
    """One frame per token, perhaps the counts, or an error; `[DONE]` ends the stream."""
    try:
        async for piece in completion.pieces():
            if piece is None:
                yield KEEPALIVE_COMMENT
            else:
                yield frame(chat_chunk(piece, body, identity))
        if body.stream_options.include_usage:
            yield frame(identity.wrap("chat.completion.chunk", [], usage_of(completion)))
    except Exception as error:
        yield frame(stream_error(error))
    yield frame(DONE)


def chat_chunk(piece: Piece, body: ChatRequest, identity: Identity) -> dict[str, Any]:
    """One token as a chunk; control tokens have no content."""
    logprobs = None
    if body.logprobs:
        logprobs = {"content": [logprob_json(piece.token, piece.top)]}
    choice = {
        "index": 0,
        "delta": {"role": "assistant", "content": piece.shown},
        "logprobs": logprobs,
        "finish_reason": identity.finish(piece.finish_reason),
    }
    return identity.wrap("chat.completion.chunk", [choice], None)


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
