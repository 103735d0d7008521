"""OpenAI's chat route as TGI speaks it, tool calls included. Turns completions into chat JSON."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from fastapi.sse import KEEPALIVE_COMMENT

from serving.completion.chat_template import chat_job
from serving.completion.checks import answers_of, check_n
from serving.completion.completion import (
    Completion,
    GeneratedToken,
    cancel_all,
    interleave,
    run_all,
    submit_all,
)
from serving.completion.tools import NO_TOOL, CallReader, ToolPlan, call_json, plan_tools
from serving.engine.request import FinishReason
from serving.http.openai_format import Identity, logprob_json, stream_error, usage_of
from serving.http.state import (
    Server,
    beside_loop,
    body_schema,
    compute_headers,
    model_headers,
    read_body,
    server_of,
    speaks_openai,
    time_headers,
)
from serving.models.registry import ServedModel
from serving.protocol.problems import invalid
from serving.protocol.schema import ChatRequest, OpenAIRequest
from serving.protocol.sse import DONE, StreamedAnswer, cancel_on_disconnect, frame

router = APIRouter(tags=["OpenAI"])
CHUNK = "chat.completion.chunk"


@dataclass
class ChatChoice:
    """One of the answers to a chat: what runs now; `tools` while it may become a call."""

    index: int
    tools: ToolPlan | None
    completion: Completion


@dataclass
class Chat:
    """One chat request on its way: what was asked, by which model, its answers."""

    request: Request
    server: Server
    body: ChatRequest
    identity: Identity
    choices: list[ChatChoice]

    @classmethod
    async def start(cls, request: Request, body: ChatRequest) -> Chat:
        """Check the request; Problem when it cannot be answered."""
        server, openai = server_of(request), speaks_openai(request)
        model = resolve(request, server, body)
        server.admission.check()
        tools = plan_tools(body)
        n = check_n(body, server.config.limits)
        size = sum(len(str(message.content)) for message in body.messages)
        job = await beside_loop(
            size, lambda: chat_job(model, body, server.config.limits, openai=openai, tools=tools)
        )
        choices = [
            ChatChoice(index, tools, server.complete(request, each))
            for index, each in enumerate(answers_of(job, n))
        ]
        server.admission.check()  # Again: others may have come while a long text was read.
        return cls(request, server, body, Identity(model, openai, "chatcmpl"), choices)

    @property
    def completions(self) -> list[Completion]:
        """What runs, in the order of the choices."""
        return [choice.completion for choice in self.choices]

    def retry_without_tools(self, choice: ChatChoice) -> None:
        """The model decided for no tool: ask it again for plain text."""
        model, openai = self.identity.model, self.identity.openai
        job = chat_job(model, self.body, self.server.config.limits, openai=openai, tools=None)
        choice.completion.cancel()
        choice.tools = None
        job = answers_of(job, choice.index + 1)[-1]
        choice.completion = self.server.complete(self.request, job)

    def cancel(self) -> None:
        """The caller left."""
        cancel_all(self.completions)

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
    headers = model_headers(chat.identity.model)
    if body.stream:
        headers |= compute_headers(chat.completions[0].job)
        submit_all(chat.completions)
        return StreamedAnswer(chat_stream(request, chat), headers, chat.cancel)
    with chat.server.admission:
        async with cancel_on_disconnect(request, chat.cancel):
            await run_all(chat.completions)
            again = [c for c in chat.choices if c.tools and called_name(c) == NO_TOOL]
            for choice in again:
                chat.retry_without_tools(choice)
            await run_all([choice.completion for choice in again])
    headers |= time_headers(chat.completions[0])
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


def called_name(choice: ChatChoice) -> str | None:
    """The function a finished call names; None when it ran out of tokens before."""
    reader = CallReader()
    reader.push(choice.completion.text, final=True)
    return reader.name


def chat_response(chat: Chat) -> dict[str, Any]:
    """The whole answer."""
    choices = [choice_json(chat, choice) for choice in chat.choices]
    usage = usage_of(chat.completions, answers=len(choices))
    return chat.identity.wrap("chat.completion", choices, usage)


def choice_json(chat: Chat, choice: ChatChoice) -> dict[str, Any]:
    """One finished answer."""
    completion, logprobs = choice.completion, None
    if chat.body.logprobs:
        pairs = zip(completion.tokens, completion.tops, strict=True)
        logprobs = {"content": [logprob_json(token, top) for token, top in pairs]}
    message: dict[str, Any] = {"role": "assistant", "content": completion.text}
    name = called_name(choice) if choice.tools is not None else None
    if name is not None:
        reader = CallReader(text=completion.text)
        call = call_json(name, reader.arguments, call_id(chat, choice))
        message = {"role": "assistant", "tool_calls": [call]}
        if chat.identity.openai:
            message["content"] = None
    return {
        "index": choice.index,
        "message": message,
        "logprobs": logprobs,
        "finish_reason": chat.finish(completion.finish_reason, is_call=name is not None),
    }


def call_id(chat: Chat, choice: ChatChoice) -> str:
    """TGI numbers calls from 0; OpenAI's ids are unique."""
    if not chat.identity.openai:
        return "0"
    return f"call_{chat.identity.unique[:22]}{choice.index:02d}"


