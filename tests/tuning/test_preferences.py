"""Preference rows as pairs, ties and labels: what each form says, and what becomes of every row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tuning_fixtures import write_rows

from tuning.config import DataOptions
from tuning.data.preferences.formats import PREFERENCE_FORMATS
from tuning.data.preferences.load import read_preferences
from tuning.data.preferences.pairs import Pair, Preferences
from tuning.data.preferences.split import split_by_prompt
from tuning.data.preferences.winners import WINNERS, read_winner
from tuning.errors import TuningError

USER = [{"role": "user", "content": "Name a colour."}]
RED = [{"role": "assistant", "content": "Red."}]
WORD = [{"role": "assistant", "content": "Seven."}]


def read(path: Path, *rows: dict[str, Any], **options: Any) -> Preferences:
    """What rows in a file say."""
    source = write_rows(path / "data.jsonl", list(rows))
    found = read_preferences([str(source)], DataOptions(**options))
    found.ledger.check()
    assert len(found) == found.ledger.used
    return found


def only(preferences: Preferences) -> Pair:
    """The one pair there is."""
    (pair,) = preferences.pairs
    return pair


FORMS = {
    "explicit": {"prompt": USER, "chosen": RED, "rejected": WORD},
    "explicit texts": {"prompt": "Name a colour.", "chosen": "Red.", "rejected": "Seven."},
    "implicit": {"chosen": USER + RED, "rejected": USER + WORD},
    "binarized": {
        "prompt": "Name a colour.",
        "prompt_id": "4f",
        "chosen": USER + RED,
        "rejected": USER + WORD,
        "messages": USER + RED,
        "score_chosen": 9.0,
        "score_rejected": 2.5,
    },
    "hh-rlhf": {
        "chosen": "\n\nHuman: Name a colour.\n\nAssistant: Red.",
        "rejected": "\n\nHuman: Name a colour.\n\nAssistant: Seven.",
    },
    "sharegpt": {
        "conversations": [{"from": "human", "value": "Name a colour."}],
        "chosen": {"from": "gpt", "value": "Red."},
        "rejected": {"from": "gpt", "value": "Seven."},
    },
    "orca": {"system": "", "question": "Name a colour.", "chosen": "Red.", "rejected": "Seven."},
    "parts of text": {
        "prompt": [{"role": "user", "content": [{"type": "text", "text": "Name a colour."}]}],
        "chosen": [{"role": "assistant", "content": [{"type": "text", "text": "Red."}]}],
        "rejected": WORD,
    },
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_says_the_same_pair(form: str, tmp_path: Path) -> None:
    pair = only(read(tmp_path, FORMS[form]))
    assert [*pair.prompt] == USER
    assert [*pair.chosen] == RED
    assert [*pair.rejected] == WORD
    assert pair.ratings == ((9.0, 2.5) if form == "binarized" else (None, None))


def test_the_shared_start_of_texts_ends_with_a_line_or_a_word(tmp_path: Path) -> None:
    pair = only(read(tmp_path, {"chosen": "2 plus 2 is 14.", "rejected": "2 plus 2 is 15."}))
    assert pair.prompt[0]["content"] == "2 plus 2 is"
    assert [pair.chosen[0]["content"], pair.rejected[0]["content"]] == ["14.", "15."]
    lined = {"chosen": "Q: who?\nA: the cat", "rejected": "Q: who?\nA: the dog"}
    pair = only(read(tmp_path, lined))
    assert pair.prompt[0]["content"] == "Q: who?"
    assert pair.chosen[0]["content"] == "A: the cat"


def test_dialogues_part_at_the_last_answer_or_are_counted(tmp_path: Path) -> None:
    start = [*USER, *RED, {"role": "user", "content": "Another?"}]
    other = [*USER, *RED, {"role": "user", "content": "A number?"}]
    long = {"chosen": start + RED, "rejected": start + WORD}
    assert [*only(read(tmp_path, long)).prompt] == start
    found = read(tmp_path, {"chosen": start + RED, "rejected": other + WORD})
    assert found.ledger.left_out == {"prompt differs": 1}
    found = read(tmp_path, {"chosen": USER + RED, "rejected": USER + WORD + start[2:] + RED})
    assert found.ledger.left_out == {"prompt differs": 1}


def test_a_prompt_that_the_conversations_do_not_start_with_is_bad(tmp_path: Path) -> None:
    row = {"prompt": "Name a fish.", "chosen": USER + RED, "rejected": USER + WORD}
    found = read(tmp_path, row)
    assert not found.pairs
    assert "prompt: is no part of what chosen and rejected start with" in str(
        found.ledger.bad_rows[0]
    )


def test_pairs_that_teach_nothing_are_counted_by_reason(tmp_path: Path) -> None:
    good = FORMS["explicit"]
    rows = [
        good,
        good,
        {**good, "rejected": RED},
        {**good, "rejected": [{"role": "assistant", "content": " "}]},
        {**good, "chosen": 7.5},
        {"prompt": USER, "chosen": RED},
        {**good, "chosen": "half \ud800"},
    ]
    ledger = read(tmp_path, *rows).ledger
    assert ledger.rows_read == 7
    assert ledger.left_out == {"duplicate": 1, "identical": 1, "empty answer": 1}
    assert ledger.read == {"pairs": 5}
    assert [(bad.line, bad.field) for bad in ledger.bad_rows] == [(6, "rejected"), (7, "answer 1")]
    assert "1 duplicate, 1 empty answer, 1 identical" in "\n".join(ledger.lines())
    with pytest.raises(TuningError, match=r":6: rejected: .*leave --strict out"):
        read(tmp_path, *rows, strict=True)


def test_two_voters_who_say_the_same_are_two_votes(tmp_path: Path) -> None:
    good = FORMS["explicit"]
    voted = [{**good, "voter": 1}, {**good, "voter": 2}, {**good, "voter": 2}]
    assert read(tmp_path, *voted).ledger.left_out == {"duplicate": 1}
    told = [{**good, "vote_id": 1}, {**good, "vote_id": 2}]
    assert not read(tmp_path, *told).ledger.left_out


def test_labels_of_single_answers(tmp_path: Path) -> None:
    rows = [
        {"prompt": USER, "completion": RED, "label": True},
        {"prompt": "Name a colour.", "completion": "Seven.", "label": "false"},
        {"prompt": USER, "completion": RED, "label": 2},
    ]
    found = read(tmp_path, *rows)
    assert [(item.completion[0]["content"], item.label) for item in found.labelled] == [
        ("Red.", True),
        ("Seven.", False),
    ]
    assert str(found.ledger.bad_rows[0]).endswith("label: is 2; a label is true or false (1 or 0)")
    found.require_labels()
    with pytest.raises(TuningError, match=r"no pair of a better and a worse answer \(2 labels"):
        found.require_pairs()
    with pytest.raises(TuningError, match="all are good"):
        read(tmp_path, rows[0]).require_labels()
    empty = read(tmp_path, {"messages": [], "kto_tag": True}).ledger.bad_rows
    assert str(empty[0]).endswith("messages: is empty")
    whole = {"messages": USER + RED, "kto_tag": False}
    assert read(tmp_path, whole).labelled[0].label is False


def vote(winner: str, **more: Any) -> dict[str, Any]:
    """A row of the export of votes."""
    row = {"prompt": USER, "completion_a": RED, "completion_b": WORD, "winner": winner}
    return row | {"model_a": "fox", "model_b": "hen", "vote_id": 7, "battle_id": "x"} | more


def test_votes_are_pairs_ties_and_labels(tmp_path: Path) -> None:
    rows = [vote(w, voter=i) for i, w in enumerate(("model_a", "model_b", "tie", "both_bad"))]
    rows[0] |= {"strength": "much"}
    found = read(tmp_path, *rows)
    assert found.ledger.read == {"pairs": 2, "ties": 1, "both bad": 1}
    assert [pair.models for pair in found.pairs] == [("fox", "hen"), ("hen", "fox")]
    assert [pair.strength for pair in found.pairs] == [1.0, pytest.approx(2 / 3)]
    assert [pair.origin.voter for pair in found.pairs] == ["0", "1"]
    labels = [(item.model, item.label) for item in found.labels()]
    assert len(labels) == 8
    assert labels == [
        *(("fox", True), ("hen", False), ("hen", True), ("fox", False)),
        *(("fox", True), ("hen", True), ("fox", False), ("hen", False)),
    ]
    with pytest.raises(TuningError, match=r"\(1 ties\); collect votes"):
        read(tmp_path, vote("tie")).require_pairs()


def test_a_margin_in_some_rows_only_is_refused_where_it_is_needed(tmp_path: Path) -> None:
    good = FORMS["explicit"]
    other = {**good, "prompt": "Another?", "chosen": "Red.", "rejected": "Seven."}
    found = read(tmp_path, {**good, "margin": 1.0}, other)
    with pytest.raises(TuningError, match=r"1 of 2 pairs do not say by how much.*data.jsonl:2"):
        found.require_strength()
    read(tmp_path, {**good, "margin": 1.0}, {**other, "margin": 0.5}).require_strength()
    bad = read(tmp_path, {**good, "margin": -1.0}, {**good, "margin": "wide"}).ledger.bad_rows
    assert [row.field for row in bad] == ["margin", "margin"]


def test_columns_that_nothing_uses_are_refused_by_name(tmp_path: Path) -> None:
    odd = {**FORMS["explicit"], "toxicity": 0.3}
    with pytest.raises(TuningError, match=r"column toxicity holds 0.3.*--set drop=toxicity"):
        read(tmp_path, odd)
    found = read(tmp_path, odd, drop=("toxicity",))
    assert found.ledger.tally.dropped == {"toxicity": 1}
    keyed = {**FORMS["explicit"], "chosen": [{**RED[0], "logprobs": [1]}]}
    with pytest.raises(TuningError, match=r"chosen.logprobs: .*--set drop=chosen.logprobs"):
        read(tmp_path, keyed)
    assert only(read(tmp_path, keyed, drop=("chosen.logprobs",)))
    mapped = {"ask": "Name a colour.", "yes": "Red.", "no": "Seven."}
    names = {"prompt": "ask", "chosen": "yes", "rejected": "no"}
    assert [*only(read(tmp_path, mapped, columns=names)).chosen] == RED


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(TuningError, match="fit no known preference format"):
        read(tmp_path, {"question": "2?", "answer": "2"})
    with pytest.raises(TuningError, match="row is of format labels, those before are pairs"):
        read(tmp_path, FORMS["explicit"], {"prompt": USER, "completion": RED, "label": True})
    (tmp_path / "none.jsonl").write_text("\n")
    with pytest.raises(TuningError, match="holds no preferences"):
        read_preferences([str(tmp_path / "none.jsonl")])
    with pytest.raises(TuningError, match="unknown format 'xml'"):
        read(tmp_path, FORMS["explicit"], format="xml")


def test_winners_have_one_table() -> None:
    for winner, words in WINNERS.items():
        assert {read_winner(word) for word in words} == {winner}
    assert read_winner(" Model_A ") == "model_a"
    assert read_winner("Tie  (BothBad)") == "both_bad"
    words = [word for said in WINNERS.values() for word in said]
    assert len(words) == len(set(words))
    for odd in ("first", "", None, 1, ["model_a"]):
        with pytest.raises(TuningError, match="names no winner; use one of model_a, model_b"):
            read_winner(odd)


def many(count: int, voters: int = 5) -> list[dict[str, Any]]:
    """Votes on `count` prompts by several voters."""
    asked = [[{"role": "user", "content": f"Question {i // 3} of many?"}] for i in range(count)]
    return [vote("model_a", prompt=asked[i], voter=i % voters, vote_id=i) for i in range(count)]


def test_prompts_and_voters_are_on_one_side_of_the_split(tmp_path: Path) -> None:
    found = read(tmp_path, *many(120))
    train, heldout = split_by_prompt(found, 0.25, seed=3)
    prompts = [{pair.prompt[0]["content"] for pair in side.pairs} for side in (train, heldout)]
    assert not prompts[0] & prompts[1]
    assert len(prompts[1]) == 10
    assert len(train) + len(heldout) == 120
    assert train.ledger.heldout == len(heldout) == 30
    again = split_by_prompt(read(tmp_path, *reversed(many(120))), 0.25, seed=3)[1]
    assert {pair.prompt[0]["content"] for pair in again.pairs} == prompts[1]
    other = read(tmp_path, *many(120))
    train, heldout = split_by_prompt(other, 0.2, seed=3, by_voter=True)
    voters = [{pair.origin.voter for pair in side.pairs} for side in (train, heldout)]
    assert voters[0]
    assert voters[1]
    assert not voters[0] & voters[1]
    assert train.ledger.used == len(train)


@given(
    texts=st.lists(st.text(max_size=8), min_size=4, max_size=4),
    margin=st.one_of(st.none(), st.floats(), st.text(max_size=3), st.booleans()),
    label=st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=5)),
)
@settings(max_examples=60, deadline=None)
def test_whatever_a_row_holds_it_is_learned_or_counted(
    texts: list[str], margin: object, label: object, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    prompt, chosen, rejected, completion = texts
    pair = {"prompt": prompt, "chosen": chosen, "rejected": rejected, "margin": margin}
    for row in (pair, {"prompt": prompt, "completion": completion, "label": label}):
        try:
            ledger = read(folder, row).ledger
        except TuningError:
            continue
        assert ledger.rows_read == 1
        assert ledger.read.total() + len(ledger.bad_rows) == 1


def test_the_page_shows_the_forms_and_the_words_for_winners() -> None:
    page = Path(__file__).parents[2] / "docs" / "preference-learning.md"
    text = page.read_text(encoding="utf-8")

    def between(name: str) -> str:
        return text.partition(f"<!-- {name} -->\n")[2].partition(f"\n<!-- /{name} -->")[0]

    rows = [
        f"| `{form.name}` | {', '.join(f'`{name}`' for name in sorted(form.required))} "
        f"| {form.about} |"
        for form in PREFERENCE_FORMATS
    ]
    head = "| form | columns | rows |\n|---|---|---|\n"
    assert between("preference formats") == head + "\n".join(rows)
    words = [f"`{winner}`: {', '.join(said)}" for winner, said in WINNERS.items()]
    assert between("winners") == ";\n".join(words)
