"""Streams the judged pairs of the store that a filter lets through; knows no file format.

One pair is one comparison of two sides by one vote, with the texts that were judged, the
context they were asked in and their lineage. Memory stays constant: rows come one by one
from a single read transaction.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

from sqlite_utils import Database

from arena.storage.database import reading
from arena.storage.rows import participant_from, turns_from
from arena.storage.store import Store
from arena.values.battle import SYNTHETIC, ChatMessage, Participant, Turn, turn_context


class LeftOut(StrEnum):
    """Why a judged pair is not in an export; each is counted in its manifest."""

    TIE = "tie"
    BOTH_BAD = "both_bad"
    PARTIAL = "partial"
    FAILED = "failed"
    FLAGGED = "flagged"
    IDENTITY_LEAK = "identity_leak"
    DIVERGED = "diverged"
    NAMED = "named"
    OTHER_MODEL = "other_model"
    OTHER_DATE = "other_date"
    OTHER_TAG = "other_tag"
    EMPTY = "empty"
    IDENTICAL = "identical"
    DUPLICATE = "duplicate"
    BETWEEN = "between"
    OTHER_FORMAT = "other_format"
    SYNTHETIC = "synthetic"
    OTHER_SOURCE = "other_source"


INCLUDABLE = (
    LeftOut.FLAGGED,
    LeftOut.IDENTITY_LEAK,
    LeftOut.PARTIAL,
    LeftOut.DIVERGED,
    LeftOut.SYNTHETIC,
)
"""What is left out unless asked for."""


@dataclass(frozen=True)
class Selection:
    """Which judged pairs an export takes; times are milliseconds since 1970, UTC.

    `models`: both sides must be among them (empty: all). `tags`: the battle must carry one
    of them (empty: all). `sources`: where the battle was made, such as page, api or synthetic
    (empty: everywhere but synthetic). `include`: what of INCLUDABLE is kept.
    """

    models: tuple[str, ...] = ()
    since_ms: int | None = None
    until_ms: int | None = None
    tags: tuple[str, ...] = ()
    blind_only: bool = False
    sources: tuple[str, ...] = ()
    include: frozenset[LeftOut] = frozenset()

    def described(self) -> dict[str, Any]:
        """The filters as JSON values, for the manifest."""
        return {
            "models": list(self.models),
            "since_ms": self.since_ms,
            "until_ms": self.until_ms,
            "tags": list(self.tags),
            "blind_only": self.blind_only,
            "sources": list(self.sources),
            "include": sorted(self.include),
        }


class SideView(NamedTuple):
    """One side of a judged pair; `context` are the messages it was asked with, prompt last."""

    side: int
    participant: Participant
    text: str
    weights_sha256: str | None
    sampling: str
    num_tokens: int | None
    context: list[ChatMessage]


class JudgedPair(NamedTuple):
    """One comparison; `winner` is the text of a `Winner` whose model_a is `left`.

    `voter` numbers the voters of this export from 1 in order of appearance: it tells votes
    of one person apart from those of another and says nothing else. `turn` is a position, from 0;
    whatever is written counts turns from 1.
    """

    vote_id: int
    battle_id: str
    turn: int
    num_sides: int
    winner: str
    weight: float
    strength: str | None
    reasons: tuple[str, ...]
    comment: str
    edited_answer: str
    ranking: tuple[int, ...] | None
    voter: int
    partial: bool
    blind: bool
    flags: tuple[str, ...]
    mode: str
    tags: tuple[str, ...]
    language: str | None
    propensity: float | None
    created_ms: int
    left: SideView
    right: SideView

    @property
    def is_diverged(self) -> bool:
        """The two sides were asked in different contexts."""
        left, right = self.left.context, self.right.context
        return left is not right and left != right


@dataclass
class ExportCounts:
    """Counts of an export as it runs: pairs seen, rows written, pairs left out and why.

    `rows_left_out`: rows that could not be made, of pairs that made others.
    """

    num_pairs: int = 0
    num_rows: int = 0
    last_ms: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    rows_left_out: Counter[str] = field(default_factory=Counter)
    redacted: Counter[str] = field(default_factory=Counter)


PAIRS_SQL = """
SELECT c.vote_id, c.left_side, c.right_side, c.left_id, c.right_id, c.winner, c.weight,
       v.voter_id, v.ranking, v.strength, v.reasons, v.comment, v.edited_answer, v.partial,
       v.blind, v.created_ms,
       t.position AS turn, t.prompt, t.battle_id,
       b.public_id, b.mode, b.tags, b.language, b.propensity, b.source,
       l.text AS left_text, l.status AS left_status, l.weights_sha256 AS left_sha256,
       l.sampling AS left_sampling, l.num_tokens AS left_tokens,
       r.text AS right_text, r.status AS right_status, r.weights_sha256 AS right_sha256,
       r.sampling AS right_sampling, r.num_tokens AS right_tokens,
       (SELECT json_group_array(f.reason) FROM vote_flags f
         WHERE f.vote_id = v.id AND f.cleared_ms IS NULL) AS flags
  FROM comparisons c
  CROSS JOIN votes v ON v.id = c.vote_id
  CROSS JOIN turns t ON t.id = v.turn_id
  CROSS JOIN battles b ON b.id = t.battle_id
  CROSS JOIN answers l ON l.id = c.left_answer_id
  CROSS JOIN answers r ON r.id = c.right_answer_id
 ORDER BY c.vote_id, c.left_side, c.right_side
