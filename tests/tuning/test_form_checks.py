"""Checks of form judge hand-written answers, right and wrong; every kind is in the suite."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tuning.evaluation.form_checks import FORM_KINDS
from tuning.evaluation.suites import load_suite
from tuning.evaluation.verifiers import KINDS, CheckError, verify

# kind, fields, answers that pass, answers that fail
CASES: list[tuple[str, dict[str, Any], list[str], list[str]]] = [
    ("keywords", {"words": ["sea", "cold"]}, ["The COLD sea."], ["The seas are cold.", ""]),
    (
        "keyword_count",
        {"word": "again", "count": 2, "relation": "exactly"},
        ["Again and again."],
        ["Again.", "again again again", "against again"],
    ),
    ("forbidden_words", {"words": ["bad"]}, ["A good badge."], ["Bad luck.", "", "..."]),
    ("letter_count", {"letter": "z", "count": 2}, ["Zoo and maze"], ["zoo", ""]),
    ("word_count", {"count": 3, "relation": "at most"}, ["one two"], ["a b c d", "", "!!!"]),
    ("word_count", {"count": 3}, ["it's well-known now"], ["one two"]),
    (
        "sentence_count",
        {"count": 2, "relation": "exactly"},
        ["It rains. I stay.", 'He said "yes!" Then he left.'],
        ["It rains.", "A. B. C.", ""],
    ),
    (
        "paragraph_count",
        {"count": 2, "relation": "exactly"},
        ["a\n\nb", "a\nb\n \nc"],
        ["a\nb", "a\n\nb\n\nc", ""],
    ),
    ("line_count", {"count": 2, "relation": "exactly"}, ["a\nb", "a\n\nb\n"], ["a", "a\nb\nc"]),
    (
        "paragraph_start",
        {"paragraph": 2, "word": "Later"},
        ["One.\n\nLater, two."],
        ["Later.\n\nTwo.", "Later."],
    ),
    ("placeholders", {"count": 2}, ["[a] and [b c]"], ["[a]", "[] []", "(a) (b)"]),
    (
        "postscript",
        {"marker": "P.S."},
        ["Hi.\n\nP.S. Bye."],
        ["P.S. Hi.\nmore\nmore", "Hi.\nP.S.", "Hi P.S. x"],
    ),
    (
        "bullets",
        {"count": 2, "relation": "exactly"},
        ["- a\n* b", "List:\n- a\n- b"],
        ["- a", "-a\n-b", "- a\n- b\n- c"],
    ),
    ("numbered", {"count": 2}, ["1. a\n2. b", "1) a\n2) b"], ["1. a\n3. b", "1. a", "2. a\n1. b"]),
    ("one_of", {"options": ["Yes.", "No."]}, ["yes", "No."], ["Yes or no", "", "Yes, I do."]),
    ("highlights", {"count": 2}, ["*a* and **b**"], ["*a*", "* a\n* b", "**a**"]),
    (
        "sections",
        {"marker": "Section", "count": 2, "relation": "exactly"},
        ["Section 1\na\n## Section 2\nb"],
        ["Section 1\na", "In Section 1 and Section 2"],
    ),
    (
        "json",
        {"keys": ["a"]},
        ['{"a": 1}', '```json\n{"a": 1, "b": 2}\n```'],
        ['{"b": 1}', "[1]", "{a: 1}", 'Here: {"a": 1}', ""],
    ),
    ("json", {}, ["[1, 2]", "{}"], ["3", "text"]),
    ("title", {}, ["<<A day>>\nText"], ["<A day>", "<<>>", "<< >>"]),
    (
        "two_answers",
        {},
        ["One.******Two."],
        ["One.", "One.******One.", "a******b******c", "******a"],
    ),
    (
        "repeats_prompt",
        {"text": "I saw it."},
        ["I saw it. Then I left."],
        ["I saw it.", "I see it. Then."],
    ),
    ("starts_with", {"phrase": "Once upon"}, ["once upon a time"], ["At once upon", ""]),
    ("ends_with", {"phrase": "was all."}, ["And that was all."], ["That was all", ""]),
    ("quoted", {}, ['"A day."', "“A day.”"], ["A day", '"A" day', '""']),
    ("no_comma", {}, ["A day"], ["A, day", ""]),
    ("no_question", {}, ["A day."], ["A day?", "!"]),
    ("capital_words", {"count": 2}, ["BIG and RED"], ["BIG I A", "Big Red"]),
    ("upper_case", {}, ["A DAY."], ["A Day.", "12", ""]),
    ("lower_case", {}, ["a day."], ["A day.", "12", ""]),
    (
        "language",
        {"language": "german"},
        ["Das ist der Hund und die Katze."],
        ["This is the dog and the cat.", "", "Hund", "C'est le chien et la vache."],
    ),
    (
        "all",
        {"checks": [{"kind": "no_comma"}, {"kind": "lower_case"}]},
        ["a day"],
        ["a, day", "A day"],
    ),
]


@pytest.mark.parametrize(
    ("kind", "fields", "right", "wrong"), CASES, ids=lambda value: str(value)[:24]
)
def test_answers_are_judged(
    kind: str, fields: dict[str, Any], right: list[str], wrong: list[str]
) -> None:
    check = {"kind": kind, **fields}
    assert [answer for answer in right if not verify(check, answer)] == []
    assert [answer for answer in wrong if verify(check, answer)] == []


def test_every_kind_is_judged_above_and_asked_in_the_suite() -> None:
    items = load_suite("constraints")
    assert {kind for kind, *_ in CASES} == {*FORM_KINDS, "all"}
    assert {item.check["kind"] for item in items} == set(FORM_KINDS)
    assert len(FORM_KINDS) >= 20
    assert len(items) == len({item.id for item in items}) == len({item.prompt for item in items})
    assert not any(verify(item.check, "") for item in items)
    assert all("{" not in item.prompt for item in items)


def test_every_kind_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "tuning.md").read_text(encoding="utf-8")
    assert [kind for kind in KINDS if f"| `{kind}` |" not in page] == []


def test_a_missing_field_is_named() -> None:
    with pytest.raises(CheckError, match="kind 'bullets' lacks the field 'count'"):
        verify({"kind": "bullets"}, "- a")
