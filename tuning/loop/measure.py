"""What a loop measures of its models: agreement with votes, answers, distance, best of n.

Each result is a JSON value, with rows of answers beside it. Knows models in memory; knows neither
steps nor reports.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tuning.data.fields import Message
from tuning.data.preferences.messages import assistant
from tuning.data.preferences.pairs import Pair
from tuning.data.split import prompt_key
from tuning.data.template import render_prompts, tokenize
from tuning.evaluation.evaluate import answer_items, check_answers, document_perplexity
from tuning.evaluation.statistics import Z95
from tuning.evaluation.suites import SuiteItem
from tuning.models.generate import context_of, greedy_answers, sample_ids
from tuning.models.loading import Loaded, load_variant
from tuning.models.scorer import ScoreError, Scorer, load_scorer
from tuning.preference.batches import collate_completions, completion_log_probs
from tuning.preference.best_of_n import (
    Samples,
    curve,
    draw_samples,
    expected_best,
    sizes_up_to,
)
from tuning.preference.judge import kinds_of, without_noise
from tuning.preference.vote_share import VoteShare, vote_share

AskedTurns = tuple[Message, ...]
OnDone = Callable[[int], None]
PAIRS_AT_ONCE = 32


def agreement(
    folder: Path, home: Path, pairs: Sequence[Pair], known: Mapping[str, SuiteItem]
) -> dict[str, Any]:
    """How often a reward model agrees with held-out votes, and with the checks in their place.

    Also by what the checks find wrong with the worse answer, and by voter.
    """
    scorer = load_scorer(str(folder), home)
    margins, kept = _margins(scorer, pairs)
    signs = without_noise(kept, known)
    kinds = kinds_of(kept, known)
    decided = [at for at, sign in enumerate(signs) if sign]
    return {
        "votes": _share(margins, kept, range(len(kept))),
        "without_noise": _share(
            [margin * sign for margin, sign in zip(margins, signs, strict=True)], kept, decided
        ),
        "kinds": _groups([m * s for m, s in zip(margins, signs, strict=True)], kept,
                         {at: kinds[at] for at in decided}),
        "voters": _groups(margins, kept, {
            at: pair.origin.voter for at, pair in enumerate(kept) if pair.origin.voter}),
        "not_scored": len(pairs) - len(kept),
    }  # fmt: skip


def _margins(scorer: Scorer, pairs: Sequence[Pair]) -> tuple[list[float], list[Pair]]:
    """Score of the chosen minus that of the rejected answer, of the pairs it can read."""
    ids: list[list[int]] = []
    kept: list[Pair] = []
    for pair in pairs:
        try:
            both = [scorer.encode(pair.prompt, answer) for answer in (pair.chosen, pair.rejected)]
        except ScoreError:
            continue  # counted: what is too long was left out of the training as well
        ids += both
        kept.append(pair)
    scores = scorer.scores_of_ids(ids)
    return [a - b for a, b in zip(scores[::2], scores[1::2], strict=True)], kept


def _share(
    margins: Sequence[float], pairs: Sequence[Pair], places: Sequence[int]
) -> dict[str, Any] | None:
    found: VoteShare | None = vote_share(
        [margins[at] for at in places],
        [prompt_key(pairs[at].prompt).lower() for at in places],
        [pairs[at].weight for at in places],
    )
    return None if found is None else found.to_json()


def _groups(
    margins: Sequence[float], pairs: Sequence[Pair], names: Mapping[int, str]
) -> dict[str, Any]:
    """Agreement of each group of pairs; `names` gives the group of a pair's place."""
    return {
        name: _share(margins, pairs, [at for at, own in names.items() if own == name])
        for name in sorted(set(names.values()))
    }


