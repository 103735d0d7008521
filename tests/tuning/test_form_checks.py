"""Checks of form judge hand-written answers, right and wrong; every kind is in the suite."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tuning_fixtures import judged

from tuning.evaluation.form_checks import FORM_KINDS
from tuning.evaluation.suites import SuiteError, load_suite
from tuning.evaluation.verifiers import KINDS, CheckError, parse_check

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
    assert [answer for answer in right if not judged(check, answer)] == []
    assert [answer for answer in wrong if judged(check, answer)] == []


def test_every_kind_is_judged_above_and_asked_in_the_suite() -> None:
    items = load_suite("constraints")
    forms = {name for name, kind in KINDS.items() if kind in FORM_KINDS}
    assert {kind for kind, *_ in CASES} == {*forms, "all"}
    assert {item.check.kind for item in items} == forms
    assert len(forms) == len(FORM_KINDS) >= 20
    assert len(items) == len({item.id for item in items}) == len({item.prompt for item in items})
    assert not any(item.check.passes("") for item in items)
    assert all("{" not in item.prompt for item in items)


def test_every_kind_is_documented_with_its_fields() -> None:
    """The table of the page is made of the classes: kind, fields, docstring."""
    page = (Path(__file__).parents[2] / "docs" / "tuning.md").read_text(encoding="utf-8")
    for name, kind in KINDS.items():
        fields = ", ".join(f"`{field}`" for field in sorted(kind.model_fields) if field != "kind")
        said = " ".join(str(kind.__doc__).split())
        assert f"| `{name}` | {fields} | {said} |\n" in page


@pytest.mark.parametrize(
    ("check", "message"),
    [
        ({"kind": "bullets"}, "check of kind 'bullets': lacks the field 'count'; add it"),
        (
            {"kind": "bullets", "count": 3, "relaton": "at most"},
            "check of kind 'bullets': has no field 'relaton'; did you mean 'relation'? known "
            "fields: count, relation",
        ),
        (
            {"kind": "word_count", "cuont": 5},
            "check of kind 'word_count': has no field 'cuont'; did you mean 'count'?",
        ),
        ({"kind": "bullets", "count": 3, "relation": "at mots"}, "did you mean 'at most'?"),
        ({"kind": "bullets", "count": "three"}, "count: must be a whole number, got 'three'"),
        ({"kind": "bullets", "count": 2.5}, "count: must be a whole number, got 2.5"),
        ({"kind": "bullets", "count": True}, "count: must be a whole number, got True"),
        ({"kind": "bullets", "count": -1}, "count: -1 is too small; give at least 0"),
        ({"kind": "bullets", "count": float("nan")}, "count: nan is not finite"),
        ({"kind": "no_comma", "count": 3}, "has no field 'count'; known fields: none"),
        ({"kind": "exact", "answers": "Paris"}, "answers: must be a list, got 'Paris'"),
        ({"kind": "exact", "answers": []}, "answers: [] is empty"),
        ({"kind": "exact", "answers": ["Paris", None]}, "answers[1]: must be text, got nothing"),
        ({"kind": "fact", "answers": ["..."]}, "answers[0]: '...' holds no word; give one"),
        ({"kind": "story", "min_sentences": 3}, "lacks the field 'words'"),
        ({"kind": "story", "min_sentences": 3, "words": []}, "words: [] is empty"),
        ({"kind": "keywords", "words": ["New Delhi"]}, "words[0]: 'New Delhi' is no single word"),
        ({"kind": "letter_count", "letter": "ab", "count": 1}, "letter: 'ab' is no single letter"),
        ({"kind": "paragraph_start", "paragraph": 0, "word": "A"}, "paragraph: 0 is too small"),
        ({"kind": "language", "language": "germn"}, "did you mean 'german'?"),
        (
            {"kind": "all", "checks": [{"kind": "no_comma"}, {"kind": "exact", "answers": "x"}]},
            "check of kind 'all': checks[1]: check of kind 'exact': answers: must be a list, "
            "got 'x'",
        ),
        (
            {"kind": "all", "checks": [{"kind": "all", "checks": [{"kind": "nocomma"}]}]},
            "checks[0]: check of kind 'all': checks[0]: unknown check kind 'nocomma'; did you mean "
            "'no_comma'?",
        ),
        (
            {"kind": "list", "count": 2, "allowed": ["a", "A"]},
            "count: 2 different items of the 1 allowed; no answer can pass",
        ),
        ({"kind": "mentions", "phrases": ["a"], "max_words": 0}, "max_words: 0 is too small"),
        (
            {"kind": "mentions", "phrases": ["a", "b c d"], "max_words": 2},
            "max_words: 2 leave no room for 'b c d'; no answer can pass",
        ),
        (
            {"kind": "fact", "answers": ["Paris", "Rome"], "wrong": ["rome", "paris"]},
            "wrong: holds what every one of the answers ('Paris', 'Rome') has; no answer can",
        ),
        (
            {"kind": "word_count", "count": 0, "relation": "at most"},
            "count: at most 0 leaves only an empty answer, which fails; no answer can pass",
        ),
        ({"kind": "bullets", "count": 10**30}, "is too large; give at most 1000000"),
        ({"kind": "all", "checks": []}, "checks: [] is empty"),
        ({"kind": "all", "checks": ["no_comma"]}, "checks[0]: check: 'no_comma' is no object"),
        ({}, "unknown check kind None; known kinds: all, bullets"),
        ({"kind": ["exact"]}, "unknown check kind ['exact']; known kinds: all, bullets"),
    ],
)
def test_mistakes_are_named_before_an_answer_is_there(
    check: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(CheckError) as caught:
        parse_check(check)
    assert message in str(caught.value)
    path = tmp_path / "suite.jsonl"
    good = {"prompt": "p", "check": {"kind": "quoted"}}
    lines = [json.dumps(item) + "\n" for item in (good, {"prompt": "p", "check": check})]
    path.write_text("".join(lines))
    with pytest.raises(SuiteError) as told:
        load_suite(str(path))
    assert str(told.value).startswith(f"{path}:2: check: ")
    assert message in str(told.value)


def test_answers_of_any_length_are_judged() -> None:
    """Python refuses to read whole numbers of more than 4,300 digits."""
    many = "9" * 5000
    assert not judged({"kind": "number", "value": 9}, f"It is {many}.")
    assert not judged({"kind": "numbered", "count": 1}, f"{many}. a")
    assert not judged({"kind": "json"}, f"[{many}]")
    assert judged({"kind": "number", "value": -5}, "It is -005.")
    assert judged({"kind": "numbered", "count": 2}, "01. a\n02. b")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=5,
)
FIELDS = sorted({field for kind in KINDS.values() for field in kind.model_fields} - {"kind"})
GOOD = [{"kind": kind, **fields} for kind, fields, *_ in CASES]


@pytest.mark.slow
@given(
    st.one_of(
        JSON,
        st.builds(
            lambda check, changes: {**check, **changes},
            st.sampled_from(GOOD) | st.fixed_dictionaries({"kind": st.sampled_from(sorted(KINDS))}),
            st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=4), JSON, max_size=3),
        ),
    ),
    st.text(max_size=30) | st.sampled_from(["", "It is 1.", "1. a\n2. b", '{"a": 1}']),
    st.booleans(),
)
@settings(max_examples=200, deadline=None)
def test_any_json_is_a_check_that_judges_or_is_named(check: Any, answer: str, inside: bool) -> None:
    content = {"kind": "all", "checks": [check]} if inside else check
    try:
        parsed = parse_check(content)
    except CheckError as error:
        said = str(error)
    else:
        assert parsed.passes(answer) in (True, False)
        said = "check"
    assert "\n" not in said
    assert "check" in said
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "suite.jsonl"
        path.write_text(json.dumps({"prompt": "p", "check": content}) + "\n")
        if said == "check":
            (item,) = load_suite(str(path))
            assert item.check == parsed
        else:
            with pytest.raises(SuiteError, match=r"suite\.jsonl:1: ") as told:
                load_suite(str(path))
            assert "\n" not in str(told.value)
