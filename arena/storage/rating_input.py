"""Reads the votes of the store as a table of numbers for the ratings; fits nothing.

Ratings use blind votes that are not in quarantine; what is left out is counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlite_utils import Database

from arena.ratings.style import FEATURES, measure_style, style_differences
from arena.ratings.vote_table import Floats, RatingInput, TableError, VoteTable
from arena.storage.pair_cache import Column, PairCache, PairColumns
from arena.storage.store import Store
from arena.values.vote import REASONS


@dataclass(frozen=True)
class VoteFilter:
    """Which votes the ratings use; times are milliseconds since 1970, UTC.

    `named` and `flagged` add votes given with names in sight and votes in quarantine.
    `synthetic` adds votes of judges that are programs. `reason`, `tag`: only votes with this
    reason, only battles with this tag.
    `propensity`: weigh each vote by one over the probability with which its pair was drawn,
    at most `max_weight` times the mean. `style`: measure both texts of each pair, so that the
    effect of style can be told from strength (reads every text: slower).
    """

    named: bool = False
    flagged: bool = False
    synthetic: bool = False
    reason: str | None = None
    tag: str | None = None
    since_ms: int | None = None
    until_ms: int | None = None
    propensity: bool = False
    style: bool = False
    max_weight: float = 10.0


REASON_SQL = """
SELECT v.id FROM votes v
 WHERE EXISTS (SELECT 1 FROM json_each(v.reasons) WHERE value = ?)"""
TAG_SQL = """
SELECT v.id FROM battles b
  CROSS JOIN turns t ON t.battle_id = b.id
  CROSS JOIN votes v ON v.turn_id = t.id
 WHERE EXISTS (SELECT 1 FROM json_each(b.tags) WHERE value = ?)"""
SYNTHETIC_SQL = """
SELECT v.id FROM battles b
  CROSS JOIN turns t ON t.battle_id = b.id
  CROSS JOIN votes v ON v.turn_id = t.id
 WHERE b.source = 'synthetic'"""
TEXTS_SQL = """
SELECT l.text, r.text
  FROM comparisons c
  CROSS JOIN answers l ON l.id = c.left_answer_id
  CROSS JOIN answers r ON r.id = c.right_answer_id
 ORDER BY c.vote_id, c.left_side, c.right_side"""


def read_rating_input(
    source: Store | PairCache, vote_filter: VoteFilter | None = None
) -> RatingInput:
    """The judged pairs that the filter lets in. Raises TableError for an unknown reason.

    A cache that is kept reads only what has changed since the last time.
    """
    vote_filter = vote_filter or VoteFilter()
    if vote_filter.reason is not None and vote_filter.reason not in REASONS:
        raise TableError(
            f"reason {vote_filter.reason!r} is unknown; use one of {', '.join(REASONS)}"
        )
    pair_cache = source if isinstance(source, PairCache) else PairCache(source)
    with pair_cache.reading() as (db, pairs):
        names = model_labels(db)
        keep, left_out = _kept(db, pairs, vote_filter)
        features = None
        if vote_filter.style:
            features = _features(db, np.ones(len(pairs), dtype=bool) if keep is None else keep)
    return _rating_input(pairs, keep, names, vote_filter, features, left_out)


def _kept(
    db: Database, pairs: PairColumns, vote_filter: VoteFilter
) -> tuple[npt.NDArray[np.bool_] | None, dict[str, int]]:
    """Which pairs the filter lets in, None for all; of the others how many and why."""
    keep = np.ones(len(pairs), dtype=bool)
    for sql, word in ((REASON_SQL, vote_filter.reason), (TAG_SQL, vote_filter.tag)):
        if word is not None:
            votes = np.fromiter((row[0] for row in db.execute(sql, [word])), np.int64)
            keep &= np.isin(pairs["vote"], votes)
    left_out: dict[str, int] = {}
    reasons: list[tuple[str, Any]] = []
    if not vote_filter.synthetic:
        votes = np.fromiter((row[0] for row in db.execute(SYNTHETIC_SQL)), np.int64)
        if len(votes):
            reasons.append(("synthetic", np.isin(pairs["vote"], votes)))
    if not vote_filter.flagged and pairs["flagged"].any():
        reasons.append(("flagged", pairs["flagged"] > 0))
    if not vote_filter.named and not pairs["blind"].all():
        reasons.append(("named", pairs["blind"] == 0))
    if vote_filter.since_ms is not None:
        reasons.append(("other_date", pairs["created_ms"] < vote_filter.since_ms))
    if vote_filter.until_ms is not None:
        reasons.append(("other_date", pairs["created_ms"] >= vote_filter.until_ms))
    for reason, mask in reasons:
        dropped = int(np.count_nonzero(keep & mask))
        if dropped:
            left_out[reason] = left_out.get(reason, 0) + dropped
            keep &= ~mask
    return None if keep.all() else keep, left_out


def _features(db: Database, keep: npt.NDArray[np.bool_]) -> Floats:
    """Style of the kept pairs: reads every text."""
    counts = [
        measure_style(left).counts + measure_style(right).counts
        for kept, (left, right) in zip(keep.tolist(), db.execute(TEXTS_SQL), strict=True)
        if kept
    ]
    num_features = len(FEATURES)
    styles = np.array(counts, dtype=np.float64).reshape(len(counts), 2 * num_features)
    return style_differences(styles[:, :num_features], styles[:, num_features:])


def _rating_input(
    pairs: PairColumns,
    keep: npt.NDArray[np.bool_] | None,
    names: Mapping[int, str],
    vote_filter: VoteFilter,
    features: Floats | None,
    left_out: dict[str, int],
) -> RatingInput:
    def column(name: str) -> Column:
        return pairs[name] if keep is None else pairs[name][keep]

    size = max(names, default=0) + 1
    left, right = column("left"), column("right")
    seen = np.bincount(left, minlength=size) + np.bincount(right, minlength=size)
    models = sorted({label for row_id, label in names.items() if seen[row_id]})
    position = {label: i for i, label in enumerate(models)}
    place = np.zeros(size, dtype=np.int64)
    for row_id, label in names.items():
        place[row_id] = position.get(label, -1)
    table = VoteTable(
        models=tuple(models),
        left=place[left],
        right=place[right],
        outcome=column("outcome").astype(np.int64),
        weight=_weights(
            column("weight"), column("propensity") if vote_filter.propensity else None, vote_filter
        ),
        cluster=column("voter").astype(np.int64),
        features=features,
        feature_names=FEATURES if features is not None else (),
        sides_chosen=_sides_chosen(column("blind"), column("propensity")),
    )
    return RatingInput(table, column("created_ms"), left_out)


def _sides_chosen(blind: Column, propensity: Column) -> npt.NDArray[np.bool_] | None:
    """Which pairs were asked by name: their voter chose the order. None if there are none."""
    chosen = (blind == 0) & (propensity == 0)
    return chosen if chosen.any() else None


def _weights(weight: Floats, propensity: Floats | None, vote_filter: VoteFilter) -> Floats:
    if propensity is None or not len(weight):
        return weight
    known = propensity > 0
    if not known.all():
        raise TableError(
            f"{int((~known).sum())} votes have no propensity (pair not drawn by a sampler);"
            " rate them without --propensity"
        )
    inverse = 1 / propensity
    return np.asarray(weight * np.minimum(inverse / inverse.mean(), vote_filter.max_weight))


def model_labels(db: Database) -> dict[int, str]:
    """Label of each participant row: its name, with the weights' hash where one name has had
    several weights, and with the way of asking where one name was asked in several ways. White
    space around a name, or more than one space within, makes no other model.
    """
    rows = list(db["participants"].rows)
    for row in rows:
        row["name"] = " ".join(row["name"].split()) or row["name"]
    labels = {row["id"]: row["name"] for row in rows}
    for column in ("weights_sha256", "ask_as"):
        values: dict[str, set[Any]] = {}
        for row in rows:
            values.setdefault(row["name"], set()).add(row[column])
        for row in rows:
            if len(values[row["name"]]) > 1:
                labels[row["id"]] += f" @{(row[column] or 'unknown')[:10]}"
    return labels
