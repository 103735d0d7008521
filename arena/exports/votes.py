"""Judged pairs as they were judged: both answers and the winner, ties and both-bad too.

What `arena tune --objective reward` and its like learn from; knows no files.
"""

from __future__ import annotations

import pyarrow as pa

from arena.exports.trl import LINEAGE, MESSAGES, METADATA, metadata, prompt_messages
from arena.exports.writers import DatasetRow
from arena.storage.selection import JudgedPair, LeftOut, SideView
from arena.values.battle import SIDES

VOTES_SCHEMA = pa.schema(
    [
        ("prompt", MESSAGES),
        ("completion_a", MESSAGES),
        ("completion_b", MESSAGES),
        ("winner", pa.string()),
        *((f"{name}_{side}", kind) for side in "ab" for name, kind in LINEAGE),
        ("edited_answer", pa.string()),
        ("voter", pa.int64()),
        *METADATA,
    ]
)


def votes_rows(pair: JudgedPair) -> list[DatasetRow | LeftOut] | LeftOut:
    """The row of a pair, whatever its winner; none where the sides were asked different things.

    `voter` numbers the voters of this export from 1 and says nothing else of them. `side_a` and
    `side_b` are the sides as shown, which are others than a and b where there were more than two.
    """
    if pair.is_diverged:
        return LeftOut.DIVERGED
    return [
        {
            "prompt": prompt_messages(pair, pair.left),
            "completion_a": [{"role": "assistant", "content": pair.left.text}],
            "completion_b": [{"role": "assistant", "content": pair.right.text}],
            "winner": str(pair.winner),
            **_lineage("a", pair.left),
            **_lineage("b", pair.right),
            "edited_answer": pair.edited_answer or None,
            "voter": pair.voter,
            **metadata(pair),
        }
    ]


def _lineage(side: str, view: SideView) -> DatasetRow:
    participant = view.participant
    return {
        f"model_{side}": participant.name,
        f"side_{side}": SIDES[view.side],
        f"kind_{side}": participant.kind,
        f"ask_as_{side}": str(participant.ask_as),
        f"weights_sha256_{side}": view.weights_sha256,
        f"base_{side}": participant.base,
        f"sampling_{side}": view.sampling,
    }
