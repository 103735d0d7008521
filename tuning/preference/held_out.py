"""Held-out pairs measured for the report of a reward model: scores, lengths, likelihood before.

Knows models in memory and encoded pairs; what the numbers say is for `report`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tuning.data.preferences.encode import EncodedPair
from tuning.data.preferences.pairs import Pair
from tuning.evaluation.suites import load_suite
from tuning.models.loading import load_model
from tuning.models.scorer import score_rows
from tuning.preference.batches import collate_completions, completion_log_probs
from tuning.preference.inputs import PreparedPreferences
from tuning.preference.judge import UNKNOWN, by_prompt, kinds_of
from tuning.preference.report import ScoredPairs, reward_report
from tuning.preference.report_text import write_report
from tuning.preference.vote_share import Reals

PAIRS_AT_ONCE = 8


def pair_scores(model: Any, pairs: Sequence[EncodedPair], pad_id: int) -> Reals:
    """Scores of the chosen and the rejected answers, (pairs, 2)."""
    rows = [
        [*pair.prompt_ids.tolist(), *answer.tolist()]
        for pair in pairs
        for answer in (pair.chosen_ids, pair.rejected_ids)
    ]
    return np.array(score_rows(model, rows, pad_id)).reshape(len(pairs), 2)


@torch.no_grad()
def start_log_probs(folder: Path, pairs: Sequence[EncodedPair], pad_id: int) -> Reals:
    """Log-probabilities of the answers under the checkpoint in `folder`, (pairs, 2), in nats."""
    model = load_model(folder, dtype=torch.float32).eval()
    found: list[float] = []
    for first in range(0, len(pairs), PAIRS_AT_ONCE):
        groups = [
            (pair.prompt_ids.tolist(), [pair.chosen_ids.tolist(), pair.rejected_ids.tolist()])
            for pair in pairs[first : first + PAIRS_AT_ONCE]
        ]
        batch = collate_completions(groups, pad_id, shared=False)
        found += completion_log_probs(model, batch).tolist()
    return np.array(found).reshape(len(pairs), 2)


def _kinds(pairs: Sequence[Pair]) -> list[str] | None:
    """What is wrong with each rejected answer; None where no prompt is of the starter's suite."""
    items = by_prompt(load_suite("starter"))
    kinds = kinds_of(pairs, items)
    return None if set(kinds) <= {UNKNOWN} else kinds


def report_on(
    model: Any, inputs: PreparedPreferences, untuned: Reals, name: str, folder: Path
) -> dict[str, float]:
    """Write the report of a trained reward model into `folder`; its main numbers come back."""
    pairs, pad_id = inputs.held.pairs, inputs.tokenizer.pad_token_id
    start = None
    if inputs.parent.kind != "reward":  # one that only scores gives no probabilities
        start = start_log_probs(inputs.folder, pairs, pad_id)
    held = ScoredPairs(
        [item.pair for item in pairs],
        pair_scores(model, pairs, pad_id),
        np.array([[len(item.chosen_ids), len(item.rejected_ids)] for item in pairs]),
        start,
        untuned,
        _kinds([item.pair for item in pairs]),
    )
    trained = [item.pair for item in inputs.train.pairs]
    ties = [item.tie for item in inputs.train.ties]
    report = reward_report(held, [*trained, *ties], name=name, start=inputs.base.id)
    write_report(folder, report)
    agreement, ceiling = report["agreement"], report["ceiling"]["ceiling"]
    main = {
        "agreement": agreement["share"],
        "agreement_lower": agreement["lower"],
        "agreement_upper": agreement["upper"],
    }
    return main if ceiling is None else {**main, "ceiling": ceiling}
