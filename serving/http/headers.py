"""What the headers of an answer say: which weights wrote it, how long it took.

Knows models and completions; does not know routes or bodies.
"""

from __future__ import annotations

from serving.completion.completion import Completion
from serving.completion.jobs import CompletionJob
from serving.models.names import header_value
from serving.models.registry import ServedModel


def model_headers(model: ServedModel) -> dict[str, str]:
    """Headers that say which weights answer."""
    return {"x-adapter-id": header_value(model.name), "x-weights-sha256": model.weights_sha256}


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