@dataclass(frozen=True)
class Questions:
    """What the models are asked: items of a suite, or conversations that nothing verifies."""

    items: Sequence[SuiteItem] = ()
    conversations: Sequence[AskedTurns] = ()
    max_new_tokens: int = 96

    @property
    def all(self) -> list[AskedTurns]:
        """Every prompt as messages."""
        own: list[AskedTurns] = [({"role": "user", "content": item.prompt},) for item in self.items]
        return own or list(self.conversations)


def answers(
    folder: Path,
    home: Path,
    asked: Questions,
    documents: Sequence[str],
    on_done: OnDone | None = None,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Greedy answers of a model: what they are like, and the rows (answer, passed, tokens)."""
    loaded = load_variant(str(folder), home)
    if asked.items:
        found = answer_items(loaded, asked.items, asked.max_new_tokens, on_done)
        passed: list[bool | None] = [*check_answers(asked.items, found)]
    else:
        found = _written(loaded, asked, on_done)
        passed = [None] * len(found)
    counts = [len(loaded.tokenizer(text or "", add_special_tokens=False)["input_ids"])
              for text in found]  # fmt: skip
    rows = [
        {"answer": text, "passed": ok, "num_tokens": count}
        for text, ok, count in zip(found, passed, counts, strict=True)
    ]
    told: dict[str, Any] = {
        "num_prompts": len(rows),
        "mean_tokens": statistics.fmean(counts),
        "no_answer": sum(not text for text in found),
    }
    if documents:
        told["perplexity"] = document_perplexity(loaded, documents)
    return told, rows


def _written(loaded: Loaded, asked: Questions, on_done: OnDone | None) -> list[str | None]:
    found = greedy_answers(
        loaded.model,
        loaded.tokenizer,
        render_prompts(loaded.tokenizer, asked.all),
        max_new_tokens=asked.max_new_tokens,
        stop_ids=loaded.stop_ids,
        on_batch=on_done,
    )
    return [None if text is None else text.strip() for text in found]


def rewards(
    folder: Path, home: Path, asked: Questions, rows: Sequence[Mapping[str, Any]]
) -> list[float | None]:
    """What a reward model gives each answer; None for one that is empty or too long for it."""
    scorer = load_scorer(str(folder), home)
    return _scores(scorer, asked.all, [row["answer"] for row in rows])


def _scores(
    scorer: Scorer, prompts: Sequence[AskedTurns], texts: Sequence[str | None]
) -> list[float | None]:
    places: list[int] = []
    ids: list[list[int]] = []
    for at, (prompt, text) in enumerate(zip(prompts, texts, strict=True)):
        try:
            if text:
                ids.append(scorer.encode(prompt, [assistant(text)]))
                places.append(at)
        except ScoreError:
            continue  # None says so
    found: list[float | None] = [None] * len(texts)
    for at, score in zip(places, scorer.scores_of_ids(ids), strict=True):
        found[at] = score
    return found


@torch.no_grad()
def distance(policy: Path, start: Path, home: Path, asked: Questions, seed: int) -> dict[str, Any]:
    """KL divergence of a policy from its start in nats an answer, by one sample a prompt.

    The mean of log p(answer | policy) - log p(answer | start), with its 95 % interval.
    """
    ours, before = load_variant(str(policy), home), load_variant(str(start), home)
    prompts = tokenize(ours.tokenizer, render_prompts(ours.tokenizer, asked.all))
    context = context_of(ours.model)
    room = asked.max_new_tokens
    fitting = [ids for ids in prompts if context is None or len(ids) + room <= context]
    if not fitting:
        return {"kl": None, "lower": None, "upper": None, "num_prompts": 0}
    pad = int(ours.tokenizer.pad_token_id or 0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        drawn = sample_ids(
            ours.model,
            fitting,
            count=1,
            max_new_tokens=room,
            temperature=1.0,
            stop_ids=ours.stop_ids,
            pad_id=pad,
        )
    gaps: list[float] = []
    for first in range(0, len(fitting), PAIRS_AT_ONCE):
        groups = list(zip(fitting, drawn, strict=True))[first : first + PAIRS_AT_ONCE]
        batch = collate_completions(groups, pad, shared=False)
        now, then = (
            completion_log_probs(one.model, batch, virtual_tokens=_virtual(one))
            for one in (ours, before)
        )
        gaps += (now - then).tolist()
    mean = statistics.fmean(gaps)
    half = Z95 * statistics.stdev(gaps) / math.sqrt(len(gaps)) if len(gaps) > 1 else math.inf
    return {
        "kl": mean,
        "lower": mean - half if math.isfinite(half) else None,
        "upper": mean + half if math.isfinite(half) else None,
        "num_prompts": len(gaps),
    }


def _virtual(loaded: Loaded) -> int:
    """The tokens that prompt tuning puts before a prompt's embeddings."""
    config = getattr(loaded.model, "active_peft_config", None)
    if config is None or not str(config.peft_type).endswith("PROMPT_TUNING"):
        return 0
    return int(config.num_virtual_tokens)


def samples(
    folder: Path, home: Path, asked: Questions, count: int, seed: int, on_done: OnDone | None = None
) -> list[dict[str, Any]]:
    """`count` answers of a model to each item, verified: a row an item that has room for them."""
    texts: list[list[str]] = []
    items: list[SuiteItem] = []

    def taken(judged: Sequence[SuiteItem], found: Sequence[str]) -> list[float]:
        items.append(judged[0])
        texts.append(list(found))
        return [0.0] * len(found)

    drawn = draw_samples(
        load_variant(str(folder), home),
        asked.items,
        taken,
        count=count,
        max_new_tokens=asked.max_new_tokens,
        seed=seed,
        on_prompt=on_done,
    )
    return [
        {
            "prompt": item.prompt,
            "answers": found,
            "passed": list(one.passed),
            "lengths": list(one.lengths),
        }
        for item, found, one in zip(items, texts, drawn, strict=True)
    ]


def best_of(folder: Path, home: Path, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The curve over n of what a reward model picks among drawn answers, and its gain over one.

    Answers that it cannot score are picked last.
    """
    scorer = load_scorer(str(folder), home)
    flat = [text for row in rows for text in row["answers"]]
    prompts: list[AskedTurns] = [
        ({"role": "user", "content": row["prompt"]},) for row in rows for _ in row["answers"]
    ]
    found = _scores(scorer, prompts, flat)
    known = [score for score in found if score is not None]
    lowest = min(known, default=0.0) - 1
    scores = iter(lowest if score is None else score for score in found)
    taken = [
        Samples(
            tuple(next(scores) for _ in row["answers"]), tuple(row["passed"]), tuple(row["lengths"])
        )
        for row in rows
    ]
    if not taken:
        return {"num_prompts": 0, "curve": [], "gain": {}, "peak": None, "after_peak": None}
    sizes = sizes_up_to(len(taken[0].rewards))
    points = curve(taken, sizes)
    peak = max(points, key=lambda point: point.gold)
    return {
        "num_prompts": len(taken),
        "curve": [point.to_json() for point in points],
        "gain": {str(n): _gain(taken, n, 1) for n in sizes if n > 1},
        "peak": peak.n,
        "after_peak": _gain(taken, sizes[-1], peak.n) if peak.gold > points[-1].gold else None,
    }


def _gain(taken: Sequence[Samples], n: int, before: int) -> dict[str, float]:
    """What best of n passes more often than best of `before`; 95 % interval over prompts."""
    gains = []
    for one in taken:
        gold = [float(ok) for ok in one.passed]
        more, less = (expected_best(one.rewards, gold, size) for size in (n, before))
        gains.append(more - less)
    mean = statistics.fmean(gains)
    spread = statistics.stdev(gains) if len(gains) > 1 else 0.0
    half = Z95 * spread / math.sqrt(len(gains))
    return {"gain": mean, "lower": mean - half, "upper": mean + half}
