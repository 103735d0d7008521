"""Judged pairs as rows for TRL: preference pairs (DPO) and single answers (KTO); knows no files.

The prompt is always explicit, and chosen and rejected always answer the same prompt. Ties
and both-bad votes say nothing about which answer is better, so they make no preference
row; unpaired rows say of each answer alone whether it is good.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator

import pyarrow as pa

from arena.exports.writers import DatasetRow
from arena.storage.selection import JudgedPair, LeftOut, SideView
from arena.values.battle import SIDES, ChatMessage
from arena.values.vote import Strength, Winner

MARGINS: dict[str | None, float] = {Strength.MUCH: 1.0, None: 2 / 3, Strength.SLIGHTLY: 1 / 3}
"""How much better the chosen answer is, for a reward model's margin loss."""

EPOCH = datetime.datetime(1970, 1, 1)  # in UTC, which the text says itself

EDITED = "human edit"
"""`chosen_model` of a row whose chosen answer a voter wrote."""

MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))

METADATA: list[tuple[str, pa.DataType]] = [
    ("vote_id", pa.int64()),
    ("battle_id", pa.string()),
    ("turn", pa.int32()),
    ("created_at", pa.string()),
    ("mode", pa.string()),
    ("blind", pa.bool_()),
    ("partial", pa.bool_()),
    ("flags", pa.list_(pa.string())),
    ("strength", pa.string()),
    ("weight", pa.float64()),
    ("reasons", pa.list_(pa.string())),
    ("comment", pa.string()),
    ("tags", pa.list_(pa.string())),
    ("language", pa.string()),
    ("propensity", pa.float64()),
]

LINEAGE: list[tuple[str, pa.DataType]] = [
    ("model", pa.string()),
    ("side", pa.string()),
    ("kind", pa.string()),
    ("ask_as", pa.string()),
    ("weights_sha256", pa.string()),
    ("base", pa.string()),
    ("sampling", pa.string()),
]

PREFERENCE_SCHEMA = pa.schema(
    [
        ("prompt", MESSAGES),
        ("chosen", MESSAGES),
        ("rejected", MESSAGES),
        ("margin", pa.float64()),
        *((f"chosen_{name}", kind) for name, kind in LINEAGE),
        *((f"rejected_{name}", kind) for name, kind in LINEAGE),
        *METADATA,
    ]
)


UNPAIRED_SCHEMA = pa.schema(
    [
        ("prompt", MESSAGES),
        ("completion", MESSAGES),
        ("label", pa.bool_()),
        ("winner", pa.string()),
        *LINEAGE,
        *METADATA,
    ]
)


def preference_rows(pair: JudgedPair) -> list[DatasetRow | LeftOut] | LeftOut:
    """The preference rows of a pair, with why others could not be made, or why there is none.

    A decided pair gives one row; a voter's edited answer gives one more against each side.
    """
    if pair.is_diverged:
        return LeftOut.DIVERGED
    made: list[DatasetRow | LeftOut] = []
    for chosen, rejected in _preferences(pair):
        chosen_text = chosen if isinstance(chosen, str) else chosen.text
        made.append(
            refuse_texts(chosen_text, rejected.text)
            or _preference_row(pair, chosen, chosen_text, rejected)
        )
    if made:
        return made
    return LeftOut.TIE if pair.winner == Winner.TIE else LeftOut.BOTH_BAD


def unpaired_rows(pair: JudgedPair) -> list[DatasetRow | LeftOut] | LeftOut:
    """One row per answer that the vote calls good (true) or bad (false), or why it has none.

    A tie calls both good, both-bad both bad. Of a ranking the first are good, the last bad,
    and those between neither. Each side has a row in the first pair that it belongs to. The same
    text cannot be good and bad at once: such a pair is refused.
    """
    if pair.num_sides == 2 and pair.left.text == pair.right.text and _is_decided(pair):
        return LeftOut.IDENTICAL
    views = [pair.left] if pair.left.side == 0 and pair.right.side == 1 else []
    views += [pair.right] if pair.left.side == 0 else []
    made: list[DatasetRow | LeftOut] = []
    for view in views:
        label = _label(pair, view)
        if label is None:
            made.append(LeftOut.BETWEEN)
        elif not view.text.strip():
            made.append(LeftOut.EMPTY)
        else:
            made.append(_unpaired_row(pair, view, view.text, label))
    if pair.edited_answer.strip() and pair.left.side == 0 and pair.right.side == 1:
        made.append(_unpaired_row(pair, None, pair.edited_answer, True))
    return made


