"""Ask one server for one answer, as a stream; speak the wire words so that no one else has to.

Every server is reached through `huggingface_hub.AsyncInferenceClient`, the kept client of the
text-generation-inference API. Knows no battle, no store and no page.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from huggingface_hub import AsyncInferenceClient

from arena.backends.bounds import ANSWER
from arena.backends.completions import stream_completion
from arena.backends.failures import WIRE_ERRORS, answer_error_of, hushed
from arena.backends.http import http_client, key_of
from arena.backends.rendering import rendered
from arena.backends.streams import AnswerEnd, AnswerError, AnswerPiece
from arena.backends.wire_values import WholeCharacters, count_of, logprob_of, piece_of, word_of
from arena.config.chat_template import ChatTemplate
from arena.values.battle import AskAs, ChatMessage, Participant, SamplingSettings

WireApi = Literal["tgi", "openai"]
VARIED_TEMPERATURE = 0.7
PROMPT_SECONDS = 2.0


@dataclass(frozen=True)
class Target:
    """A participant with the way to reach it.

    `wire` says which routes the server has: `tgi` knows `/generate_stream` and
    `/chat_tokenize`, `openai` only what is under `/v1`. `adapter_id` is None where the server
    must not be told (a plain TGI knows its one model under no name). `is_mode_open`: nobody has
    said whether the model has a chat template. `template`: what the page renders itself.
    `is_checkpoint`: of a run that goes on, asked by name alone.
    """

    participant: Participant
    url: str
    wire: WireApi = "openai"
    adapter_id: str | None = None
    max_model_len: int | None = None
    key_env: str | None = None
    is_mode_open: bool = False
    template: ChatTemplate | None = None
    is_checkpoint: bool = False

    @property
    def name(self) -> str:
        """What the leaderboard shows."""
        return self.participant.name

    @property
    def key(self) -> str:
        """The server's own key, else a dash: a token saved for the hub is never sent."""
        return key_of(self.key_env)

    def sampling(self) -> SamplingSettings:
        """The participant's sampling; the answer gets at most half of what the model can hold."""
        wanted = self.participant.sampling
        limit = wanted.max_new_tokens or 160
        if self.max_model_len:
            limit = min(limit, max(1, self.max_model_len // 2))
        return SamplingSettings(**{**vars(wanted), "max_new_tokens": limit})


def varied(target: Target) -> Target:
    """The same participant, drawing where it would take the likeliest token each time."""
    sampling = target.participant.sampling
    if sampling.temperature:
        return target
    drawing = replace(sampling, temperature=VARIED_TEMPERATURE)
    return replace(target, participant=replace(target.participant, sampling=drawing))


async def stream_answer(
    target: Target, messages: Sequence[ChatMessage], secrets: Collection[str] = ()
) -> AsyncGenerator[AnswerPiece | AnswerEnd, None]:
    """The answer to the last message: pieces of text, then exactly one `AnswerEnd`.

    Args:
        target: whom to ask, and how.
        messages: the conversation so far, its last message the prompt; no system message.
        secrets: names that what the server says of a failure may not hold.

    Raises AnswerError when the server refuses, breaks off or writes nonsense. Closing the
    generator, or cancelling the task that reads it, closes the connection at once.
    """
    characters = WholeCharacters()
    try:
        async with contextlib.aclosing(_parts(target, messages)) as parts:
            async for part in parts:
                if isinstance(part, AnswerEnd):
                    if rest := characters.rest():
                        yield AnswerPiece(rest)
                    yield part
                    return
                if text := characters.take(part.text):
                    yield replace(part, text=text) if text != part.text else part
    except AnswerError as error:
        raise hushed(error, secrets) from error.__cause__
    except WIRE_ERRORS as error:
        raise hushed(answer_error_of(error), secrets) from error


async def _parts(
    target: Target, messages: Sequence[ChatMessage]
) -> AsyncGenerator[AnswerPiece | AnswerEnd, None]:
    """The answer by the route that this server has for this way of asking."""
    is_completion = target.participant.ask_as is AskAs.COMPLETION
    if is_completion and target.wire == "openai":
        async with http_client(bounds=ANSWER) as client:
            model, sampling = target.participant.model, target.sampling()
            prompt = await completion_prompt(target, messages)
            async for part in stream_completion(
                client, target.url, target.key, model, prompt, sampling
            ):
                yield part
        return
    async with AsyncInferenceClient(base_url=target.url, token=target.key) as client:
        ask = _complete if is_completion else _chat
        async for part in ask(client, target, messages):
            yield part


async def _complete(
    client: Any, target: Target, messages: Sequence[ChatMessage]
) -> AsyncGenerator[AnswerPiece | AnswerEnd, None]:
    """Completion mode: the model sees the text it is given and nothing else."""
    sampling = target.sampling()
    events: AsyncIterable[Any] = await client.text_generation(
        await completion_prompt(target, messages),
        model=f"{target.url}/generate_stream",
        stream=True,
        details=True,
        return_full_text=False,
        adapter_id=target.adapter_id,
        max_new_tokens=sampling.max_new_tokens,
        repetition_penalty=sampling.repetition_penalty,
        seed=sampling.seed,
        stop=list(sampling.stop) or None,
        **_sampled(sampling),
    )
    async for event in events:
        token = event.token
        text = "" if token is None or token.special else piece_of(token.text)
        if text:
            yield AnswerPiece(text, logprob_of(token.logprob))
        if event.details is not None or event.generated_text is not None:
            details = event.details
            yield AnswerEnd(
                finish_reason=(word_of(details.finish_reason) if details else None) or "unknown",
                num_tokens=count_of(details.generated_tokens) if details else None,
                model=target.participant.model,
                weights_sha256=word_of(_extra(event, "weights_sha256")),
                num_prompt_tokens=count_of(_extra(details, "input_length")) if details else None,
            )


async def _chat(
    client: Any, target: Target, messages: Sequence[ChatMessage]
) -> AsyncGenerator[AnswerPiece | AnswerEnd, None]:
    """Chat mode: the server renders the messages through the model's own template."""
    sampling = target.sampling()
    chunks: AsyncIterable[Any] = await client.chat_completion(
        with_system(target.participant, messages),
        model=target.url,
        stream=True,
        stream_options={"include_usage": True},
        max_tokens=sampling.max_new_tokens,
        seed=sampling.seed,
        stop=list(sampling.stop) or None,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        # Others may refuse the word, and so does a server that is to pick an answer.
        logprobs=True if target.wire == "tgi" and not sampling.best_of else None,
        extra_body={"model": target.participant.model, **_beyond_openai(sampling)},
    )
    reason: str | None = None
    usage: Any = None
    model = weights = None
    has_begun = False
    async for chunk in chunks:
        usage = chunk.usage or usage
        model = word_of(chunk.model) or model
        weights = word_of(_extra(chunk, "weights_sha256")) or weights
        for choice in chunk.choices or []:
            text = piece_of(choice.delta.content) if choice.delta is not None else ""
            text = text if has_begun else text.lstrip()  # the template's space is no answer
            if text:
                has_begun = True
                yield AnswerPiece(text, _logprob(choice))
            reason = word_of(choice.finish_reason) or reason
    if reason is None:
        raise AnswerError("cut-off", "The server broke off in the middle of the answer.")
    yield AnswerEnd(
        finish_reason=reason,
        num_tokens=count_of(usage.completion_tokens) if usage else None,
        model=model,
        weights_sha256=weights,
        num_prompt_tokens=count_of(usage.prompt_tokens) if usage else None,
    )


def _sampled(sampling: SamplingSettings) -> dict[str, Any]:
    """TGI refuses a temperature of 0 and a top_p of 1: greedy is to say nothing."""
    if not sampling.temperature:
        return {"do_sample": False}
    top_p = sampling.top_p if sampling.top_p is not None and sampling.top_p < 1 else None
    return {
        "do_sample": True,
        "temperature": sampling.temperature,
        "top_p": top_p,
        "top_k": sampling.top_k,
    }


def _beyond_openai(sampling: SamplingSettings) -> dict[str, Any]:
    """What OpenAI's API lacks and other servers take; named only where somebody asked for it."""
    words = {
        "top_k": sampling.top_k,
        "repetition_penalty": sampling.repetition_penalty,
        "best_of": sampling.best_of,
        "reward": sampling.reward,
    }
    return {word: value for word, value in words.items() if value is not None}


async def completion_prompt(target: Target, messages: Sequence[ChatMessage]) -> str:
    """What the model continues: the named template filled in, else the plain prompt."""
    if target.template is None:
        return plain_prompt(messages)
    return await rendered(target.template, with_system(target.participant, messages))


def plain_prompt(messages: Sequence[ChatMessage]) -> str:
    """What a model in completion mode is given: the turns as paragraphs, nothing added."""
    return "\n\n".join(message["content"] for message in messages)


def with_system(participant: Participant, messages: Sequence[ChatMessage]) -> list[dict[str, str]]:
    """The messages as sent: the participant's system prompt first, if it has one."""
    system = [{"role": "system", "content": participant.system_prompt}]
    return (system if participant.system_prompt else []) + [dict(message) for message in messages]


async def prompt_sent(target: Target, messages: Sequence[ChatMessage]) -> str:
    """The exact text the model was given, as far as its server tells.

    A chat server with `/chat_tokenize` renders its template for us; from any other we know the
    messages only, and return those as JSON.
    """
    sent = with_system(target.participant, messages)
    as_json = json.dumps(sent, ensure_ascii=False)
    if target.participant.ask_as is AskAs.COMPLETION:
        try:
            return await completion_prompt(target, messages)
        except AnswerError:
            return as_json  # the answer failed by it as well; this is what it was made of
    if target.wire != "tgi":
        return as_json
    body = {"model": target.participant.model, "messages": sent}
    try:
        async with asyncio.timeout(PROMPT_SECONDS), http_client() as client:
            key = {"authorization": f"Bearer {target.key}"}
            reply = await client.post(f"{target.url}/chat_tokenize", json=body, headers=key)
        return str(reply.json()["templated_text"]) if reply.status_code == 200 else as_json
    except WIRE_ERRORS:
        return as_json  # the answer is what counts; the messages are true, if less exact


def _logprob(choice: Any) -> float | None:
    """The log-probability of a chunk's tokens together; None where the server does not tell."""
    told = getattr(choice.logprobs, "content", None) if choice.logprobs else None
    if not told:
        return None
    values = [logprob_of(token.logprob) for token in told]
    return None if None in values else logprob_of(sum(value for value in values if value))


def _extra(value: Any, key: str) -> Any:
    """A field that our server adds and others do not; None where it is missing."""
    return value.get(key) if isinstance(value, Mapping) else getattr(value, key, None)