"""


def select_pairs(db: Database, selection: Selection, counts: ExportCounts) -> Iterator[JudgedPair]:
    """The judged pairs that pass the filter, in order of votes; the others are counted."""
    people = participants_by_row(db)
    voters: dict[int, int] = {}
    for row in db.query(PAIRS_SQL):
        counts.num_pairs += 1
        reason = _excluded(row, people, selection)
        if reason is None:
            voter = voters.setdefault(row["voter_id"], len(voters) + 1)
            pair = _pair(db, row, people, voter)
            if not pair.is_diverged or LeftOut.DIVERGED in selection.include:
                counts.last_ms = max(counts.last_ms, pair.created_ms)
                yield pair
                continue
            reason = LeftOut.DIVERGED
        counts.left_out[reason] += 1


def participants_by_row(db: Database) -> dict[int, Participant]:
    """All participants by row id."""
    return {row["id"]: participant_from(row) for row in db["participants"].rows}


def _excluded(
    row: Mapping[str, Any], people: Mapping[int, Participant], selection: Selection
) -> LeftOut | None:
    if row["left_status"] == "failed" or row["right_status"] == "failed":
        return LeftOut.FAILED
    if row["flags"] != "[]":
        for flag in json.loads(row["flags"]):
            kind = LeftOut.IDENTITY_LEAK if flag == "identity_leak" else LeftOut.FLAGGED
            if kind not in selection.include:
                return kind
    if selection.sources and row["source"] not in selection.sources:
        return LeftOut.OTHER_SOURCE
    if row["source"] == SYNTHETIC and not (
        selection.sources or LeftOut.SYNTHETIC in selection.include
    ):
        return LeftOut.SYNTHETIC
    if row["partial"] and LeftOut.PARTIAL not in selection.include:
        return LeftOut.PARTIAL
    if selection.blind_only and not row["blind"]:
        return LeftOut.NAMED
    models = selection.models
    if models and not (
        people[row["left_id"]].name in models and people[row["right_id"]].name in models
    ):
        return LeftOut.OTHER_MODEL
    time = row["created_ms"]
    if time < (selection.since_ms or 0) or (
        selection.until_ms is not None and time >= selection.until_ms
    ):
        return LeftOut.OTHER_DATE
    if selection.tags and not set(selection.tags) & set(json.loads(row["tags"])):
        return LeftOut.OTHER_TAG
    return None


def _pair(
    db: Database, row: Mapping[str, Any], people: Mapping[int, Participant], voter: int
) -> JudgedPair:
    left_context, right_context = _contexts(db, row)
    left, right = people[row["left_id"]], people[row["right_id"]]
    return JudgedPair(
        vote_id=row["vote_id"],
        battle_id=row["public_id"],
        turn=row["turn"],
        num_sides=round(2 / row["weight"]),
        winner=row["winner"],
        weight=row["weight"],
        strength=row["strength"],
        reasons=_words(row["reasons"]),
        comment=row["comment"],
        edited_answer=row["edited_answer"],
        ranking=None if row["ranking"] is None else tuple(json.loads(row["ranking"])),
        voter=voter,
        partial=bool(row["partial"]),
        blind=bool(row["blind"]),
        flags=_words(row["flags"]),
        mode=row["mode"],
        tags=_words(row["tags"]),
        language=row["language"],
        propensity=row["propensity"],
        created_ms=row["created_ms"],
        left=SideView(
            row["left_side"],
            left,
            row["left_text"],
            row["left_sha256"] or left.weights_sha256,
            row["left_sampling"],
            row["left_tokens"],
            left_context,
        ),
        right=SideView(
            row["right_side"],
            right,
            row["right_text"],
            row["right_sha256"] or right.weights_sha256,
            row["right_sampling"],
            row["right_tokens"],
            right_context,
        ),
    )


def _contexts(db: Database, row: Mapping[str, Any]) -> tuple[list[ChatMessage], list[ChatMessage]]:
    if row["turn"] == 0:  # nearly all rows: no look-up
        context = [{"role": "user", "content": row["prompt"]}]
        return context, context
    turns: tuple[Turn, ...] = turns_from(db, row["battle_id"])
    left = turn_context(turns, row["turn"], row["left_side"])
    return left, turn_context(turns, row["turn"], row["right_side"])


def _words(text: str) -> tuple[str, ...]:
    return () if text == "[]" else tuple(json.loads(text))


NOT_JUDGED_SQL = """
SELECT coalesce(sum(failed), 0) AS turns_failed,
       coalesce(sum(1 - failed), 0) AS turns_without_vote
  FROM (SELECT EXISTS (SELECT 1 FROM answers a WHERE a.turn_id = t.id
          AND a.superseded = 0 AND a.status = 'failed') AS failed
          FROM turns t
         WHERE NOT EXISTS (SELECT 1 FROM votes v WHERE v.turn_id = t.id))"""


def not_judged(store: Store) -> dict[str, int]:
    """Turns without a vote, by whether an answer failed."""
    with reading(store.path, store.config) as db:
        return dict(next(iter(db.query(NOT_JUDGED_SQL))))
