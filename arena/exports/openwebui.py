"""Judged pairs as Open WebUI feedback; knows no files."""

from __future__ import annotations

from arena.exports.lmsys import conversation
from arena.exports.writers import DatasetRow
from arena.storage.selection import JudgedPair, LeftOut, SideView
from arena.values.vote import Strength, Winner


def openwebui_rows(pair: JudgedPair) -> list[DatasetRow | LeftOut] | LeftOut:
    """One feedback on the winner's message: rating 1 with the loser as sibling, 0 for a tie.

    Open WebUI has no word for both-bad.
    """
    if pair.winner == Winner.BOTH_BAD:
        return LeftOut.OTHER_FORMAT
    rated, other = (
        (pair.right, pair.left) if pair.winner == Winner.MODEL_B else (pair.left, pair.right)
    )
    second = pair.created_ms // 1000  # 0, which is 1970 there, where nobody knows: it has to be one
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


def _message_id(pair: JudgedPair, view: SideView) -> str:
    return f"{pair.battle_id}-{len(view.context)}-{view.side}"


def _snapshot(pair: JudgedPair, rated: SideView, other: SideView) -> DatasetRow:
    """The chat as a tree: the shared past, then the two answers as siblings."""
    history: dict[str, DatasetRow] = {}
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
