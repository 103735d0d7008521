"""OpenAI's chat route as TGI speaks it, tool calls included. Turns completions into chat JSON."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from fastapi.sse import KEEPALIVE_COMMENT

from serving.chat import chat_job
from serving.context import (
    Server,
    beside_loop,
    body_schema,
    model_headers,
    read_body,
    server_of,
    speaks_openai,
)
from serving.generation import Completion, Piece
from serving.openai_forms import Identity, logprob_json, stream_error, usage_of
from serving.problems import invalid
from serving.registry import ServedModel
from serving.request import FinishReason
from serving.schema import ChatRequest, OpenAIRequest
from serving.sse import DONE, cancel_on_disconnect, frame, stream_response
from serving.tools import NO_TOOL, CallReader, ToolPlan, call_json, plan_tools

router = APIRouter(tags=["OpenAI"])
CHUNK = "chat.completion.chunk"


@dataclass
class Chat:
    """One chat request on its way: what was asked, by which model, what runs now."""

    server: Server
    body: ChatRequest
    identity: Identity
    tools: ToolPlan | None
    completion: Completion

    @classmethod
    async def start(cls, request: Request, body: ChatRequest) -> Chat:
        """Check the request; Problem when it cannot be answered."""
        server, openai = server_of(request), speaks_openai(request)
        model = resolve(request, server, body)
        tools = plan_tools(body)
        size = sum(len(str(message.content)) for message in body.messages)
        job = await beside_loop(
            size, lambda: chat_job(server, model, body, openai=openai, tools=tools)
        )
        identity = Identity(model, openai, "chatcmpl")
        return cls(server, body, identity, tools, server.complete(job))

    def retry_without_tools(self) -> None:
        """The model decided for no tool: ask it again for plain text."""
        model, openai = self.identity.model, self.identity.openai
        job = chat_job(self.server, model, self.body, openai=openai, tools=None)
        self.completion.cancel()
        self.tools = None
        self.completion = self.server.complete(job)

    def cancel(self) -> None:
        """The caller left."""
        self.completion.cancel()

    def finish(self, reason: FinishReason | None, *, is_call: bool = False) -> str | None:
        """The finish reason on the wire."""
        if is_call and reason is FinishReason.EOS_TOKEN:
            return "tool_calls" if self.identity.openai else "stop"
        return self.identity.finish(reason)


@router.post("/v1/chat/completions", openapi_extra=body_schema(ChatRequest.model_json_schema()))
async def chat_completions(request: Request) -> Response:
    """Answer a chat, whole or as a stream of chunks."""
    body = await read_body(request, ChatRequest.model_validate)
    chat = await Chat.start(request, body)
    chat.server.admission.check()
    headers = model_headers(chat.identity.model)
    if body.stream:
        return stream_response(chat_stream(request, chat), headers)
    with chat.server.admission:
        async with cancel_on_disconnect(request, chat.cancel):
            await chat.completion.run()
            if chat.tools is not None and called_name(chat) == NO_TOOL:
                chat.retry_without_tools()
                await chat.completion.run()
    return JSONResponse(chat_response(chat), headers=headers)


def resolve(request: Request, server: Server, body: OpenAIRequest) -> ServedModel:
    """The model that path, `model` and `adapter_id` mean; the last two may not differ."""
    registry = server.registry
    path = request.path_params.get("model")
    if path is not None:
        return registry.resolve(path)
    named, adapter = body.model, body.adapter_id
    if adapter and named and named != adapter and not registry.is_base_alias(named):
        raise invalid(f"`model` {named!r} and `adapter_id` {adapter!r} differ; give one", "model")
    return registry.resolve(adapter or named)


def called_name(chat: Chat) -> str | None:
    """The function a finished call names; None when it ran out of tokens before."""
    reader = CallReader()
    reader.push(chat.completion.text, final=True)
    return reader.name


def chat_response(chat: Chat) -> dict[str, Any]:
    """The whole answer."""
    completion, logprobs = chat.completion, None
    if chat.body.logprobs:
        pairs = zip(completion.tokens, completion.tops, strict=True)
        logprobs = {"content": [logprob_json(token, top) for token, top in pairs]}
    message: dict[str, Any] = {"role": "assistant", "content": completion.text}
    name = called_name(chat) if chat.tools is not None else None
    if name is not None:
        reader = CallReader(text=completion.text)
        call = call_json(name, reader.arguments, call_id(chat))
        message = {"role": "assistant", "tool_calls": [call]}
        if chat.identity.openai:
            message["content"] = None
    choice = {
        "index": 0,
        "message": message,
        "logprobs": logprobs,
        "finish_reason": chat.finish(completion.finish_reason, is_call=name is not None),
    }
    return chat.identity.wrap("chat.completion", [choice], usage_of(completion))


def call_id(chat: Chat) -> str:
    """TGI numbers calls from 0; OpenAI's ids are unique."""
    return f"call_{chat.identity.unique[:24]}" if chat.identity.openai else "0"


