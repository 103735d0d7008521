"""Votes as arrays of numbers: what the ratings are computed from; knows no store, no model fit.

A table of strings becomes integer codes, and a million rows become a few thousand cells,
one per ordered pair of models. Pure functions on numpy arrays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from arena.errors import ArenaError
from arena.judgement import Winner

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

LEFT, RIGHT, TIE, BOTH_BAD = range(4)
"""Codes of `VoteTable.outcome`, in the order of WINNERS."""

WINNERS = (Winner.MODEL_A, Winner.MODEL_B, Winner.TIE, Winner.BOTH_BAD)


class TableError(ArenaError):
    """Columns of unequal length, an unknown winner or a weight that is no positive number."""


@dataclass(frozen=True)
class VoteTable:
    """N judged pairs. `left`, `right` index `models`; `outcome` is one of the four codes.

    `weight` is positive; `cluster` numbers the voter of each row (None: all independent);
    `features` is N x F, left minus right, one column per name in `feature_names`.
    """

    models: tuple[str, ...]
    left: Ints
    right: Ints
    outcome: Ints
    weight: Floats
    cluster: Ints | None = None
    features: Floats | None = None
    feature_names: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.left)

    def where(self, mask: npt.NDArray[np.bool_]) -> VoteTable:
        """The rows of a boolean mask; the models stay the same."""
        return replace(
            self,
            left=self.left[mask],
            right=self.right[mask],
            outcome=self.outcome[mask],
            weight=self.weight[mask],
            cluster=None if self.cluster is None else self.cluster[mask],
            features=None if self.features is None else self.features[mask],
        )

    def swapped(self) -> VoteTable:
        """The same votes with the sides exchanged."""
        return replace(
            self,
            left=self.right,
            right=self.left,
            outcome=np.array([RIGHT, LEFT, TIE, BOTH_BAD])[self.outcome],
            features=None if self.features is None else -self.features,
        )

    def without_features(self) -> VoteTable:
        """The same votes, style unknown."""
        return replace(self, features=None, feature_names=())


@dataclass(frozen=True)
class Cells:
    """Rows of equal design put together: n cells.

    `weight[:, k]` is the sum of weights of outcome k (left, right, tie), `square[:, k]` the
    sum of their squares; `row_cell` maps each row of the table to its cell.
    """

    num_models: int
    left: Ints
    right: Ints
    weight: Floats
    square: Floats
    features: Floats
    row_cell: Ints


def table_from_columns(
    model_a: Sequence[str] | pa.Array,
    model_b: Sequence[str] | pa.Array,
    winner: Sequence[str] | pa.Array,
    *,
    weight: Floats | None = None,
    voter: Sequence[str] | pa.Array | None = None,
) -> VoteTable:
    """Encode columns of strings. `winner` holds the texts of `Winner`; others are refused."""
    columns = [_encoded(column) for column in (model_a, model_b, winner)]
    if len({len(column) for column in columns}) != 1:
        raise TableError("columns model_a, model_b and winner differ in length")
    names = pa.concat_arrays([columns[0].dictionary, columns[1].dictionary]).unique().sort()
    known = pa.array([str(w) for w in WINNERS])
    outcome = _codes(columns[2], known)
    if len(outcome) and outcome.min() < 0:
        unknown = columns[2].dictionary.filter(
            pc.invert(pc.is_in(columns[2].dictionary, value_set=known))
        )
        shown = repr(unknown[0].as_py()) if len(unknown) else "missing"
        raise TableError(f"winner {shown} is unknown; use one of {', '.join(WINNERS)}")
    return VoteTable(
        models=tuple(names.to_pylist()),
        left=_codes(columns[0], names),
        right=_codes(columns[1], names),
        outcome=outcome,
        weight=np.ones(len(outcome)) if weight is None else checked_weights(weight, len(outcome)),
        cluster=None if voter is None else _indices(_encoded(voter)),
    )


def checked_weights(weight: Floats, num_rows: int) -> Floats:
    """The weights, all positive and finite, one per row, or TableError."""
    if weight.shape != (num_rows,):
        raise TableError(f"weight has shape {weight.shape}, the table {num_rows} rows")
    if not np.all(np.isfinite(weight) & (weight > 0)):
        raise TableError("a weight is zero, negative or not finite; weights are positive")
    return weight


def to_cells(table: VoteTable) -> Cells:
    """Put rows together; `both_bad` counts as a tie here (drop such rows first if not meant).

    With features no two rows are alike, and each row is its own cell.
    """
    num_models = len(table.models)
    outcome = np.minimum(table.outcome, TIE)
    if table.features is None:
        code = table.left * num_models + table.right
        seen = np.bincount(code, minlength=num_models * num_models) > 0
        row_cell = (np.cumsum(seen) - 1)[code]
        cells = np.flatnonzero(seen)
        left, right = cells // num_models, cells % num_models
        features = np.zeros((len(cells), 0))
    else:
        row_cell = np.arange(len(table))
        left, right, features = table.left, table.right, table.features
    shape = (len(left), 3)
    slot = row_cell * 3 + outcome
    weight, square = _weight_sums(slot, table.weight, shape[0] * 3)
    return Cells(
        num_models=num_models,
        left=left,
        right=right,
        weight=weight.reshape(shape),
        square=square.reshape(shape),
        features=features,
        row_cell=row_cell,
    )


def _weight_sums(slot: Ints, weight: Floats, size: int) -> tuple[Floats, Floats]:
    """Sums of weights and of their squares by slot; equal weights are only counted."""
    if len(weight) and np.all(weight == weight[0]):
        count = np.bincount(slot, minlength=size).astype(np.float64)
        return count * weight[0], count * weight[0] ** 2
    return summed(slot, weight, size), summed(slot, weight**2, size)


def pair_counts(table: VoteTable) -> Ints:
    """Rows by left model, right model and outcome: M x M x 4."""
    size = len(table.models)
    slot = (table.left * size + table.right) * len(WINNERS) + table.outcome
    counts = np.bincount(slot, minlength=size * size * len(WINNERS))
    return np.asarray(counts, np.int64).reshape(size, size, len(WINNERS))


def summed(slot: Ints, values: Floats, size: int) -> Floats:
    """Sum of values by slot: `size` numbers."""
    return np.asarray(np.bincount(slot, values, size), dtype=np.float64)


def _encoded(column: Sequence[str] | pa.Array) -> pa.DictionaryArray:
    array = column if isinstance(column, pa.Array) else pa.array(column, pa.string())
    if isinstance(array, pa.DictionaryArray):
        return array
    return array.dictionary_encode()


def _indices(column: pa.DictionaryArray) -> Ints:
    if column.null_count:
        raise TableError("a voter or model is missing in some rows; name all of them")
    return np.asarray(column.indices.to_numpy(zero_copy_only=False), dtype=np.int64)


def _codes(column: pa.DictionaryArray, names: pa.Array) -> Ints:
    """Positions in `names`; -1 for others."""
    places = pc.fill_null(pc.index_in(column.dictionary, value_set=names), -1)
    table = places.to_numpy(zero_copy_only=False).astype(np.int64)
    return table[_indices(column)] if len(column) else np.zeros(0, dtype=np.int64)
