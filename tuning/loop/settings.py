"""The settings of a loop: what they are called, what they default to, what is refused.

Those of its runs are the settings of `arena tune`, behind `reward.` or `policy.`; how rows are read
behind `data.`. Knows no files beyond their names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from tuning.config import DataOptions, check_folder_name, hints_of
from tuning.config_files import add_assignments, load_config
from tuning.errors import ConfigError, TuningError
from tuning.value_types import (
    Count,
    Folder,
    Name,
    Several,
    Share,
    Text,
    Whole,
    check_value,
    unknown,
)

PolicyObjective = Literal["dpo", "kto", "rl"]
AUTO, NONE = "auto", "none"
STEPS: dict[str, str] = {
    "export": "reads the votes, holds out prompts, writes the files that all runs learn from",
    "reward": "trains the reward model and reports on it",
    "curve": "trains reward models on a quarter and a half of the votes",
    "best-of": "lets the reward model pick among answers of the start",
    "policy": "trains the policies on the votes",
    "shuffled": "does the same on votes whose winners are shuffled: the control",
    "inverted": "does the same on votes that say the opposite",
    "eval": "verifies the answers of all of them, and measures distance, length and forgetting",
    "report": "writes the report",
}
"""Steps by name, in their order, with what they do."""
NEEDED = ("export", "report")
"""Steps that are never skipped."""
RUNS = ("reward", "policy")
SECTIONS = (*RUNS, "data")
# What of a run the loop itself says.
SAID = ("base", "data", "name", "home", "objective", "seed", "heldout", "overwrite", "restart")


class LoopError(TuningError):
    """A loop that cannot be run or gone on with; says why and what to do."""


@dataclass(frozen=True)
class LoopSettings:
    """One loop. Its models are `<name>-reward` and `<name>-<policy>`, under home."""

    base: Name
    """The model to improve: a variant, a packaged model, a folder or a hub id."""
    data: Annotated[tuple[Name, ...], Several, Field(min_length=1)]
    """Files or folders of preferences."""
    name: Text
    """Name of the loop, with which those of its models begin."""
    home: Folder = Path("workspace")
    """Folder whose `loops/<name>` holds the loop, and whose `models/` its models."""
    policies: Annotated[tuple[PolicyObjective, ...], Several, Field(min_length=1)] = ("dpo",)
    """What learns from the votes; the verdict on the first is the loop's."""
    suite: Name = AUTO
    """Whose checks verify answers: a suite, `none`, or `auto` (the starter's, where it fits)."""
    heldout: Annotated[Share, Field(gt=0, lt=1)] = 0.15
    """Share of the prompts voted on that nothing is trained on."""
    prompts: Annotated[Count, Field(ge=2)] | None = None
    """Prompts of the suite that are asked, evenly spread; default all."""
    samples: Annotated[Count, Field(ge=2, le=1024)] = 16
    """Answers among which the reward model picks."""
    sampled_prompts: Annotated[Count, Field(ge=2)] = 150
    """Prompts that are answered so often, and by which distances are measured."""
    max_new_tokens: Count = 96
    """Longest answer in tokens."""
    seed: Annotated[Whole, Field(ge=0, le=2**32 - 1)] = 0
    """Of the split, the controls and all runs."""
    assignments: Annotated[tuple[Text, ...], Several] = ()
    """Settings of the runs as `reward.key=value`, `policy.key=value` or `data.key=value`."""

    def __post_init__(self) -> None:
        for item in fields(self):
            value = check_value(
                item.name, getattr(self, item.name), hints_of(LoopSettings)[item.name]
            )
            object.__setattr__(self, item.name, value)
        check_folder_name(self.name)
        check_folder_name(f"{self.name}-reward")  # the longest that it gives
        if len(set(self.policies)) < len(self.policies):
            raise ConfigError(f"policies: {', '.join(self.policies)} names one twice; leave one")
        self.of_section("reward")
        self.of_section("policy")
        self.of_section("data")

    @property
    def folder(self) -> Path:
        """Where the loop keeps what it found, and the models of its controls."""
        return self.home / "loops" / self.name

    @property
    def data_options(self) -> DataOptions:
        """How the rows of the sources are read."""
        given = {"base": "-", "data": "-", "name": "loop", **self.of_section("data")}
        return load_config(None, given).data_options

    def of_section(self, section: str) -> dict[str, Any]:
        """The settings given for `reward`, `policy` or `data`, by full key.

        ConfigError for one of another section, or one that the loop says itself.
        """
        texts: list[str] = []
        for text in self.assignments:
            part, dot, rest = text.partition(".")
            if part not in SECTIONS or not dot:
                raise ConfigError(
                    f"set: {text!r} says of no run what it is; write reward.{text}, policy.{text} "
                    f"or data.{text}"
                )
            if part == section:
                texts.append(rest)
        found = add_assignments({}, texts)
        for key in found:
            if key.rpartition(".")[2] in SAID:
                raise ConfigError(
                    f"set: {section}.{key} is said by the loop for all of its runs alike; leave it "
                    "out"
                )
            if section == "data" and not key.startswith("data_options."):
                raise ConfigError(
                    f"set: data.{key} says nothing of how rows are read; leave it out"
                )
        return found

    def to_json(self) -> dict[str, Any]:
        """The settings as JSON values, but for where the home lies."""
        content = asdict(self)
        del content["home"]
        return {key: list(v) if isinstance(v, tuple) else v for key, v in content.items()}


def check_skipped(names: tuple[str, ...]) -> frozenset[str]:
    """The steps to leave out; ConfigError for a name that is none, or for one that is needed."""
    known = tuple(name for name in STEPS if name not in NEEDED)
    for name in names:
        if name not in known:
            raise ConfigError(f"skip: {unknown(name, known)}")
    return frozenset(names)


def changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The settings that differ, as `heldout 0.1 (now 0.2)`."""
    return [
        f"{key} {before.get(key)!r} (now {now.get(key)!r})"
        for key in sorted({*before, *now})
        if before.get(key) != now.get(key)
    ]
