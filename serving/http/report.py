"""What is counted and logged of a completion that ended, whichever way.

Knows completions and the server's metrics; does not know routes or answers.
"""

from __future__ import annotations

import logging

from serving.completion.completion import Completion
from serving.errors import OutOfMemoryFailure
from serving.http.metrics import Metrics

logger = logging.getLogger(__name__)


def report(completion: Completion, metrics: Metrics, *, log_prompts: bool) -> None:
    """Count a completion and log a line; with `log_prompts` one that tells its texts."""
    job, times, made = completion.job, completion.times, completion.num_generated
    model = job.model.name
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
        _texts(completion) if log_prompts else "",
    )


def failure_label(failure: Exception | None) -> str:
    """TGI's label of a request that began and did not end well; None: the caller left."""
    if failure is None:
        return "dropped"
    return "overloaded" if isinstance(failure, OutOfMemoryFailure) else "generation"


def _texts(completion: Completion) -> str:
    prompt = completion.job.model.tokenizer.decode(list(completion.job.prompt))
    return f" prompt={prompt!r} text={completion.text!r}"
