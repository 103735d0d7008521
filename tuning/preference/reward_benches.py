"""Files of RewardBench 2 and RM-Bench form: what is to be scored, and their rules over the scores.

The rules are those of allenai/reward-bench (`rewardbench/utils.py`) and of RM-Bench's README.
Knows rows and scores; knows no model.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tuning.data.fields import Message, RowError
from tuning.data.folders import DataError
from tuning.data.preferences.messages import check_prompt, read_messages
from tuning.data.sources import RawRow, read_source

REWARD_BENCH, RM_BENCH = "rewardbench2", "rm-bench"
TIES = "ties"
STYLES = ("concise", "detailed", "marked up")


@dataclass(frozen=True)
class BenchItem:
    """One prompt and the answers to score: the `num_right` right ones first."""

    id: str
    group: str
    prompt: tuple[Message, ...]
    answers: tuple[str, ...]
    num_right: int


@dataclass(frozen=True)
class RewardBench:
    """The items of a file, and whose rules they are scored by."""

    kind: str
    items: tuple[BenchItem, ...]

    def score(self, scores: Sequence[Sequence[float]]) -> dict[str, Any]:
        """What its rules say of a score for each answer of each item."""
        pairs = list(zip(self.items, scores, strict=True))
        assert all(len(item.answers) == len(found) for item, found in pairs)
        return rm_bench(pairs) if self.kind == RM_BENCH else reward_bench(pairs)


def load_bench(source: str | Path) -> RewardBench:
    """A file of either form, by its columns; DataError names line and column of what is wrong."""
    items = []
    kinds = set()
    for raw in read_source(str(source)):
        try:
            kind, item = _item(raw)
        except RowError as error:
            raise DataError(f"{raw.source}:{raw.line}: {error}; mend the row") from error
        kinds.add(kind)
        items.append(item)
    if len(kinds) != 1:
        raise DataError(
            f"data {str(source)!r}: holds {'rows of both benches' if kinds else 'no row'}"
        )
    return RewardBench(kinds.pop(), tuple(items))


def _item(raw: RawRow) -> tuple[str, BenchItem]:
    row = raw.columns
    if raw.problem is not None:
        raise RowError("row", raw.problem)
    kind = REWARD_BENCH if "subset" in row else RM_BENCH
    right, wrong = _texts(row, "chosen"), _texts(row, "rejected")
    if kind == RM_BENCH and (len(right), len(wrong)) != (len(STYLES), len(STYLES)):
        raise RowError("chosen", f"RM-Bench has {len(STYLES)} styles of each answer")
    prompt = read_messages(row, "prompt", "user")
    check_prompt(prompt, "prompt")
    group = str(row.get("subset" if kind == REWARD_BENCH else "domain") or "all")
    return kind, BenchItem(
        str(row.get("id", raw.line)), group, prompt, (*right, *wrong), len(right)
    )


def _texts(row: dict[str, Any], name: str) -> list[str]:
    value = row.get(name)
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list) or not value or not all(isinstance(t, str) for t in value):
        raise RowError(name, "is no list of texts")
    return value


Scored = tuple[BenchItem, Sequence[float]]


def reward_bench(pairs: Iterable[Scored]) -> dict[str, Any]:
    """RewardBench 2: the share of prompts whose right answer is the best, Ties by their own rule.

    A right answer that shares the best score with k others counts 1/(k+1). The mean is over the
    subsets.
    """
    subsets: dict[str, list[Scored]] = defaultdict(list)
    for item, scores in pairs:
        subsets[item.group].append((item, scores))
    found = {
        name: _ties(rows) if name.lower() == TIES else float(np.mean([_best(*row) for row in rows]))
        for name, rows in sorted(subsets.items())
    }
    return {
        "bench": REWARD_BENCH,
        "score": float(np.mean(list(found.values()))),
        "subsets": found,
        "num_prompts": {name: len(rows) for name, rows in sorted(subsets.items())},
    }


def _best(item: BenchItem, scores: Sequence[float]) -> float:
    best = [at for at, score in enumerate(scores) if score == max(scores)]
    return 1 / len(best) if 0 in best else 0.0


def _ties(rows: Sequence[Scored]) -> float:
    """The rule of the subset Ties: 60 % accuracy, 40 % margins, half of each for the hard ones.

    `ref:7` has one right answer, `tied:7` several that are as good; between right ones the scores
    should differ less than between right and wrong.
    """
    stats: dict[str, dict[str, tuple[float, float]]] = {"ref": {}, "tied": {}}
    for item, scores in rows:
        kind, _, name = item.id.partition(":")
        if kind not in stats or not 0 < item.num_right < len(scores):
            raise DataError(
                f"data: id {item.id!r} of the subset Ties is not ref:N or tied:N, or its answers "
                "are not some right and some wrong; give the file as it was published"
            )
        right, wrong = scores[: item.num_right], scores[item.num_right :]
        stats[kind][name] = (max(right) - min(right), min(right) - max(wrong))
    accuracy = [
        float(np.mean([gap > 0 for _, gap in found.values()])) if found else 0.0
        for found in (stats["tied"], stats["ref"])
    ]
    both = sorted(stats["ref"].keys() & stats["tied"].keys())
    if not both:
        return 0.3 * sum(accuracy)
    spread = np.array([stats["tied"][name][0] for name in both])
    gap = np.array([stats["tied"][name][1] for name in both])
    hard = np.minimum(gap, [stats["ref"][name][1] for name in both])
    with np.errstate(divide="ignore", invalid="ignore"):
        bonus = np.nan_to_num(np.tanh(hard / spread - 1), nan=0.0)
    preferred = float(np.mean(gap > spread)) + float(np.mean(hard > spread))
    return 0.3 * sum(accuracy) + 0.2 * preferred + 0.01 * float(bonus.mean())


def rm_bench(pairs: Iterable[Scored]) -> dict[str, Any]:
    """RM-Bench: the style matrix over all domains, and over each."""
    domains: dict[str, list[Sequence[float]]] = defaultdict(list)
    for item, scores in pairs:
        domains[item.group].append(scores)
    found = {name: style_matrix(rows) for name, rows in sorted(domains.items())}
    whole = style_matrix([row for rows in domains.values() for row in rows])
    return {"bench": RM_BENCH, **whole, "domains": found}


def style_matrix(scores: Sequence[Sequence[float]]) -> dict[str, Any]:
    """How often a right answer of one style is above a wrong one of another.

    `scores`: rows of six, the right answer terse, wordy and marked up, then the wrong one. `matrix`
    has the style of the right answer by row. Hard is the mean above the diagonal, where the wrong
    answer is the fancier, normal the diagonal, easy below it.
    """
    rows = np.asarray(scores, dtype=np.float64).reshape(-1, 2, len(STYLES))
    matrix = (rows[:, 0, :, None] > rows[:, 1, None, :]).mean(0)
    return {
        "matrix": matrix.tolist(),
        "hard": float(matrix[np.triu_indices(3, 1)].mean()),
        "normal": float(np.diag(matrix).mean()),
        "easy": float(matrix[np.tril_indices(3, -1)].mean()),
        "num_prompts": len(rows),
    }


def styled(answer: str) -> tuple[str, str, str]:
    """The same answer terse, wordy and marked up: what a style matrix of our own pairs compares."""
    wordy = (
        f"Thank you for the question. After some thought, here is what I can say: {answer} "
        "I hope that this is what you wanted to know."
    )
    lines = "\n".join(f"- **{line.strip()}**" for line in answer.splitlines() if line.strip())
    return answer, wordy, f"## Answer\n\n{lines}\n\n*I hope that this helps.*"
