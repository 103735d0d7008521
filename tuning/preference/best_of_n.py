"""Best of n: a model answers n times and a reward picks; what that gains, and at which distance.

One set of N samples a prompt gives the whole curve up to N without bias (Nakano et al., 2112.09332;
Gao et al., 2210.10760). Knows rewards and verdicts as numbers, and how to draw samples; knows no
servers.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from tuning.data.rendering import render
from tuning.data.template import tokenize
from tuning.errors import TuningError
from tuning.evaluation.suites import SuiteItem
from tuning.models.generate import context_of, sample_ids
from tuning.models.loading import Loaded

Z_95 = 1.959964


class BestOfError(TuningError):
    """Samples that give no curve; names what is missing."""


def kl_bound(n: int) -> float:
    """log n - (n - 1)/n: the most that best-of-n is away from its model, in nats (Stiennon et al.,
    2009.01325; an upper bound, Beirami et al., 2401.01879).
    """
    return math.log(n) - (n - 1) / n


def win_rate_bound(n: int) -> float:
    """n/(n + 1): the most often that best-of-n is preferred to one answer (2401.01879)."""
    return n / (n + 1)


def expected_best(rewards: Sequence[float], values: Sequence[float], n: int) -> float:
    """Mean of `values` of the answer with the highest of `rewards` among n of these N samples.

    The mean over all ways to choose n, which is unbiased: sum over i = n..N of
    C(i-1, n-1)/C(N, n) times the value that is i-th by reward. Equal rewards share their places.
    """
    total = len(rewards)
    if not 1 <= n <= total:
        raise BestOfError(f"best of {n}: there are {total} samples of a prompt; draw at least {n}")
    order = sorted(range(total), key=rewards.__getitem__)
    ways = math.comb(total, n)
    found, start = 0.0, 0
    while start < total:
        end = start
        while end < total and rewards[order[end]] == rewards[order[start]]:
            end += 1
        # Sets whose best lies among the first `end`, but not among the first `start`.
        share = (math.comb(end, n) - math.comb(start, n)) / ways
        mean = sum(values[order[at]] for at in range(start, end)) / (end - start)
        found, start = found + share * mean, end
    return found


@dataclass(frozen=True)
class Samples:
    """N answers to one prompt: what the reward said of each, whether it passed, its tokens."""

    rewards: tuple[float, ...]
    passed: tuple[bool, ...]
    lengths: tuple[int, ...]


@dataclass(frozen=True)
class Point:
    """Best of `n`, as the mean over prompts; `gold` with its 95 % interval over prompts."""

    n: int
    gold: float
    lower: float
    upper: float
    reward: float
    length: float
    most: float
    """Gold of a reward without fault: how often any of n answers passes."""

    def to_json(self) -> dict[str, float]:
        """With the bounds on the distance and on how often it can win."""
        return {
            **vars(self),
            "kl_bound": kl_bound(self.n),
            "win_rate_bound": win_rate_bound(self.n),
        }


def sizes_up_to(most: int) -> list[int]:
    """1, 2, 4 … and `most` itself."""
    sizes = [1 << power for power in range(most.bit_length()) if 1 << power <= most]
    return sizes if sizes[-1] == most else [*sizes, most]


def curve(samples: Sequence[Samples], sizes: Sequence[int]) -> list[Point]:
    """A point for each of `sizes`, over the prompts of `samples`."""
    if not samples:
        raise BestOfError(
            "best of n: there is no prompt that leaves room for an answer; give a suite with some"
        )
    points = []
    for n in sizes:
        gold = [expected_best(item.rewards, list(map(float, item.passed)), n) for item in samples]
        mean = sum(gold) / len(gold)
        spread = math.sqrt(sum((value - mean) ** 2 for value in gold) / max(1, len(gold) - 1))
        half = Z_95 * spread / math.sqrt(len(gold))
        passed = [list(map(float, item.passed)) for item in samples]
        points.append(
            Point(
                n=n,
                gold=mean,
                lower=max(0.0, mean - half),
                upper=min(1.0, mean + half),
                reward=_mean(expected_best(item.rewards, item.rewards, n) for item in samples),
                length=_mean(expected_best(item.rewards, item.lengths, n) for item in samples),
                most=_mean(expected_best(values, values, n) for values in passed),
            )
        )
    return points


def _mean(values: Iterable[float]) -> float:
    return statistics.fmean(values)


Judge = Callable[[Sequence[SuiteItem], Sequence[str]], list[float]]


def draw_samples(
    loaded: Loaded,
    items: Sequence[SuiteItem],
    judge: Judge,
    *,
    count: int,
    temperature: float = 1.0,
    max_new_tokens: int = 96,
    seed: int = 0,
    rooms: Sequence[int] | None = None,
    on_prompt: Callable[[int], None] | None = None,
) -> list[Samples]:
    """`count` answers of a model to each prompt, judged by a reward and by the prompt's check.

    `rooms` says how many tokens the reward reads of an answer to each prompt, if it has a bound.
    Prompts that leave no room for an answer there or in the model's context are left out.
    """
    if not loaded.speaks_chat:
        raise BestOfError(
            f"{loaded.variant.name}: has no chat template, so no reward model can read its "
            "answers; give a tuned variant"
        )
    asked = [[{"role": "user", "content": item.prompt}] for item in items]
    prompts = tokenize(loaded.tokenizer, render(loaded.tokenizer, asked, prompt=True))
    context = context_of(loaded.model)
    limits = [max_new_tokens] * len(items) if rooms is None else list(rooms)
    if context is not None:
        limits = [min(most, context - len(ids)) for most, ids in zip(limits, prompts, strict=True)]
    made: list[Samples] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for item, ids, limit in zip(items, prompts, limits, strict=True):
            if on_prompt is not None:
                on_prompt(1)
            if limit <= 0:
                continue
            (drawn,) = sample_ids(
                loaded.model,
                [ids],
                count=count,
                max_new_tokens=min(limit, max_new_tokens),
                temperature=temperature,
                stop_ids=loaded.stop_ids,
                pad_id=int(loaded.tokenizer.pad_token_id or 0),
            )
            texts = loaded.tokenizer.batch_decode(drawn, skip_special_tokens=True)
            answers = [text.strip() for text in texts]
            made.append(
                Samples(
                    tuple(judge([item] * count, answers)),
                    tuple(item.check.passes(answer) for answer in answers),
                    tuple(map(len, drawn)),
                )
            )
    return made


def draw_curve(points: Sequence[Point], path: Path, title: str) -> None:
    """Verified accuracy over √KL, with what a reward without fault would reach, as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    x = [math.sqrt(kl_bound(point.n)) for point in points]
    axes.fill_between(
        x, [point.lower for point in points], [point.upper for point in points], alpha=0.2
    )
    axes.plot(x, [point.gold for point in points], "o-", label="picked by the reward")
    axes.plot(x, [point.most for point in points], "--", color="C2", label="any answer passes")
    for at, point in zip(x, points, strict=True):
        axes.annotate(f"n={point.n}", (at, point.gold), fontsize=8, xytext=(3, -11),
                      textcoords="offset points")  # fmt: skip
    axes.set_xlabel("square root of the bound on KL to the model (nats)")
    axes.set_ylabel("share of instructions followed")
    axes.set_ylim(0, 1)
    axes.set_title(title, fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)
