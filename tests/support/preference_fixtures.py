"""Pairs whose better answer can be told from its words, and small reward models made of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tuning_fixtures import WORDS


def pairs(count: int = 48, *, strengths: Sequence[float | None] = (None,)) -> list[dict[str, Any]]:
    """Rows as TRL takes them: the chosen answer says "red", the rejected one "blue"."""
    made = []
    for index in range(count):
        word = WORDS[3 + index % 9]
        row: dict[str, Any] = {
            "prompt": [{"role": "user", "content": f"Say something on {word} number {index}."}],
            "chosen": [{"role": "assistant", "content": f"red {word}"}],
            "rejected": [{"role": "assistant", "content": f"blue {word} {'moon ' * (index % 3)}"}],
        }
        strength = strengths[index % len(strengths)]
        if strength is not None:
            row["margin"] = strength
        made.append(row)
    return made


def write_pairs(path: Path, rows: Sequence[dict[str, Any]] | None = None) -> Path:
    """Write pairs as JSON Lines."""
    lines = [json.dumps(row) for row in (pairs() if rows is None else rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
