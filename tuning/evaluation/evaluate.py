"""Scores variants on a suite of instructions, and measures what they forgot of plain text.

Knows loaded models, suites and verifiers; greedy decoding only, so a score can be repeated.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuning.data.template import render_prompts
from tuning.evaluation.statistics import mcnemar, wilson
from tuning.evaluation.suites import SuiteItem, load_suite
from tuning.models.generate import greedy_answers
from tuning.models.loading import Loaded, find_base, load_variant
from tuning.models.perplexity import document_loss
from tuning.models.resolve import BaseError
from tuning.quiet import known_warnings_hidden

COMPLETION_NOTE = (
    "asked in completion mode: the plain prompt, the answer cut at the first line break, "
    "which favours it"
)
PLAIN_ENGLISH = Path(__file__).parent / "plain_english.txt"
STARTER_DOCUMENTS = 100


@dataclass(frozen=True)
class Score:
    """Successes of a number of prompts, with the Wilson 95 % interval."""

    passed: int
    num_prompts: int

    @property
    def accuracy(self) -> float:
        """Share that passed."""
        return self.passed / self.num_prompts

    def to_json(self) -> dict[str, Any]:
        """Keys `accuracy`, `lower`, `upper`, `num_prompts`."""
        lower, upper = wilson(self.passed, self.num_prompts)
        return {
            "accuracy": self.accuracy,
            "lower": lower,
            "upper": upper,
            "num_prompts": self.num_prompts,
        }


@dataclass(frozen=True)
class Result:
    """How one model did: answers in suite order, which of them passed, perplexity if measured."""

    name: str
    mode: str
    items: Sequence[SuiteItem]
    answers: Sequence[str | None]
    """None where the prompt filled the model's context; it counts as failed."""
    passed: Sequence[bool]
    perplexity: float | None
    base_perplexity: float | None = None
    """Of the base it was tuned from, on the same documents."""

    def to_json(self) -> dict[str, Any]:
        """The entry of `arena eval --json`."""
        families = dict.fromkeys(sorted({item.family for item in self.items}))
        scores = {name: self._score(name).to_json() for name in families}
        content = {"name": self.name, **self._score(None).to_json(), "families": scores}
        content["mode"] = self.mode
        if self.too_long:
            content["too_long"] = self.too_long
        if self.perplexity is not None:
            content["perplexity"] = self.perplexity
        if self.base_perplexity is not None:
            content["base_perplexity"] = self.base_perplexity
        return content

    @property
    def too_long(self) -> list[str]:
        """Ids of the prompts that leave no room for an answer in the model's context."""
        return [
            item.id for item, answer in zip(self.items, self.answers, strict=True) if answer is None
        ]

    def rows(self) -> list[dict[str, Any]]:
        """Every prompt with its answer and verdict, for `arena eval --answers`."""
        return [
            {
                "model": self.name,
                "id": item.id,
                "family": item.family,
                "prompt": item.prompt,
                "answer": answer,
                "passed": ok,
            }
            for item, answer, ok in zip(self.items, self.answers, self.passed, strict=True)
        ]

    def _score(self, family: str | None) -> Score:
        chosen = [
            ok
            for item, ok in zip(self.items, self.passed, strict=True)
            if family in (None, item.family)
        ]
        return Score(sum(chosen), len(chosen))


def evaluate(
    name: str,
    home: Path,
    *,
    suite: str = "starter",
    limit: int | None = None,
    base: str | None = None,
    max_new_tokens: int = 96,
    documents: Sequence[str] = (),
    on_batch: Callable[[int], None] | None = None,
) -> Result:
    """Answer and verify every prompt of `suite` with the model called `name`.

    `documents` are held-out texts for perplexity; `on_batch` is told how many prompts were done.
    """
    items = load_suite(suite, limit)
    with known_warnings_hidden():
        loaded = load_variant(name, home, base)
        if base is not None and loaded.base_folder is None:
            find_base(loaded.variant, home, base)  # refused where it is not the one it was made of
        answers = answer_items(loaded, items, max_new_tokens, on_batch)
        perplexity = document_perplexity(loaded, documents) if documents else None
        before = _perplexity_of_base(loaded, home, base, documents) if documents else None
    passed = check_answers(items, answers)
    mode = "chat" if loaded.speaks_chat else "completion"
    return Result(name, mode, items, answers, passed, perplexity, before)


