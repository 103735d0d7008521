"""Held-out pairs measured for the report of a reward model: scores, lengths, likelihood before.

Knows models in memory and encoded pairs; what the numbers say is for `report`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tuning.data.preferences.encode import EncodedPair, Encoder
from tuning.data.preferences.messages import assistant
from tuning.data.preferences.pairs import Pair, PreferenceLedger, text_of
from tuning.evaluation.suites import SuiteItem
from tuning.models.loading import load_model
from tuning.models.scorer import score_rows
from tuning.preference.batches import collate_completions, completion_log_probs
from tuning.preference.inputs import PreparedPreferences
from tuning.preference.judge import UNKNOWN, by_prompt, kinds_of, starter_items, without_noise
from tuning.preference.report import ScoredPairs, reward_report
from tuning.preference.report_text import write_report
from tuning.preference.reward_benches import STYLES, style_matrix, styled
from tuning.preference.vote_share import Reals, VoteShare

PAIRS_AT_ONCE = 8
STYLED = 60
"""Pairs of the style matrix, each scored in six texts."""


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


def _without_noise(held: ScoredPairs, items: Mapping[str, SuiteItem]) -> dict[str, VoteShare]:
    """Agreement with the verifiers in place of the votes, where they tell the answers apart."""
    signs = np.array(without_noise(held.pairs, items))
    found = held.agree(signs * (held.scores[:, 0] - held.scores[:, 1]), (signs != 0).tolist())
    return {} if found is None else {"against the suite's verifiers": found}


def style_scores(
    model: Any, inputs: PreparedPreferences, pairs: Sequence[Pair]
) -> dict[str, Any] | None:
    """The style matrix of at most STYLED pairs of single texts; None where none fits."""
    chosen = [pair for pair in pairs if len(pair.chosen) == len(pair.rejected) == 1][:STYLED]
    encoder = Encoder(inputs.tokenizer, inputs.max_length, PreferenceLedger(), day=inputs.day)
    by_style: list[dict[int, EncodedPair]] = [{} for _ in STYLES]
    for at, pair in enumerate(chosen):
        right, wrong = (styled(text_of(answer)) for answer in (pair.chosen, pair.rejected))
        for found, first, second in zip(by_style, right, wrong, strict=True):
            one = replace(pair, chosen=(assistant(first),), rejected=(assistant(second),))
            for encoded in encoder.pairs([one]):
                found[at] = encoded
    whole = [at for at in range(len(chosen)) if all(at in found for found in by_style)]
    if not whole:
        return None
    pad_id = inputs.tokenizer.pad_token_id
    scores = [pair_scores(model, [found[at] for at in whole], pad_id) for found in by_style]
    return style_matrix(np.stack(scores, axis=2).reshape(len(whole), -1).tolist())


def report_on(
    model: Any, inputs: PreparedPreferences, untuned: Reals, name: str, folder: Path
) -> dict[str, float]:
    """Write the report of a trained reward model into `folder`; its main numbers come back."""
    pairs, pad_id = inputs.held.pairs, inputs.tokenizer.pad_token_id
    start = None
    if inputs.parent.kind != "reward":  # one that only scores gives no probabilities
        start = start_log_probs(inputs.folder, pairs, pad_id)
    items = by_prompt(starter_items())
    judged = [item.pair for item in pairs]
    kinds = kinds_of(judged, items)
    held = ScoredPairs(
        judged,
        pair_scores(model, pairs, pad_id),
        np.array([[len(item.chosen_ids), len(item.rejected_ids)] for item in pairs]),
        start,
        untuned,
        None if set(kinds) <= {UNKNOWN} else kinds,
    )
    trained = [item.pair for item in inputs.train.pairs]
    ties = [item.tie for item in inputs.train.ties]
    report = reward_report(
        held,
        [*trained, *ties],
        name=name,
        start=inputs.base.id,
        styles=style_scores(model, inputs, judged),
        beside=_without_noise(held, items),
    )
    write_report(folder, report)
    agreement, ceiling = report["agreement"], report["ceiling"]["ceiling"]
    main = {
        "agreement": agreement["share"],
        "agreement_lower": agreement["lower"],
        "agreement_upper": agreement["upper"],
    }
    return main if ceiling is None else {**main, "ceiling": ceiling}
