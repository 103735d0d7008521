"""Suites: prompts with checks, built in or from a JSON Lines file anyone can write.

One line is `{"id": ..., "family": ..., "prompt": ..., "check": {"kind": ...}}`. Knows no model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuning.errors import TuningError
from tuning.evaluation.form_suite import constraint_items
from tuning.evaluation.verifiers import CheckError, verify
from tuning.json_lines import JsonError, Line, read_json_lines

STARTER = "starter"
CONSTRAINTS = "constraints"
# Answers that a check is tried on, so that a mistake in it shows before a model is asked.
PROBES = ("", "It is 1.")


class SuiteError(TuningError):
    """A suite that is missing or malformed; names file, line and field."""


@dataclass(frozen=True)
class SuiteItem:
    """One prompt, the family it is counted in, and the check its answer must pass."""

    id: str
    family: str
    prompt: str
    check: Mapping[str, Any]


def load_suite(name: str, limit: int | None = None) -> list[SuiteItem]:
    """Items of `starter`, `constraints` or a JSONL file; `limit` takes evenly spaced ones."""
    if name == STARTER:
        from tuning.starter.world.instructions import heldout_suite

        items = [
            SuiteItem(item.id, item.family, item.prompt, item.check) for item in heldout_suite()
        ]
    elif name == CONSTRAINTS:
        items = [SuiteItem(**item) for item in constraint_items()]
    else:
        items = _read(Path(name).expanduser())
    if limit is not None and limit < len(items):
        items = [items[index * len(items) // limit] for index in range(limit)]
    return items


def _read(path: Path) -> list[SuiteItem]:
    try:
        lines = list(read_json_lines(path))
    except OSError as error:
        raise SuiteError(
            f"suite {str(path)!r}: cannot be read ({error}); give starter, constraints or a JSONL "
            "file"
        ) from error
    items = [_item(line, f"{path}:{line.number}") for line in lines]
    if not items:
        raise SuiteError(f"suite {str(path)!r}: holds no prompts; write one JSON object a line")
    return items


def _item(line: Line, where: str) -> SuiteItem:
    try:
        content = line.value()
    except JsonError as error:
        raise SuiteError(f"{where}: {error}; mend the line") from error
    if not isinstance(content, dict):
        raise SuiteError(f"{where}: is no JSON object; mend the line")
    for key, kind in (("prompt", str), ("check", dict)):
        if not isinstance(content.get(key), kind):
            raise SuiteError(f"{where}: {key} is {content.get(key)!r}; give a {kind.__name__}")
    try:
        for probe in PROBES:
            verify(content["check"], probe)
    except CheckError as error:
        raise SuiteError(f"{where}: {error}") from error
    return SuiteItem(
        id=str(content.get("id", where)),
        family=str(content.get("family", "all")),
        prompt=content["prompt"],
        check=content["check"],
    )
