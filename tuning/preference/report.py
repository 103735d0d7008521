"""The report of a reward model: what its scores say beside the votes, and beside what is simpler.

From scores, votes, lengths, authors and probabilities to a JSON value. Knows neither models nor
files; `report_text` writes it down.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tuning.data.preferences.pairs import Pair, Tie
from tuning.data.split import prompt_key
from tuning.errors import TuningError
from tuning.preference.agreement import agreement_of, vote_accuracy
from tuning.preference.calibration import calibration, learning_curve, length_analysis
from tuning.preference.vote_share import (
    Reals,
    VoteShare,
    author_strengths,
    vote_share,
)

BASELINES = {
    "longer": "the longer answer wins",
    "shorter": "the shorter answer wins",
    "author": "the answer of the model that wins more often wins",
    "likelihood": "the answer that is likelier under the start wins",
    "untuned": "the scores of the head before training",
}
LEARNED, OPPOSITE, UNKNOWN = "learned", "learned the opposite", "at chance"


class ReportError(TuningError):
    """Scores and pairs that make no report; says what is missing."""


@dataclass(frozen=True)
class ScoredPairs:
    """Held-out pairs with what was given to their two answers, the chosen one's first.

    `scores` are the reward model's, `lengths` tokens, `start` the log-probabilities of the answers
    under the model it started from, `untuned` the scores before training; each (pairs, 2).
    `kinds` says what is wrong with each rejected answer, where that is known.
    """

    pairs: Sequence[Pair]
    scores: Reals
    lengths: Reals
    start: Reals | None = None
    untuned: Reals | None = None
    kinds: Sequence[str] | None = None

    def __post_init__(self) -> None:
        shape = (len(self.pairs), 2)
        for name in ("scores", "lengths", "start", "untuned"):
            values = getattr(self, name)
            if values is None:
                continue
            values = np.asarray(values, dtype=np.float64)
            assert values.shape == shape, (name, values.shape, shape)
            if not np.isfinite(values).all():
                raise ReportError(f"{name}: holds a value that is no number; train it anew")
            object.__setattr__(self, name, values)
        assert self.kinds is None or len(self.kinds) == len(self.pairs)

    @property
    def prompts(self) -> list[str]:
        """The prompt of each pair, as one word for all that are the same."""
        return [prompt_key(pair.prompt).lower() for pair in self.pairs]

    @property
    def weights(self) -> Reals:
        """The votes that each pair counts for."""
        return np.array([pair.weight for pair in self.pairs])

    def agree(self, margins: Reals, mask: Sequence[bool] | None = None) -> VoteShare | None:
        """The share of the pairs (those of `mask`) whose margin is above 0."""
        kept = [at for at in range(len(self.pairs)) if mask is None or mask[at]]
        prompts = self.prompts
        return vote_share(margins[kept], [prompts[at] for at in kept], self.weights[kept])


def reward_report(
    held: ScoredPairs,
    trained: Iterable[Pair | Tie],
    *,
    name: str,
    start: str,
    votes: Iterable[Pair | Tie] | None = None,
    curve: Sequence[tuple[int, VoteShare]] = (),
    styles: Mapping[str, Any] | None = None,
    beside: Mapping[str, VoteShare] | None = None,
) -> dict[str, Any]:
    """The whole report as a JSON value; ReportError where no pair is held out.

    `trained` are the judgements it was trained on, which give the authors' strengths; `votes` all
    there are, which give the ceiling (default: trained and held-out ones together). `curve` holds
    agreement on the same held-out pairs by number of votes trained on, `styles` the style matrix,
    `beside` further agreements by what they are with, such as a judge without noise.
    """
    if not held.pairs:
        raise ReportError("no pair is held out to compare with; raise data_options.heldout")
    trained = list(trained)
    margins = _margin(held.scores)
    ceiling = _ceiling([*trained, *held.pairs] if votes is None else list(votes))
    total = held.agree(margins)
    assert total is not None
    same = [pair.same_model for pair in held.pairs]
    return {
        "name": name,
        "start": start,
        "num_pairs": len(held.pairs),
        "num_prompts": len(set(held.prompts)),
        "num_trained": len(trained),
        "agreement": total.to_json(),
        "ceiling": ceiling,
        "baselines": _baselines(held, trained),
        "same_model": _json(held.agree(margins, same)),
        "other_model": _json(held.agree(margins, [not one for one in same])),
        "calibration": calibration(margins, held.prompts),
        "length": length_analysis(margins, held.lengths, held.prompts)
        | {"longer_wins": _json(held.agree(_margin(held.lengths)))},
        "kinds": _kinds(held, margins),
        "voters": _voters(held, margins),
        "curve": learning_curve(curve, ceiling["ceiling"]),
        "styles": dict(styles) if styles else None,
        "beside": {what: found.to_json() for what, found in (beside or {}).items()},
    }


def _margin(values: Reals) -> Reals:
    difference: Reals = values[:, 0] - values[:, 1]
    return difference


def _json(found: VoteShare | None) -> dict[str, Any] | None:
    return None if found is None else found.to_json()


def _ceiling(votes: Sequence[Pair | Tie]) -> dict[str, Any]:
    """What a judge without fault agrees with single votes, as far as repeated votes tell."""
    found = agreement_of([vote for vote in votes if isinstance(vote, Pair)])
    told: dict[str, Any] = {"num_ties": sum(isinstance(vote, Tie) for vote in votes)}
    if found is None:
        note = "no two votes are on the same two answers, so nothing is known of their noise"
        return told | {"ceiling": None, "note": note}
    content = found.to_json()
    ends = {f"ceiling_{end}": vote_accuracy(content[end]) for end in ("lower", "upper")}
    if found.rate < 0.5:
        note = "votes on the same two answers agree less often than coins do"
        return told | content | {"ceiling": None, "note": note}
    return told | content | ends | {"note": ""}


def _baselines(held: ScoredPairs, trained: Sequence[Pair | Tie]) -> dict[str, Any]:
    """Each baseline on all held-out pairs and on those of one and the same model."""
    strengths = author_strengths(trained)
    author = np.array(
        [strengths.get(a or "", 0.0) - strengths.get(b or "", 0.0) for a, b in _models(held)]
    )
    longer = _margin(held.lengths)
    margins = {"longer": longer, "shorter": -longer, "author": author}
    for name, values in (("likelihood", held.start), ("untuned", held.untuned)):
        if values is not None:
            margins[name] = _margin(values)
    same = [pair.same_model for pair in held.pairs]
    scores = _margin(held.scores)
    return {
        name: {
            "about": BASELINES[name],
            "agreement": _json(held.agree(found)),
            "same_model": _json(held.agree(found, same)),
            "reward_is": _compared(held, scores, found),
        }
        for name, found in margins.items()
    }


def _models(held: ScoredPairs) -> list[tuple[str | None, str | None]]:
    return [pair.models for pair in held.pairs]


def _compared(held: ScoredPairs, scores: Reals, other: Reals) -> str:
    """Whether the scores agree with more votes than a baseline does: better, worse, or unknown.

    By the interval of the difference on the same pairs, those of one prompt taken together.
    """
    gain = (np.sign(scores) - np.sign(other)) / 2
    weight = held.weights
    mean = float((weight * gain).sum() / weight.sum())
    sums: dict[str, float] = {}
    for prompt, value in zip(held.prompts, weight * (gain - mean), strict=True):
        sums[prompt] = sums.get(prompt, 0.0) + float(value)
    count = len(sums)
    if count < 2:
        return "cannot be told"
    error = float(np.sqrt(sum(v**2 for v in sums.values()) * count / (count - 1)) / weight.sum())
    if mean - 1.96 * error > 0:
        return "better"
    return "worse" if mean + 1.96 * error < 0 else "cannot be told"


def _kinds(held: ScoredPairs, margins: Reals) -> dict[str, Any]:
    """Agreement by what is wrong with the rejected answer, and whether that kind was learned."""
    found = {}
    for kind in sorted(set(held.kinds or ())):
        item = held.agree(margins, [one == kind for one in held.kinds or ()])
        assert item is not None
        verdict = LEARNED if item.lower > 0.5 else OPPOSITE if item.upper < 0.5 else UNKNOWN
        found[kind] = item.to_json() | {"verdict": verdict}
    return found


def _voters(held: ScoredPairs, margins: Reals) -> dict[str, Any]:
    """Agreement with each voter; empty where votes do not tell two voters apart."""
    voters = [pair.origin.voter for pair in held.pairs]
    names = sorted({voter for voter in voters if voter is not None})
    if len(names) < 2:
        return {}
    return {name: _json(held.agree(margins, [one == name for one in voters])) for name in names}
