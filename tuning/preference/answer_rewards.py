"""Rewards of answers that a program wrote: by the checks of their prompts, or by a reward model.

A program may write what a reward model cannot read: written again, an answer can be longer than its
context, or spell a special token. Such an answer is counted, and is the worst of its prompt: its
reward is the lowest of the prompt's other answers, or that of `NOTHING` where that is lower. Knows
prompts and scorers; knows no run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from tuning.data.fields import Message
from tuning.preference.prompts import JudgedPrompt

if TYPE_CHECKING:
    from tuning.models.scorer import Scorer

NOTHING = "."
"""The answer that an answer counts as that cannot be read; some templates take no empty one."""


@dataclass(frozen=True)
class Rewarded:
    """A reward for each answer, and how many of the answers could not be read."""

    rewards: list[float]
    unread: int = 0


class Rewards(Protocol):
    """What judges answers."""

    def room(self, prompt: JudgedPrompt) -> int | None:
        """How many tokens an answer to a prompt may have; None where any number is read.

        TuningError names a prompt that cannot be read at all.
        """
        ...

    def __call__(self, prompts: Sequence[JudgedPrompt], answers: Sequence[str]) -> Rewarded:
        """A reward for each answer to its prompt; higher is better."""
        ...


class ByChecks:
    """1 for an answer that passes its prompt's check, else 0."""

    def room(self, prompt: JudgedPrompt) -> None:
        """Checks read answers of any length."""

    def __call__(self, prompts: Sequence[JudgedPrompt], answers: Sequence[str]) -> Rewarded:
        """The verdicts in order."""
        pairs = zip(prompts, answers, strict=True)
        return Rewarded([float(bool(one.check and one.check.passes(said))) for one, said in pairs])


class ByModel:
    """The scores of a reward model."""

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer

    def room(self, prompt: JudgedPrompt) -> int:
        """What the reward model's context leaves behind the prompt; ScoreError names its place."""
        return answer_room(self._scorer, prompt.messages, prompt.place)

    def __call__(self, prompts: Sequence[JudgedPrompt], answers: Sequence[str]) -> Rewarded:
        """The scores in order."""
        return score_answers(self._scorer, [prompt.messages for prompt in prompts], answers)


def answer_room(scorer: Scorer, prompt: Sequence[Message], where: str) -> int:
    """How many tokens an answer to a prompt may have so that it is read; less than 1 for none.

    ScoreError names `where` for a prompt that cannot be read whatever the answer.
    """
    shortest = scorer.ids_of(prompt, _said(NOTHING), where)
    return scorer.most - len(shortest) + 1


def score_answers(
    scorer: Scorer, prompts: Sequence[Sequence[Message]], answers: Sequence[str]
) -> Rewarded:
    """A score for each answer to its prompt, in order; `answer_room` has seen the prompts."""
    from tuning.models.scorer import ScoreError

    rows: list[list[int]] = []
    unread: set[int] = set()
    for at, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        try:
            rows.append(scorer.encode(prompt, _said(answer)))
        except ScoreError:
            unread.add(at)
            rows.append(scorer.encode(prompt, _said(NOTHING)))
    scores = scorer.scores_of_ids(rows)
    read = [at for at in range(len(rows)) if at not in unread]
    for at in unread:
        others = (scores[other] for other in read if prompts[other] == prompts[at])
        scores[at] = min([scores[at], *others])
    return Rewarded(scores, len(unread))


def _said(answer: str) -> list[Message]:
    return [{"role": "assistant", "content": answer}]
