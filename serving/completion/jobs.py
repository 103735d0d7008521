"""Turns a checked request into jobs: which model, which token ids, how to choose, when to stop.

Knows the bodies of the three generation routes; does not know HTTP, engines or threads.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from serving.completion.chat_template import render_chat
from serving.completion.checks import (
    check_drawn,
    check_extras,
    check_min_tokens,
    check_n,
    check_prompts,
    check_top_logprobs,
    encode,
    fit_prompt,
    openai_sampling,
    read_prompt,
    read_sampling,
)
from serving.completion.detokenize import plain_text
from serving.completion.grammar import from_schema, translate
from serving.completion.tools import ToolPlan, plan_tools
from serving.config import ServingLimits
from serving.engine.sampling import SamplingParams
from serving.models.registry import ServedModel
from serving.protocol.problems import invalid
from serving.protocol.schema import ChatRequest, CompletionRequest, GenerateRequest, OpenAIRequest


@dataclass(frozen=True)
class CompletionJob:
    """One completion to make.

    `keep_stop` leaves the stop string in the text (TGI) or cuts it off (OpenAI). `grammar` is
    one that `completion.grammar` translated; with `tools` it is that of a call. `num_characters`
    counts the prompt's text; `echo` is that text where the answer begins with it.
    """

    model: ServedModel
    prompt: tuple[int, ...]
    max_new_tokens: int
    sampling: SamplingParams
    stops: tuple[str, ...] = ()
    num_top: int = 0
    prompt_logprobs: bool = False
    keep_stop: bool = True
    grammar: str | None = None
    tools: ToolPlan | None = None
    num_characters: int = 0
    min_tokens: int = 0
    ignore_eos: bool = False
    echo: str | None = None

    @property
    def eos_ids(self) -> frozenset[int]:
        """Tokens that end the answer."""
        return frozenset() if self.ignore_eos else self.model.eos_ids


def generate_jobs(
    model: ServedModel,
    body: GenerateRequest,
    limits: ServingLimits,
    *,
    best_of: int,
    prefill_logprobs: bool,
) -> list[CompletionJob]:
    """The jobs of a generate request: as many as `best_of` chooses from."""
    return [
        _generate_job(model, body, limits, prefill_logprobs=prefill_logprobs)
        for _ in range(best_of)
    ]


def _generate_job(
    model: ServedModel, body: GenerateRequest, limits: ServingLimits, *, prefill_logprobs: bool
) -> CompletionJob:
    inputs, parameters = body.inputs, body.parameters
    sampling = read_sampling(parameters, limits)
    if parameters.watermark:
        raise invalid("`watermark` is not supported")
    if not inputs:
        raise invalid("`inputs` cannot be empty")
    ids = encode(model.tokenizer, inputs)
    prompt, max_new = fit_prompt(ids, model, limits, parameters.max_new_tokens, parameters.truncate)
    grammar = translate(parameters.grammar) if parameters.grammar is not None else None
    return CompletionJob(
        model,
        prompt,
        max_new,
        sampling,
        tuple(parameters.stop),
        parameters.top_n_tokens or 0,
        parameters.decoder_input_details and prefill_logprobs,
        grammar=grammar,
        num_characters=len(inputs),
    )


def text_jobs(
    model: ServedModel, body: CompletionRequest, limits: ServingLimits, *, keep_stop: bool
) -> list[CompletionJob]:
    """The jobs of a /v1/completions request: as many for each prompt as the best `n` are chosen
    from, prompt by prompt.

    Log probabilities of a prompt are noted where it is told with them. `max_tokens` 0 asks for the
    prompt alone; the engine writes one token all the same, which nobody is told.
    """
    prompts, drawn = check_prompts(body, limits), check_drawn(body, limits)
    num_top, with_logprobs = check_top_logprobs(body, limits), body.logprobs is not None
    jobs = []
    for prompt in prompts:
        ids = read_prompt(prompt, model, special=body.add_special_tokens)
        job = _openai_job(model, len(prompt), ids, body, limits, keep_stop=keep_stop)
        if body.echo:
            text = prompt if isinstance(prompt, str) else plain_text(model.tokenizer, prompt)
            job = replace(job, echo=text, prompt_logprobs=with_logprobs)
        jobs += _with_own_seeds(replace(job, num_top=num_top), drawn)
    return jobs


def chat_jobs(
    model: ServedModel,
    body: ChatRequest,
    limits: ServingLimits,
    *,
    keep_stop: bool,
    with_tools: bool = True,
    best_of: int = 1,
) -> list[CompletionJob]:
    """The jobs of a chat: `n` answers, which write calls where tools are to be called.

    With `best_of` > 1 so many answers, of which one is picked.
    """
    tools = plan_tools(body) if with_tools else None
    n, num_top = check_n(body, limits), check_top_logprobs(body, limits)
    grammar = None
    if tools is not None:
        grammar = from_schema(tools.schema())
    elif body.response_format is not None and body.response_format.type != "text":
        grammar = translate(body.response_format)
    if body.max_tokens == 0:
        raise invalid("`max_new_tokens` must be strictly positive", "max_tokens")
    text = render_chat(model, body, tools)
    ids = encode(model.tokenizer, text, special=False)
    job = _openai_job(model, len(text), ids, body, limits, keep_stop=keep_stop)
    job = replace(job, num_top=num_top, grammar=grammar, tools=tools)
    return _with_own_seeds(job, max(n, best_of))


def _openai_job(
    model: ServedModel,
    num_characters: int,
    ids: list[int],
    body: OpenAIRequest,
    limits: ServingLimits,
    *,
    keep_stop: bool,
) -> CompletionJob:
    """The job of a /v1 request; more tokens than there is room for are cut to the room."""
    check_extras(body)
    sampling = openai_sampling(body, limits)
    size = model.engine.model.config.get_text_config().vocab_size
    if any(token >= size for token, _ in sampling.logit_bias):
        raise invalid(f"`logit_bias` has a token id that is not below {size}", "logit_bias")
    wanted = body.max_tokens
    if wanted is not None and wanted < 0:
        raise invalid("`max_new_tokens` must be strictly positive", "max_tokens")
    room = max(model.max_total_tokens - len(ids), 0)
    prompt, max_new = fit_prompt(
        ids, model, limits, min(max(wanted, 1), room) if wanted is not None else None, None
    )
    return CompletionJob(
        model, prompt, max_new, sampling, tuple(body.stop), keep_stop=keep_stop,
        num_characters=num_characters, ignore_eos=body.ignore_eos,
        min_tokens=check_min_tokens(body, max_new),
    )  # fmt: skip


def _with_own_seeds(job: CompletionJob, n: int) -> list[CompletionJob]:
    """The job `n` times, each with a seed of its own: the first has the one that was given."""
    seed = job.sampling.seed
    if seed is None:
        return [job] * n
    return [replace(job, sampling=replace(job.sampling, seed=(seed + i) % 2**64)) for i in range(n)]
