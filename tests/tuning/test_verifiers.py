"""Verifiers judge hand-written answers, right and wrong; nothing here comes from a model."""

from __future__ import annotations

from typing import Any

import pytest
from tuning_fixtures import judged

from tuning.evaluation.verifiers import CheckError

CASES: list[tuple[dict[str, Any], list[str], list[str]]] = [
    (
        {"kind": "exact", "answers": ["Paris"]},
        ["Paris", " Paris.", "paris"],
        ["", "The capital is Paris.", "Paris Paris", "London"],
    ),
    (
        {"kind": "verbatim", "text": "Anna saw a red key."},
        ["Anna saw a red key.", " Anna saw a red key.\n"],
        ["Anna saw a red key", "anna saw a red key.", "Anna saw a red key. Anna saw a red key."],
    ),
    (
        {"kind": "fact", "answers": ["New Delhi"], "wrong": ["Paris", "Rome"]},
        ["The capital of India is New Delhi.", "It is New Delhi"],
        [
            "What is the capital of India? New Delhi.",
            "The capital of India is Delhi.",
            "New Delhi, Paris or Rome.",
            "It is New Delhi. It is big.",
            "",
        ],
    ),
    (
        {"kind": "number", "value": 19},
        ["12 plus 7 is 19.", "19", "12 + 7 = 19"],
        ["12 plus 7 is 18.", "19 is 12 plus 7.", "Is it 19?", "nineteen", "12 is 1. 7 is 19."],
    ),
    (
        {"kind": "list", "count": 3, "allowed": ["apple", "pear", "plum", "lemon"]},
        [
            "Three fruits are an apple, a pear and a plum.",
            "apple, lemon, pear",
            "Fruits: plum, pear and lemon.",
        ],
        [
            "Three fruits are an apple and a pear.",
            "Three fruits are an apple, a pear and a pear.",
            "Three fruits are an apple, a pear and a hammer.",
            "Which fruits are apple, pear and plum?",
            "",
        ],
    ),
    (
        {"kind": "list", "count": 2, "allowed": ["dog", "cat"], "bullets": True},
        ["- dog\n- cat", " - cat\n - dog\n"],
        ["dog\ncat", "- dog, cat", "- dog", "- dog\n- dog", "Two mammals:\n- dog\n- cat"],
    ),
    (
        {"kind": "story", "words": ["dog", "box", "river"], "min_sentences": 3},
        [
            "A dog came. It had a box. The river was deep.",
            "Dogs ran. They had boxes. A river rose.",
        ],
        [
            "A dog came. It had a box. The sea was deep.",
            "The dog had a box by the river.",
            "A dog came. A dog came. A box fell in the river.",
            "A dog came. It had a box. Was the river deep?",
            "A dog came. It had a box. The river was",
        ],
    ),
    (
        {"kind": "mentions", "phrases": ["thank", "Anna", "old book"], "max_words": 12},
        ["Dear Anna, thank you for the old book. Your friend Tom."],
        [
            "Dear Anna, thank you for the book.",
            "Thank Anna for the old book?",
            "Dear Anna, thank you " + "so much " * 9 + "for the old book.",
        ],
    ),
]


@pytest.mark.parametrize(
    ("check", "answer"), [(check, answer) for check, right, _ in CASES for answer in right]
)
def test_right_answers_pass(check: dict[str, Any], answer: str) -> None:
    assert judged(check, answer)


@pytest.mark.parametrize(
    ("check", "answer"), [(check, answer) for check, _, wrong in CASES for answer in wrong]
)
def test_wrong_answers_fail(check: dict[str, Any], answer: str) -> None:
    assert not judged(check, answer)


def test_unknown_kind_and_missing_field_are_named() -> None:
    with pytest.raises(CheckError, match=r"'rhyme'.*known kinds: .*fact"):
        judged({"kind": "rhyme"}, "x")
    with pytest.raises(CheckError, match="'exact': lacks the field 'answers'"):
        judged({"kind": "exact"}, "x")
