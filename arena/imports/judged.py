"""Judgements in the form that all readers of foreign sets share, as records of the store.

A row: `prompt` (messages), `answers` (`text`, `model`), `ranks` or `both_bad`, and what else is
known. Reads no files.
"""

from __future__ import annotations

import math

from arena.exports.trl import MARGINS
from arena.imports.converters import SourceRow, battle_record
from arena.storage.record_fields import Record, RecordError
from arena.values.battle import SIDES, HistoryMode
from arena.values.vote import Winner

LABELS_ALONE = "it says of one answer whether it is good, which is no battle; tune on it instead"


def from_judged(row: SourceRow) -> Record:
    """A judgement of two to eight answers to one prompt; a model that nobody names is unnamed.

    Votes on unnamed models come in as named ones, and stay out of the ratings.
    """
    if "problem" in row:
        raise RecordError(row["problem"])
    answers, ranks = row["answers"], row["ranks"]
    if ranks is None:
        raise RecordError(LABELS_ALONE)
    if not 2 <= len(answers) <= len(SIDES):
        raise RecordError(f"{len(answers)} answers are compared; a battle has 2 to {len(SIDES)}")
    prompt = row["prompt"]
    system = prompt[0]["content"] if prompt[0]["role"] == "system" else ""
    context = prompt[bool(system) :]
    are_named = all(answer["model"] for answer in answers)
    record = battle_record(
        row["format"],
        row,
        models=[a["model"] or f"unnamed {SIDES[at]}" for at, a in enumerate(answers)],
        conversations=[
            [*context, {"role": "assistant", "content": answer["text"]}] for answer in answers
        ],
        vote=_verdict(row),
        voter=row["voter"],
        blind=bool(row["blind"]) and are_named,
        language=row["language"],
        created_ms=row["created_ms"],
    )
    for participant in record["participants"]:
        participant["system_prompt"] = system
    for turn in record["turns"][1:]:
        turn |= {"context": str(HistoryMode.SHARED), "shared_side": 0}
    record["tags"] = list(row["tags"])
    record["turns"][-1]["votes"][0]["comment"] = row["comment"]
    return record


def _verdict(row: SourceRow) -> Record:
    ranks = row["ranks"]
    if row["both_bad"]:
        return {"winner": str(Winner.BOTH_BAD)}
    if len(set(ranks)) == 1:
        return {"winner": str(Winner.TIE)}
    if len(ranks) > 2:
        return {"ranking": list(ranks)}
    winner = Winner.MODEL_A if ranks[0] < ranks[1] else Winner.MODEL_B
    return {"winner": str(winner), "strength": _strength(row["strength"])}


def _strength(value: float | None) -> str | None:
    for strength, margin in MARGINS.items():
        if strength is not None and value is not None and math.isclose(value, margin):
            return str(strength)
    return None
