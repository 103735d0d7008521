"""Preference rows, as TRL trains on, as records of `arena.storage.raw`; reads no files."""

from __future__ import annotations

import math
from typing import Any

from arena.exports.trl import MARGINS
from arena.imports.converters import SourceMessage, SourceRow, battle_record, milliseconds
from arena.storage.record_fields import Record
from arena.values.battle import HistoryMode
from arena.values.vote import Strength, Winner

UNNAMED = ("unnamed chosen", "unnamed rejected")
"""Participants of preference rows that do not name their models."""


def from_trl(row: SourceRow) -> Record:
    """A preference row with message lists or strings; the prompt is the shared context."""
    context = row["prompt"]
    if isinstance(context, str):
        context = [{"role": "user", "content": context}]
    system = context[0]["content"] if context and context[0]["role"] == "system" else ""
    sides = [
        (row.get(f"{role}_model") or UNNAMED[i], row[role])
        for i, role in enumerate(("chosen", "rejected"))
    ]
    is_turned = row.get("chosen_side") == "b"
    winner = str(Winner.MODEL_B if is_turned else Winner.MODEL_A)
    if is_turned:
        sides.reverse()
    record = battle_record(
        "trl",
        row,
        models=[name for name, _ in sides],
        conversations=[[*context[bool(system) :], *_as_messages(text)] for _, text in sides],
        vote={"winner": winner, "strength": _strength(row)},
        voter=None,
        blind=bool(row.get("blind", False)),
        language=row.get("language"),
        created_ms=milliseconds(row["created_at"]) if row.get("created_at") else 0,
    )
    for participant in record["participants"]:
        participant["system_prompt"] = system
    for turn in record["turns"][1:]:
        turn |= {"context": str(HistoryMode.SHARED), "shared_side": 0}
    record["tags"] = list(row.get("tags") or [])
    return record


def _as_messages(text: Any) -> list[SourceMessage]:
    return [{"role": "assistant", "content": text}] if isinstance(text, str) else list(text)


def _strength(row: SourceRow) -> str | None:
    if row.get("strength") is not None:
        return str(Strength(row["strength"]))
    margin = row.get("margin")
    for strength, known in MARGINS.items():
        if margin is not None and math.isclose(margin, known):
            return None if strength is None else str(strength)
    return None
