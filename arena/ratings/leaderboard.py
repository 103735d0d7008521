"""What a fit of the votes says, as plain values: lines of the leaderboard, effects, pairs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from arena.ratings.intervals import Z95

POINTS = 400 / math.log(10)
"""Rating points per natural unit of strength."""


@dataclass(frozen=True)
class Rating:
    """One line of the leaderboard. `rank` to `worst_rank` is what the intervals allow.

    `determined`: the votes alone fix this model's gap to all others of its group that they fix,
    and enough of them are decided; if not, the interval is the penalty's. `component` numbers
    groups that were never compared with each other; the mean of those determined in each is 1000.
    """

    model: str
    rating: float
    lower: float
    upper: float
    rank: int
    worst_rank: int
    num_battles: int
    num_wins: int
    num_losses: int
    num_ties: int
    num_both_bad: int
    component: int
    determined: bool


@dataclass(frozen=True)
class Effect:
    """An estimated effect in log odds, with its 95 % interval and its size in points."""

    name: str
    log_odds: float
    lower: float
    upper: float

    @property
    def points(self) -> float:
        """Rating points: for style, of one standard deviation."""
        return POINTS * self.log_odds

    @property
    def win_share(self) -> float:
        """Share of wins that the effect gives between equals."""
        return sigmoid(self.log_odds)


@dataclass(frozen=True)
class PairStanding:
    """Two models: `p_better` is how sure the order is, `win_rate` how often the first wins.

    `more_votes`: further votes on this pair that would settle it, 0 if it is settled, None if
    the two are too close to ever tell. `supported`: enough votes on both are decided; if not, these
    numbers are the penalty's and no finding of the votes.
    """

    model: str
    other: str
    gap: float
    p_better: float
    win_rate: float
    num_battles: int
    more_votes: int | None
    supported: bool


class Note(str):
    """A sentence for commands; `code` and `values` name the same in the page's catalogues."""

    code: str
    values: Mapping[str, Any]

    def __new__(cls, text: str, code: str = "", **values: object) -> Note:
        """`code` is empty for what the page never shows."""
        note = super().__new__(cls, text)
        note.code, note.values = code, values
        return note


@dataclass(frozen=True)
class Leaderboard:
    """All that one fit says; `win_matrix[i][j]` counts wins of models[i] over models[j].

    `gap_variances[i][j]` is the variance of their difference in ability, on the natural scale.
    """

    ratings: tuple[Rating, ...]
    position: Effect | None
    style: tuple[Effect, ...]
    pairs: tuple[PairStanding, ...]
    gap_variances: tuple[tuple[float, ...], ...]
    models: tuple[str, ...]
    win_matrix: tuple[tuple[float, ...], ...]
    count_matrix: tuple[tuple[int, ...], ...]
    num_votes: int
    num_voters: int | None
    clustered: bool
    tie_parameter: float | None
    nll: float
    converged: bool
    notes: tuple[Note, ...]


EMPTY = Leaderboard(
    *((), None, (), (), (), (), (), (), 0, None, False, None, 0.0, True),
    notes=(Note("There is no vote to rate.", "none"),),
)


def sigmoid(x: float) -> float:
    """1/(1+e^-x)."""
    return 0.5 * (1 + math.tanh(x / 2))


def effect(name: str, value: float, variance: float) -> Effect:
    """An effect with its interval from a variance."""
    half = Z95 * math.sqrt(max(variance, 0))
    return Effect(name, value, value - half, value + half)
