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
class Tally:
    """What became of columns, turns and files: rows in which a column said something, by fate."""

    used: Counter[str] = field(default_factory=Counter)
    harmless: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    differing: Counter[str] = field(default_factory=Counter)
    """Harmless columns that differ between rows of the same prompt: rows unlike the first."""
    context_turns: int = 0
    """Turns of the assistant that are context only, by their own weight."""
    seen: set[str] = field(default_factory=set)
    """Every column of every row."""
    files_read: list[str] = field(default_factory=list)
    files_left: list[str] = field(default_factory=list)
    """Files of a folder that were not read, each with the reason."""

    def add(self, other: Tally) -> None:
        """Count the columns and list the files of `other` as well."""
        self.files_read += other.files_read
        self.files_left += other.files_left
        self.used.update(other.used)
        self.harmless.update(other.harmless)
        self.dropped.update(other.dropped)
        self.differing.update(other.differing)

    def to_json(self) -> dict[str, Any]:
        """For `variant.json`; the first hundred names of each kind are listed, all are counted."""
        return {
            "columns": {
                kind: dict(counts.most_common(100))
                for kind, counts in (
                    ("used", self.used),
                    ("harmless", self.harmless),
                    ("dropped", self.dropped),
                )
            },
            "differing_columns": dict(self.differing),
            "context_turns": self.context_turns,
            "files": {
                "read": self.files_read[:100],
                "num_read": len(self.files_read),
                "not_read": self.files_left[:100],
                "num_not_read": len(self.files_left),
            },
        }

    def lines(self) -> list[str]:
        """A line on columns and, where there are any, on turns and files."""
        parts = [
            f"{', '.join(sorted(counts))} {word}"
            for counts, word in (
                (self.used, "used"),
                (self.harmless, "not trained on (harmless)"),
                (self.dropped, "left out as asked"),
            )
            if counts
        ]
        found = [f"columns: {'; '.join(parts)}"] if parts else []
        if self.differing:
            names = ", ".join(f"{name} ({count:,})" for name, count in self.differing.items())
            found.append(
                f"warning: {names} differ between rows of the same prompt, and are not trained on; "
                "if the answer depends on them, put them into the prompt (--set columns=context:"
                f"{next(iter(self.differing))}, where prompts are texts)"
            )
        if self.context_turns:
            found.append(f"turns: {self.context_turns:,} of the assistant are context only")
        if self.files_read:
            found.append(f"files: {len(self.files_read):,} read: {_some(self.files_read)}")
        if self.files_left:
            left = len(self.files_left)
            more = f", and {left - SHOWN:,} more" if left > SHOWN else ""
            found.append(f"files: {left:,} not read: {'; '.join(self.files_left[:SHOWN])}{more}")
        return found


def _some(names: list[str]) -> str:
    """The first of many names."""
    more = f", and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


@dataclass
class Ledger:
    """Rows and tokens of one run. Rows: read = bad + dropped + heldout + trained."""

    rows_read: int = 0
    rows_trained: int = 0
    rows_heldout: int = 0
    note: str = ""
    """Why nothing is held out though a share was asked for."""
    rows_dropped: Counter[str] = field(default_factory=Counter)
    """By reason: duplicate, near duplicate, in the held-out set, nothing left to train on, ..."""
    bad_rows: list[BadRow] = field(default_factory=list)
    tally: Tally = field(default_factory=Tally)
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
    mixture: dict[str, Counter[str]] = field(default_factory=dict)
    """By source of a mixture, trained rows by what made them: template and kind of prompt."""
    unused_columns: dict[str, list[str]] = field(default_factory=dict)
    """By source of a mixture, columns that no template reads."""

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
            **self.tally.to_json(),
            "mixture": {name: dict(sorted(made.items())) for name, made in self.mixture.items()},
            "unused_columns": self.unused_columns,
            "bad_rows": [str(row) for row in self.bad_rows[:100]],
        }

    def lines(self) -> list[str]:
        """A few lines a person reads before training starts."""
        more = max(0, len(self.bad_rows) - SHOWN)
        packed = ""
        if self.rows_packed:
            packed = f", {self.tokens_packed:,} tokens of {self.rows_packed:,} rows packed"
        sequences = f"; {self.sequences:,} sequences in all" if self.sequences else ""
        dropped = "".join(f", {count:,} {reason}" for reason, count in self.rows_dropped.items())
        return [
            f"rows: {self.rows_read:,} read, {self.rows_trained:,} to train on, "
            f"{self.rows_heldout:,} held out, {len(self.bad_rows):,} bad{dropped}",
            *([self.note] if self.note else []),
            f"tokens: {self.tokens_read:,} in the training rows, {self.tokens_trained:,} trained, "
            f"{self.tokens_masked:,} masked, {self.tokens_truncated:,} truncated, "
            f"{self.tokens_dropped:,} dropped{sequences}{packed}",
            *self.tally.lines(),
            *self._mixture_lines(),
            *(f"left out {row}" for row in self.bad_rows[:SHOWN]),
            *([f"left out {more:,} more; bad_rows.jsonl of the variant lists all"] if more else []),
        ]

    def _mixture_lines(self) -> list[str]:
        """A line for each source of a mixture: its rows, its share, what made them."""
        total = sum(made.total() for made in self.mixture.values())
        lines = []
        for name, made in self.mixture.items():
            parts = ", ".join(f"{what} {count:,}" for what, count in sorted(made.items()))
            lines.append(f"mixture: {name} {made.total():,} ({made.total() / total:.1%}): {parts}")
        for name, columns in self.unused_columns.items():
            if columns:
                lines.append(f"mixture: {name}: in no template: {', '.join(columns)}")
        return lines