async def chat_stream(request: Request, chat: Chat) -> AsyncIterator[bytes]:
    """Frames of the whole stream: chunks, perhaps the counts, or an error; then `[DONE]`."""
    with chat.server.admission:
        async with cancel_on_disconnect(request, chat.cancel):
            try:
                parts = [choice_chunks(chat, choice) for choice in chat.choices]
                async for _, part in interleave(parts):
                    yield KEEPALIVE_COMMENT if part is None else frame(part)
                if chat.body.stream_options.include_usage:
                    usage = usage_of(chat.completions, answers=len(chat.choices))
                    yield frame(chat.identity.wrap(CHUNK, [], usage))
            except Exception as error:
                yield frame(stream_error(error))
            yield frame(DONE)


async def choice_chunks(chat: Chat, choice: ChatChoice) -> AsyncIterator[dict[str, Any] | None]:
    """Chunks of one answer, as text or as a tool call; None keeps the line alive."""
    if choice.tools is not None:
        async for part in tool_chunks(chat, choice):
            yield part
    if choice.tools is None:
        async for piece in choice.completion.pieces():
            yield None if piece is None else text_chunk(chat, choice, piece)


async def tool_chunks(chat: Chat, choice: ChatChoice) -> AsyncIterator[dict[str, Any] | None]:
    """Chunks of a tool call; none when the model decides for no tool (then `tools` is None)."""
    reader = CallReader()
    named = False
    async for piece in choice.completion.pieces():
        if piece is None:
            yield None
            continue
        more = reader.push(piece.shown, final=piece.finish_reason is not None)
        if reader.name == NO_TOOL:
            chat.retry_without_tools(choice)
            return
        if reader.name is None and piece.finish_reason is None:
            continue
        if not named and reader.name is not None:
            named = True
            yield call_chunk(chat, choice, reader.name, "{", None)
            more = more.removeprefix("{")
        if more or piece.finish_reason is not None:
            yield call_chunk(chat, choice, None, more, piece.finish_reason)


def text_chunk(chat: Chat, choice: ChatChoice, piece: GeneratedToken) -> dict[str, Any]:
    """One token as a chunk; control tokens have no content."""
    delta = {"role": "assistant", "content": piece.shown}
    return chunk(chat, choice, delta, piece, chat.finish(piece.finish_reason))


def call_chunk(
    chat: Chat, choice: ChatChoice, name: str | None, arguments: str, reason: FinishReason | None
) -> dict[str, Any]:
    """A piece of a tool call."""
    call: dict[str, Any] = {
        "index": 0,
        "id": call_id(chat, choice),
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    }
    if chat.identity.openai and name is None:
        call = {"index": 0, "function": {"arguments": arguments}}
    delta = {"role": "assistant", "tool_calls": [call]}
    return chunk(chat, choice, delta, None, chat.finish(reason, is_call=True))


def chunk(
    chat: Chat,
    choice: ChatChoice,
    delta: dict[str, Any],
    piece: GeneratedToken | None,
    reason: str | None,
) -> dict[str, Any]:
    """A chunk around a delta."""
    logprobs = None
    if chat.body.logprobs and piece is not None:
        logprobs = {"content": [logprob_json(piece.token, piece.top)]}
    told = {"index": choice.index, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
    return chat.identity.wrap(CHUNK, [told], None)
