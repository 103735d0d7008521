"""Checks a request's values, in TGI's order and words.

Knows limits and tokenizers; does not know templates, HTTP routes or threads.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

from serving.config import ServingLimits
from serving.engine.sampling import SamplingParams
from serving.errors import is_panic
from serving.models.registry import ServedModel
from serving.protocol.problems import Problem, invalid
from serving.protocol.schema import (
    ChatRequest,
    CompletionRequest,
    GenerateParameters,
    OpenAIRequest,
)

# Keys of /v1 that change no answer, and values of others that say what is done in any case.
HARMLESS = {
    "user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key",
    "prompt_cache_retention", "parallel_tool_calls", "request_id", "priority", "cache_salt",
}  # fmt: skip
NEUTRAL = {
    "skip_special_tokens": True, "spaces_between_special_tokens": True, "length_penalty": 1,
    "modalities": ["text"], "best_of": 1, "typical_p": 1,
}  # fmt: skip


def check_stream(parameters: GenerateParameters) -> None:
    """What a stream cannot do."""
    if (parameters.best_of or 1) != 1:
        raise invalid("`best_of` != 1 is not supported when streaming tokens")
    if parameters.decoder_input_details:
        raise invalid("`decoder_input_details` == true is not supported when streaming tokens")


def check_best_of(parameters: GenerateParameters, limits: ServingLimits) -> int:
    """The number of completions to choose from."""
    best_of = 1 if parameters.best_of is None else parameters.best_of
    if best_of > 1 and limits.max_best_of == 1:
        raise invalid("`best_of` != 1 is not allowed for this endpoint")
    if not 0 < best_of <= limits.max_best_of:
        raise invalid(f"`best_of` must be > 0 and <= {limits.max_best_of}. Given: {best_of}")
    return best_of


def wants_sampling(parameters: GenerateParameters) -> bool:
    """Sampling is on when asked for, or by any parameter that only sampling has."""
    return (
        parameters.do_sample
        or parameters.temperature not in (None, 1.0)
        or parameters.top_k is not None
        or parameters.top_p is not None
        or parameters.typical_p is not None
    )


def read_sampling(parameters: GenerateParameters, limits: ServingLimits) -> SamplingParams:
    """Check the sampling values one after the other; the first bad one is named."""
    p = parameters
    if (p.best_of or 1) > 1 and not wants_sampling(p):
        raise invalid("you must use sampling when `best_of` is > 1")
    if p.temperature is not None and p.temperature <= 0:
        raise invalid("`temperature` must be strictly positive")
    if p.repetition_penalty is not None and p.repetition_penalty <= 0:
        raise invalid("`repetition_penalty` must be strictly positive")
    if p.frequency_penalty is not None and not -2.0 <= p.frequency_penalty <= 2.0:
        raise invalid("`frequency_penalty` must be >= -2.0 and <= 2.0")
    if p.top_p is not None and not 0 < p.top_p < 1:
        raise invalid("`top_p` must be > 0.0 and < 1.0")
    if p.typical_p is not None and not 0 < p.typical_p < 1:
        raise invalid("`typical_p` must be > 0.0 and < 1.0")
    if p.top_k is not None and p.top_k <= 0:
        raise invalid("`top_k` must be strictly positive")
    if p.max_new_tokens is not None and p.max_new_tokens <= 0:
        raise invalid("`max_new_tokens` must be strictly positive")
    check_stops(p.stop, limits)
    if p.seed is not None and (p.best_of or 1) > 1:
        raise invalid("`seed` must not be set when `best_of` > 1")
    if p.top_n_tokens is not None and not 0 <= p.top_n_tokens <= limits.max_top_n_tokens:
        raise invalid(
            f"`top_n_tokens` must be >= 0 and <= {limits.max_top_n_tokens}. Given: {p.top_n_tokens}"
        )
    sample = wants_sampling(p)
    return SamplingParams(
        do_sample=sample,
        temperature=1.0 if p.temperature is None else p.temperature,
        top_k=p.top_k or 0,
        top_p=1.0 if p.top_p is None else p.top_p,
        typical_p=1.0 if p.typical_p is None else p.typical_p,
        repetition_penalty=1.0 if p.repetition_penalty is None else p.repetition_penalty,
        frequency_penalty=p.frequency_penalty or 0.0,
        seed=draw_seed(p.seed) if sample else None,
    )


def check_stops(stops: Sequence[str], limits: ServingLimits) -> None:
    """At most so many stop strings."""
    if len(stops) > limits.max_stop_sequences:
        raise invalid(
            f"`stop` supports up to {limits.max_stop_sequences} stop sequences. Given: {len(stops)}"
        )


def draw_seed(given: int | None) -> int:
    """The given seed, else a fresh one that the answer reports."""
    if given is None:
        return secrets.randbits(63)
    if not 0 <= given < 2**64:
        raise invalid(f"`seed` must be >= 0 and < 2**64. Given: {given}")
    return given


def encode(tokenizer: Any, text: str, *, special: bool = True) -> list[int]:
    """Token ids of `text`; text that is no valid Unicode, or that its rules fail on, is refused."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise invalid(f"`inputs` holds a lone surrogate at {error.start}; send Unicode") from error
    try:
        return list(tokenizer(text, add_special_tokens=special)["input_ids"])
    except BaseException as error:  # the library in Rust panics outside of Exception
        if not isinstance(error, Exception) and not is_panic(error):
            raise
        line = " ".join(str(error).split())[:300]
        raise invalid(f"the model's tokenizer cannot read `inputs`: {line}") from error


