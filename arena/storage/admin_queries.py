"""What the person who runs the page asks of the store: votes by day, who is switched off.

SQL over the store; knows no page. Voters appear as pseudonyms only.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from sqlite_utils import Database

from arena.storage import database
from arena.storage.store import Store, now_ms

DAY_MS = 86_400_000
DAYS_SHOWN = 14

DAYS_SQL = """
SELECT date(v.created_ms / 1000, 'unixepoch') AS day, p.name, count(DISTINCT v.id) AS num_votes
  FROM votes v
  JOIN comparisons c ON c.vote_id = v.id
  JOIN participants p ON p.id IN (c.left_id, c.right_id)
 WHERE v.created_ms >= ?
 GROUP BY day, p.name
 ORDER BY day DESC"""
NUM_VOTES_SQL = "SELECT count(*) AS n FROM votes WHERE created_ms >= ?"
VOTERS_SQL = "SELECT count(DISTINCT voter_id) AS n FROM votes WHERE created_ms >= ?"


@dataclass(frozen=True)
class Activity:
    """Votes by model and day, newest day first; and voters of the last 24 hours."""

    days: tuple[str, ...]
    votes: dict[str, dict[str, int]]  # by model, then day
    num_voters: int


def activity(store: Store) -> Activity:
    """What was voted in the last days (UTC)."""
    now = now_ms()
    votes: dict[str, dict[str, int]] = {}
    days: dict[str, None] = {}
    with database.reading(store.path, store.config) as db:
        for row in db.query(DAYS_SQL, [now - DAYS_SHOWN * DAY_MS]):
            days[row["day"]] = None
            votes.setdefault(row["name"], {})[row["day"]] = row["num_votes"]
        num_voters = next(iter(db.query(VOTERS_SQL, [now - DAY_MS])))["n"]
    return Activity(tuple(days), dict(sorted(votes.items())), num_voters)


def votes_since(store: Store, since_ms: int) -> int:
    """Votes that were given since a time in milliseconds since 1970."""
    with database.reading(store.path, store.config) as db:
        found = next(iter(db.query(NUM_VOTES_SQL, [since_ms])))["n"]
    return int(found)


def switched_off(store: Store) -> frozenset[str]:
    """Names of the participants that an admin switched off."""
    with database.reading(store.path, store.config) as db:
        return frozenset(row["name"] for row in db.query("SELECT name FROM participants_off"))


def switch_off(store: Store, names: Collection[str]) -> None:
    """Leave exactly these participants out of new battles."""

    def body(db: Database) -> None:
        before = {row["name"] for row in db.query("SELECT name FROM participants_off")}
        for name in before - set(names):
            db.execute("DELETE FROM participants_off WHERE name = ?", [name])
        for name in set(names) - before:
            db["participants_off"].insert({"name": name, "at_ms": now_ms()})

    store.write(body)
