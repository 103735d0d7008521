"""Rows of the public arena datasets as records of `arena.storage.raw`; reads no files."""

from __future__ import annotations

from collections.abc import Sequence

from arena.imports.converters import (
    SourceMessage,
    SourceRow,
    battle_record,
    milliseconds,
    winner_of,
)
from arena.storage.record_fields import Record, RecordError
from arena.values.vote import Winner

LMSYS_WINNERS = {
    "model_a": Winner.MODEL_A,
    "model_b": Winner.MODEL_B,
    "tie": Winner.TIE,
    "tie (bothbad)": Winner.BOTH_BAD,
    "both_bad": Winner.BOTH_BAD,
}


def from_lmsys(row: SourceRow) -> Record:
    """A row of chatbot_arena_conversations or of arena-human-preference-100k."""
    stamp = row.get("tstamp")
    return battle_record(
        "lmsys",
        row,
        models=(row["model_a"], row["model_b"]),
        conversations=(row["conversation_a"], row["conversation_b"]),
        vote={"winner": winner_of(row["winner"], LMSYS_WINNERS)},
        voter=row.get("judge") or row.get("judge_hash"),
        blind=bool(row.get("anony", True)),
        language=row.get("language"),
        created_ms=0 if stamp is None else round(float(stamp) * 1000),
    )


def from_140k(row: SourceRow) -> Record:
    """A row of arena-human-preference-140k; rows with images are refused."""
    time = row.get("timestamp")
    return battle_record(
        "140k",
        row,
        models=(row["model_a"], row["model_b"]),
        conversations=(_plain(row["conversation_a"]), _plain(row["conversation_b"])),
        vote={"winner": winner_of(row["winner"], LMSYS_WINNERS)},
        voter=row.get("evaluation_session_id"),
        blind=True,
        language=None if row.get("language") == "<err>" else row.get("language"),
        created_ms=0 if time is None else milliseconds(time),
    )


def _plain(conversation: Sequence[SourceRow]) -> list[SourceMessage]:
    plain: list[SourceMessage] = []
    for message in conversation:
        parts = message["content"]
        if any(part.get("image") or part["type"] != "text" for part in parts):
            raise RecordError("the conversation holds an image; only text can be imported")
        text = "".join(part["text"] for part in parts)
        plain.append({"role": message["role"], "content": text})
    return plain