def input_limit(model: ServedModel, limits: ServingLimits) -> int:
    """Longest prompt in tokens: what is configured, and room for one new token."""
    most = model.max_total_tokens - 1
    return min(most, limits.max_input_tokens) if limits.max_input_tokens else most


def fit_prompt(
    ids: list[int],
    model: ServedModel,
    limits: ServingLimits,
    max_new: int | None,
    truncate: int | None,
) -> tuple[tuple[int, ...], int]:
    """Truncate to the last tokens, check lengths, and settle how many tokens may be made."""
    longest, total = input_limit(model, limits), model.max_total_tokens
    if truncate is not None:
        if not 0 < truncate <= longest:
            raise invalid(
                f"`truncate` must be strictly positive and less than {longest}. Given: {truncate}"
            )
        ids = ids[-truncate:]
    if not ids:
        raise invalid("`inputs` cannot be empty")
    if max_new is None:
        max_new = max(total - len(ids), 0)
    if len(ids) + max_new > total:
        raise invalid(
            f"`inputs` tokens + `max_new_tokens` must be <= {total}. "
            f"Given: {len(ids)} `inputs` tokens and {max_new} `max_new_tokens`"
        )
    if len(ids) > longest:
        raise invalid(f"`inputs` must have less than {longest} tokens. Given: {len(ids)}")
    return tuple(ids), max_new


def openai_sampling(request: OpenAIRequest, limits: ServingLimits) -> SamplingParams:
    """Sampling of a /v1 request: temperature 0 is greedy, absent is 1; top_p 1, top_k 0 and -1,
    and min_p 0 are off."""
    temperature = request.temperature
    top_p = None if request.top_p == 1.0 else request.top_p
    checked = GenerateParameters(
        do_sample=True,
        temperature=temperature or None,
        top_p=top_p,
        top_k=None if request.top_k in (0, -1) else request.top_k,
        frequency_penalty=request.frequency_penalty,
        repetition_penalty=request.repetition_penalty,
        stop=request.stop,
        seed=request.seed,
    )
    sampling = read_sampling(checked, limits)
    presence = request.presence_penalty or 0.0
    if not -2.0 <= presence <= 2.0:
        raise invalid("`presence_penalty` must be >= -2.0 and <= 2.0")
    min_p = request.min_p or 0.0
    if not 0 <= min_p <= 1:
        raise invalid("`min_p` must be >= 0.0 and <= 1.0", "min_p")
    greedy = temperature == 0
    return SamplingParams(
        do_sample=not greedy,
        temperature=sampling.temperature,
        top_k=0 if greedy else sampling.top_k,
        top_p=1.0 if greedy else sampling.top_p,
        min_p=0.0 if greedy else min_p,
        repetition_penalty=sampling.repetition_penalty,
        frequency_penalty=sampling.frequency_penalty,
        presence_penalty=presence,
        seed=None if greedy else sampling.seed,
        logit_bias=read_bias(request.logit_bias),
    )