def _is_decided(pair: JudgedPair) -> bool:
    return pair.winner in (Winner.MODEL_A, Winner.MODEL_B)


def _label(pair: JudgedPair, view: SideView) -> bool | None:
    if pair.ranking is None:
        if pair.winner in (Winner.TIE, Winner.BOTH_BAD):
            return pair.winner == Winner.TIE
        return (pair.winner == Winner.MODEL_A) == (view is pair.left)
    rank, best, worst = pair.ranking[view.side], min(pair.ranking), max(pair.ranking)
    return True if rank == best else False if rank == worst else None


def _unpaired_row(pair: JudgedPair, view: SideView | None, text: str, label: bool) -> DatasetRow:
    lineage = _lineage("", view)
    return {
        "prompt": prompt_messages(pair, view or pair.left),
        "completion": [{"role": "assistant", "content": text}],
        "label": label,
        "winner": pair.winner,
        **lineage,
        **metadata(pair),
    }


def _preferences(pair: JudgedPair) -> Iterator[tuple[SideView | str, SideView]]:
    if pair.winner == Winner.MODEL_A:
        yield pair.left, pair.right
    elif pair.winner == Winner.MODEL_B:
        yield pair.right, pair.left
    if pair.edited_answer:
        # Of k sides each belongs to k-1 pairs: write its row in the first one only.
        if pair.left.side == 0 and pair.right.side == 1:
            yield pair.edited_answer, pair.left
        if pair.left.side == 0:
            yield pair.edited_answer, pair.right


def _preference_row(
    pair: JudgedPair, chosen: SideView | str, chosen_text: str, rejected: SideView
) -> DatasetRow:
    return {
        "prompt": prompt_messages(pair, pair.left),
        "chosen": [{"role": "assistant", "content": chosen_text}],
        "rejected": [{"role": "assistant", "content": rejected.text}],
        "margin": MARGINS[pair.strength],
        **_lineage("chosen", None if isinstance(chosen, str) else chosen),
        **_lineage("rejected", rejected),
        **metadata(pair),
    }


def refuse_texts(first: str, second: str) -> LeftOut | None:
    """Why two answers cannot be a preference: one is blank, or they are the same."""
    if not first.strip() or not second.strip():
        return LeftOut.EMPTY
    if first == second:
        return LeftOut.IDENTICAL
    return None


def prompt_messages(pair: JudgedPair, view: SideView) -> list[ChatMessage]:
    """A side's context; with the system prompt when both sides had the same one."""
    system = pair.left.participant.system_prompt
    if system and system == pair.right.participant.system_prompt:
        return [{"role": "system", "content": system}, *view.context]
    return view.context


def metadata(pair: JudgedPair) -> DatasetRow:
    """The columns of METADATA; nothing in them tells who voted."""
    return {
        "vote_id": pair.vote_id,
        "battle_id": pair.battle_id,
        "turn": pair.turn + 1,
        "created_at": iso_time(pair.created_ms),
        "mode": pair.mode,
        "blind": pair.blind,
        "partial": pair.partial,
        "flags": list(pair.flags),
        "strength": pair.strength,
        "weight": pair.weight,
        "reasons": list(pair.reasons),
        "comment": pair.comment,
        "tags": list(pair.tags),
        "language": pair.language,
        "propensity": pair.propensity,
    }


def _lineage(role: str, view: SideView | None) -> DatasetRow:
    """The columns of LINEAGE, with the role before each name if there is one."""
    start = f"{role}_" if role else ""
    if view is None:
        return {f"{start}{name}": None for name, _ in LINEAGE} | {f"{start}model": EDITED}
    participant = view.participant
    return {
        f"{start}model": participant.name,
        f"{start}side": SIDES[view.side],
        f"{start}kind": participant.kind,
        f"{start}ask_as": str(participant.ask_as),
        f"{start}weights_sha256": view.weights_sha256,
        f"{start}base": participant.base,
        f"{start}sampling": view.sampling,
    }


def iso_time(ms: int) -> str | None:
    """Milliseconds since 1970 as ISO 8601 in UTC; None for 0, which says that nobody knows it."""
    if ms == 0:
        return None
    return f"{(EPOCH + datetime.timedelta(milliseconds=ms)).isoformat(timespec='milliseconds')}Z"
