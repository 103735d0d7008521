"""/v1/completions: one or several texts continued, as TGI or OpenAI says it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from fastapi.sse import KEEPALIVE_COMMENT

from serving.completion.completion import Completion
from serving.completion.jobs import text_jobs
from serving.completion.side_by_side import interleave
from serving.completion.token_bytes import TokenBytes
from serving.http.body import body_schema, read_body
from serving.http.headers import model_headers, time_headers
from serving.http.openai_format import Identity, stream_error
from serving.http.outside import answer_outside
from serving.http.run import Run, openai_name
from serving.http.state import server_of, speaks_openai
from serving.http.text_format import KIND, TextFormat
from serving.protocol.schema import CompletionRequest, StreamOptions
from serving.protocol.sse import DONE, frame

router = APIRouter(tags=["Text"])
TEXT_PATH = "/v1/completions"


@router.post(TEXT_PATH, openapi_extra=body_schema(CompletionRequest.model_json_schema()))
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
    if (answer := await answer_outside(request, TEXT_PATH, run, body)) is not None:
        return answer
    form = TextFormat(
        Identity(run.model, openai, "cmpl"),
        TokenBytes(run.model.tokenizer),
        with_logprobs=body.logprobs is not None,
        prompt_only=body.max_tokens == 0,
    )
    answers = body.n or 1
    if body.stream:
        return run.stream(completion_events(run.completions, form, answers, body.stream_options))
    await run.finish()
    chosen = best_answers(run.completions, len(body.prompts), answers)
    choices = [form.choice(index, completion) for index, completion in enumerate(chosen)]
    drawn = len(run.completions) // len(body.prompts)
    content = form.identity.wrap(KIND, choices, form.usage(run.completions, drawn))
    headers = model_headers(run.model) | time_headers(run.completions[0])
    return JSONResponse(content, headers=headers)


def best_answers(
    completions: Sequence[Completion], num_prompts: int, answers: int
) -> list[Completion]:
    """For each prompt, the answers with the highest mean log probability, the best first.

    Where all are told they stay in order.
    """
    drawn = len(completions) // num_prompts
    if drawn == answers:
        return list(completions)
    chosen = []
    for begin in range(0, len(completions), drawn):
        group = completions[begin : begin + drawn]
        chosen += sorted(group, key=lambda c: c.mean_logprob, reverse=True)[:answers]
    return chosen


async def completion_events(
    running: Sequence[Completion], form: TextFormat, answers: int, options: StreamOptions
) -> AsyncIterator[bytes]:
    """Chunks of all prompts as they come, told apart by index; one `[DONE]` at the end."""
    try:
        async for index, generated in interleave([c.stream() for c in running]):
            if generated is None:
                yield KEEPALIVE_COMMENT
                continue
            for chunk in form.chunks(index, generated, running[index]):
                if options.continuous_usage_stats:
                    chunk["usage"] = form.usage(running, answers)
                yield frame(chunk)
        if options.include_usage and form.identity.openai:
            yield frame(form.identity.wrap(KIND, [], form.usage(running, answers)))
    except Exception as error:
        yield frame(stream_error(error))
    yield frame(DONE)