def read_bias(bias: dict[str, float] | list[Any] | None) -> tuple[tuple[int, float], ...]:
    """OpenAI's {token id: bias}; TGI's list form says nothing and is refused unless empty."""
    if not bias:
        return ()
    if isinstance(bias, list) or not all(key.isdecimal() for key in bias):
        raise invalid("`logit_bias` must be an object of token ids and numbers", "logit_bias")
    if not all(-100 <= value <= 100 for value in bias.values()):
        raise invalid("`logit_bias` values must be >= -100 and <= 100", "logit_bias")
    return tuple((int(key), float(value)) for key, value in bias.items())


def check_extras(request: OpenAIRequest) -> None:
    """Problem 422 for a key that is not known here and would change the answer."""
    for key, value in (request.model_extra or {}).items():
        if key not in HARMLESS and value and value != NEUTRAL.get(key):
            raise invalid(f"`{key[:80]}` is not supported; leave it out", key[:80])


def check_n(request: OpenAIRequest, limits: ServingLimits, num_prompts: int = 1) -> int:
    """How many answers to each prompt are asked for."""
    n, most = 1 if request.n is None else request.n, limits.max_client_batch_size // num_prompts
    if not 0 < n <= most:
        raise invalid(f"`n` must be > 0 and <= {most}. Given: {n}", "n")
    return n


def check_drawn(request: CompletionRequest, limits: ServingLimits) -> int:
    """How many answers to each prompt are made, of which the best `n` are told."""
    num_prompts = len(request.prompts)
    n = check_n(request, limits, num_prompts)
    # OpenAI takes 0, as it takes no `best_of` at all.
    best_of, most = request.best_of or n, limits.max_client_batch_size // num_prompts
    if not n <= best_of <= most:
        raise invalid(f"`best_of` must be >= {n} and <= {most}. Given: {best_of}", "best_of")
    if best_of > n and request.stream:
        raise invalid("`best_of` > `n` is not supported when streaming tokens", "best_of")
    return best_of


def check_min_tokens(request: OpenAIRequest, max_new: int) -> int:
    """How many tokens an answer has before its end may come."""
    count = request.min_tokens or 0
    if not 0 <= count <= max_new:
        raise invalid(
            f"`min_tokens` must be >= 0 and <= {max_new}, the most tokens there may be. "
            f"Given: {count}",
            "min_tokens",
        )
    return count


def read_prompt(prompt: str | list[int], model: ServedModel, *, special: bool) -> list[int]:
    """Token ids of a prompt that is a text, or ids already, which must be the model's."""
    if isinstance(prompt, str):
        return encode(model.tokenizer, prompt, special=special)
    size = model.engine.model.config.get_text_config().vocab_size
    wrong = [token for token in prompt if not 0 <= token < size]
    if wrong:
        raise invalid(f"`prompt` has the token id {wrong[0]}, not from 0 to {size - 1}", "prompt")
    return prompt


def check_prompts(request: CompletionRequest, limits: ServingLimits) -> list[str | list[int]]:
    """The prompts of a /v1/completions request; Problem 422 for what TGI does not take."""
    if request.suffix is not None:
        raise Problem(
            422,
            "suffix not supported",
            "Suffix is not supported and can be achieved by preprocessing the prompt.",
        )
    if not request.prompts or not all(request.prompts):
        raise invalid("`inputs` cannot be empty", "prompt")
    most = limits.max_client_batch_size
    if len(request.prompts) > most:
        raise Problem(
            422,
            "batch size exceeded",
            f"Number of prompts exceeds the maximum allowed batch size of {most}",
        )
    return request.prompts


def check_top_logprobs(request: ChatRequest | CompletionRequest, limits: ServingLimits) -> int:
    """How many likely tokens are listed beside each of the answer's own."""
    most = limits.max_top_logprobs
    if isinstance(request, CompletionRequest):
        name, num_top = "logprobs", request.logprobs or 0
    else:
        name, num_top = "top_logprobs", request.top_logprobs or 0
        if num_top and not request.logprobs:
            raise invalid("`top_logprobs` needs `logprobs` to be true", name)
    if not 0 <= num_top <= most:
        raise invalid(f"`{name}` must be >= 0 and <= {most}. Given: {num_top}", name)
    return num_top
