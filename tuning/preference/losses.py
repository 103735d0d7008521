"""The losses of preference tuning, of log-probabilities that are already there.

Every kind equals the one of TRL 1.16 of the same name. Knows tensors; knows neither models nor
rows nor settings.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, relu

from tuning.errors import TuningError


class LossError(TuningError):
    """A loss that is unknown, or cannot be computed with the numbers given."""


@dataclass(frozen=True)
class PairLogProbs:
    """Log-probabilities of the completions of a batch of pairs, all of shape (pairs,).

    Each is the sum over the tokens of a completion; `*_lengths` count these tokens. `margins` is
    what the scaled difference has to exceed for a loss of ln 2, 0 by default.
    """

    chosen: Tensor
    rejected: Tensor
    chosen_reference: Tensor
    rejected_reference: Tensor
    chosen_lengths: Tensor
    rejected_lengths: Tensor
    margins: Tensor | None = None

    @property
    def chosen_ratios(self) -> Tensor:
        """log π(y)/π_ref(y) of the chosen completions; beta times it is the implicit reward."""
        return self.chosen - self.chosen_reference

    @property
    def rejected_ratios(self) -> Tensor:
        """The same of the rejected completions."""
        return self.rejected - self.rejected_reference

    @property
    def per_token(self) -> Tensor:
        """Difference of the ratios, each divided by the length of its completion."""
        chosen = self.chosen_ratios / self.chosen_lengths.clamp(min=1)
        return chosen - self.rejected_ratios / self.rejected_lengths.clamp(min=1)


@dataclass(frozen=True)
class LossNumbers:
    """What the losses are scaled by."""

    beta: float = 0.1
    """How dear a step away from the reference is; for ipo it is its tau."""
    label_smoothing: float = 0.0
    """Share of the votes that are taken to be the wrong way round (robust, exo_pair, aot)."""
    discopop_tau: float = 0.05


def _sigmoid(pairs: PairLogProbs, by: LossNumbers) -> Tensor:
    """DPO (2305.18290, eq. 7); with margins ODPO (2402.10571)."""
    return -logsigmoid(_scaled(pairs, by))


def _hinge(pairs: PairLogProbs, by: LossNumbers) -> Tensor:
    """SLiC (2305.10425) on DPO's difference."""
    return relu(1 - _scaled(pairs, by))


def _ipo(pairs: PairLogProbs, by: LossNumbers) -> Tensor:
    """IPO (2310.12036, eq. 17), per token."""
    return (pairs.per_token - 1 / (2 * by.beta)) ** 2


def _exo_pair(pairs: PairLogProbs, by: LossNumbers) -> Tensor:
    """EXO (2402.00856, eq. 16): reverse KL to the smoothed vote."""
    scaled = _scaled(pairs, by)
    right = torch.sigmoid(scaled) * (logsigmoid(scaled) - math.log1p(-by.label_smoothing))
    wrong = torch.sigmoid(-scaled) * (logsigmoid(-scaled) - math.log(by.label_smoothing))
    return right + wrong


def _nca_pair(pairs: PairLogProbs, by: LossNumbers) -> Tensor:
    """NCA (2402.05369)."""
    chosen, rejected = by.beta * pairs.chosen_ratios, by.beta * pairs.rejected_ratios
    return -logsigmoid(chosen) - 0.5 * logsigmoid(-chosen) - 0.5 * logsigmoid(-rejected)


def _robust(pairs: PairLogProbs, by: LossNumbers) -> Tensor:
    """rDPO (2403.00409): unbiased under a known share of flipped votes."""
    scaled, flipped = _scaled(pairs, by), by.label_smoothing
    clean = -(1 - flipped) * logsigmoid(scaled) + flipped * logsigmoid(-scaled)
    return clean / (1 - 2 * flipped)


def _bco_pair(pairs: PairLogProbs, by: LossNumbers) -> Tensor:
    """BCO (2404.04656) without its shift."""
    chosen, rejected = by.beta * pairs.chosen_ratios, by.beta * pairs.rejected_ratios
    return -logsigmoid(chosen) - logsigmoid(-rejected)


def _sppo_hard(pairs: PairLogProbs, by: LossNumbers) -> Tensor:
    """SPPO (2405.00675, eq. 4.7) with certain winners."""
    wanted = 0.5 / by.beta
    return (pairs.chosen_ratios - wanted) ** 2 + (pairs.rejected_ratios + wanted) ** 2


def _aot(pairs: PairLogProbs, by: LossNumbers) -> Tensor:
    """AOT (2406.05882), paired: the sorted ratios of policy and reference are compared."""
    policy = torch.sort(pairs.chosen - pairs.rejected).values
    reference = torch.sort(pairs.chosen_reference - pairs.rejected_reference).values
    return _smoothed(by.beta * (policy - reference), by)


def _aot_unpaired(pairs: PairLogProbs, by: LossNumbers) -> Tensor:
    """AOT, unpaired: the sorted ratios of chosen and rejected are compared."""
    chosen = torch.sort(pairs.chosen_ratios).values
    return _smoothed(by.beta * (chosen - torch.sort(pairs.rejected_ratios).values), by)


def _apo_zero(pairs: PairLogProbs, by: LossNumbers) -> Tensor:
    """APO-zero (2408.06266, eq. 7): raises the chosen, lowers the rejected."""
    chosen = 1 - torch.sigmoid(by.beta * pairs.chosen_ratios)
    return chosen + torch.sigmoid(by.beta * pairs.rejected_ratios)


