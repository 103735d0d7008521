"""Judged pairs on two models as an LLM Comparator file: its examples, and the file around them."""

from __future__ import annotations

import json
from pathlib import Path

from arena.errors import ArenaError
from arena.exports.writers import DatasetRow, ListWriter
from arena.storage.selection import JudgedPair, LeftOut
from arena.values.vote import Strength, Winner

SCORES: dict[str | None, float] = {Strength.MUCH: 1.5, None: 1.0, Strength.SLIGHTLY: 0.5}
"""LLM Comparator's score of a preference; positive for the first model."""


COMPARATOR_FIELDS = [
    {"name": "turn", "type": "number"},
    {"name": "winner", "type": "string"},
    {"name": "battle_id", "type": "string"},
]


def comparator_rows(pair: JudgedPair) -> list[DatasetRow | LeftOut] | LeftOut:
    """One example of LLM Comparator, model_a the left side (the writer turns it round)."""
    sign = {Winner.MODEL_A: 1.0, Winner.MODEL_B: -1.0}.get(Winner(pair.winner), 0.0)
    score = sign * SCORES[pair.strength]
    return [
        {
            "input_text": "\n\n".join(f"{m['role']}: {m['content']}" for m in pair.left.context)
            if pair.turn
            else pair.left.context[-1]["content"],
            "tags": list(pair.tags),
            "output_text_a": pair.left.text,
            "output_text_b": pair.right.text,
            "score": score,
            "individual_rater_scores": [
                {
                    "score": score,
                    "rating_label": _rating_label(score),
                    "is_flipped": False,
                    "rationale": pair.comment,
                }
            ],
            "custom_fields": {
                "turn": pair.turn + 1,
                "winner": pair.winner,
                "battle_id": pair.battle_id,
            },
            "models": (pair.left.participant.name, pair.right.participant.name),
        }
    ]


def turned(example: DatasetRow) -> DatasetRow:
    """An LLM Comparator example with the two models exchanged."""
    raters = [
        rater | {"score": -rater["score"], "rating_label": _rating_label(-rater["score"])}
        for rater in example["individual_rater_scores"]
    ]
    return example | {
        "output_text_a": example["output_text_b"],
        "output_text_b": example["output_text_a"],
        "score": -example["score"],
        "individual_rater_scores": raters,
        "models": example["models"][::-1],
    }


def _rating_label(score: float) -> str:
    if score == 0:
        return "A is about the same as B"
    how = {1.5: "much ", 1.0: "", 0.5: "slightly "}[abs(score)]
    return f"{'A' if score > 0 else 'B'} is {how}better"


class TwoModelsError(ArenaError):
    """The format compares exactly two models."""

    code = "export_two_models"


class ComparatorWriter(ListWriter):
    """`<split>.json` of LLM Comparator: two models, the first one is its A."""

    def __init__(self, folder: Path, split: str, models: tuple[str, ...]) -> None:
        """`models`: both names, or none to take those of the first row."""
        super().__init__(folder, split)
        self._models = models if len(models) == 2 else ()

    def write(self, row: DatasetRow) -> None:
        """Append an example, its sides in the order of the models."""
        self._models = self._models or row["models"]
        if set(row["models"]) != set(self._models):
            raise TwoModelsError(
                f"votes are on {' and '.join(row['models'])} and on {' and '.join(self._models)};"
                " this format compares two models: name them with --model twice"
            )
        example = row if tuple(row["models"]) == tuple(self._models) else turned(row)
        super().write({name: value for name, value in example.items() if name != "models"})

    def _start(self) -> str:
        head = {
            "metadata": {
                "source_path": "instruct-arena",
                "custom_fields_schema": COMPARATOR_FIELDS,
            },
            "models": [{"name": name} for name in self._models],
        }
        return json.dumps(head, ensure_ascii=False)[:-1] + ', "examples": [\n'

    def _end(self) -> str:
        return "\n]}\n"
