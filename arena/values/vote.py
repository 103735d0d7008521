"""What a voter says about the answers of one turn, and what that says about each pair.

Pure standard library; knows no battle and no database. The rule by which a ranking
becomes pairs is written here once, for any number of sides from two to eight.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations

from arena.errors import ArenaError

REASONS = (
    "helpful",
    "correct",
    "follows_instruction",
    "format",
    "style",
    "incorrect",
    "ignores_instruction",
    "harmful",
    "repetitive",
    "cut_off",
)
"""Tags a voter may attach to a judgement."""


class JudgementError(ArenaError):
    """A judgement that does not fit the battle: unknown side, reason, or missing ranking."""

    code = "judgement_refused"


class Winner(StrEnum):
    """What one judgement of two sides says. A skip is not a judgement and has no member."""

    MODEL_A = "model_a"
    MODEL_B = "model_b"
    TIE = "tie"
    BOTH_BAD = "both_bad"


class Strength(StrEnum):
    """By how much the preferred side is better."""

    SLIGHTLY = "slightly"
    MUCH = "much"


@dataclass(frozen=True)
class Judgement:
    """What a voter says about one turn.

    Two sides: `winner`. More: `ranking`, one rank per side (1 is best, equal ranks tie),
    or `winner` tie / both_bad for all sides alike.
    """

    winner: Winner | None = None
    ranking: tuple[int, ...] | None = None
    strength: Strength | None = None
    reasons: tuple[str, ...] = ()
    comment: str = ""
    edited_answer: str = ""

    def prefers_as(self, other: Judgement) -> bool:
        """Whether both say the same of which side is better; strength and words left aside."""
        return (self.winner, self.ranking) == (other.winner, other.ranking)

    def pairs(self, num_sides: int) -> tuple[Comparison, ...]:
        """The judgement as pairs of sides; together they weigh as much as one judgement.

        A ranking of k sides gives k(k-1)/2 pairs of weight 2/k each, so that it counts
        as k-1 votes: what k sides can add to the knowledge of k-1 gaps.
        Raises JudgementError when it does not fit the number of sides.
        """
        self._check(num_sides)
        weight = 2 / num_sides
        return tuple(
            Comparison(left, right, self._outcome(left, right), weight)
            for left, right in combinations(range(num_sides), 2)
        )

    def _check(self, num_sides: int) -> None:
        unknown = [reason for reason in self.reasons if reason not in REASONS]
        if unknown:
            raise JudgementError(
                f"reason {unknown[0]!r} is unknown; use one of {', '.join(REASONS)}"
            )
        if (self.winner is None) == (self.ranking is None):
            raise JudgementError("a judgement needs either a winner or a ranking of the sides")
        if self.ranking is not None:
            if len(self.ranking) != num_sides or not all(
                1 <= rank <= num_sides for rank in self.ranking
            ):
                raise JudgementError(
                    f"ranking {list(self.ranking)} needs one rank from 1 to {num_sides} "
                    f"for each of the {num_sides} sides"
                )
        elif num_sides > 2 and self.winner in (Winner.MODEL_A, Winner.MODEL_B):
            raise JudgementError(
                f"winner {self.winner} cannot judge {num_sides} sides; give a ranking"
            )

    def _outcome(self, left: int, right: int) -> Winner:
        if self.ranking is None:
            assert self.winner is not None
            return self.winner
        gap = self.ranking[right] - self.ranking[left]
        return Winner.TIE if gap == 0 else Winner.MODEL_A if gap > 0 else Winner.MODEL_B


@dataclass(frozen=True)
class Comparison:
    """One pair of sides of a judgement; model_a of `winner` is `left`."""

    left: int
    right: int
    winner: Winner
    weight: float


@dataclass(frozen=True)
class Vote:
    """A judgement as stored; `partial`: cast before the end or on a stopped answer.

    `blind`: the names were hidden from the voter. `flags`: why it is in quarantine, if so.
    """

    id: int
    battle_id: str
    turn: int
    voter: str
    judgement: Judgement
    partial: bool
    blind: bool
    flags: tuple[str, ...] = ()
    created_ms: int = 0
    updated_ms: int = 0


@dataclass(frozen=True)
class FlaggedVote:
    """A vote in quarantine, with one line per reason."""

    vote: Vote
    details: tuple[tuple[str, str], ...]
