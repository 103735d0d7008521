"""What a served reward model thinks of judged battles, and where the voters think otherwise.

Joins the store and the pool of servers. Knows variant folders by their `variant.json` alone.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from arena.backends.pool import BackendPool
from arena.backends.scoring import ToldScore, ask_scores
from arena.storage import admin_queries, database
from arena.storage.selection import ExportCounts, JudgedPair, Selection, select_pairs
from arena.storage.store import Store
from arena.values.battle import Battle
from arena.values.refusals import StillBlindError

NEWEST = 100
"""So many of the newest judged pairs are scored: two rows each, in one request."""
SHOWN = 10
DECIDED = ("model_a", "model_b")


@dataclass(frozen=True)
class Disagreement:
    """A judged pair where the reward model would have chosen the other side.

    `by` is how far its score of that side is above that of the voters' choice.
    """

    battle_id: str
    prompt: str
    voted: str
    scored: str
    by: float


@dataclass(frozen=True)
class RewardWatch:
    """A reward model beside the newest votes; `new_votes` were given since it was made.

    `num_unread` pairs are not among the judged: it could not read one of their answers.
    """

    name: str
    num_judged: int
    num_agreed: int
    worst: tuple[Disagreement, ...]
    new_votes: int | None
    num_unread: int = 0


async def score_battle(
    battle: Battle, pool: BackendPool
) -> tuple[str, list[ToldScore | None]] | None:
    """What the first served reward model thinks of the last turn: its name, a score a side.

    A side without an answer has none, and one that cannot be read has UNREAD; None where no reward
    model is served, or fewer than two sides answered. Raises StillBlindError before the names may
    be shown, and ScoresError.
    """
    if battle.is_blind:
        raise StillBlindError("scores are shown after the vote")
    scorers = await pool.scorers()
    if not scorers or not battle.turns:
        return None
    last = len(battle.turns) - 1
    asked = {
        side: (battle.context(last, side), answer.text)
        for side in range(battle.num_sides)
        if (answer := battle.turns[last].answer(side)) and answer.text.strip()
    }
    if len(asked) < 2:
        return None
    told = dict(zip(asked, await ask_scores(scorers[0], list(asked.values())), strict=True))
    return scorers[0].name, [told.get(side) for side in range(battle.num_sides)]


async def watch_reward(store: Store, pool: BackendPool, home: Path) -> RewardWatch | None:
    """The first served reward model beside the newest votes; None where none is served.

    Ties, and what an export leaves out, are not counted. Raises ScoresError.
    """
    scorers = await pool.scorers()
    if not scorers:
        return None
    pairs = await asyncio.to_thread(_newest, store)
    asked = [(side.context, side.text) for pair in pairs for side in (pair.left, pair.right)]
    scores = await ask_scores(scorers[0], asked) if asked else []
    found = [
        _compared(pair, left, right)
        for pair, left, right in zip(pairs, scores[::2], scores[1::2], strict=True)
        if not isinstance(left, str) and not isinstance(right, str)
    ]
    against = sorted((one for one in found if one.by > 0), key=lambda one: -one.by)
    made_ms = await asyncio.to_thread(last_made_ms, home)
    new = None
    if made_ms is not None:
        new = await asyncio.to_thread(admin_queries.votes_since, store, made_ms)
    agreed = len(found) - len(against)
    worst = tuple(against[:SHOWN])
    unread = len(pairs) - len(found)
    return RewardWatch(scorers[0].name, len(found), agreed, worst, new, unread)


def last_made_ms(home: Path) -> int | None:
    """When the newest reward model under home was made, in milliseconds since 1970; else None."""
    times = []
    for path in (home / "models").glob("*/variant.json"):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if isinstance(content, dict) and content.get("kind") == "reward":
                times.append(path.stat().st_mtime_ns // 1_000_000)
        except (OSError, ValueError):
            continue  # a folder that is being replaced, or of another program
    return max(times, default=None)


def _newest(store: Store) -> list[JudgedPair]:
    with database.reading(store.path, store.config) as db:
        pairs = select_pairs(db, Selection(), ExportCounts())
        return list(deque((pair for pair in pairs if pair.winner in DECIDED), maxlen=NEWEST))


def _compared(pair: JudgedPair, left: float, right: float) -> Disagreement:
    is_left = pair.winner == DECIDED[0]
    sides = (pair.left, pair.right) if is_left else (pair.right, pair.left)
    by = right - left if is_left else left - right
    prompt = pair.left.context[-1]["content"]
    voted, other = (side.participant.name for side in sides)
    return Disagreement(pair.battle_id, prompt, voted, other, by)
