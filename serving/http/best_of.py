"""Best of n in a chat: several answers are drawn, a reward model picks one, and the answer says so.

Knows completions and reward models; `routes_chat` knows what the answer looks like.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fastapi import Request
from fastapi.sse import KEEPALIVE_COMMENT

from serving.completion.checks import check_min_tokens
from serving.completion.completion import Completion
from serving.completion.jobs import CompletionJob
from serving.completion.scoring import ScoreJob, Scoring, answer_job, answer_room
from serving.completion.side_by_side import interleave
from serving.config import ServingLimits
from serving.http.chat_format import ChatFormat
from serving.http.openai_format import stream_error, usage_of
from serving.http.routes_score import scorer_of
from serving.http.run import Run
from serving.http.state import server_of
from serving.models.registry import ServedModel
from serving.protocol.problems import Problem, invalid
from serving.protocol.schema import ChatRequest, Message
from serving.protocol.sse import DONE, frame


def check_best_of(body: ChatRequest, limits: ServingLimits) -> int:
    """How many answers a reward model picks from; 1 where none is to pick."""
    count = 1 if body.best_of is None else body.best_of
    most = limits.max_reward_best_of
    if not 0 < count <= most:
        raise invalid(f"`best_of` must be > 0 and <= {most}. Given: {count}", "best_of")
    if count == 1:
        if body.reward is not None:
            raise invalid("`reward` picks one of several: give `best_of` > 1", "best_of")
        return 1
    if (body.n or 1) != 1:
        raise invalid("`best_of` > 1 gives one answer: leave `n` out", "n")
    if body.temperature == 0:
        raise invalid("you must use sampling when `best_of` is > 1", "temperature")
    if body.tools or body.logprobs:
        word = "tools" if body.tools else "logprobs"
        raise invalid(f"`{word}` cannot be used when `best_of` is > 1", word)
    if body.messages and body.messages[-1].role == "assistant":
        raise invalid("`best_of` > 1 cannot go on with an answer that is begun", "messages")
    return count


@dataclass(frozen=True)
class Picked:
    """The answer that was picked, and how: the score of each, None where it cannot be read."""

    completion: Completion
    scores: list[float | None]
    judge: ServedModel

    def to_json(self) -> dict[str, Any]:
        """What the answer says of how it was made."""
        return {
            "n": len(self.scores),
            "scores": self.scores,
            "reward": self.judge.name,
            "reward_weights_sha256": self.judge.weights_sha256,
        }


class BestOf:
    """The way of one chat whose answers a reward model picks from.

    Problem where the reward model is not served, or scores none.
    """

    def __init__(self, request: Request, body: ChatRequest) -> None:
        self._server = server_of(request)
        self._judge = scorer_of(request, body.reward)
        self._body = body

    def bounded(self, jobs: Sequence[CompletionJob]) -> list[CompletionJob]:
        """The jobs of the answers, none longer than the reward model can read.

        Problem 422 where it cannot read the prompt, or answers as long as they have to be.
        """
        room = answer_room(self._judge, self._body.messages)
        check_min_tokens(self._body, room)
        return [replace(job, max_new_tokens=min(job.max_new_tokens, room)) for job in jobs]

    async def pick(self, run: Run) -> Picked:
        """The finished completion with the highest score, the first of equals.

        Problem 422 where the reward model can read none of them.
        """
        # Templates are no work for the loop.
        jobs = await asyncio.to_thread(lambda: [self._job(one.text) for one in run.completions])
        readable = {at: job for at, job in enumerate(jobs) if isinstance(job, ScoreJob)}
        if not readable:
            why = next(job for job in jobs if isinstance(job, Problem))
            raise invalid(
                f"the reward model {self._judge.name} can read none of the {len(jobs)} answers, "
                f"of which the first: {why.message}; give a smaller `max_tokens`",
                "max_tokens",
            )
        deadline = self._server.config.limits.deadline_seconds
        scoring = Scoring(list(readable.values()), self._server.registry.worker, deadline=deadline)
        scores = dict(zip(readable, await scoring.run(), strict=True))
        best = max(scores, key=scores.__getitem__)
        return Picked(
            run.completions[best], [scores.get(at) for at in range(len(jobs))], self._judge
        )

    def _job(self, answer: str) -> ScoreJob | Problem:
        """The job of an answer, or why the reward model cannot read it."""
        said = [Message(role="assistant", content=answer)]
        try:
            return answer_job(self._judge, self._body.messages, said)
        except Problem as problem:
            return problem

    async def events(self, form: ChatFormat, run: Run, *, with_usage: bool) -> AsyncIterator[bytes]:
        """Frames of a stream: signs of life while answers are written, then the picked one."""
        try:
            async for _, generated in interleave([one.stream() for one in run.completions]):
                if generated is None:
                    yield KEEPALIVE_COMMENT
            picked = await self.pick(run)
            yield frame(form.whole_chunk(picked.completion) | {"best_of": picked.to_json()})
            if with_usage:
                counts = usage_of(run.completions, answers=len(run.completions))
                yield frame(form.usage_chunk(counts))
        except Exception as error:
            yield frame(stream_error(error))
        yield frame(DONE)
