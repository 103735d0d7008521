"""/v1/completions: one or several texts continued, as TGI or OpenAI says it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from fastapi.sse import KEEPALIVE_COMMENT

from serving.completion.completion import Completion, GeneratedToken
from serving.completion.jobs import text_jobs
from serving.completion.side_by_side import interleave
from serving.http.body import body_schema, read_body
from serving.http.headers import model_headers, time_headers
from serving.http.openai_format import Identity, stream_error, usage_of
from serving.http.run import Run, openai_name
from serving.http.state import server_of, speaks_openai
from serving.protocol.schema import CompletionRequest
from serving.protocol.sse import DONE, frame

router = APIRouter(tags=["Text"])
KIND = "text_completion"


@router.post("/v1/completions", openapi_extra=body_schema(CompletionRequest.model_json_schema()))
async def completions(request: Request) -> Response:
    """Complete one or several texts, whole or as one interleaved stream."""
    body = await read_body(request, CompletionRequest.model_validate)
    limits, openai = server_of(request).config.limits, speaks_openai(request)
    run = await Run.start(
        request,
        openai_name(request, body),
        sum(map(len, body.prompts)),
        lambda model: text_jobs(model, body, limits, keep_stop=not openai),
    )
    identity, answers = Identity(run.model, openai, "cmpl"), body.n or 1
    if body.stream:
        with_usage = body.stream_options.include_usage and openai
        return run.stream(
            completion_events(run.completions, identity, answers, with_usage=with_usage)
        )
    await run.finish()
    choices = [
        {
            "index": index,
            "text": completion.text,
            "logprobs": None,
            "finish_reason": identity.finish(completion.finish_reason),
        }
        for index, completion in enumerate(run.completions)
    ]
    content = identity.wrap(KIND, choices, usage_of(run.completions, answers=answers))
    headers = model_headers(run.model) | time_headers(run.completions[0])
    return JSONResponse(content, headers=headers)


async def completion_events(
    running: Sequence[Completion], identity: Identity, answers: int, *, with_usage: bool
) -> AsyncIterator[bytes]:
    """Chunks of all prompts as they come, told apart by index; one `[DONE]` at the end."""
    try:
        async for index, generated in interleave([c.stream() for c in running]):
            if generated is None:
                yield KEEPALIVE_COMMENT
            else:
                yield frame(completion_chunk(index, generated, running[index], identity))
        if with_usage:
            yield frame(identity.wrap(KIND, [], usage_of(running, answers=answers)))
    except Exception as error:
        yield frame(stream_error(error))
    yield frame(DONE)


def completion_chunk(
    index: int, generated: GeneratedToken, completion: Completion, identity: Identity
) -> dict[str, Any]:
    """One token; TGI marks unfinished ones with "" and the end with its own reason."""
    reason: str | None
    if identity.openai:
        reason = identity.finish(generated.finish_reason)
    else:
        reason = "" if generated.finish_reason is None else str(generated.finish_reason)
    choice = {"index": index, "text": generated.shown, "logprobs": None, "finish_reason": reason}
    usage = usage_of([completion]) if generated.finish_reason is not None else None
    return identity.wrap(KIND, [choice], None if identity.openai else usage)
