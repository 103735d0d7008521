"""Prompts and completions scored by a reward model: token ids go to the engine, numbers come back.

The ids are those of training: the prompt by itself as the chat template renders it, then the
answer up to the token that ends it. Knows messages and the engine's thread; no HTTP shapes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from serving.completion.checks import encode
from serving.completion.messages import plain_message
from serving.engine.request import EngineRequest, Event, ScoreEvent
from serving.engine.worker import Worker
from serving.errors import EngineFailure
from serving.models.registry import ServedModel
from serving.protocol.problems import Problem, invalid
from serving.protocol.schema import Message


@dataclass(frozen=True)
class ScoreJob:
    """One row to score: ids that end with the token at which an answer ends."""

    model: ServedModel
    ids: tuple[int, ...]


def answer_job(
    model: ServedModel, prompt: Sequence[Message], completion: Sequence[Message]
) -> ScoreJob:
    """The job of a prompt and the answer to it; Problem 422 where it cannot be scored."""
    before, answer = _ids(model, prompt, completion)
    return _checked(model, [*before, *answer])


def answer_room(model: ServedModel, prompt: Sequence[Message]) -> int:
    """How many tokens of its own an answer may have, so that the model can score it.

    Written again as a reward model reads it, a text may have a few tokens more or less. Problem 422
    where the prompt leaves no room.
    """
    before, shortest = _ids(model, prompt, [Message(role="assistant", content=".")])
    # What a template writes around an answer, its end included, takes its places as well.
    taken = len(before) + len(shortest) - 1
    if taken >= model.max_total_tokens:
        raise invalid(
            f"the reward model {model.name} reads at most {model.max_total_tokens} tokens, and "
            f"the prompt with an answer's end takes {taken}; shorten it",
            "messages",
        )
    return model.max_total_tokens - taken


def _ids(
    model: ServedModel, prompt: Sequence[Message], completion: Sequence[Message]
) -> tuple[list[int], list[int]]:
    """Ids of a prompt, and of its answer up to the token that ends it."""
    if not prompt or not completion:
        raise invalid("`prompt` and `completion` cannot be empty", "prompt")
    if completion[-1].role != "assistant":
        raise invalid("`completion` does not end with a message of the assistant", "completion")
    template = str(model.tokenizer.chat_template)
    messages = [plain_message(message, template) for message in (*prompt, *completion)]
    asked = _render(model, messages[:-1], ends=False)
    whole = _render(model, messages, ends=True)
    if not whole.startswith(asked):
        raise Problem(
            422,
            "template_error",
            f"Template error: {model.name}'s template writes the answer elsewhere than behind its "
            "prompt",
        )
    before = encode(model.tokenizer, asked, special=False)
    answer = encode(model.tokenizer, whole[len(asked) :], special=False)
    ends = [place for place, token in enumerate(answer) if token == model.tokenizer.eos_token_id]
    if not ends:
        raise Problem(
            422, "template_error", f"Template error: {model.name}'s template does not end answers"
        )
    return before, answer[: ends[-1] + 1]


def text_job(model: ServedModel, text: str) -> ScoreJob:
    """The job of a whole text, scored at its last token as it stands."""
    if not text:
        raise invalid("`inputs` cannot be empty")
    return _checked(model, encode(model.tokenizer, text))


def _checked(model: ServedModel, ids: list[int]) -> ScoreJob:
    most = model.max_total_tokens
    if len(ids) > most:
        raise invalid(
            f"prompt and completion must have at most {most} tokens together. Given: {len(ids)}"
        )
    return ScoreJob(model, tuple(ids))


def _render(model: ServedModel, messages: list[dict[str, Any]], *, ends: bool) -> str:
    if not model.has_chat_template:
        raise Problem(
            422,
            "template_error",
            f"Template error: {model.name} has no chat template",
            param="model",
        )
    try:
        return model.templates.render(model.tokenizer, messages, ended=ends)
    except ValueError as error:
        line = " ".join(str(error).split())
        raise Problem(422, "template_error", f"Template error: {line}") from error


class Scoring:
    """Jobs that are scored together. Await `run` once, in the loop's thread."""

    def __init__(self, jobs: Sequence[ScoreJob], worker: Worker, *, deadline: float = 0.0) -> None:
        self._worker = worker
        self._deadline = deadline
        self._loop = asyncio.get_running_loop()
        self._made: list[tuple[ScoreJob, EngineRequest, asyncio.Future[float]]] = []
        for job in jobs:
            self._made.append(self._request(job))

    def cancel(self) -> None:
        """Give all rows up; the engine drops them before its next step."""
        for _, request, score in self._made:
            request.cancel()
            score.cancel()

    async def run(self) -> list[float]:
        """The scores in the order of the jobs; EngineFailure when the engine gives up."""
        for job, request, _ in self._made:
            self._worker.submit(job.model.engine, request)
        try:
            async with asyncio.timeout(self._deadline or None):
                return list(await asyncio.gather(*(score for *_, score in self._made)))
        except TimeoutError as error:
            raise EngineFailure(f"the deadline of {self._deadline:g} s passed") from error
        except asyncio.CancelledError:
            if any(request.cancelled.is_set() for _, request, _ in self._made):
                raise EngineFailure("the caller left") from None
            raise
        finally:
            self.cancel()

    def _request(self, job: ScoreJob) -> tuple[ScoreJob, EngineRequest, asyncio.Future[float]]:
        score: asyncio.Future[float] = self._loop.create_future()

        def settle(event: Event) -> None:
            if score.done():
                return
            if isinstance(event, ScoreEvent):
                score.set_result(event.score)
            else:
                score.set_exception(getattr(event, "error", EngineFailure("no score came")))

        request = EngineRequest(
            job.ids,
            0,
            lambda event: self._worker.notify(
                self._loop, lambda: settle(event), lambda: request.cancel()
            ),
            adapter=job.model.adapter,
            head=job.model.head,
        )
        return job, request, score
