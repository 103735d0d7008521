"""Advantages and losses of RLOO and GRPO, as in TRL 1.16; knows tensors only."""

from __future__ import annotations

import torch
from torch import Tensor

SMALL = 1e-4


def rloo_advantages(rewards: Tensor, group: int) -> Tensor:
    """Reward minus the mean of its group's others (Ahmadian et al. 2024, 2402.14740).

    `rewards` of shape (prompts * group,), the samples of a prompt one after the other.
    """
    grouped = rewards.view(-1, group)
    others = (grouped.sum(1, keepdim=True) - grouped) / (group - 1)
    return (grouped - others).view(-1)


def grpo_advantages(rewards: Tensor, group: int, *, scale: bool = True) -> Tensor:
    """Reward minus its group's mean, over the group's deviation (Shao et al. 2024, 2402.03300).

    Without `scale` the deviation is left out (Dr. GRPO, 2503.20783).
    """
    grouped = rewards.view(-1, group)
    centred = grouped - grouped.mean(1, keepdim=True)
    if scale:
        centred = centred / (grouped.std(1, keepdim=True) + SMALL)
    return centred.view(-1)


def rloo_losses(policy: Tensor, old: Tensor, advantages: Tensor, clip: float) -> Tensor:
    """Clipped loss of each sample, of log-probabilities of whole completions; all (samples,)."""
    return _clipped(policy - old, advantages, clip)


def grpo_losses(
    policy: Tensor,
    old: Tensor,
    reference: Tensor,
    advantages: Tensor,
    counted: Tensor,
    *,
    clip: float,
    beta: float,
) -> Tensor:
    """Mean over the tokens of each sample of the clipped loss and beta times the KL estimate.

    Log-probabilities and `counted`, which marks real tokens, of shape (samples, length),
    `advantages` (samples,). The estimate is Schulman's, never negative.
    """
    losses = _clipped(policy - old, advantages[:, None], clip)
    if beta:
        ahead = reference - policy
        losses = losses + beta * (torch.exp(ahead) - ahead - 1)
    return (losses * counted).sum(1) / counted.sum(1).clamp(min=1)


def _clipped(log_ratio: Tensor, advantages: Tensor, clip: float) -> Tensor:
    ratio = torch.exp(log_ratio)
    return -torch.minimum(ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages)
