"""Turns logits into the next token: penalties, warpers, seeded draws, log probabilities.

Works on rows of logits and lists of token ids; knows no text, no model and no HTTP.
Every processor equals the transformers processor of the same name.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

NEVER = float("-inf")


@dataclass(frozen=True)
class SamplingParams:
    """How to choose tokens; each default leaves the distribution as it is.

    `seed` is drawn by the caller when None would not do; penalties follow OpenAI's formula for
    frequency and presence (over generated tokens) and CTRL's for repetition (prompt and output).
    """

    do_sample: bool = False
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    typical_p: float = 1.0
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    seed: int | None = None
    logit_bias: tuple[tuple[int, float], ...] = ()

    @property
    def is_plain_greedy(self) -> bool:
        """True when the next token is the argmax of the raw logits."""
        return not (self.do_sample or self.has_penalty)

    @property
    def has_penalty(self) -> bool:
        """True when scores depend on earlier tokens or on a bias."""
        return (
            self.repetition_penalty != 1.0
            or self.frequency_penalty != 0.0
            or self.presence_penalty != 0.0
            or bool(self.logit_bias)
        )


@dataclass
class TokenSampler:
    """The sampling state of one request: its parameters, its own random numbers, its history.

    `mask` (a grammar) may rewrite scores in place before the warpers see them.
    """

    params: SamplingParams
    prompt: Sequence[int]
    mask: Callable[[torch.Tensor], None] | None = None
    generated: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._random = random.Random(self.params.seed)

    @property
    def is_plain_greedy(self) -> bool:
        """True when neither parameters nor a grammar change the raw argmax."""
        return self.mask is None and self.params.is_plain_greedy

    def scores(self, logits: torch.Tensor) -> torch.Tensor:
        """Processed scores [vocab] of one row of float32 logits [vocab]; filtered ones are -inf."""
        params = self.params
        scores = logits.clone()
        if params.repetition_penalty != 1.0:
            penalize_repetition(scores, [*self.prompt, *self.generated], params.repetition_penalty)
        if (params.frequency_penalty or params.presence_penalty) and self.generated:
            penalize_frequency(
                scores, self.generated, params.frequency_penalty, params.presence_penalty
            )
        for token, bias in params.logit_bias:
            scores[token] += bias
        if self.mask is not None:
            self.mask(scores)
        if params.do_sample:
            if params.temperature != 1.0:
                cool(scores, params.temperature)
            if params.top_k > 0:
                keep_top_k(scores, params.top_k)
            if params.top_p < 1.0:
                keep_top_p(scores, params.top_p)
            if params.min_p > 0.0:
                keep_min_p(scores, params.min_p)
            if params.typical_p < 1.0:
                keep_typical(scores, params.typical_p)
        return scores

    def draw(self) -> float:
        """The next of this request's own random numbers, in [0, 1)."""
        return self._random.random()