def _apo_down(pairs: PairLogProbs, by: LossNumbers) -> Tensor:
    """APO-down (2408.06266, eq. 8): lowers both, the rejected further."""
    chosen = torch.sigmoid(by.beta * pairs.chosen_ratios)
    return chosen + 1 - torch.sigmoid(by.beta * (pairs.chosen_ratios - pairs.rejected_ratios))


def _discopop(pairs: PairLogProbs, by: LossNumbers) -> Tensor:
    """DiscoPOP (2406.08414, eq. 5)."""
    scaled = _scaled(pairs, by)
    share = torch.sigmoid(scaled / by.discopop_tau)
    return -logsigmoid(scaled) * (1 - share) + torch.exp(-scaled) * share


def _sft(pairs: PairLogProbs, by: LossNumbers) -> Tensor:
    """Cross entropy for each token of the chosen completions; one number for all pairs."""
    return (-pairs.chosen.sum() / pairs.chosen_lengths.sum()).expand(len(pairs.chosen))


def _sigmoid_norm(pairs: PairLogProbs, by: LossNumbers) -> Tensor:
    """DPO's loss of ratios per token (as SimPO takes them, 2405.14734, with a reference)."""
    return -logsigmoid(by.beta * pairs.per_token)


def _scaled(pairs: PairLogProbs, by: LossNumbers) -> Tensor:
    scaled = by.beta * (pairs.chosen_ratios - pairs.rejected_ratios)
    return scaled if pairs.margins is None else scaled - pairs.margins


def _smoothed(scaled: Tensor, by: LossNumbers) -> Tensor:
    right, wrong = -logsigmoid(scaled), -logsigmoid(-scaled)
    return right * (1 - by.label_smoothing) + wrong * by.label_smoothing


PairLoss = Callable[[PairLogProbs, LossNumbers], Tensor]
PAIR_LOSSES: dict[str, PairLoss] = {
    "sigmoid": _sigmoid,
    "hinge": _hinge,
    "ipo": _ipo,
    "exo_pair": _exo_pair,
    "nca_pair": _nca_pair,
    "robust": _robust,
    "bco_pair": _bco_pair,
    "sppo_hard": _sppo_hard,
    "aot": _aot,
    "aot_unpaired": _aot_unpaired,
    "apo_zero": _apo_zero,
    "apo_down": _apo_down,
    "discopop": _discopop,
    "sft": _sft,
    "sigmoid_norm": _sigmoid_norm,
}
TAKE_MARGINS = frozenset({"sigmoid", "hinge", "exo_pair", "robust", "discopop"})
"""Those in which `PairLogProbs.margins` counts."""
TAKE_SMOOTHING = frozenset({"exo_pair", "robust", "aot", "aot_unpaired"})
"""Those in which `LossNumbers.label_smoothing` counts."""


def check_pair_losses(kinds: Sequence[str], by: LossNumbers) -> None:
    """LossError where one of `kinds` is unknown or has no value at these numbers."""
    for kind in kinds:
        if kind not in PAIR_LOSSES:
            raise LossError(
                f"preference.loss: unknown {kind!r}; known are {', '.join(PAIR_LOSSES)}"
            )
    if "exo_pair" in kinds and not 0 < by.label_smoothing < 1:
        raise LossError(
            f"preference.label_smoothing: {by.label_smoothing:g} leaves exo_pair no value; give "
            "more than 0, such as 0.001"
        )
    if "robust" in kinds and not 0 <= by.label_smoothing < 0.5:
        raise LossError(
            f"preference.label_smoothing: robust divides by 1 - 2 × {by.label_smoothing:g}; give "
            "less than 0.5"
        )


def pair_losses(
    kinds: Sequence[str], weights: Sequence[float], pairs: PairLogProbs, by: LossNumbers
) -> Tensor:
    """Loss of each pair, shape (pairs,): the weighted sum of `kinds`."""
    parts = [
        weight * PAIR_LOSSES[kind](pairs, by) for kind, weight in zip(kinds, weights, strict=True)
    ]
    return torch.stack(parts).sum(0)


LABEL_LOSSES = ("kto", "apo_zero_unpaired")


def label_losses(kind: str, ratios: Tensor, labels: Tensor, kl: Tensor, beta: float) -> Tensor:
    """Loss of each labelled completion, before class weights (KTO, 2402.01306, eq. 7).

    `ratios` of shape (rows,) are log π(y)/π_ref(y), `labels` of shape (rows,) are true for good
    ones, `kl` is `mismatched_kl` of the batch; APO's unpaired kind goes without it.
    """
    if kind not in LABEL_LOSSES:
        raise LossError(f"preference.loss: unknown {kind!r}; known are {', '.join(LABEL_LOSSES)}")
    origin = kl if kind == "kto" else torch.zeros_like(kl)
    gain = torch.where(labels, ratios - origin, origin - ratios)
    return 1 - torch.sigmoid(beta * gain)


def mismatched_kl(policy: Tensor, reference: Tensor) -> Tensor:
    """KTO's estimate of KL(π‖π_ref): mean ratio of completions of other prompts, at least 0.

    Both of shape (rows,); no gradient goes through it.
    """
    return (policy - reference).mean().detach().clamp(min=0)
