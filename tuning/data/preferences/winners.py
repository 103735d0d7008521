"""The words by which voting programs name the winner of a battle: one table for all readers.

Knows no row; what is not in the table is refused, never guessed.
"""

from __future__ import annotations

from typing import Any

from tuning.data.fields import RowError, shorten

A, B, EQUAL, NEITHER = "model_a", "model_b", "tie", "both_bad"

WINNERS: dict[str, tuple[str, ...]] = {
    A: ("model_a", "a", "left", "leftvote", "left_vote", "left_better", "model a", "assistant_a"),
    B: (
        "model_b",
        "b",
        "right",
        "rightvote",
        "right_vote",
        "right_better",
        "model b",
        "assistant_b",
    ),
    EQUAL: (
        *("tie", "tievote", "tie_vote", "-", "equal", "both_equal", "draw", "same"),
        *("tie (bothgood)", "tie (both good)", "bothgood", "both_good", "both good"),
    ),
    NEITHER: (
        *("tie (bothbad)", "tie (both bad)", "bothbad", "both_bad", "both bad"),
        *("bothbad_vote", "neither"),
    ),
}
"""Each winner and the words for it, in small letters; `-` is AutoArena's word for every tie."""

_OF_WORD = {word: winner for winner, words in WINNERS.items() for word in words}


def read_winner(value: Any, field: str = "winner") -> str:
    """One of model_a, model_b, tie and both_bad; RowError for a word that is not in the table."""
    word = " ".join(value.split()).lower() if isinstance(value, str) else value
    if not isinstance(word, str) or word not in _OF_WORD:
        raise RowError(
            field, f"is {shorten(value)}, which names no winner; use one of {', '.join(WINNERS)}"
        )
    return _OF_WORD[word]


def ranks_of_winner(winner: str) -> tuple[int, int]:
    """Ranks of the two sides, 1 is best."""
    return {A: (1, 2), B: (2, 1)}.get(winner, (1, 1))
