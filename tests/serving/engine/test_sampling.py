"""Sampling against transformers' own processors and against exact probabilities."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    SequenceBiasLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

from serving.engine.sampling import SamplingParams, TokenSampler, choose

VOCAB = 50


def logits(seed: int, rows: int = 1) -> torch.Tensor:
    return torch.randn(rows, VOCAB, generator=torch.Generator().manual_seed(seed)) * 3


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    temperature=st.sampled_from([0.3, 1.0, 1.7]),
    top_k=st.sampled_from([0, 1, 5, 49]),
    top_p=st.sampled_from([0.05, 0.5, 0.9, 1.0]),
    typical_p=st.sampled_from([0.2, 0.9, 1.0]),
    penalty=st.sampled_from([0.7, 1.0, 1.3]),
)
def test_the_chain_equals_transformers(
    seed: int, temperature: float, top_k: int, top_p: float, typical_p: float, penalty: float
) -> None:
    history = [3, 3, 7, 9]
    chain = LogitsProcessorList()
    if penalty != 1.0:
        chain.append(RepetitionPenaltyLogitsProcessor(penalty))
    if temperature != 1.0:
        chain.append(TemperatureLogitsWarper(temperature))
    if top_k:
        chain.append(TopKLogitsWarper(top_k))
    if top_p < 1.0:
        chain.append(TopPLogitsWarper(top_p))
    if typical_p < 1.0:
        chain.append(TypicalLogitsWarper(typical_p))
    params = SamplingParams(
        do_sample=True, temperature=temperature, top_k=top_k, top_p=top_p, typical_p=typical_p,
        repetition_penalty=penalty,
    )  # fmt: skip
    row = logits(seed)
    truth = chain(torch.tensor([history]), row.clone())[0]
    sampler = TokenSampler(params, history[:2])
    sampler.generated += history[2:]
    torch.testing.assert_close(sampler.scores(row[0]), truth)


def test_frequency_and_presence_follow_openai_over_generated_tokens() -> None:
    row = logits(1)[0]
    sampler = TokenSampler(SamplingParams(frequency_penalty=0.5, presence_penalty=0.25), [4, 4])
    sampler.generated += [7, 7, 9]
    want = row.clone()
    want[7] -= 2 * 0.5 + 0.25
    want[9] -= 0.5 + 0.25
    torch.testing.assert_close(sampler.scores(row), want)


@pytest.mark.parametrize("seed", range(5))
def test_a_bias_equals_transformers(seed: int) -> None:
    bias = {(4,): 2.5, (17,): -3.0, (49,): 100.0}
    row = logits(seed)
    truth = SequenceBiasLogitsProcessor(bias)(torch.tensor([[1, 4]]), row.clone())[0]
    pairs = tuple((tokens[0], value) for tokens, value in bias.items())
    torch.testing.assert_close(
        TokenSampler(SamplingParams(logit_bias=pairs), [1, 4]).scores(row[0]), truth
    )


@pytest.mark.parametrize(
    "wish",
    [
        {"temperature": 1e-40}, {"temperature": 1e-320}, {"temperature": 1e300},
        {"repetition_penalty": 1e-40}, {"repetition_penalty": 1e300}, {"top_p": 1e-30},
        {"typical_p": 1e-30}, {"temperature": 1e-40, "typical_p": 0.5, "repetition_penalty": 1e-40},
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("do_sample", [True, False])
def test_values_at_the_end_of_numbers_still_choose(wish: dict[str, float], do_sample: bool) -> None:
    row = logits(0)
    params = SamplingParams(do_sample=do_sample, seed=1, **wish)  # type: ignore[arg-type]
    choice = choose(row, [TokenSampler(params, [3, 4])], [3])[0]
    assert 0 <= choice.token < VOCAB
    assert all(-1e39 < value <= 0 for value in (choice.logprob, *(v for _, v in choice.top)))
    if min(wish.values()) < 1e-3 and "repetition_penalty" not in wish:
        assert choice.token == int(row.argmax())


def test_draws_follow_the_distribution() -> None:
    """Chi-square over 20,000 draws against the exact probabilities; seeds are fixed."""
    params = SamplingParams(do_sample=True, temperature=0.8, top_k=8, seed=17)
    row = logits(2)
    sampler = TokenSampler(params, [])
    exact = torch.softmax(sampler.scores(row[0]).double(), -1)
    samplers = [TokenSampler(SamplingParams(**{**vars(params), "seed": s}), []) for s in range(200)]
    counts: Counter[int] = Counter()
    for _ in range(100):
        counts.update(c.token for c in choose(row.expand(200, -1), samplers, [0] * 200))
    total = sum(counts.values())
    assert total == 20_000
    assert set(counts) <= set(exact.nonzero()[:, 0].tolist())
    chi = sum(
        (counts[t] - total * float(exact[t])) ** 2 / (total * float(exact[t]))
        for t in exact.nonzero()[:, 0].tolist()
    )
    assert chi < 24.3  # 99.9 % quantile at 7 degrees of freedom
    assert chi > 0.5  # and no copy of the probabilities either: 0.06 % quantile


def test_a_token_of_probability_zero_is_never_drawn() -> None:
    row = torch.full((1, VOCAB), float("-inf"))
    row[0, 5] = row[0, 30] = 0.0

    class Edge(TokenSampler):
        """Draws the ends of the interval."""

        value = 0.0

        def draw(self) -> float:
            return self.value

    sampler = Edge(SamplingParams(do_sample=True), [])
    for value, token in ((0.0, 5), (0.499, 5), (0.5, 30), (1 - 2**-53, 30)):
        sampler.value = value
        assert choose(row, [sampler], [0])[0].token == token


def test_rows_with_different_wishes_share_a_batch() -> None:
    batch = logits(3, rows=3)
    samplers = [
        TokenSampler(SamplingParams(), []),
        TokenSampler(SamplingParams(do_sample=True, seed=1), []),
        TokenSampler(SamplingParams(logit_bias=((11, 100.0),)), []),
    ]
    first, second, third = choose(batch, samplers, [2, 0, 1])
    assert first.token == int(batch[0].argmax())
    assert third.token == 11
    assert [t for t, _ in first.top] == batch[0].topk(2).indices.tolist()
    assert second.top == ()
    alone = choose(batch[1:2], [TokenSampler(SamplingParams(do_sample=True, seed=1), [])], [0])[0]
    assert alone.token == second.token
    assert alone.logprob == pytest.approx(second.logprob)
    biased = batch[2].clone()
    biased[11] += 100
    assert third.logprob == pytest.approx(float(torch.log_softmax(biased, -1)[11]), abs=1e-5)


def test_a_seed_repeats_itself() -> None:
    row = logits(4)
    params = SamplingParams(do_sample=True, seed=99)

    def draw() -> list[int]:
        sampler = TokenSampler(params, [])
        return [choose(row, [sampler], [0])[0].token for _ in range(20)]

    assert draw() == draw()
    assert len(set(draw())) > 1
