"""Rows of the public arena datasets as records of `arena.storage.raw`; reads no files."""

from __future__ import annotations

from arena.imports.converters import (
    SourceRow,
    battle_record,
    milliseconds,
    of_seconds,
    winner_of,
)
from arena.storage.record_fields import Record


def from_lmsys(row: SourceRow) -> Record:
    """A row of chatbot_arena_conversations or of arena-human-preference-100k."""
    stamp = row.get("tstamp")
    return battle_record(
        "lmsys",
        row,
        models=(row["model_a"], row["model_b"]),
        conversations=(row["conversation_a"], row["conversation_b"]),
        vote={"winner": winner_of(row["winner"])},
        voter=row.get("judge") or row.get("judge_hash"),
        blind=bool(row.get("anony", True)),
        language=row.get("language"),
        created_ms=0 if stamp is None else of_seconds(stamp),
    )


def from_140k(row: SourceRow) -> Record:
    """A row of arena-human-preference-140k; rows with images are refused."""
    time = row.get("timestamp")
    return battle_record(
        "140k",
        row,
        models=(row["model_a"], row["model_b"]),
        conversations=(row["conversation_a"], row["conversation_b"]),
        vote={"winner": winner_of(row["winner"])},
        voter=row.get("evaluation_session_id"),
        blind=True,
        language=None if row.get("language") == "<err>" else row.get("language"),
        created_ms=0 if time is None else milliseconds(time),
    )
