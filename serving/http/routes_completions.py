"""/v1/completions, /tokenize and /chat_tokenize: text in, text or tokens out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from fastapi.sse import KEEPALIVE_COMMENT

from serving.completion.chat_template import render_chat
from serving.completion.checks import CompletionJob, answers_of, check_n, encode, openai_job
from serving.completion.completion import (
    Completion,
    GeneratedToken,
    cancel_all,
    interleave,
    run_all,
    submit_all,
)
from serving.completion.tools import plan_tools
from serving.http.openai_format import Identity, stream_error, usage_of
from serving.http.routes_chat import resolve
from serving.http.routes_generate import model_name
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
from serving.protocol.problems import Problem, invalid
from serving.protocol.schema import ChatRequest, CompletionRequest, GenerateRequest
from serving.protocol.sse import DONE, StreamedAnswer, cancel_on_disconnect, frame

router = APIRouter(tags=["Text"])


@router.post("/v1/completions", openapi_extra=body_schema(CompletionRequest.model_json_schema()))
async def completions(request: Request) -> Response:
    """Complete one or several texts, whole or as one interleaved stream."""
    body = await read_body(request, CompletionRequest.model_validate)
    server, openai = server_of(request), speaks_openai(request)
    model = resolve(request, server, body)
    server.admission.check()
    prompts, n = checked_prompts(server, body), check_n(body, server.config.limits)

    def make_jobs() -> list[CompletionJob]:
        limits, found = server.config.limits, []
        for text in prompts:
            ids = encode(model.tokenizer, text)
            job = openai_job(model, text, ids, body, limits, keep_stop=not openai)
            found += answers_of(job, n)
        return found

    jobs = await beside_loop(sum(map(len, prompts)), make_jobs)
    running = [server.complete(request, job) for job in jobs]
    server.admission.check()  # Again: others may have come while a long text was read.
    identity = Identity(model, openai, "cmpl")
    if body.stream:
        events = completion_stream(request, server, body, running, identity)
        headers = {**model_headers(model), **compute_headers(jobs[0])}
        submit_all(running)
        return StreamedAnswer(events, headers, lambda: cancel_all(running))
    with server.admission:
        async with cancel_on_disconnect(request, lambda: cancel_all(running)):
            await run_all(running)
    choices = [
        {
            "index": index,
            "text": completion.text,
            "logprobs": None,
            "finish_reason": identity.finish(completion.finish_reason),
        }
        for index, completion in enumerate(running)
    ]
    content = identity.wrap("text_completion", choices, usage_of(running, answers=n))
    return JSONResponse(content, headers={**model_headers(model), **time_headers(running[0])})


def checked_prompts(server: Server, body: CompletionRequest) -> list[str]:
    """The prompts; Problem 422 in TGI's words for what it does not take."""
    prompts = [body.prompt] if isinstance(body.prompt, str) else body.prompt
    most = server.config.limits.max_client_batch_size
    if body.suffix is not None:
        raise Problem(
            422,
            "suffix not supported",
            "Suffix is not supported and can be achieved by preprocessing the prompt.",
        )
    if not prompts or not all(prompts):
        raise invalid("`inputs` cannot be empty", "prompt")
    if len(prompts) > most:
        raise Problem(
            422,
            "batch size exceeded",
            f"Number of prompts exceeds the maximum allowed batch size of {most}",
        )
    return prompts


async def completion_stream(
    request: Request,
    server: Server,
    body: CompletionRequest,
    running: Sequence[Completion],
    identity: Identity,
) -> AsyncIterator[bytes]:
    """Chunks of all prompts as they come, told apart by index; one `[DONE]` at the end."""
    with server.admission:
        async with cancel_on_disconnect(request, lambda: cancel_all(running)):
            try:
                async for index, piece in interleave([c.pieces() for c in running]):
                    if piece is None:
                        yield KEEPALIVE_COMMENT
                    else:
                        yield frame(completion_chunk(index, piece, running[index], identity))
                if body.stream_options.include_usage and identity.openai:
                    usage = usage_of(running, answers=body.n or 1)
                    yield frame(identity.wrap("text_completion", [], usage))
            except Exception as error:
                yield frame(stream_error(error))
            yield frame(DONE)


def completion_chunk(
    index: int, piece: GeneratedToken, completion: Completion, identity: Identity
) -> dict[str, Any]:
    """One token; TGI marks unfinished ones with "" and the end with its own reason."""
    reason: str | None
    if identity.openai:
        reason = identity.finish(piece.finish_reason)
    else:
        reason = "" if piece.finish_reason is None else str(piece.finish_reason)
    choice = {"index": index, "text": piece.shown, "logprobs": None, "finish_reason": reason}
    usage = usage_of([completion]) if piece.finish_reason is not None else None
    return identity.wrap("text_completion", [choice], None if identity.openai else usage)


@router.post("/tokenize", openapi_extra=body_schema(GenerateRequest.model_json_schema()))
async def tokenize(request: Request) -> Response:
    """The tokens of a text, with their byte offsets."""
    body = await read_body(request, GenerateRequest.read)
    model = server_of(request).registry.resolve(model_name(request, body.parameters))
    tokens = simple_tokens(model, body.inputs, special=True)
    return JSONResponse(tokens, headers=model_headers(model))


@router.post("/chat_tokenize", openapi_extra=body_schema(ChatRequest.model_json_schema()))
async def chat_tokenize(request: Request) -> Response:
    """The text a chat template makes of messages, and its tokens."""
    body = await read_body(request, ChatRequest.model_validate)
    model = resolve(request, server_of(request), body)
    text = render_chat(model, body, plan_tools(body))
    content = {
        "tokenize_response": simple_tokens(model, text, special=False),
        "templated_text": text,
    }
    return JSONResponse(content, headers=model_headers(model))


def simple_tokens(model: ServedModel, text: str, *, special: bool) -> list[dict[str, Any]]:
    """TGI's tokens: id, text, start and stop in bytes; a slow tokenizer gives no offsets."""
    encode(model.tokenizer, text, special=special)  # Refuses what is no Unicode.
    if not model.tokenizer.is_fast:
        ids = model.tokenizer(text, add_special_tokens=special)["input_ids"]
        return [{"id": i, "text": "", "start": 0, "stop": 0} for i in ids]
    encoded = model.tokenizer(
        text,
        add_special_tokens=special,
        return_offsets_mapping=True,
        return_special_tokens_mask=True,
    )
    tokens = []
    place = offset = 0
    for token, (start, stop) in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True):
        # Offsets come in characters; add up the bytes between the last start and this one.
        if start < place:
            place = offset = 0
        offset += len(text[place:start].encode("utf-8"))
        place = start
        end = offset + len(text[start:stop].encode("utf-8"))
        tokens.append({"id": token, "text": text[start:stop], "start": offset, "stop": end})
    return [{**token, "start": 0, "stop": 0} if token["text"] == "" else token for token in tokens]
