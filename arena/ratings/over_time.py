"""How the ratings came about: leaderboards of the votes up to each of some times."""

from __future__ import annotations

import numpy as np

from arena.ratings.leaderboard import Leaderboard
from arena.ratings.rating import RatingConfig, rate
from arena.ratings.vote_table import RatingInput


def rate_over_time(
    rating_input: RatingInput, config: RatingConfig, num_points: int = 12
) -> tuple[list[int], list[Leaderboard]]:
    """Leaderboards of the votes up to each of some times, spread evenly over the votes.

    Votes of a time that nobody knows, 0, count from the start.
    """
    order = np.sort(rating_input.created_ms[rating_input.created_ms > 0])
    if not len(order):
        return [], []
    places = np.unique(np.linspace(0, len(order) - 1, num_points + 1).astype(int)[1:])
    times = sorted({int(order[place]) for place in places})
    boards = [
        rate(rating_input.table.where(rating_input.created_ms <= time), config) for time in times
    ]
    return times, boards
