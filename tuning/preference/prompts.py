"""Prompts to write answers to, with the checks that judge them where a suite has some.

Knows files of rows and suites; knows neither tokens nor models.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuning.config import DataOptions
from tuning.data.corpus import load_corpus
from tuning.data.fields import Message
from tuning.data.folders import DataError
from tuning.data.formats import FormatError
from tuning.data.ledger import BadRow, Ledger
from tuning.data.preferences.load import read_preferences
from tuning.data.preferences.pairs import PreferenceLedger
from tuning.data.sources import STARTER
from tuning.data.split import prompt_key
from tuning.evaluation.checks import Check
from tuning.evaluation.suites import SuiteItem, load_suite, starter_training_items
from tuning.json_lines import JsonError, read_json_lines

REPEATED, TOO_LONG = "the same prompt again", "prompt too long"


@dataclass(frozen=True)
class JudgedPrompt:
    """Messages that an answer is to follow; `check` says whether it is right, if anything does."""

    messages: tuple[Message, ...]
    place: str
    check: Check | None = None

    def to_json(self) -> Any:
        """What the fingerprint of a run's data is made of."""
        return [list(self.messages), None if self.check is None else repr(self.check)]


@dataclass
class PromptLedger:
    """What became of every prompt."""

    read: int = 0
    trained: int = 0
    heldout: int = 0
    left_out: dict[str, int] | None = None
    sources: PreferenceLedger | Ledger | None = None

    @property
    def bad_rows(self) -> Sequence[BadRow]:
        """Rows that gave no prompt."""
        return () if self.sources is None else self.sources.bad_rows

    def to_json(self) -> dict[str, Any]:
        """For `variant.json`."""
        return {
            "read": {"prompts": self.read},
            "used": self.trained,
            "heldout": self.heldout,
            "left_out": dict(self.left_out or {}),
            "bad_rows": [str(row) for row in self.bad_rows[:100]],
        }

    def lines(self) -> list[str]:
        """What a person reads before training starts."""
        left = "".join(
            f", {count:,} {why}" for why, count in (self.left_out or {}).items() if count
        )
        return [
            f"prompts: {self.read:,} read, {self.trained:,} to answer, {self.heldout:,} held "
            f"out{left}"
        ]


def read_prompts(
    sources: Sequence[str], options: DataOptions, seed: int, ledger: PromptLedger
) -> list[JudgedPrompt]:
    """The prompts of all sources, each once: those of suites, of preferences or of conversations.

    Of `starter` they are those of its training rows, with their checks. DataError and SuiteError
    name what cannot be read.
    """
    found: dict[str, JudgedPrompt] = {}
    ledger.left_out = {REPEATED: 0, TOO_LONG: 0}
    for source in sources:
        for prompt in _prompts_of(source, options, seed, ledger):
            ledger.read += 1
            known = found.setdefault(prompt_key(prompt.messages), prompt)
            if known is not prompt:
                ledger.left_out[REPEATED] += 1
    return list(found.values())


def split_prompts(
    prompts: Sequence[JudgedPrompt], share: float, seed: int
) -> tuple[list[JudgedPrompt], list[JudgedPrompt]]:
    """(train, held out), by the hash of each prompt; in their order."""
    ranked = sorted(
        prompts, key=lambda prompt: _hash(f"{seed} {prompt_key(prompt.messages).lower()}")
    )
    held = {id(prompt) for prompt in ranked[: int(len(ranked) * share)]}
    return (
        [prompt for prompt in prompts if id(prompt) not in held],
        [prompt for prompt in prompts if id(prompt) in held],
    )


def prompts_sha256(prompts: Sequence[JudgedPrompt]) -> str:
    """Fingerprint of prompts in their order."""
    lines = [json.dumps(prompt.to_json(), ensure_ascii=False, sort_keys=True) for prompt in prompts]
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogatepass")).hexdigest()


def _prompts_of(
    source: str, options: DataOptions, seed: int, ledger: PromptLedger
) -> list[JudgedPrompt]:
    if source == STARTER:
        made = starter_training_items(seed)
        return [_of_item(SuiteItem.model_validate(item), STARTER) for item in made]
    if _is_suite(source):
        return [_of_item(item, source) for item in load_suite(source)]
    try:
        preferences = read_preferences([source], options, seed)
    except FormatError:
        rows = Ledger()
        corpus = load_corpus([source], options, seed, rows)
        ledger.sources = rows
        return [
            JudgedPrompt(example.messages[:-1], example.place)
            for example in (*corpus.train, *corpus.heldout)
        ]
    ledger.sources = preferences.ledger
    return [JudgedPrompt(item.prompt, str(item.origin)) for item in preferences.lessons]


def _of_item(item: SuiteItem, source: str) -> JudgedPrompt:
    message: Message = {"role": "user", "content": item.prompt}
    return JudgedPrompt((message,), f"{source}:{item.id}", item.check)


def _is_suite(source: str) -> bool:
    """Whether the first line of a JSON Lines file is that of a suite."""
    path = Path(source).expanduser()
    if path.suffix.lower() not in (".jsonl", ".ndjson") or not path.is_file():
        return False
    try:
        first = next(iter(read_json_lines(path)), None)
        row = None if first is None else first.value()
    except (OSError, JsonError):
        return False
    return isinstance(row, dict) and {"prompt", "check"} <= row.keys()


def require_checks(prompts: Sequence[JudgedPrompt]) -> None:
    """DataError where a prompt has no check that could judge its answers."""
    bare = [prompt for prompt in prompts if prompt.check is None]
    if bare:
        raise DataError(
            f"preference.reward: suite judges answers by checks, and {bare[0].place} has none; "
            "give starter, a suite file as --data, or a reward model"
        )


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
