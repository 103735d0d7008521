"""Against what a rating is told: the mean of the models whose gaps the votes fix. Pure numpy.

A model that never lost, or never won, would otherwise move the mean of all, and with it every
rating, by as much as the penalty lets it; and so would one that nobody has compared with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from arena.ratings.connectivity import Connectivity
from arena.ratings.sides import Mask
from arena.ratings.vote_table import Floats, Ints


@dataclass(frozen=True)
class Anchors:
    """`fixed[m]`: the votes fix the model's gaps to all others that are fixed in its group.

    `connected[m]`: it is of the largest strongly connected set of its group: each model of it beat
    the next one, around in a circle.
    `shift` takes strengths to those relative to the anchors of each group: its fixed models, or all
    where there are none. `alone[m]`: nothing was compared with it.
    """

    fixed: Mask
    connected: Mask
    alone: Mask
    shift: Floats

    def variance(self, covariance: Floats) -> Floats:
        """Of each strength relative to the anchors, from the covariance of the strengths."""
        variance: Floats = ((self.shift @ covariance) * self.shift).sum(axis=1)
        return np.where(self.alone, np.diag(covariance), variance)


def anchors(links: Connectivity, thin: Sequence[bool]) -> Anchors:
    """Fixed are the models of the largest connected set without those of few votes (`thin`).

    If fewer than two remain, none is fixed.
    """
    count = len(links.component)
    fixed, connected, alone = (np.zeros(count, dtype=bool) for _ in range(3))
    shift = np.eye(count)
    for group in range(links.num_components):
        members = np.flatnonzero(links.component == group)
        largest = _largest_connected(links.strong, members)
        firm = largest[~np.asarray(thin, dtype=bool)[largest]]
        kept = firm if len(firm) > 1 else members
        fixed[firm] = len(firm) > 1
        connected[largest] = len(largest) > 1
        alone[members] = len(members) == 1
        shift[np.ix_(members, kept)] -= 1 / len(kept)
    return Anchors(fixed, connected, alone, shift)


def _largest_connected(strong: Ints, members: Ints) -> Ints:
    classes, sizes = np.unique(strong[members], return_counts=True)
    found: Ints = members[strong[members] == classes[sizes.argmax()]]
    return found
