"""OpenAI's chat route as TGI speaks it, tool calls included."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from fastapi.sse import KEEPALIVE_COMMENT

from serving.completion.completion import Completion
from serving.completion.jobs import CompletionJob, chat_jobs
from serving.completion.messages import next_call_number
from serving.completion.side_by_side import interleave, run_all
from serving.completion.token_bytes import TokenBytes
from serving.completion.tools import CallReader
from serving.http.best_of import BestOf, check_best_of
from serving.http.body import body_schema, read_body
from serving.http.chat_format import ChatFormat, declines
from serving.http.headers import model_headers, time_headers
from serving.http.openai_format import Identity, stream_error, usage_of
from serving.http.outside import answer_outside
from serving.http.run import Run, openai_name
from serving.http.state import server_of, speaks_openai
from serving.models.registry import ServedModel
from serving.protocol.schema import ChatRequest, StreamOptions
from serving.protocol.sse import DONE, frame

router = APIRouter(tags=["OpenAI"])
CHAT_PATH = "/v1/chat/completions"


@router.post(CHAT_PATH, openapi_extra=body_schema(ChatRequest.model_json_schema()))
async def chat_completions(request: Request) -> Response:
    """Answer a chat, whole or as a stream of chunks."""
    body = await read_body(request, ChatRequest.model_validate)
    limits, openai = server_of(request).config.limits, speaks_openai(request)
    best_of = check_best_of(body, limits)
    picking = BestOf(request, body) if best_of > 1 else None

    def make_jobs(model: ServedModel) -> list[CompletionJob]:
        jobs = chat_jobs(model, body, limits, keep_stop=not openai, best_of=best_of)
        return jobs if picking is None else picking.bounded(jobs)

    run = await Run.start(
        request,
        openai_name(request, body),
        sum(len(str(message.content)) for message in body.messages),
        make_jobs,
        with_template=True,
    )
    if (answer := await answer_outside(request, CHAT_PATH, run, body)) is not None:
        return answer

    async def ask_for_text(index: int) -> Completion:
        """The model decided for no tool: ask it again for plain text."""
        jobs = await asyncio.to_thread(
            chat_jobs, run.model, body, limits, keep_stop=not openai, with_tools=False
        )
        return run.replace(index, jobs[index])

    identity = Identity(run.model, openai, "chatcmpl")
    known = TokenBytes(run.model.tokenizer)
    form = ChatFormat(identity, bool(body.logprobs), next_call_number(body), known)
    if picking is not None:
        return await answer_picked(form, run, picking, body)
    if body.stream:
        answers = [
            answer_chunks(form, index, completion, ask_for_text)
            for index, completion in enumerate(run.completions)
        ]
        return run.stream(chat_events(form, answers, run.completions, body.stream_options))
    async with run.running():
        await run_all(run.completions)
        undecided = [i for i, c in enumerate(run.completions) if declines(c)]
        await run_all([await ask_for_text(index) for index in undecided])
    choices = [form.choice(index, ended) for index, ended in enumerate(run.completions)]
    usage = usage_of(run.completions, answers=len(choices))
    content = form.identity.wrap("chat.completion", choices, usage)
    headers = model_headers(run.model) | time_headers(run.completions[0])
    return JSONResponse(content, headers=headers)


async def answer_picked(form: ChatFormat, run: Run, picking: BestOf, body: ChatRequest) -> Response:
    """The answer that a reward model picks, whole or as a stream of one chunk."""
    if body.stream:
        with_usage = body.stream_options.include_usage
        return run.stream(picking.events(form, run, with_usage=with_usage))
    async with run.running():
        await run_all(run.completions)
        picked = await picking.pick(run)
    usage = usage_of(run.completions, answers=len(run.completions))
    choices = [form.choice(0, picked.completion)]
    content = form.identity.wrap("chat.completion", choices, usage) | {"best_of": picked.to_json()}
    headers = model_headers(run.model) | time_headers(picked.completion)
    return JSONResponse(content, headers=headers)


async def chat_events(
    form: ChatFormat,
    answers: list[AsyncIterator[dict[str, Any] | None]],
    completions: list[Completion],
    options: StreamOptions,
) -> AsyncIterator[bytes]:
    """Frames of the whole stream: chunks, perhaps the counts, or an error; then `[DONE]`."""
    try:
        async for _, chunk in interleave(answers):
            if chunk is not None and options.continuous_usage_stats:
                chunk["usage"] = usage_of(completions, answers=len(answers))
            yield KEEPALIVE_COMMENT if chunk is None else frame(chunk)
        if options.include_usage:
            yield frame(form.usage_chunk(usage_of(completions, answers=len(answers))))
    except Exception as error:
        yield frame(stream_error(error))
    yield frame(DONE)


async def answer_chunks(
    form: ChatFormat,
    index: int,
    completion: Completion,
    ask_for_text: Callable[[int], Awaitable[Completion]],
) -> AsyncIterator[dict[str, Any] | None]:
    """Chunks of one answer, as a tool call or as text; None keeps the line alive."""
    is_first = True
    if completion.job.tools is not None:
        reader = CallReader()
        async for chunk in call_chunks(form, index, completion, reader):
            yield chunk
        if reader.name is None or reader.name != completion.job.tools.decline:
            return
        completion = await ask_for_text(index)
    async for generated in completion.stream():
        if generated is None:
            yield None
            continue
        yield form.text_chunk(index, generated, is_first=is_first)
        is_first = False


async def call_chunks(
    form: ChatFormat, index: int, completion: Completion, reader: CallReader
) -> AsyncIterator[dict[str, Any] | None]:
    """Chunks of a tool call; they end as soon as `reader` has read that no tool is called."""
    assert completion.job.tools is not None
    named = False
    async for generated in completion.stream():
        if generated is None:
            yield None
            continue
        reason = generated.finish_reason
        more = reader.push(generated.shown, final=reason is not None)
        if reader.name is None:
            if reason is not None:
                yield form.cut_chunk(index, reason)
            continue
        if reader.name == completion.job.tools.decline:
            return
        if not named:
            named = True
            yield form.call_chunk(index, reader.name, "{", None)
            more = more.removeprefix("{")
        if more or reason is not None:
            yield form.call_chunk(index, None, more, reason)