async def chat_stream(request: Request, chat: Chat) -> AsyncIterator[bytes]:
    """Frames of the whole stream: chunks, perhaps the counts, or an error; then `[DONE]`."""
    with chat.server.admission:
        async with cancel_on_disconnect(request, chat.cancel):
            try:
                if chat.tools is not None:
                    async for event in tool_frames(chat):
                        yield event
                if chat.tools is None:
                    async for piece in chat.completion.pieces():
                        if piece is None:
                            yield KEEPALIVE_COMMENT
                        else:
                            yield frame(text_chunk(chat, piece))
                if chat.body.stream_options.include_usage:
                    yield frame(chat.identity.wrap(CHUNK, [], usage_of(chat.completion)))
            except Exception as error:
                yield frame(stream_error(error))
            yield frame(DONE)


async def tool_frames(chat: Chat) -> AsyncIterator[bytes]:
    """Chunks of a tool call; none when the model decides for no tool (then `tools` is None)."""
    reader = CallReader()
    named = False
    async for piece in chat.completion.pieces():
        if piece is None:
            yield KEEPALIVE_COMMENT
            continue
        more = reader.push(piece.shown, final=piece.finish_reason is not None)
        if reader.name == NO_TOOL:
            chat.retry_without_tools()
            return
        if reader.name is None and piece.finish_reason is None:
            continue
        if not named and reader.name is not None:
            named = True
            yield frame(call_chunk(chat, reader.name, "{", None))
            more = more.removeprefix("{")
        if more or piece.finish_reason is not None:
            yield frame(call_chunk(chat, None, more, piece.finish_reason))


def text_chunk(chat: Chat, piece: Piece) -> dict[str, Any]:
    """One token as a chunk; control tokens have no content."""
    delta = {"role": "assistant", "content": piece.shown}
    return chunk(chat, delta, piece, chat.finish(piece.finish_reason))


def call_chunk(
    chat: Chat, name: str | None, arguments: str, reason: FinishReason | None
) -> dict[str, Any]:
    """A piece of a tool call."""
    call: dict[str, Any] = {
        "index": 0,
        "id": call_id(chat),
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    }
    if chat.identity.openai and name is None:
        call = {"index": 0, "function": {"arguments": arguments}}
    delta = {"role": "assistant", "tool_calls": [call]}
    return chunk(chat, delta, None, chat.finish(reason, is_call=True))


def chunk(
    chat: Chat, delta: dict[str, Any], piece: Piece | None, reason: str | None
) -> dict[str, Any]:
    """A chunk around a delta."""
    logprobs = None
    if chat.body.logprobs and piece is not None:
        logprobs = {"content": [logprob_json(piece.token, piece.top)]}
    choice = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
    return chat.identity.wrap(CHUNK, [choice], None)
