"""What the tasks of a loop work with: settings, folder, start, votes and checks, each found once.

Knows where things are; knows neither the order of the tasks nor what is told of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from tuning.data.preferences.pairs import Preferences
from tuning.evaluation.evaluate import plain_documents
from tuning.loop import measure, models
from tuning.loop.folder import LoopFolder
from tuning.loop.settings import LoopSettings
from tuning.loop.verifiers import Verifiers, find_verifiers, is_starters
from tuning.loop.votes import TRUE, VoteFile, prompt_of, split_votes, vote_file

Finding = dict[str, Any]


@dataclass(frozen=True)
class Workshop:
    """One loop at work. What it finds of a model is called by the model's word and its votes'."""

    settings: LoopSettings
    folder: LoopFolder
    sources: Callable[[], Sequence[str]]
    console: Console

    @cached_property
    def beginning(self) -> models.Beginning:
        """The start."""
        return models.find_beginning(self.settings, self.folder)

    @cached_property
    def split(self) -> tuple[Preferences, Preferences]:
        """The votes, trained and held out."""
        return split_votes(self.votes(TRUE), self.settings.seed)

    @cached_property
    def verifiers(self) -> Verifiers:
        """The checks there are."""
        train, held = self.split
        return find_verifiers(self.settings, self.beginning.variant, train.lessons, held.lessons)

    def votes(self, which: str) -> VoteFile:
        """The file of votes called so."""
        return vote_file(self.folder, self.need("export"), which)

    def need(self, task: str) -> Finding:
        """What a task found that was done before."""
        found = self.folder.found(task)
        assert found is not None, task
        return found

    def model(self, task: str) -> Path:
        """Where the model that a task made is."""
        return models.folder_of(self.need(task), self.settings, self.folder)

    def policy(self, word: str) -> Path:
        """The folder of the start, or of the policy that a task made."""
        return self.beginning.folder if word == models.START else self.model(word)

    def asked(self, most: int | None = None) -> measure.Questions:
        """What models are asked: the suite, or held-out prompts; `most` evenly spread of them."""
        checks = self.verifiers
        if checks.items:
            items = _spread(checks.items, most)
            return measure.Questions(items, (), self.settings.max_new_tokens)
        by_words = {prompt_of(lesson): lesson.prompt for lesson in self.split[1].lessons}
        asked = _spread(list(by_words.values()), most)
        return measure.Questions((), asked, self.settings.max_new_tokens)

    def train_reward(self, which: str) -> Finding:
        """A reward model of one file of votes."""
        config = models.reward_config(
            self.settings, self.folder, self.beginning, self.votes(which), which
        )
        return self._make(config)

    def train_policy(self, objective: str, which: str) -> Finding:
        """A policy of one file of votes; rl maximises the reward model of the same file."""
        reward = None
        if objective == "rl":
            reward = str(self.model(f"reward-{which}").resolve())
        config = models.policy_config(
            *(self.settings, self.folder, self.beginning, self.votes(which), which),
            objective=objective,
            reward=reward,
        )
        return self._make(config)

    def _make(self, config: Any) -> Finding:
        return models.make(config, self.settings.home, self.console)

    def agree(self, which: str) -> Finding:
        """What a reward model makes of the held-out votes, as they were cast."""
        pairs = self.split[1].pairs
        known = self.verifiers.known
        return measure.agreement(self.model(f"reward-{which}"), self.settings.home, pairs, known)

    def draw(self) -> Finding:
        """Answers of the start to pick among."""
        asked = self.asked(self.settings.sampled_prompts)
        with self._bar("answers", len(asked.items)) as done:
            rows = measure.samples(
                *(self.beginning.folder, self.settings.home, asked),
                count=self.settings.samples,
                seed=self.settings.seed,
                on_done=done,
            )
        self.folder.keep_rows("samples", rows)
        return {"num_prompts": len(rows), "left_out": len(asked.items) - len(rows)}

    def pick(self, which: str) -> Finding:
        """What a reward model picks among them."""
        rows = self.folder.rows("samples")
        return measure.best_of(self.model(f"reward-{which}"), self.settings.home, rows)

    def answer(self, word: str) -> Finding:
        """Answers of the start or of a policy."""
        asked = self.asked()
        with self._bar("prompts", len(asked.all)) as done:
            texts = plain_documents(of_starter=is_starters(self.beginning.variant))
            told, rows = measure.answers(self.policy(word), self.settings.home, asked, texts, done)
        self.folder.keep_rows(f"answers-{word}", rows)
        return told

    def score(self, word: str) -> Finding:
        """What the reward model thinks of those answers."""
        rows = self.folder.rows(f"answers-{word}")
        reward = self.model(f"reward-{TRUE}")
        found = measure.rewards(reward, self.settings.home, self.asked(), rows)
        scored = [score for score in found if score is not None]
        return {
            "rewards": found,
            "mean": sum(scored) / len(scored) if scored else None,
            "not_scored": len(found) - len(scored),
        }

    def measure_distance(self, word: str) -> Finding:
        """How far a policy went."""
        asked = self.asked(self.settings.sampled_prompts)
        return measure.distance(
            *(self.policy(word), self.beginning.folder, self.settings.home, asked),
            seed=self.settings.seed,
        )

    def _bar(self, what: str, total: int) -> _Bar:
        return _Bar(Progress(console=self.console, transient=True), what, total)


class _Bar:
    """A line of progress that goes when it is full."""

    def __init__(self, progress: Progress, what: str, total: int) -> None:
        self._progress, self._what, self._total = progress, what, total

    def __enter__(self) -> Callable[[int], None]:
        self._progress.start()
        task = self._progress.add_task(self._what, total=self._total)
        return lambda count: self._progress.advance(task, count)

    def __exit__(self, *_: object) -> None:
        self._progress.stop()


def _spread(items: Sequence[Any], most: int | None) -> list[Any]:
    """At most so many, evenly spread."""
    if most is None or most >= len(items):
        return list(items)
    return [items[at * len(items) // most] for at in range(most)]
