"""Which models the votes can compare at all: components of the graph of wins.

An edge goes from winner to loser; a tie draws both. Strengths without a penalty are
finite exactly when the graph is strongly connected (Ford 1957). Pure numpy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from arena.ratings.vote_table import Cells, Ints

Graph = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Connectivity:
    """`component[m]`: models with the same number were compared, directly or not.

    `strong[m]`: models with the same number beat each other in a circle, so that the votes
    alone fix their gaps. Numbers start at 0 in the order of the models.
    """

    component: Ints
    strong: Ints

    @property
    def num_components(self) -> int:
        """Number of groups that were never compared with each other."""
        return int(self.component.max(initial=-1)) + 1


def connectivity(cells: Cells) -> Connectivity:
    """Components of the models; a model without votes is a component of its own."""
    count = cells.num_models
    beats = np.zeros((count, count), dtype=bool)
    left, right, tie = (cells.weight[:, k] > 0 for k in range(3))
    beats[cells.left[left], cells.right[left]] = True
    beats[cells.right[right], cells.left[right]] = True
    beats[cells.left[tie], cells.right[tie]] = True
    beats[cells.right[tie], cells.left[tie]] = True
    reach = _closure(beats)
    return Connectivity(
        component=_groups(_closure(beats | beats.T)), strong=_groups(reach & reach.T)
    )


def _closure(edges: Graph) -> Graph:
    """Reachability by repeated squaring."""
    reach = edges | np.eye(len(edges), dtype=bool)
    while True:
        further = (reach.astype(np.float32) @ reach.astype(np.float32)) > 0
        if np.array_equal(further, reach):
            return reach
        reach = further


def _groups(same: Graph) -> Ints:
    """Number the equivalence classes of a symmetric relation by first member."""
    first = same.argmax(axis=1) if len(same) else np.zeros(0, dtype=np.int64)
    return np.asarray(np.unique(first, return_inverse=True)[1], dtype=np.int64)
