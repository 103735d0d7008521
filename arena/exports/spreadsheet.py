"""Judged pairs as lines of a spreadsheet, safe to open; knows no files."""

from __future__ import annotations

from arena.exports.trl import iso_time
from arena.exports.writers import DatasetRow
from arena.storage.selection import JudgedPair, LeftOut

SHEET_COLUMNS = (
    *("vote_id", "battle_id", "turn", "created_at", "model_a", "model_b", "winner", "strength"),
    *("weight", "reasons", "comment", "prompt", "answer_a", "answer_b", "edited_answer", "mode"),
    *("blind", "partial", "flags", "tags", "language", "judge"),
)


UNSAFE = ("=", "+", "-", "@", "\t", "\r", "\n", "\0")
"""First characters at which a spreadsheet may take a cell for a formula."""


def sheet_rows(pair: JudgedPair) -> list[DatasetRow | LeftOut] | LeftOut:
    """One line for a spreadsheet; cells that could run as formulas start with a quote mark."""
    values = {
        "vote_id": pair.vote_id,
        "battle_id": pair.battle_id,
        "turn": pair.turn + 1,
        "created_at": iso_time(pair.created_ms) or "",
        "model_a": pair.left.participant.name,
        "model_b": pair.right.participant.name,
        "winner": pair.winner,
        "strength": pair.strength or "",
        "weight": pair.weight,
        "reasons": " ".join(pair.reasons),
        "comment": pair.comment,
        "prompt": pair.left.context[-1]["content"],
        "answer_a": pair.left.text,
        "answer_b": pair.right.text,
        "edited_answer": pair.edited_answer,
        "mode": pair.mode,
        "blind": pair.blind,
        "partial": pair.partial,
        "flags": " ".join(pair.flags),
        "tags": " ".join(pair.tags),
        "language": pair.language or "",
        "judge": f"arena_user_{pair.voter}",
    }
    return [{name: safe_cell(value) for name, value in values.items()}]


def safe_cell(value: object) -> object:
    """The value, text quoted when a spreadsheet could run it."""
    return f"'{value}" if isinstance(value, str) and value.startswith(UNSAFE) else value
