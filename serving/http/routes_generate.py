"""TGI's own routes: /, /generate and /generate_stream. Turns completions into TGI's JSON."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from fastapi.sse import KEEPALIVE_COMMENT

from serving.completion.checks import check_best_of, check_stream
from serving.completion.completion import Completion, GeneratedToken, TokenText
from serving.completion.jobs import generate_jobs
from serving.http.body import body_schema, read_body
from serving.http.headers import model_headers, time_headers
from serving.http.run import Run, tgi_name
from serving.http.state import server_of
from serving.models.registry import ServedModel
from serving.protocol.problems import from_exception
from serving.protocol.schema import GenerateRequest
from serving.protocol.sse import frame

router = APIRouter(tags=["Text Generation Inference"])
BODY = body_schema(GenerateRequest.model_json_schema())


@router.post("/generate", openapi_extra=BODY)
async def generate(request: Request) -> Response:
    """Complete a text."""
    body = await read_body(request, GenerateRequest.read)
    content, headers = await answer(request, body)
    return JSONResponse(content, headers=headers)


@router.post("/generate_stream", openapi_extra=BODY)
async def generate_stream(request: Request) -> Response:
    """Complete a text, one event per token."""
    return await stream(request, await read_body(request, GenerateRequest.read))


@router.post("/", openapi_extra=BODY)
async def compatible(request: Request) -> Response:
    """As /generate (answer in a list) or, with `stream`, as /generate_stream."""
    body = await read_body(request, GenerateRequest.read)
    if body.parameters.return_full_text is None:
        body.parameters.return_full_text = True
    if body.stream:
        return await stream(request, body)
    content, headers = await answer(request, body)
    return JSONResponse([content], headers=headers)


async def answer(request: Request, body: GenerateRequest) -> tuple[dict[str, Any], dict[str, str]]:
    """Run a request to its end: (body, headers)."""
    run = await start(request, body)
    await run.finish()
    ranked = sorted(run.completions, key=lambda c: c.mean_logprob, reverse=True)
    headers = model_headers(run.model) | time_headers(ranked[0])
    return generate_response(body, ranked), headers


async def stream(request: Request, body: GenerateRequest) -> Response:
    """Check everything before the first byte, then answer with events."""
    check_stream(body.parameters)
    run = await start(request, body)
    return run.stream(generate_events(run.completions[0], body))


async def start(request: Request, body: GenerateRequest) -> Run:
    """The completions of a request, not yet running."""
    config = server_of(request).config
    best_of = check_best_of(body.parameters, config.limits)
    return await Run.start(
        request,
        tgi_name(request, body.parameters),
        len(body.inputs),
        lambda model: generate_jobs(
            model, body, config.limits, best_of=best_of, prefill_logprobs=config.prefill_logprobs
        ),
    )


def generate_response(body: GenerateRequest, ranked: Sequence[Completion]) -> dict[str, Any]:
    """TGI's GenerateResponse of the best completion; the others go into its details."""
    parameters, best = body.parameters, ranked[0]
    before = body.inputs if parameters.return_full_text else ""
    content: dict[str, Any] = {"generated_text": before + best.text}
    if parameters.details or parameters.decoder_input_details:
        content["details"] = details = sequence_details(best)
        if len(ranked) > 1:
            details["best_of_sequences"] = [
                {"generated_text": before + other.text, **sequence_details(other)}
                for other in ranked[1:]
            ]
    return content | weights_json(best.job.model)


def weights_json(model: ServedModel) -> dict[str, str]:
    """Our keys in TGI's JSON: which variant answered, and the hash of its weights."""
    return {"adapter_id": model.name, "weights_sha256": model.weights_sha256}


def sequence_details(completion: Completion) -> dict[str, Any]:
    """The details of one finished completion."""
    details: dict[str, Any] = {
        "finish_reason": completion.finish_reason,
        "generated_tokens": completion.num_generated,
        "seed": completion.job.sampling.seed,
        "prefill": [{"id": t.id, "text": t.text, "logprob": t.logprob} for t in completion.prefill],
        "tokens": [token_json(token) for token in completion.tokens],
    }
    if completion.job.num_top:
        details["top_tokens"] = [[token_json(t) for t in top] for top in completion.tops]
    return details


def token_json(token: TokenText) -> dict[str, Any]:
    """TGI's token."""
    return {
        "id": token.id,
        "text": token.text,
        "logprob": token.logprob,
        "special": token.special,
    }


async def generate_events(completion: Completion, body: GenerateRequest) -> AsyncIterator[bytes]:
    """One frame per token; the last one, or an error frame, ends the stream."""
    index = 0
    try:
        async for token in completion.stream():
            if token is None:
                yield KEEPALIVE_COMMENT
                continue
            index += 1
            yield frame(stream_event(index, token, completion, body))
    except Exception as error:
        yield frame(from_exception(error).tgi())


def stream_event(
    index: int, generated: GeneratedToken, completion: Completion, body: GenerateRequest
) -> dict[str, Any]:
    """TGI's StreamResponse."""
    event: dict[str, Any] = {"index": index, "token": token_json(generated.token)}
    if generated.top:
        event["top_tokens"] = [token_json(token) for token in generated.top]
    event["generated_text"] = event["details"] = None
    if generated.finish_reason is not None:
        before = body.inputs if body.parameters.return_full_text else ""
        event["generated_text"] = before + completion.text
        if body.parameters.details:
            event["details"] = {
                "finish_reason": generated.finish_reason,
                "generated_tokens": completion.num_generated,
                "seed": completion.job.sampling.seed,
                "input_length": len(completion.job.prompt),
            }
        event |= weights_json(completion.job.model)
    return event
