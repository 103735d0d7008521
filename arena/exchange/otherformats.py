"""Judged pairs for other programs: Open WebUI feedback, LLM Comparator, spreadsheets.

Pure functions from a pair to rows; knows no files.
"""

from __future__ import annotations

from arena.exchange.lmsys import conversation
from arena.exchange.trl import Row, iso_time
from arena.storage.selection import JudgedPair, LeftOut, SideView
from arena.values.judgement import Strength, Winner

SHEET_COLUMNS = (
    *("vote_id", "battle_id", "turn", "created_at", "model_a", "model_b", "winner", "strength"),
    *("weight", "reasons", "comment", "prompt", "answer_a", "answer_b", "edited_answer", "mode"),
    *("blind", "partial", "flags", "tags", "language", "judge"),
)

UNSAFE = ("=", "+", "-", "@", "\t", "\r", "\n", "\0")
"""First characters at which a spreadsheet may take a cell for a formula."""

SCORES: dict[str | None, float] = {Strength.MUCH: 1.5, None: 1.0, Strength.SLIGHTLY: 0.5}
"""LLM Comparator's score of a preference; positive for the first model."""

COMPARATOR_FIELDS = [
    {"name": "turn", "type": "number"},
    {"name": "winner", "type": "string"},
    {"name": "battle_id", "type": "string"},
]


def openwebui_rows(pair: JudgedPair) -> list[Row | LeftOut] | LeftOut:
    """One feedback on the winner's message: rating 1 with the loser as sibling, 0 for a tie.

    Open WebUI has no word for both-bad.
    """
    if pair.winner == Winner.BOTH_BAD:
        return LeftOut.OTHER_FORMAT
    rated, other = (
        (pair.right, pair.left) if pair.winner == Winner.MODEL_B else (pair.left, pair.right)
    )
    second = pair.created_ms // 1000
    name = rated.participant.name
    scores: dict[str | None, int] = {Strength.MUCH: 10, None: 8, Strength.SLIGHTLY: 6}
    return [
        {
            "id": f"{pair.battle_id}-{pair.vote_id}-{pair.left.side}{pair.right.side}",
            "user_id": f"arena_user_{pair.voter}",
            "version": 0,
            "type": "rating",
            "data": {
                "rating": 0 if pair.winner == Winner.TIE else 1,
                "model_id": name,
                "sibling_model_ids": [other.participant.name],
                "reason": pair.reasons[0] if pair.reasons else None,
                "comment": pair.comment,
                "tags": list(pair.tags),
                "details": {"rating": 5 if pair.winner == Winner.TIE else scores[pair.strength]},
            },
            "meta": {
                "arena": pair.blind,
                "chat_id": pair.battle_id,
                "message_id": _message_id(pair, rated),
                "message_index": len(rated.context) + 1,
                "model_id": name,
                "base_models": {name: rated.participant.base},
                "tags": list(pair.tags),
            },
            "snapshot": {"chat": _snapshot(pair, rated, other)},
            "created_at": second,
            "updated_at": second,
        }
    ]


def comparator_rows(pair: JudgedPair) -> list[Row | LeftOut] | LeftOut:
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


def sheet_rows(pair: JudgedPair) -> list[Row | LeftOut] | LeftOut:
    """One line for a spreadsheet; cells that could run as formulas start with a quote mark."""
    values = {
        "vote_id": pair.vote_id,
        "battle_id": pair.battle_id,
        "turn": pair.turn + 1,
        "created_at": iso_time(pair.created_ms),
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


def turned(example: Row) -> Row:
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


def _message_id(pair: JudgedPair, view: SideView) -> str:
    return f"{pair.battle_id}-{len(view.context)}-{view.side}"


def _snapshot(pair: JudgedPair, rated: SideView, other: SideView) -> Row:
    """The chat as a tree: the shared past, then the two answers as siblings."""
    history: dict[str, Row] = {}
    parent: str | None = None
    for index, message in enumerate(rated.context):
        name = f"{pair.battle_id}-{index}"
        history[name] = {"id": name, "parentId": parent, "childrenIds": [], **message}
        if parent is not None:
            history[parent]["childrenIds"].append(name)
        parent = name
    assert parent is not None
    for view in (pair.left, pair.right):
        name = _message_id(pair, view)
        model = view.participant.name
        history[name] = {
            "id": name,
            "parentId": parent,
            "childrenIds": [],
            "role": "assistant",
            "content": view.text,
            "model": model,
        }
        history[parent]["childrenIds"].append(name)
    return {
        "title": pair.left.context[0]["content"][:80],
        "models": [rated.participant.name, other.participant.name],
        "history": {"messages": history, "currentId": _message_id(pair, rated)},
        "messages": conversation(rated),
    }
