"""Votes as arrays of numbers: what the ratings are computed from; knows no store, no model fit.

A table of strings becomes integer codes, and a million rows become a few thousand cells,
one per ordered pair of models. Pure functions on numpy arrays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from arena.errors import ArenaError
from arena.ratings.sides import Mask, sides
from arena.values.vote import Winner

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

LEFT, RIGHT, TIE, BOTH_BAD = range(4)
"""Codes of `VoteTable.outcome`, in the order of WINNERS."""

WINNERS = (Winner.MODEL_A, Winner.MODEL_B, Winner.TIE, Winner.BOTH_BAD)


class TableError(ArenaError):
    """Columns of unequal length, an unknown winner or a weight that is no positive number."""

    code = "votes_refused"


@dataclass(frozen=True)
class VoteTable:
    """N judged pairs. `left`, `right` index `models`; `outcome` is one of the four codes.

    `weight` is positive; `cluster` numbers the voter of each row (None: all independent);
    `features` is N x F, left minus right, one column per name in `feature_names`.
    `sides_chosen` marks rows whose sides a person chose (None: all were drawn).
    """

    models: tuple[str, ...]
    left: Ints
    right: Ints
    outcome: Ints
    weight: Floats
    cluster: Ints | None = None
    features: Floats | None = None
    feature_names: tuple[str, ...] = ()
    sides_chosen: Mask | None = None

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.left)

    def where(self, mask: Mask) -> VoteTable:
        """The rows of a boolean mask; the models stay the same."""
        return replace(
            self,
            left=self.left[mask],
            right=self.right[mask],
            outcome=self.outcome[mask],
            weight=self.weight[mask],
            cluster=None if self.cluster is None else self.cluster[mask],
            features=None if self.features is None else self.features[mask],
            sides_chosen=None if self.sides_chosen is None else self.sides_chosen[mask],
        )


@dataclass(frozen=True)
class Cells:
    """Rows of equal design put together: n cells.

    `weight[:, k]` is the sum of weights of outcome k (left, right, tie), `square[:, k]` the
    sum of their squares; `row_cell` maps each row of the table to its cell. `side` is 1 where the
    cell tells the side effect, else 0; `fixed` are the pairs that never changed sides.
    """

    num_models: int
    left: Ints
    right: Ints
    weight: Floats
    square: Floats
    features: Floats
    row_cell: Ints
    side: Floats
    fixed: tuple[tuple[int, int], ...] = ()


def table_from_columns(
    model_a: Sequence[str] | pa.Array,
    model_b: Sequence[str] | pa.Array,
    winner: Sequence[str] | pa.Array,
    *,
    weight: Floats | None = None,
    voter: Sequence[str] | pa.Array | None = None,
) -> VoteTable:
    """Encode columns of strings. `winner` holds the texts of `Winner`; others are refused."""
    if not len(model_a) == len(model_b) == len(winner):
        raise TableError("columns model_a, model_b and winner differ in length")
    outcomes = _Numbers((str(word), code) for code, word in enumerate(WINNERS))
    outcome = outcomes.of(winner)
    if len(outcomes) > len(WINNERS):
        unknown = list(outcomes)[len(WINNERS)]
        raise TableError(f"winner {unknown!r} is unknown; use one of {', '.join(WINNERS)}")
    names = _Numbers()
    left, right = names.of(model_a), names.of(model_b)
    models = sorted(names)
    place = np.empty(len(models), dtype=np.int64)
    place[[names[name] for name in models]] = np.arange(len(models))
    return VoteTable(
        models=tuple(models),
        left=place[left],
        right=place[right],
        outcome=outcome,
        weight=np.ones(len(outcome)) if weight is None else checked_weights(weight, len(outcome)),
        cluster=None if voter is None else _Numbers().of(voter),
    )


def without_self(table: VoteTable) -> tuple[VoteTable, int]:
    """The table without votes on a model against itself, which say nothing, and their number.

    A model that has no other votes is no longer among the models.
    """
    alone = table.left == table.right
    if not alone.any():
        return table, 0
    kept = table.where(~alone)
    met = np.unique(np.concatenate([kept.left, kept.right]))
    gone = np.setdiff1d(table.left[alone], met)
    stay = np.setdiff1d(np.arange(len(table.models)), gone)
    place = np.zeros(len(table.models), dtype=np.int64)
    place[stay] = np.arange(len(stay))
    models = tuple(table.models[i] for i in stay)
    kept = replace(kept, models=models, left=place[kept.left], right=place[kept.right])
    return kept, int(alone.sum())


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
    seats = sides(num_models, table.left, table.right, table.sides_chosen)
    if table.features is None:
        code = table.left * num_models + table.right
        size = num_models * num_models
        if table.sides_chosen is not None:  # one pair may have votes of both kinds
            code = code + size * seats.told
        seen = np.bincount(code, minlength=size) > 0
        row_cell = (np.cumsum(seen) - 1)[code]
        cells = np.flatnonzero(seen)
        left, right = cells % size // num_models, cells % num_models
        features = np.zeros((len(cells), 0))
    else:
        row_cell = np.arange(len(table))
        left, right, features = table.left, table.right, table.features
    side = np.zeros(len(left))
    side[row_cell] = seats.told
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
        side=side,
        fixed=seats.fixed,
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


class _Numbers(dict[str, int]):
    """Numbers texts in the order in which they are first met."""

    def __missing__(self, text: str) -> int:
        if not isinstance(text, str):
            raise TableError(f"{text!r} is no name of a model, voter or winner; give texts")
        number = self[text] = len(self)
        return number

    def of(self, column: Sequence[str] | pa.Array) -> Ints:
        """The number of each text."""
        if not isinstance(column, pa.Array):  # several times faster than through Arrow
            numbers = map(self.__getitem__, column)
            try:
                return np.frombuffer(bytes(numbers), np.uint8).astype(np.int64)
            except ValueError:  # more than 256 texts fit in no byte
                return np.fromiter(map(self.__getitem__, column), np.int64, len(column))
        encoded = column if isinstance(column, pa.DictionaryArray) else column.dictionary_encode()
        if encoded.null_count:
            raise TableError("None is no name of a model, voter or winner; give texts")
        coded = np.array([self[text] for text in encoded.dictionary.to_pylist()], dtype=np.int64)
        return np.asarray(coded[encoded.indices.to_numpy(zero_copy_only=False)], np.int64)


@dataclass(frozen=True)
class RatingInput:
    """A table with the time of each row, and how many judged pairs were left out and why."""

    table: VoteTable
    created_ms: np.ndarray[Any, np.dtype[np.int64]]
    left_out: dict[str, int]
