"""Open WebUI feedback as records of `arena.storage.raw`; reads no files."""

from __future__ import annotations

from collections.abc import Mapping

from arena.imports.converters import SourceRow, battle_record, of_seconds
from arena.storage.record_fields import Record, RecordError
from arena.values.vote import Winner


def from_openwebui(row: SourceRow) -> Record:
    """One feedback: the rated answer against its siblings, texts from the snapshot of the chat."""
    data, meta = row["data"], row["meta"]
    chat = row["snapshot"]["chat"]
    if "history" not in chat:  # the whole record of the chat, whose content is one level below
        chat = chat["chat"]
    messages = chat["history"]["messages"]
    rated = messages[meta["message_id"]]
    parent = messages[rated["parentId"]]
    sides = [messages[child] for child in parent["childrenIds"]]
    sides = [side for side in sides if side.get("role") == "assistant"]
    if len(sides) < 2:
        raise RecordError("the rated answer has no sibling to compare it with")
    rating = int(data["rating"])
    if rating not in (-1, 0, 1):
        raise RecordError(f"rating {data['rating']!r} is none of -1, 0, 1")
    record = battle_record(
        "openwebui",
        {"chat": meta["chat_id"], "parent": parent["id"], "user": row["user_id"]},
        # In an arena "model" is the arena's own name for whichever model it drew.
        models=[side.get("selectedModelId") or side["model"] for side in sides],
        conversations=[[*_path(messages, parent), side] for side in sides],
        vote=_openwebui_vote(rating, sides.index(rated), len(sides)),
        voter=row["user_id"],
        blind=bool(meta.get("arena")),
        language=None,
        created_ms=of_seconds(row["created_at"]),
    )
    record["turns"][-1]["votes"][0]["comment"] = data.get("comment") or ""
    record["tags"] = [tag for tag in data.get("tags") or [] if isinstance(tag, str)]
    return record


def _openwebui_vote(rating: int, rated: int, num_sides: int) -> Record:
    """A like puts the rated answer before the others, a dislike behind them."""
    if rating == 0:
        return {"winner": str(Winner.TIE)}
    if num_sides == 2:
        wins_left = (rating == 1) == (rated == 0)
        return {"winner": str(Winner.MODEL_A if wins_left else Winner.MODEL_B)}
    others = 2 if rating == 1 else 1
    return {"ranking": [3 - others if side == rated else others for side in range(num_sides)]}


def _path(messages: Mapping[str, SourceRow], last: SourceRow) -> list[SourceRow]:
    path = [last]
    while path[0].get("parentId") is not None:
        path.insert(0, messages[path[0]["parentId"]])
        if len(path) > 10_000:
            raise RecordError("the chat's messages form a circle")
    return path
