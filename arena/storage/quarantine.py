"""Marks votes that look wrong, with the reason; never drops one. Knows no ratings.

A marked vote stays in the store and can be counted, shown and cleared; ratings and exports
leave it out unless asked. Rules look at one voter's own votes, but for bursts of new voters.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sqlite_utils import Database

MINUTE_MS = 60_000
EVIDENCE: Mapping[str, str] = {
    "rate": "{count} votes of this voter within a minute",
    "same_side": "{count} votes in a row for the {side} side",
    "same_prompt": "{count} votes of this voter on the same prompt",
    "burst": "{count} of {total} votes of new voters within ten minutes are for one model",
    "identity_leak": "side {side} names itself",
    "failed_side": "an answer failed after the vote",
    "by_hand": "marked by hand",
}
"""What is stored beside a mark, by its reason; who marks by hand may write anything."""


@dataclass(frozen=True)
class QuarantineRules:
    """From which point on a vote is marked; 0 switches a rule off.

    `votes_per_minute`: more votes than that within a minute. `same_side`: that many decided
    blind votes in a row for the same side (sides are shuffled: by chance once in 2^(n-1)).
    `same_prompt`: the prompt was judged that often by the voter among their last 100 votes.
    `burst`: that many votes of new voters, nearly all there are, for one model (see `bursts`).
    """

    votes_per_minute: int = 60
    same_side: int = 20
    same_prompt: int = 30
    burst: int = 20


@dataclass(frozen=True)
class Suspicion:
    """Why a vote is marked: a short name and a sentence for the admin."""

    reason: str
    detail: str


def evidence(reason: str, **values: object) -> str:
    """The sentence to store for a reason of ours."""
    return EVIDENCE[reason].format(**values)


def read_evidence(detail: str) -> tuple[str, dict[str, str]] | None:
    """The key and the values of a stored sentence of ours, to be told in another language."""
    for key, text in EVIDENCE.items():
        pattern = re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>\\w+)", re.escape(text))
        if found := re.fullmatch(pattern, detail):
            return key, found.groupdict()
    return None


def suspicions(
    db: Database, vote_id: int, voter: int, now: int, rules: QuarantineRules
) -> Iterator[Suspicion]:
    """What is suspicious about a vote that was just written."""
    recent = _recent_votes(db, voter, now)
    if rules.votes_per_minute and recent > rules.votes_per_minute:
        yield Suspicion("rate", evidence("rate", count=recent))
    if rules.same_side:
        sides = _last_sides(db, voter, rules.same_side)
        if len(sides) == rules.same_side and len(set(sides)) == 1:
            side = "left" if sides[0] == "model_a" else "right"
            detail = evidence("same_side", count=rules.same_side, side=side)
            yield Suspicion("same_side", detail)
    if rules.same_prompt:
        times = _same_prompt(db, vote_id, voter)
        if times > rules.same_prompt:
            yield Suspicion("same_prompt", evidence("same_prompt", count=times))


def _recent_votes(db: Database, voter: int, now: int) -> int:
    sql = "SELECT count(*) AS n FROM votes WHERE voter_id = ? AND created_ms > ?"
    return int(next(iter(db.query(sql, [voter, now - MINUTE_MS])))["n"])


def _last_sides(db: Database, voter: int, count: int) -> list[str]:
    sql = """
        SELECT winner FROM votes
         WHERE voter_id = ? AND blind = 1 AND winner IN ('model_a', 'model_b')
         ORDER BY created_ms DESC, id DESC LIMIT ?"""
    return [row["winner"] for row in db.query(sql, [voter, count])]


def _same_prompt(db: Database, vote_id: int, voter: int) -> int:
    sql = """
        SELECT count(*) AS n
          FROM (SELECT t.prompt FROM votes v JOIN turns t ON t.id = v.turn_id
                 WHERE v.voter_id = ? ORDER BY v.created_ms DESC LIMIT 100) last
         WHERE last.prompt = (SELECT t.prompt FROM votes v JOIN turns t ON t.id = v.turn_id
                               WHERE v.id = ?)"""
    return int(next(iter(db.query(sql, [voter, vote_id])))["n"])
