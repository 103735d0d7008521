"""Rows of battles, two answers and a winner, as judgements: the votes of an arena.

Knows no file.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from tuning.data.fields import DataRow
from tuning.data.preferences.judged import Judged, JudgedAnswer
from tuning.data.preferences.messages import assistant, check_prompt, read_messages
from tuning.data.preferences.paired import UNSAID, origin_of, strength_of
from tuning.data.preferences.pairs import HUMAN
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
    judged = Judged(
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
    yield judged
    yield from _edited(row, judged)


def _edited(row: DataRow, judged: Judged) -> Iterator[Judged]:
    """An answer that the voter wrote is better than each side's; told in the first pair of each."""
    text = row.get("edited_answer")
    if not isinstance(text, str) or not text.strip() or row.get("side_a", "a") != "a":
        return
    better = JudgedAnswer((assistant(text),), HUMAN)
    sides = judged.answers if row.get("side_b", "b") == "b" else judged.answers[1:]
    for worse in sides:
        yield replace(judged, answers=(better, worse), ranks=(1, 2), both_bad=False)
