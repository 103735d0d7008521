"""TGI's own routes: /, /generate and /generate_stream. Turns completions into TGI's JSON."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from fastapi.sse import KEEPALIVE_COMMENT

from serving.completion.checks import CompletionJob, check_best_of, check_stream, generate_job
from serving.completion.completion import Completion, GeneratedToken, TokenText, cancel_all, run_all
from serving.http.state import (
    Server,
    beside_loop,
    body_schema,
    compute_headers,
    model_headers,
    read_body,
    server_of,
    time_headers,
)
from serving.models.registry import ServedModel
from serving.protocol.problems import from_exception
from serving.protocol.schema import GenerateParameters, GenerateRequest
from serving.protocol.sse import StreamedAnswer, cancel_on_disconnect, frame

router = APIRouter(tags=["Text Generation Inference"])
BODY = body_schema(GenerateRequest.model_json_schema())


@router.post("/generate", openapi_extra=BODY)
async def generate(request: Request) -> Response:
    """Complete a text."""
    body = await read_body(request, GenerateRequest.read)
    content, headers = await answer(request, body, model_name(request, body.parameters))
    return JSONResponse(content, headers=headers)


@router.post("/generate_stream", openapi_extra=BODY)
async def generate_stream(request: Request) -> Response:
    """Complete a text, one event per token."""
    body = await read_body(request, GenerateRequest.read)
    return await stream(request, body, model_name(request, body.parameters))


@router.post("/", openapi_extra=BODY)
async def compatible(request: Request) -> Response:
    """As /generate (answer in a list) or, with `stream`, as /generate_stream."""
    body = await read_body(request, GenerateRequest.read)
    if body.parameters.return_full_text is None:
        body.parameters.return_full_text = True
    name = model_name(request, body.parameters)
    if body.stream:
        return await stream(request, body, name)
    content, headers = await answer(request, body, name)
    return JSONResponse([content], headers=headers)


def model_name(request: Request, parameters: GenerateParameters) -> str | None:
    """The model a request names: in the path of a per-model URL, or as adapter_id."""
    return request.path_params.get("model") or parameters.adapter_id


async def answer(
    request: Request, body: GenerateRequest, name: str | None
) -> tuple[dict[str, Any], dict[str, str]]:
    """Run a request to its end: (body, headers)."""
    server = server_of(request)
    model = server.registry.resolve(name)
    best_of = check_best_of(body.parameters, server.config.limits)
    server.admission.check()
    jobs = await beside_loop(
        len(body.inputs), lambda: [checked_job(server, model, body) for _ in range(best_of)]
    )
    completions = [server.complete(request, job) for job in jobs]
    server.admission.check()  # Again: others may have come while a long text was read.
    with server.admission:
        async with cancel_on_disconnect(request, lambda: cancel_all(completions)):
            await run_all(completions)
    ranked = sorted(completions, key=lambda c: c.mean_logprob, reverse=True)
    return generate_response(server, body, model, ranked)


def checked_job(server: Server, model: ServedModel, body: GenerateRequest) -> CompletionJob:
    """The job of a request to this server."""
    config = server.config
    return generate_job(
        model,
        body.inputs,
        body.parameters,
        config.limits,
        prefill_logprobs=config.prefill_logprobs,
    )


def generate_response(
    server: Server, body: GenerateRequest, model: ServedModel, ranked: Sequence[Completion]
) -> tuple[dict[str, Any], dict[str, str]]:
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
    content |= weights_json(model)
    return content, {**model_headers(model), **time_headers(best)}


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


async def stream(request: Request, body: GenerateRequest, name: str | None) -> Response:
    """Check everything before the first byte, then answer with events."""
    server = server_of(request)
    check_stream(body.parameters)
    check_best_of(body.parameters, server.config.limits)
    model = server.registry.resolve(name)
    server.admission.check()
    job = await beside_loop(len(body.inputs), lambda: checked_job(server, model, body))
    completion = server.complete(request, job)
    server.admission.check()  # Before the first byte: a full queue is a real 429.

    async def events() -> AsyncIterator[bytes]:
        with server.admission:
            async with cancel_on_disconnect(request, completion.cancel):
                async for event in generate_events(completion, body):
                    yield event

    headers = {**model_headers(model), **compute_headers(job)}
    completion.submit()
    return StreamedAnswer(events(), headers, completion.cancel)


async def generate_events(completion: Completion, body: GenerateRequest) -> AsyncIterator[bytes]:
    """One frame per token; the last one, or an error frame, ends the stream."""
    index = 0
    try:
        async for piece in completion.pieces():
            if piece is None:
                yield KEEPALIVE_COMMENT
                continue
            index += 1
            yield frame(stream_event(index, piece, completion, body))
    except Exception as error:
        yield frame(from_exception(error).tgi())


def stream_event(
    index: int, piece: GeneratedToken, completion: Completion, body: GenerateRequest
) -> dict[str, Any]:
    """TGI's StreamResponse."""
    event: dict[str, Any] = {"index": index, "token": token_json(piece.token)}
    if piece.top:
        event["top_tokens"] = [token_json(token) for token in piece.top]
    event["generated_text"] = event["details"] = None
    if piece.finish_reason is not None:
        before = body.inputs if body.parameters.return_full_text else ""
        event["generated_text"] = before + completion.text
        if body.parameters.details:
            event["details"] = {
                "finish_reason": piece.finish_reason,
                "generated_tokens": completion.num_generated,
                "seed": completion.job.sampling.seed,
                "input_length": len(completion.job.prompt),
            }
        event |= weights_json(completion.job.model)
    return event
