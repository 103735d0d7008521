"""What the ratings say of two models whose sides were fixed, half fixed or shuffled.

    python benchmarks/arena/sides.py --rounds 1000

Each round draws a strength gap (normal, standard deviation 0.7 log odds) and a side effect (normal,
standard deviation as the prior of the fit, or a given number), lets so many votes be cast with a
share of ties, and rates them. Sides: `fixed` has the first model always on the left, `half` in half
of the votes and drawn in the others, `shuffled` always drawn. Prints for each

- `covered`: share of the 95 % intervals that hold the true gap;
- `width`: median width of the interval of the gap in rating points;
- `better first`: share of rounds in which the truly better model has the higher rating;
- `by count`: the same when the model that won more is taken for the better one;
- `turned`: share of rounds in which the model that won more has the lower rating;
- `surely wrong`: share of rounds in which the worse model is called better with P >= 0.975.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np

from arena.ratings import rate
from arena.ratings.leaderboard import POINTS
from arena.ratings.vote_table import VoteTable

FIXED_SHARE = {"fixed": 1.0, "half": 0.5, "shuffled": 0.0}
NUM_VOTES = (5, 10, 20, 50, 100, 1_000, 10_000)


@dataclass(frozen=True)
class Round:
    """What one round told; gaps in rating points, `wins` of the first model less the second's."""

    truth: float
    gap: float
    variance: float
    wins: int

    @property
    def half(self) -> float:
        """Half the width of the interval of the gap."""
        return float(1.959964 * np.sqrt(self.variance) * POINTS)


def simulated(
    draw: np.random.Generator, sides: str, num_votes: int, gap: float, side: float, ties: float
) -> VoteTable:
    """Votes between model 0 and model 1; `gap` and `side` in log odds, `ties` a share."""
    swapped = (draw.random(num_votes) >= FIXED_SHARE[sides]) & (draw.random(num_votes) < 0.5)
    left = swapped.astype(np.int64)
    eta = np.where(swapped, -gap, gap) + side
    wins = draw.random(num_votes) < 1 / (1 + np.exp(-eta))
    outcome = np.where(draw.random(num_votes) < ties, 2, np.where(wins, 0, 1))
    return VoteTable(("first", "second"), left, 1 - left, outcome, np.ones(num_votes))


def rated(table: VoteTable, truth: float) -> Round:
    """One round from its votes."""
    board = rate(table)
    found = {line.model: line.rating for line in board.ratings}
    won = np.where(table.outcome == 0, 1 - 2 * table.left, 2 * table.left - 1)
    wins = int(won[table.outcome < 2].sum())
    gap = found["first"] - found["second"]
    return Round(POINTS * truth, gap, board.gap_variances[0][1], wins)


def rounds_of(
    sides: str, num_votes: int, num_rounds: int, side: float | None, ties: float, seed: int = 0
) -> list[Round]:
    """So many rounds; a `side` of None draws it from the prior of the fit."""
    draw = np.random.default_rng([seed, num_votes, len(sides)])
    found = []
    for _ in range(num_rounds):
        gap = float(draw.normal(scale=0.7))
        effect = float(draw.normal(scale=0.5)) if side is None else side
        found.append(rated(simulated(draw, sides, num_votes, gap, effect, ties), gap))
    return found


def told(rounds: list[Round]) -> dict[str, float]:
    """The numbers of one line of the table."""
    sure = [abs(r.gap) >= r.half for r in rounds]
    return {
        "covered": np.mean([abs(r.gap - r.truth) <= r.half for r in rounds]),
        "width": np.median([2 * r.half for r in rounds]),
        "better first": np.mean([r.gap * r.truth > 0 for r in rounds]),
        "by count": np.mean([r.wins * r.truth > 0 for r in rounds]),
        "turned": np.mean([r.gap * r.wins < -1e-9 for r in rounds]),
        "surely wrong": np.mean(
            [s and r.gap * r.truth < 0 for s, r in zip(sure, rounds, strict=True)]
        ),
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=1_000)
    parser.add_argument("--side", type=float, help="side effect in log odds; default: drawn")
    parser.add_argument("--ties", type=float, default=0.0)
    options = parser.parse_args()
    print(
        f"{'sides':<9} {'votes':>6}  covered  width  better first  by count  turned  surely wrong"
    )
    for sides in FIXED_SHARE:
        for num_votes in NUM_VOTES:
            line = told(rounds_of(sides, num_votes, options.rounds, options.side, options.ties))
            print(
                f"{sides:<9} {num_votes:>6}  {line['covered']:7.3f} {line['width']:6.0f}"
                f"  {line['better first']:12.3f}  {line['by count']:8.3f}  {line['turned']:6.3f}"
                f"  {line['surely wrong']:12.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
