"""What the routes of one server share, and how a request's body is read.

Knows the application's state; does not know any route.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from fastapi import Request
from pydantic import ValidationError

from serving.completion.checks import CompletionJob, input_limit
from serving.completion.completion import Admission, Completion
from serving.completion.grammar import GrammarCompiler
from serving.config import ServeConfig
from serving.errors import OutOfMemoryFailure
from serving.http.metrics import Metrics
from serving.models.registry import Registry, ServedModel
from serving.protocol.problems import Problem

logger = logging.getLogger(__name__)
T = TypeVar("T")
VERSION = "3.3.6-dev0"
LONG_TEXT = 20_000


@dataclass
class Server:
    """State of one running server, kept in `app.state.server`."""

    registry: Registry
    config: ServeConfig
    admission: Admission = field(init=False)
    grammars: GrammarCompiler = field(default_factory=GrammarCompiler)
    metrics: Metrics = field(init=False)
    bandwidths: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.admission = Admission(self.config.limits.max_concurrent_requests)
        base = self.registry.base
        self.metrics = Metrics(input_limit(base, self.config.limits), base.max_total_tokens)
        self.registry.worker.on_step = self.metrics.note_step

    def complete(self, request: Request, job: CompletionJob) -> Completion:
        """A completion of the job that `request` asks for, not yet running."""
        grammar = None
        if job.grammar is not None:
            model = job.model
            size = model.engine.model.config.get_text_config().vocab_size
            grammar = self.grammars.compile(job.grammar, model.tokenizer, size, model.eos_ids)
        return Completion(
            job,
            self.registry.worker,
            deadline=self.config.limits.deadline_seconds,
            grammar=grammar,
            received=request.state.received,
            on_end=self._note,
        )

    def _note(self, completion: Completion) -> None:
        """Count a completion that ended, whichever way."""
        job, times, made = completion.job, completion.times, completion.num_generated
        metrics, model = self.metrics, completion.job.model.name
        metrics.count("tgi_request_count")
        metrics.count("arena_variant_requests_count", model=model)
        metrics.count("arena_variant_generated_tokens_count", made, model=model)
        metrics.observe("tgi_request_input_length", len(job.prompt))
        metrics.observe("tgi_request_max_new_tokens", job.max_new_tokens)
        metrics.observe("tgi_request_generated_tokens", made)
        metrics.observe("tgi_request_skipped_tokens", completion.num_reused)
        metrics.observe("tgi_request_duration", times.total)
        metrics.observe("tgi_request_validation_duration", times.validation)
        metrics.observe("tgi_request_queue_duration", times.queue)
        metrics.observe("tgi_request_inference_duration", times.inference)
        metrics.observe("tgi_request_mean_time_per_token_duration", times.inference / max(made, 1))
        if times.first_token is not None:
            first = times.first_token - times.received
            metrics.observe("arena_time_to_first_token_seconds", first, model=model)
        for gap in completion.gaps:
            metrics.observe("arena_inter_token_seconds", gap, model=model)
        if completion.finish_reason is not None:
            metrics.count("tgi_request_success")
        else:
            metrics.count("tgi_request_failure", err=failure_label(completion.failure))
        logger.info(
            "completion model=%s prompt_tokens=%d generated_tokens=%d finish=%s total_ms=%.0f "
            "queue_ms=%.0f%s",
            model,
            len(job.prompt),
            made,
            completion.finish_reason or "none",
            1000 * times.total,
            1000 * times.queue,
            self._texts(completion) if self.config.log_prompts else "",
        )

    def _texts(self, completion: Completion) -> str:
        """What was asked and answered, for a log that was asked to tell it."""
        prompt = completion.job.model.tokenizer.decode(list(completion.job.prompt))
        return f" prompt={prompt!r} text={completion.text!r}"


def server_of(request: Request) -> Server:
    """The server that answers this request."""
    server: Server = request.app.state.server
    return server


def speaks_openai(request: Request) -> bool:
    """Whether the caller wants OpenAI's forms: its SDK's headers say so, or the setting does."""
    if server_of(request).config.openai_dialect:
        return True
    return any(name.startswith("x-stainless-") for name in request.headers)


def model_headers(model: ServedModel) -> dict[str, str]:
    """Headers that say which weights answer."""
    return {"x-adapter-id": model.name, "x-weights-sha256": model.weights_sha256}


def compute_headers(job: CompletionJob) -> dict[str, str]:
    """TGI's headers that are known before the first token: where it runs, how long the text is."""
    return {
        "x-compute-type": job.model.engine.device.type,
        "x-compute-characters": str(job.num_characters),
    }


def time_headers(completion: Completion) -> dict[str, str]:
    """Counts and times in TGI's headers; times in milliseconds, compute time in seconds."""
    times = completion.times

    def ms(seconds: float) -> str:
        return str(round(1000 * seconds))

    return {
        **compute_headers(completion.job),
        "x-compute-time": f"{times.total:.3f}",
        "x-total-time": ms(times.total),
        "x-validation-time": ms(times.validation),
        "x-queue-time": ms(times.queue),
        "x-inference-time": ms(times.inference),
        "x-time-per-token": ms(times.inference / max(completion.num_generated, 1)),
        "x-prompt-tokens": str(len(completion.job.prompt)),
        "x-generated-tokens": str(completion.num_generated),
    }


async def read_body(request: Request, parse: Callable[[Any], T]) -> T:
    """Read, decode and check a JSON body; Problem with TGI's status codes when it is none."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if not (kind == "application/json" or kind.endswith("+json")):
        raise Problem(415, "validation", "Expected request with `Content-Type: application/json`")
    limit = server_of(request).config.limits.max_body_bytes
    request.state.received = time.monotonic()
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise Problem(413, "validation", f"The body is larger than {limit} bytes")
    try:
        value = json.loads(bytes(body), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise Problem(400, "validation", f"Failed to parse the request body: {error}") from error
    try:
        return parse(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "body"
        raise Problem(422, "validation", f"{place}: {first['msg']}", param=place) from error


def _refuse_constant(name: str) -> None:
    """Python reads NaN and Infinity, which are no JSON; as values they would slip past checks."""
    raise ValueError(f"{name} is no JSON")


def failure_label(failure: Exception | None) -> str:
    """TGI's label of a request that began and did not end well; None: the caller left."""
    if failure is None:
        return "dropped"
    return "overloaded" if isinstance(failure, OutOfMemoryFailure) else "generation"


async def beside_loop(num_characters: int, work: Callable[[], T]) -> T:
    """Do `work` that grows with a text: in a thread when long, so that no stream waits for it."""
    if num_characters > LONG_TEXT:
        return await asyncio.to_thread(work)
    return work()


def body_schema(model: Mapping[str, Any]) -> dict[str, Any]:
    """The part of the OpenAPI page that describes a body read by `read_body`."""
    return {
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": dict(model)}},
        }
    }
