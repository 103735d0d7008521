"""Best of n in a chat: several answers are drawn, a reward model picks one, and the answer says so.

Knows completions and reward models; `routes_chat` knows what the answer looks like.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from fastapi import Request
from fastapi.sse import KEEPALIVE_COMMENT

from serving.completion.completion import Completion
from serving.completion.scoring import Scoring, answer_job
from serving.completion.side_by_side import interleave
from serving.config import ServingLimits
from serving.http.chat_format import ChatFormat
from serving.http.openai_format import stream_error, usage_of
from serving.http.routes_score import scorer_of
from serving.http.run import Run
from serving.http.state import server_of
from serving.models.registry import ServedModel
from serving.protocol.problems import invalid
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
    """The answer that was picked, and how."""

    completion: Completion
    scores: list[float]
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
        self._asked = body.messages

    async def pick(self, run: Run) -> Picked:
        """The finished completion with the highest score, the first of equals."""
        jobs = [
            answer_job(self._judge, self._asked, [Message(role="assistant", content=ended.text)])
            for ended in run.completions
        ]
        deadline = self._server.config.limits.deadline_seconds
        scores = await Scoring(jobs, self._server.registry.worker, deadline=deadline).run()
        best = max(range(len(scores)), key=scores.__getitem__)
        return Picked(run.completions[best], scores, self._judge)

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
