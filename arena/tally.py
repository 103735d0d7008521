"""Reads the votes of the store as a table of numbers for the ratings; fits nothing.

Ratings use blind votes that are not in quarantine; what is left out is counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from sqlite_utils import Database

from arena.database import reading
from arena.judgement import REASONS
from arena.store import Store
from arena.style import FEATURES, differences, measure
from arena.votetable import Floats, TableError, VoteTable


@dataclass(frozen=True)
class Ballot:
    """Which votes the ratings use; times are milliseconds since 1970, UTC.

    `named` and `flagged` add votes given with names in sight and votes in quarantine.
    `reason`, `tag`: only votes with this reason, only battles with this tag.
    `propensity`: weigh each vote by one over the probability with which its pair was drawn,
    at most `max_weight` times the mean. `style`: measure both texts of each pair, so that the
    effect of style can be told from strength (reads every text: slower).
    """

    named: bool = False
    flagged: bool = False
    reason: str | None = None
    tag: str | None = None
    since_ms: int | None = None
    until_ms: int | None = None
    propensity: bool = False
    style: bool = False
    max_weight: float = 10.0


@dataclass(frozen=True)
class Tallied:
    """A table with the time of each row, and how many judged pairs were left out and why."""

    table: VoteTable
    created_ms: np.ndarray[Any, np.dtype[np.int64]]
    left_out: dict[str, int]


ROW = np.dtype(
    [
        ("left", np.int32),
        ("right", np.int32),
        ("outcome", np.int8),
        ("voter", np.int32),
        ("blind", np.int8),
        ("flagged", np.int8),
        ("weight", np.float64),
        ("propensity", np.float64),
        ("created_ms", np.int64),
    ]
)

TALLY_SQL = """
SELECT {texts} c.left_id, c.right_id,
       CASE c.winner WHEN 'model_a' THEN 0 WHEN 'model_b' THEN 1 WHEN 'tie' THEN 2 ELSE 3 END,
       v.voter_id, v.blind,
       EXISTS (SELECT 1 FROM vote_flags f WHERE f.vote_id = v.id AND f.cleared_ms IS NULL),
       c.weight, coalesce(b.propensity, 0), v.created_ms
  FROM comparisons c
  CROSS JOIN votes v ON v.id = c.vote_id
  CROSS JOIN turns t ON t.id = v.turn_id
  CROSS JOIN battles b ON b.id = t.battle_id
  {answers}
 WHERE (:reason IS NULL OR EXISTS (SELECT 1 FROM json_each(v.reasons) WHERE value = :reason))
   AND (:tag IS NULL OR EXISTS (SELECT 1 FROM json_each(b.tags) WHERE value = :tag))
"""


WITH_TEXTS = {
    "texts": "l.text, r.text,",
    "answers": "CROSS JOIN answers l ON l.id = c.left_answer_id"
    " CROSS JOIN answers r ON r.id = c.right_answer_id",
}


def tally(store: Store, ballot: Ballot | None = None) -> Tallied:
    """The judged pairs that the ballot lets in. Raises TableError for an unknown reason."""
    ballot = ballot or Ballot()
    if ballot.reason is not None and ballot.reason not in REASONS:
        raise TableError(f"reason {ballot.reason!r} is unknown; use one of {', '.join(REASONS)}")
    with reading(store.path, store.config) as db:
        names = model_labels(db)
        sql = TALLY_SQL.format(**(WITH_TEXTS if ballot.style else {"texts": "", "answers": ""}))
        cursor = db.execute(sql, {"reason": ballot.reason, "tag": ballot.tag})
        counts: list[tuple[int, ...]] = []
        rows = np.fromiter(_measured(cursor, counts) if ballot.style else cursor, dtype=ROW)
    styles = np.array(counts, dtype=np.float64).reshape(len(rows), -1) if ballot.style else None
    return _tallied(rows, names, ballot, styles)


def _measured(cursor: Iterable[Any], counts: list[tuple[int, ...]]) -> Iterator[tuple[Any, ...]]:
    """Rows without their two texts, whose style counts are appended to `counts`."""
    for left, right, *row in cursor:
        counts.append(measure(left).counts + measure(right).counts)
        yield tuple(row)


def _tallied(
    rows: np.ndarray[Any, np.dtype[Any]],
    names: Mapping[int, str],
    ballot: Ballot,
    styles: Floats | None,
) -> Tallied:
    keep = np.ones(len(rows), dtype=bool)
    left_out: dict[str, int] = {}
    time = rows["created_ms"]
    reasons = [
        ("flagged", (rows["flagged"] > 0) & (not ballot.flagged)),
        ("named", (rows["blind"] == 0) & (not ballot.named)),
        ("other_date", (time < (ballot.since_ms or 0)) | (time >= (ballot.until_ms or 2**62))),
    ]
    for reason, mask in reasons:
        dropped = keep & mask
        if dropped.any():
            left_out[reason] = int(dropped.sum())
        keep &= ~mask
    rows = rows[keep]
    models = sorted(_labels(names, rows["left"]) | _labels(names, rows["right"]))
    position = {label: i for i, label in enumerate(models)}
    place = np.zeros(max(names, default=0) + 1, dtype=np.int64)
    for row_id, label in names.items():
        place[row_id] = position.get(label, -1)
    features = None
    if styles is not None:
        num_features = len(FEATURES)
        features = differences(styles[keep, :num_features], styles[keep, num_features:])
    table = VoteTable(
        models=tuple(models),
        left=place[rows["left"]],
        right=place[rows["right"]],
        outcome=rows["outcome"].astype(np.int64),
        weight=_weights(rows, ballot),
        cluster=rows["voter"].astype(np.int64),
        features=features,
        feature_names=FEATURES if features is not None else (),
    )
    return Tallied(table, rows["created_ms"].astype(np.int64), left_out)


def _labels(names: Mapping[int, str], ids: Iterable[int]) -> set[str]:
    return {names[int(i)] for i in np.unique(np.asarray(ids))}


def _weights(rows: np.ndarray[Any, np.dtype[Any]], ballot: Ballot) -> Any:
    weight = rows["weight"].copy()
    if not ballot.propensity or not len(rows):
        return weight
    known = rows["propensity"] > 0
    if not known.all():
        raise TableError(
            f"{int((~known).sum())} votes have no propensity (pair not drawn by a sampler);"
            " rate them without --propensity"
        )
    inverse = 1 / rows["propensity"]
    return weight * np.minimum(inverse / inverse.mean(), ballot.max_weight)


def model_labels(db: Database) -> dict[int, str]:
    """Label of each participant row: its name, with the weights' hash where one name has had
    several weights, and with the way of asking where one name was asked in several ways.
    """
    rows = list(db["participants"].rows)
    labels = {row["id"]: row["name"] for row in rows}
    for column in ("weights_sha256", "ask_as"):
        values: dict[str, set[Any]] = {}
        for row in rows:
            values.setdefault(row["name"], set()).add(row[column])
        for row in rows:
            if len(values[row["name"]]) > 1:
                labels[row["id"]] += f" @{(row[column] or 'unknown')[:10]}"
    return labels
