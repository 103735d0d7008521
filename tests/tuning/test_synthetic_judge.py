"""The judge of verifiers: its noise and biases are those given, and it names what is wrong."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest

from tuning.data.preferences.messages import assistant, user
from tuning.data.preferences.pairs import Origin, Pair
from tuning.errors import TuningError
from tuning.evaluation.suites import SuiteItem, load_suite
from tuning.preference.judge import (
    SyntheticJudge,
    by_prompt,
    kind_of_error,
    kinds_of,
    relabelled,
    without_noise,
)

CHECK = {"kind": "fact", "answers": ["Paris"], "wrong": ["Rome"]}
RIGHT, WRONG = "The capital of France is Paris.", "The capital of France is Rome."


def item(number: int = 0, check: dict[str, object] | None = None) -> SuiteItem:
    """A question with a check."""
    prompt = f"What is the capital of France, case {number}?"
    return SuiteItem.model_validate({"id": str(number), "prompt": prompt, "check": check or CHECK})


def test_without_faults_it_is_the_verifier() -> None:
    judge = SyntheticJudge()
    words = [judge.decide(item(), *pair) for pair in ((RIGHT, WRONG), (WRONG, RIGHT))]
    assert words == ["model_a", "model_b"]
    assert judge.decide(item(), RIGHT, RIGHT) == "tie"
    assert judge.decide(item(), WRONG, "") == "both_bad"


def shares(judge: SyntheticJudge, left: str, right: str, count: int = 4000) -> Counter[str]:
    """How often the judge says what."""
    return Counter(judge.decide(item(number), left, right) for number in range(count))


def test_faults_are_as_frequent_as_they_are_asked_to_be() -> None:
    noisy = shares(SyntheticJudge(noise=0.1), RIGHT, WRONG)
    assert noisy["model_b"] / 4000 == pytest.approx(0.1, abs=0.02)
    assert set(shares(SyntheticJudge(noise=0.5), RIGHT, RIGHT, 50)) == {"tie"}, "no side is named"
    left = shares(SyntheticJudge(position=0.3), WRONG, RIGHT)
    assert left["model_a"] / 4000 == pytest.approx(0.3, abs=0.02)
    long = shares(SyntheticJudge(length=0.4), WRONG + " Yes, Rome.", RIGHT)
    assert long["model_a"] / 4000 == pytest.approx(0.4, abs=0.03)
    alike = shares(SyntheticJudge(length=1.0), "No idea.", "No clue.", 20)
    assert set(alike) == {"both_bad"}


def test_a_judge_repeats_itself_and_voters_differ() -> None:
    judge = SyntheticJudge(noise=0.5)
    first = [judge.decide(item(n), RIGHT, WRONG, "x") for n in range(100)]
    assert first == [judge.decide(item(n), RIGHT, WRONG, "x") for n in range(100)]
    other = [judge.decide(item(n), RIGHT, WRONG, "y") for n in range(100)]
    assert 20 < sum(a != b for a, b in zip(first, other, strict=True)) < 80
    with pytest.raises(TuningError, match=r"noise: 1.5 is no probability"):
        SyntheticJudge(noise=1.5)


def test_votes_are_held_against_the_verifiers() -> None:
    items = by_prompt([item(0)])
    prompt, origin = (user(item(0).prompt),), Origin("d", 1)
    right, wrong = (assistant(RIGHT),), (assistant(WRONG),)
    pairs = [
        Pair(prompt, right, wrong, origin, models=("fox", "hen")),
        Pair(prompt, wrong, right, origin, models=("hen", "fox")),
        Pair(prompt, right, (assistant("Paris it is."),), origin),
        Pair((user("Another?"),), right, wrong, origin),
    ]
    assert without_noise(pairs, items) == [1, -1, 0, 0]
    assert [pair.models for pair in relabelled(pairs, items)] == [("fox", "hen")] * 2
    assert kinds_of(pairs, items) == ["wrong fact", "wrong fact", "right", "of no suite"]


@pytest.mark.parametrize(
    ("check", "answer", "kind"),
    [
        (CHECK, RIGHT, "right"),
        (CHECK, WRONG, "wrong fact"),
        (CHECK, "Is Paris the capital of France?", "form"),
        (CHECK, "Gold melts slowly in summer.", "other question"),
        (CHECK, "What is the capital of Portugal?", "other question"),
        (CHECK, "", "wrong fact"),
        ({"kind": "number", "value": 8}, "The capital of France is 9.", "wrong sum"),
        ({"kind": "number", "value": 8}, "The capital of France is nine.", "form"),
        ({"kind": "exact", "answers": ["yes"]}, "Yes, the capital of France is.", "form"),
        ({"kind": "exact", "answers": ["yes"]}, "No.", "wrong fact"),
    ],
)
def test_what_is_wrong_is_named(check: dict[str, object], answer: str, kind: str) -> None:
    assert kind_of_error(item(0, check), answer) == kind


def test_errors_of_every_family_of_the_starter_are_named() -> None:
    items = load_suite("starter", 60)
    for one, other in pairwise(items):
        assert kind_of_error(one, other.prompt) != "right" or one.check.passes(other.prompt)
    kinds = {kind_of_error(one, "Some horses wander about.") for one in items}
    assert kinds <= {"form", "wrong fact", "wrong sum", "other question"}
    assert "other question" in kinds
