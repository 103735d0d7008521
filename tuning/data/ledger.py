"""Counts what became of every row and token of a run, so that nothing is lost unseen.

Knows numbers and reasons only; `tuning.data.sources` and `tuning.data.encode` fill it in.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

SHOWN = 10


@dataclass(frozen=True)
class BadRow:
    """A row left out: which file, which line (1-based), which field, and why."""

    source: str
    line: int
    field: str
    reason: str

    def __str__(self) -> str:
        return f"{self.source}:{self.line}: {self.field}: {self.reason}"


@dataclass
class Ledger:
    """Rows and tokens of one run. Rows: read = bad + dropped + heldout + trained."""

    rows_read: int = 0
    rows_trained: int = 0
    rows_heldout: int = 0
    rows_dropped: Counter[str] = field(default_factory=Counter)
    """By reason: duplicate, near duplicate, in the held-out set, nothing left to train on, ..."""
    bad_rows: list[BadRow] = field(default_factory=list)
    tokens_read: int = 0
    tokens_trained: int = 0
    tokens_masked: int = 0
    tokens_truncated: int = 0
    tokens_dropped: int = 0
    rows_truncated: int = 0
    sequences: int = 0
    """Sequences of the whole run: rows, or packs of rows, each counted as often as it is seen."""
    rows_packed: int = 0
    """Rows that share their sequence with others, over the whole run."""
    tokens_packed: int = 0
    """Tokens of those rows."""

    def check(self) -> None:
        """Every row and token read is accounted for once."""
        dropped = sum(self.rows_dropped.values())
        rows = len(self.bad_rows) + dropped + self.rows_heldout + self.rows_trained
        assert rows == self.rows_read, (rows, self.rows_read)
        tokens = (
            self.tokens_trained + self.tokens_masked + self.tokens_truncated + self.tokens_dropped
        )
        assert tokens == self.tokens_read, (tokens, self.tokens_read)

    def to_json(self) -> dict[str, Any]:
        """For `variant.json`; the first hundred bad rows are listed, all are counted."""
        return {
            "rows": {
                "read": self.rows_read,
                "trained": self.rows_trained,
                "heldout": self.rows_heldout,
                "bad": len(self.bad_rows),
                "dropped": dict(self.rows_dropped),
                "truncated": self.rows_truncated,
            },
            "tokens": {
                "read": self.tokens_read,
                "trained": self.tokens_trained,
                "masked": self.tokens_masked,
                "truncated": self.tokens_truncated,
                "dropped": self.tokens_dropped,
            },
            "sequences": self.sequences,
            "packed": {"rows": self.rows_packed, "tokens": self.tokens_packed},
            "bad_rows": [str(row) for row in self.bad_rows[:100]],
        }

    def lines(self) -> list[str]:
        """A few lines a person reads before training starts."""
        more = max(0, len(self.bad_rows) - SHOWN)
        packed = ""
        if self.rows_packed:
            packed = f", {self.tokens_packed:,} tokens of {self.rows_packed:,} rows packed"
        dropped = "".join(f", {count:,} {reason}" for reason, count in self.rows_dropped.items())
        return [
            f"rows: {self.rows_read:,} read, {self.rows_trained:,} to train on, "
            f"{self.rows_heldout:,} held out, {len(self.bad_rows):,} bad{dropped}",
            f"tokens: {self.tokens_read:,} in the training rows, {self.tokens_trained:,} trained, "
            f"{self.tokens_masked:,} masked, {self.tokens_truncated:,} truncated, "
            f"{self.tokens_dropped:,} dropped; {self.sequences:,} sequences in all{packed}",
            *(f"left out {row}" for row in self.bad_rows[:SHOWN]),
            *([f"left out {more:,} more; bad_rows.jsonl of the variant lists all"] if more else []),
        ]
