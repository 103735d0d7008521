"""Rows of battles, two answers and a winner, as judgements: the votes of an arena.

Knows no file.
"""

from __future__ import annotations

from collections.abc import Iterator

from tuning.data.preferences.judged import Judged, JudgedAnswer
from tuning.data.preferences.messages import check_prompt, read_messages
from tuning.data.preferences.paired import UNSAID, origin_of, strength_of
from tuning.data.preferences.winners import NEITHER, ranks_of_winner, read_winner
from tuning.data.sources import RawRow


def votes_of(raw: RawRow) -> Iterator[Judged]:
    """The judgement of a row of `arena export --format votes`."""
    row = raw.columns
    prompt = read_messages(row, "prompt", "user")
    check_prompt(prompt, "prompt")
    winner = read_winner(row.get("winner"))
    answers = tuple(
        JudgedAnswer(
            read_messages(row, f"completion_{side}", "assistant"), row.get(f"model_{side}")
        )
        for side in "ab"
    )
    strength = strength_of(row)
    yield Judged(
        prompt,
        answers,
        origin_of(raw, row),
        ranks=ranks_of_winner(winner),
        both_bad=winner == NEITHER,
        strength=UNSAID if strength is None else strength,
        weight=row.get("weight"),
        language=row.get("language"),
        blind=bool(row.get("blind")),
        tags=tuple(row.get("tags") or ()),
    )
