"""Finds a burst of new voters that all want one model; reads votes, marks none.

A cookie is had for nothing, so many "voters" may be one person who knows a model by its answers and
passes over the battles without it. Then nearly all votes of a burst go to one model, which is more
than a model can win that is drawn like the others; or it wins nearly all of its battles, far more
than before.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

from sqlite_utils import Database

WINDOW_MS = 600_000
NEW_MS = 3_600_000
MOST = 500
"""Votes looked at: the newest."""

BEFORE = 5_000
"""Votes before them that tell how often the model won."""

NEARLY_ALL = 0.9
SURELY = 4.0
"""Standard deviations above the earlier share."""

RECENT_SQL = """
SELECT v.id, l.name AS left, r.name AS right, c.winner
  FROM votes v
  JOIN comparisons c ON c.vote_id = v.id AND c.left_side = 0 AND c.right_side = 1
  JOIN participants l ON l.id = c.left_id
  JOIN participants r ON r.id = c.right_id
  JOIN voters p ON p.id = v.voter_id
 WHERE v.id > :last - :most AND v.created_ms > :now - :window AND v.blind = 1
   AND p.secret_sha256 IS NOT NULL AND p.created_ms > v.created_ms - :new"""
EARLIER_SQL = """
SELECT count(*) AS met,
       coalesce(sum((c.winner = 'model_a' AND l.name = :model)
                 OR (c.winner = 'model_b' AND r.name = :model)), 0) AS won
  FROM comparisons c
  JOIN participants l ON l.id = c.left_id
  JOIN participants r ON r.id = c.right_id
 WHERE c.vote_id > :last - :before AND c.vote_id < :first
   AND c.winner IN ('model_a', 'model_b') AND (l.name = :model OR r.name = :model)"""


@dataclass(frozen=True)
class Burst:
    """Votes of new voters for one model: the rows of these votes, and of how many votes."""

    votes: tuple[int, ...]
    total: int


def burst_of(db: Database, vote_id: int, now: int, least: int) -> Burst | None:
    """The burst that a new vote belongs to; None if there is none of `least` votes or more."""
    rows = list(
        db.query(
            RECENT_SQL,
            {"last": vote_id, "most": MOST, "now": now, "window": WINDOW_MS, "new": NEW_MS},
        )
    )
    wanted = {row["id"]: _preferred(row) for row in rows}
    model = wanted.get(vote_id)
    if model is None:
        return None
    votes = tuple(sorted(row for row, name in wanted.items() if name == model))
    if len(votes) < least:
        return None
    rivals = Counter(name for row in rows for name in (row["left"], row["right"]))
    met = rivals.pop(model)
    has_choice = len(rivals) >= 2  # of two models one may well win nearly all
    if has_choice and len(votes) >= NEARLY_ALL * len(rows):
        return Burst(votes, len(rows))
    if len(votes) >= NEARLY_ALL * met and _is_new(db, model, votes, met):
        return Burst(votes, met)
    return None


def _preferred(row: dict[str, str]) -> str | None:
    if row["winner"] in ("model_a", "model_b"):
        return row["left"] if row["winner"] == "model_a" else row["right"]
    return None


def _is_new(db: Database, model: str, votes: tuple[int, ...], met: int) -> bool:
    """Whether the model won surely less before."""
    places = {"model": model, "last": votes[-1], "before": BEFORE, "first": votes[0]}
    earlier = next(iter(db.query(EARLIER_SQL, places)))
    met_before, won_before = int(earlier["met"]), int(earlier["won"] or 0)
    if met_before < 20:
        return False
    share = (won_before + 1) / (met_before + 2)
    spread = math.sqrt(met * share * (1 - share) * (1 + met / met_before))
    return len(votes) - met * share > SURELY * spread