@dataclass(frozen=True)
class ChosenToken:
    """One chosen token with its log probability and the most likely tokens beside it."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


def choose(
    logits: torch.Tensor, samplers: Sequence[TokenSampler], num_top: Sequence[int]
) -> list[ChosenToken]:
    """Choose one token per row of `logits` [rows, vocab]; `num_top[i]` likely ones are listed.

    Greedy rows share one argmax; only rows that ask for more pay for more.
    """
    scores = logits.float()
    special = [i for i, sampler in enumerate(samplers) if not sampler.is_plain_greedy]
    if special:
        scores = scores.clone() if scores is logits else scores
        for i in special:
            scores[i] = samplers[i].scores(scores[i])
    tokens = scores.argmax(dim=-1).tolist()
    drawn = [i for i in special if samplers[i].params.do_sample]
    for i, token in zip(drawn, draw_tokens(scores, samplers, drawn), strict=True):
        tokens[i] = token
    logprobs = torch.log_softmax(scores, dim=-1)
    chosen = logprobs.gather(1, torch.tensor(tokens, device=scores.device)[:, None])[:, 0].tolist()
    return [
        ChosenToken(token, logprob, top_tokens(logprobs[i], num_top[i]) if num_top[i] else ())
        for i, (token, logprob) in enumerate(zip(tokens, chosen, strict=True))
    ]


def draw_tokens(
    scores: torch.Tensor, samplers: Sequence[TokenSampler], rows: Sequence[int]
) -> list[int]:
    """Invert each row's cumulative distribution at that request's own random number.

    A token of probability 0 is never the first whose cumulative sum exceeds the draw.
    """
    if not rows:
        return []
    picked = scores if len(rows) == len(samplers) else scores[list(rows)]
    cumulative = torch.softmax(picked.double(), dim=-1).cumsum(dim=-1)
    draws = torch.tensor(
        [[samplers[i].draw()] for i in rows], dtype=torch.float64, device=scores.device
    )
    targets = draws * cumulative[:, -1:]
    return torch.searchsorted(cumulative, targets, right=True)[:, 0].tolist()


def top_tokens(logprobs: torch.Tensor, count: int) -> tuple[tuple[int, float], ...]:
    """The `count` likeliest (token, log probability) pairs of a row, likeliest first.

    Filtered tokens are none of them: there is no number for "never" in JSON.
    """
    values, tokens = logprobs.topk(min(count, logprobs.shape[-1]))
    pairs = zip(tokens.tolist(), values.tolist(), strict=True)
    return tuple((token, value) for token, value in pairs if value > NEVER)


def penalize_repetition(scores: torch.Tensor, seen: Sequence[int], penalty: float) -> None:
    """Divide positive and multiply negative scores of seen tokens by `penalty`, in place."""
    tokens = torch.tensor(sorted(set(seen)), device=scores.device)
    values = scores[tokens]
    changed = torch.where(values < 0, values * penalty, values / penalty)
    scores[tokens] = changed.clamp(max=torch.finfo(scores.dtype).max)


def penalize_frequency(
    scores: torch.Tensor, generated: Sequence[int], frequency: float, presence: float
) -> None:
    """Subtract `frequency` times the count, and `presence` once, from each generated token."""
    tokens, counts = torch.unique(torch.tensor(generated, device=scores.device), return_counts=True)
    scores[tokens] -= counts * frequency + presence


def cool(scores: torch.Tensor, temperature: float) -> None:
    """Divide by the temperature, in place; next to 0, where numbers end, the likeliest is left."""
    best = scores.argmax()
    scores /= temperature
    if not scores[best].isfinite():
        scores.fill_(NEVER)
        scores[best] = 0.0


def keep_top_k(scores: torch.Tensor, k: int) -> None:
    """Filter all but the `k` highest scores (ties with the last one stay), in place."""
    lowest = scores.topk(min(k, scores.shape[-1])).values[-1]
    scores.masked_fill_(scores < lowest, NEVER)


def keep_top_p(scores: torch.Tensor, top_p: float) -> None:
    """Keep the smallest set of likeliest tokens whose probabilities reach `top_p`, in place."""
    ordered, order = torch.sort(scores, descending=False)
    cumulative = ordered.softmax(dim=-1).cumsum(dim=-1)
    removed = cumulative <= 1 - top_p
    removed[-1] = False
    scores[order[removed]] = NEVER


def keep_min_p(scores: torch.Tensor, min_p: float) -> None:
    """Filter tokens less likely than `min_p` times the likeliest one, in place."""
    probabilities = scores.softmax(dim=-1)
    scores.masked_fill_(probabilities < min_p * probabilities.max(), NEVER)


def keep_typical(scores: torch.Tensor, mass: float) -> None:
    """Keep the tokens whose surprise is nearest the entropy until `mass` is reached, in place."""
    logprobs = torch.log_softmax(scores, dim=-1)
    probabilities = logprobs.exp()
    entropy = -(logprobs * probabilities).nansum()
    distance = (-logprobs - entropy).abs()
    ordered, order = torch.sort(distance, descending=False)
    cumulative = logprobs[order].softmax(dim=-1).cumsum(dim=-1)
    last = min(int((cumulative < mass).sum()), scores.shape[-1] - 1)
    scores.masked_fill_(distance > ordered[last], NEVER)
