"""Suites: prompts with checks, built in or from a JSON Lines file anyone can write.

One line is `{"id": ..., "family": ..., "prompt": ..., "check": {"kind": ...}}`. Knows no model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, PlainValidator, ValidationError

from tuning.data.mixture.kept import kept_prompts
from tuning.data.mixture.plan import is_mixture, load_plan
from tuning.data.mixture.rows import read_rows
from tuning.errors import TuningError
from tuning.evaluation.checks import Check, Filled, field_problem
from tuning.evaluation.form_suite import constraint_items
from tuning.evaluation.verifiers import parse_check
from tuning.json_lines import JsonError, Line, read_json_lines
from tuning.value_types import shown

STARTER, STARTER_TRAINING = "starter", "starter-training"
"""The starter's held-out instructions, and those that its variants are tuned on."""
CONSTRAINTS = "constraints"


class SuiteError(TuningError):
    """A suite that is missing or malformed; names file, line and field."""


class SuiteItem(BaseModel):
    """One prompt, the family it is counted in, and the check its answer must pass."""

    model_config = ConfigDict(frozen=True, extra="forbid", coerce_numbers_to_str=True)

    id: Filled
    family: Filled = "all"
    prompt: Filled
    check: Annotated[Check, PlainValidator(parse_check)]


def load_suite(name: str, limit: int | None = None) -> list[SuiteItem]:
    """Items of `starter`, `starter-training`, `constraints`, a JSONL file or a mixture; `limit`
    spreads evenly.

    SuiteError names file, line and field of a mistake, in every check of the suite.
    """
    if name == STARTER:
        from tuning.starter.world.instructions import heldout_items

        items = [SuiteItem.model_validate(item) for item in heldout_items()]
    elif name == STARTER_TRAINING:
        items = [SuiteItem.model_validate(item) for item in starter_training_items()]
    elif name == CONSTRAINTS:
        items = [SuiteItem.model_validate(item) for item in constraint_items()]
    elif is_mixture(name):
        items = _kept_of(Path(name).expanduser())
    else:
        items = _read(name)
    if limit is not None and limit < len(items):
        items = [items[index * len(items) // limit] for index in range(limit)]
    return items


def starter_training_items(seed: int = 0) -> list[dict[str, Any]]:
    """The instructions of the starter's training rows as items; none is in its suite."""
    from tuning.starter.world.instructions import training_tasks

    return [
        {"id": str(number), "family": task.family, "prompt": task.prompt, "check": task.check}
        for number, task in enumerate(training_tasks(seed))
    ]


def _kept_of(path: Path) -> list[SuiteItem]:
    """What a mixture keeps for its tests: held-out clusters, held-out and trained templates."""
    plan = load_plan(path)
    kept = kept_prompts(plan, read_rows(plan, plan.seed, deduplicate=True))
    items = [_checked(prompt.to_json(), f"{path}: {prompt.id}") for prompt in kept]
    if not items:
        raise SuiteError(
            f"suite {str(path)!r}: the mixture keeps nothing for tests; set `test`, "
            "`heldout_clusters` or a template's `heldout`"
        )
    return items


def _read(name: str) -> list[SuiteItem]:
    try:
        path = Path(name).expanduser()
        lines = list(read_json_lines(path))
    except (OSError, RuntimeError, ValueError) as error:  # no such home; a zero byte in the name
        reason = getattr(error, "strerror", None) or error
        raise SuiteError(
            f"suite {name!r}: cannot be read ({reason}); give starter, starter-training, "
            "constraints, a JSONL file or a mixture"
        ) from error
    items = [_item(line, f"{path}:{line.number}") for line in lines]
    seen: dict[str, int] = {}
    for line, item in zip(lines, items, strict=True):
        if item.id in seen:
            raise SuiteError(
                f"{path}:{line.number}: id {shown(item.id)} is that of line {seen[item.id]} as "
                "well; give each prompt its own"
            )
        seen[item.id] = line.number
    if not items:
        raise SuiteError(f"suite {str(path)!r}: holds no prompts; write one JSON object a line")
    return items


def _item(line: Line, where: str) -> SuiteItem:
    try:
        content: Any = line.value()
    except JsonError as error:
        raise SuiteError(f"{where}: {error}; mend the line") from error
    if not isinstance(content, dict):
        raise SuiteError(f"{where}: is no JSON object; mend the line")
    return _checked({"id": where, **content}, where)


def _checked(content: dict[str, Any], where: str) -> SuiteItem:
    try:
        return SuiteItem.model_validate(content)
    except ValidationError as error:
        problem = field_problem(error, SuiteItem)
        raise SuiteError(f"{where}: {problem}") from error
