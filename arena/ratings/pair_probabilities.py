"""Which two models meet: pair probabilities by strategy, a draw, and the probability it had.

Pure functions over names and numbers. Knows no store, no server and no page.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import fsum

from arena.errors import ArenaError

ModelPair = tuple[str, str]
"""Two names in sorted order: a pair whatever the sides."""


class PairingError(ArenaError):
    """No pair can be drawn: too few models, or weights that leave none."""

    code = "pairs_refused"


@dataclass(frozen=True)
class Draw:
    """A drawn pair with its sides, and the probability of the pair whatever the sides.

    `is_restricted`: some pairs could not be drawn for this prompt.
    """

    left: str
    right: str
    propensity: float
    is_restricted: bool = False


def uniform(names: Sequence[str]) -> dict[ModelPair, float]:
    """Every pair alike."""
    return _normalised(dict.fromkeys(_pairs(names), 1.0))


def weighted(names: Sequence[str], weights: Mapping[str, float]) -> dict[ModelPair, float]:
    """Draw one model by weight, then its rival by weight among the rest.

    π(i,j) = (w_i w_j / W) (1/(W - w_i) + 1/(W - w_j)); a missing weight is 1, a weight of 0
    leaves the model out.
    """
    weight = {name: float(weights.get(name, 1.0)) for name in names}
    for name, value in weight.items():
        if not value >= 0 or value == float("inf"):
            raise PairingError(f"weight {value} of {name!r} is no number from 0 up; correct it")
    available = [name for name in names if weight[name] > 0]
    total = fsum(weight[name] for name in available)
    chances = {
        (i, j): weight[i] * weight[j] / total * (1 / (total - weight[i]) + 1 / (total - weight[j]))
        for i, j in _pairs(available)
    }
    return _normalised(chances)


def under_voted_first(
    names: Sequence[str],
    num_votes: Mapping[ModelPair, int],
    *,
    offset: float = 50.0,
    power: float = 0.4,
    max_ratio: float = 3.0,
) -> dict[ModelPair, float]:
    """Pairs with fewer votes are likelier: (votes + offset)^-power, at most 3 to 1."""
    score = {pair: (num_votes.get(pair, 0) + offset) ** -power for pair in _pairs(names)}
    floor = max(score.values()) / max_ratio
    return _normalised({pair: max(value, floor) for pair, value in score.items()})


def information_seeking(
    names: Sequence[str],
    gaps: Mapping[ModelPair, tuple[float, float]],
    *,
    share_uniform: float = 0.2,
) -> dict[ModelPair, float]:
    """Pairs whose next vote narrows their gap most, mixed with a share of uniform draws.

    Args:
        names: who can be drawn.
        gaps: per pair the variance v of the rating gap (natural log scale) and the probability
            p that the first wins; one vote takes q v² / (1 + q v), q = p(1 - p), off v.
            A pair without an entry counts as the most uncertain one.
        share_uniform: what part of the draws stays uniform, so that no pair is ever excluded.
    """
    gains = {
        pair: p * (1 - p) * v * v / (1 + p * (1 - p) * v) for pair, (v, p) in gaps.items() if v > 0
    }
    unknown = max(gains.values(), default=1.0)
    sharp = _normalised({pair: gains.get(pair, unknown) for pair in _pairs(names)})
    return mixed(sharp, uniform(names), share_uniform)


def with_required(
    chances: Mapping[ModelPair, float], required: Sequence[ModelPair], share: float
) -> dict[ModelPair, float]:
    """Give `share` of the draws to the pairs that must be seen; those not available are skipped."""
    wanted = [pair for pair in (_sorted(*pair) for pair in required) if pair in chances]
    if not wanted or share <= 0:
        return dict(chances)
    return mixed(dict(chances), dict.fromkeys(wanted, 1 / len(wanted)), share)


def restricted(
    chances: Mapping[ModelPair, float], only: Sequence[ModelPair]
) -> dict[ModelPair, float]:
    """The chances of these pairs alone, in the proportion they had; all if none had any."""
    allowed = {_sorted(*pair) for pair in only}
    kept = {pair: chance for pair, chance in chances.items() if pair in allowed}
    total = sum(kept.values())
    return {pair: chance / total for pair, chance in kept.items()} if total > 0 else dict(chances)


def draw_pair(chances: Mapping[ModelPair, float], rng: random.Random) -> Draw:
    """One pair by its probability; a fair coin decides who stands left."""
    pairs = list(chances)
    pair = rng.choices(pairs, weights=[chances[p] for p in pairs])[0]
    left, right = pair if rng.random() < 0.5 else pair[::-1]
    return Draw(left, right, chances[pair])


def _sorted(one: str, other: str) -> ModelPair:
    return (one, other) if one <= other else (other, one)


def _pairs(names: Sequence[str]) -> list[ModelPair]:
    pairs = list(combinations(sorted(set(names)), 2))
    if not pairs:
        raise PairingError(
            f"a battle needs two models and {len(set(names))} can play; "
            "start another server or add a variant"
        ).coded("too_few_models", count=len(set(names)))
    return pairs


def _normalised(chances: Mapping[ModelPair, float]) -> dict[ModelPair, float]:
    total = fsum(chances.values())
    return {pair: value / total for pair, value in chances.items()}


def mixed(
    one: Mapping[ModelPair, float], other: Mapping[ModelPair, float], share: float
) -> dict[ModelPair, float]:
    """`one` with a share of `other`; the sum stays one."""
    keys = {**one, **other}
    return {pair: (1 - share) * one.get(pair, 0.0) + share * other.get(pair, 0.0) for pair in keys}