def _perplexity_of_base(
    loaded: Loaded, home: Path, base: str | None, documents: Sequence[str]
) -> float | None:
    """What the base of a variant made of the documents; None without a base, or far from it."""
    if loaded.variant.base is None and base is None:
        return None
    if loaded.base_folder is not None:
        folder = loaded.base_folder
    else:
        try:
            folder = find_base(loaded.variant, home, base)
        except BaseError:
            return None
    return document_perplexity(load_variant(str(folder.resolve()), home), documents)


def answer_items(
    loaded: Loaded,
    items: Sequence[SuiteItem],
    max_new_tokens: int,
    on_batch: Callable[[int], None] | None = None,
) -> list[str | None]:
    """Greedy answers: by chat template, or the first line of a plain continuation.

    None for a prompt that leaves no room for an answer.
    """
    prompts = [item.prompt for item in items]
    if loaded.speaks_chat:
        conversations = [[{"role": "user", "content": prompt}] for prompt in prompts]
        prompts = render_prompts(loaded.tokenizer, conversations)
    answers = greedy_answers(
        loaded.model,
        loaded.tokenizer,
        prompts,
        max_new_tokens=max_new_tokens,
        stop_ids=loaded.stop_ids,
        special_tokens=not loaded.speaks_chat,
        on_batch=on_batch,
    )
    kept = (None if answer is None else answer.strip() for answer in answers)
    if loaded.speaks_chat:
        return list(kept)
    return [answer and answer.partition("\n")[0].strip() for answer in kept]


def check_answers(items: Sequence[SuiteItem], answers: Sequence[str | None]) -> list[bool]:
    """Whether each answer passes the check of its item; no answer passes none."""
    return [
        answer is not None and item.check.passes(answer)
        for item, answer in zip(items, answers, strict=True)
    ]


def compare_all(results: Sequence[Result]) -> list[dict[str, Any]]:
    """Each pair of models on the same prompts: who passes what the other fails, and its p value.

    The p value is McNemar's exact one: the two-sided binomial probability of so uneven a split
    of the prompts on which the two differ.
    """
    pairs = []
    for index, left in enumerate(results):
        for right in results[index + 1 :]:
            both = list(zip(left.passed, right.passed, strict=True))
            only_left = sum(a and not b for a, b in both)
            only_right = sum(b and not a for a, b in both)
            pairs.append(
                {
                    "a": left.name,
                    "b": right.name,
                    "only_a": only_left,
                    "only_b": only_right,
                    "p": mcnemar(only_left, only_right),
                }
            )
    return pairs


def document_perplexity(loaded: Loaded, documents: Sequence[str]) -> float:
    """Perplexity per token of plain documents, each read from its start."""
    return math.exp(document_loss(loaded.model, loaded.tokenizer, documents))


def plain_documents(*, of_starter: bool) -> list[str]:
    """Texts that no tuning has seen, for the forgetting meter.

    Those of the starter's small world for its family, which has read nothing else; for all other
    models passages of everyday English, written for this and used for nothing else.
    """
    from tuning.starter.world.corpus import heldout_documents

    if of_starter:
        return heldout_documents()[:STARTER_DOCUMENTS]
    return [text.strip() for text in PLAIN_ENGLISH.read_text(encoding="utf-8").split("\n\n")]


def metrics_of(suite: str, result: Mapping[str, Any]) -> dict[str, Any]:
    """What of a result goes into `variant.json`, by suite."""
    return {f"eval:{suite}": {key: value for key, value in result.items() if key != "name"}}
