"""What everybody may read of an arena, for programs: who can be asked, and the leaderboard.

The same as *By name* and the tab Leaderboard show. Knows HTTP and the ratings.
"""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter

from arena.battles.service import BattleService
from arena.ratings import rate
from arena.storage.rating_input import read_rating_input


def add_results(router: APIRouter, service: BattleService) -> None:
    """The routes."""

    @router.get("/models")
    async def models() -> dict[str, Any]:
        targets = await service.pool.targets()
        return {
            "models": [
                {
                    "name": name,
                    "kind": one.participant.kind or None,
                    "base": one.participant.base,
                    "is_checkpoint": one.is_checkpoint,
                }
                for name, one in targets.items()
            ]
        }

    @router.get("/leaderboard")
    async def leaderboard() -> dict[str, Any]:
        def rated() -> dict[str, Any]:
            found = read_rating_input(service.pair_cache)
            board = rate(found.table)
            ratings = [asdict(rating) for rating in board.ratings]
            return {"num_votes": board.num_votes, "ratings": ratings, "left_out": found.left_out}

        return await asyncio.to_thread(rated)
