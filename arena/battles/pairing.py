"""Draws the pair of a blind battle from those who can play, as arena.toml says.

Joins pair probabilities with what has been voted so far; knows the store's pairs, no page.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from arena.config.arena_toml import PairingConfig
from arena.ratings import rate
from arena.ratings.leaderboard import POINTS, Leaderboard, sigmoid
from arena.ratings.pair_probabilities import (
    Draw,
    ModelPair,
    draw_pair,
    information_seeking,
    mixed,
    restricted,
    under_voted_first,
    uniform,
    weighted,
    with_required,
)
from arena.storage.pair_cache import PairCache
from arena.storage.rating_input import read_rating_input

FRESH_SECONDS = 20.0


class PairSampler:
    """Pairs by strategy; what it needs to know of the votes is at most some seconds old."""

    def __init__(self, pair_cache: PairCache, drawing: PairingConfig) -> None:
        self.drawing = drawing
        self._pair_cache = pair_cache
        self._rng = random.SystemRandom()
        self._board: Leaderboard | None = None
        self._rated_at = float("-inf")

    async def draw(
        self,
        names: Sequence[str],
        among: Sequence[ModelPair] = (),
        *,
        only: Sequence[ModelPair] = (),
    ) -> Draw:
        """A pair, its sides by a fair coin, and the probability it had. PairingError if too few.

        With `among` it is one of these pairs, all alike; those that cannot meet are passed over.
        With `only` no other pair is drawn, unless none of these has a chance.
        """
        every = await self.chances(names)
        # Pairs that arena.toml requires are to be seen, whatever the prompt.
        chances = restricted(every, [*only, *self.drawing.required] if only else ())
        drawn = draw_pair(with_required(chances, among, 1.0), self._rng)
        return replace(drawn, is_restricted=chances.keys() != every.keys())

    async def chances(self, names: Sequence[str]) -> dict[ModelPair, float]:
        """The probability of every pair."""
        drawing = self.drawing
        if drawing.strategy == "uniform":
            chances = weighted(names, drawing.weights) if drawing.weights else uniform(names)
        else:
            board = await self._votes()
            chances = (
                under_voted_first(names, num_votes(board))
                if drawing.strategy == "under_voted_first"
                else information_seeking(names, gaps(board))
            )
            if drawing.weights:
                chances = mixed(chances, weighted(names, drawing.weights), 0.5)
        return with_required(chances, drawing.required, drawing.required_share)

    async def _votes(self) -> Leaderboard:
        if self._board is None or time.monotonic() - self._rated_at > FRESH_SECONDS:
            self._board = await asyncio.to_thread(
                lambda: rate(read_rating_input(self._pair_cache).table)
            )
            self._rated_at = time.monotonic()
        return self._board


def num_votes(board: Leaderboard) -> dict[ModelPair, int]:
    """Votes per pair of names."""
    counts = np.asarray(board.count_matrix)
    return {
        _pair(board.models[i], board.models[j]): int(counts[i, j])
        for i in range(len(board.models))
        for j in range(i + 1, len(board.models))
    }


def gaps(board: Leaderboard) -> dict[ModelPair, tuple[float, float]]:
    """Per pair the variance of its gap, on the natural scale, and the first one's win rate."""
    strength = {rating.model: rating.rating / POINTS for rating in board.ratings}
    found = {}
    for i, one in enumerate(board.models):
        for j, other in enumerate(board.models):
            if one < other:
                chance = sigmoid(strength[one] - strength[other])
                found[one, other] = (board.gap_variances[i][j], chance)
    return found


def _pair(one: str, other: str) -> ModelPair:
    return (one, other) if one <= other else (other, one)
