"""The votes of an arena as preferences: the arena writes them, tuning reads every one of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from store_fixtures import BASE, FULL, LORA, Hand

from arena.commands.export import OptionError
from arena.commands.vote_data import as_files
from arena.exports.dataset import ExportError, ExportOptions, export
from arena.values.battle import AnswerStatus
from arena.values.vote import Judgement, Strength, Winner
from tuning.config import DataOptions
from tuning.data.corpus import load_corpus
from tuning.data.ledger import Ledger
from tuning.data.preferences.load import read_preferences
from tuning.data.preferences.pairs import Labelled, Pair, Preferences


@pytest.fixture
def voted(hand: Hand) -> Hand:
    """One vote of each kind, a ranking, a better answer, and a vote that was flagged."""
    for number, winner in enumerate(Winner):
        judgement = Judgement(winner, strength=Strength.MUCH if number == 0 else None)
        texts = [f"left {number}", f"right {number}"]
        voter = hand.voter(f"v{number % 2}")
        hand.vote(texts=texts, prompt=f"{number}?", judgement=judgement, voter=voter)
    edited = Judgement(Winner.MODEL_B, edited_answer="best")
    hand.vote(texts=["poor", "good"], prompt="edit?", judgement=edited)
    ranker = hand.voter("r")
    three, _ = hand.battle(
        ["x", "y", "z"], participants=[BASE, LORA, FULL], voter=ranker, prompt="three"
    )
    ranked = Judgement(ranking=(1, 3, 1), edited_answer="xyz")
    hand.store.cast_vote(three, ranked, voter=ranker)
    hand.vote(texts=["same", "same"], prompt="equal?", judgement=Judgement(Winner.MODEL_A))
    hand.battle(["fine", ""], statuses=[AnswerStatus.COMPLETE, AnswerStatus.FAILED])
    return hand


def said(pair: Pair) -> tuple[object, ...]:
    """What a pair says."""
    texts = (pair.prompt[-1]["content"], pair.chosen[0]["content"], pair.rejected[0]["content"])
    return (*texts, pair.models, pair.strength, round(pair.weight, 6))


def learned(home: Path) -> Preferences:
    """The preferences behind `--data votes`."""
    (folder,) = as_files(("votes",), home)
    found = read_preferences([folder])
    found.ledger.check()
    return found


def test_votes_are_read_whole(voted: Hand, tmp_path: Path) -> None:
    home = voted.store.path.parent
    found = learned(home)
    assert found.ledger.read == {"pairs": 11, "ties": 2, "both bad": 1}
    assert found.ledger.left_out == {"identical": 1}
    assert not found.ledger.bad_rows
    export(voted.store, tmp_path / "trl", ExportOptions(format="trl"))
    trl = read_preferences([str(tmp_path / "trl")])
    assert sorted(map(said, found.pairs), key=str) == sorted(map(said, trl.pairs), key=str)
    assert trl.ledger.exported == {"tie": 1, "both_bad": 1, "identical": 1}
    export(voted.store, tmp_path / "kto", ExportOptions(format="kto"))
    kto = read_preferences([str(tmp_path / "kto")]).labelled
    assert labels_in(kto) == labels_in(found.labels())
    assert len(labels_in(kto)) == 15
    assert {one.weight for one in found.labels()} == {1.0}


def labels_in(items: Sequence[Labelled]) -> set[tuple[str, str, bool]]:
    """What single answers are called."""
    return {(one.prompt[-1]["content"], one.completion[0]["content"], one.label) for one in items}


def test_the_same_votes_are_the_same_folder_and_tell_nobody(voted: Hand) -> None:
    home = voted.store.path.parent
    (folder,) = as_files(("votes",), home)
    assert as_files((folder, "votes"), home) == (folder, folder)
    manifest = json.loads((Path(folder) / "MANIFEST.json").read_text())
    assert manifest["store"]["turns_failed"] == 1
    voters = {pair.origin.voter for pair in learned(home).pairs}
    assert {str(voter).isdigit() for voter in voters} == {True}
    voted.vote(prompt="more?", judgement=Judgement(Winner.MODEL_A))
    assert as_files(("votes",), home) != (folder,)
    assert (Path(folder) / "MANIFEST.json").is_file()
    assert not list((home / "data").glob(".*"))


def test_a_home_without_votes_is_told(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"has no arena\.db; vote on the page first"):
        as_files(("votes",), tmp_path)


def test_answers_that_people_wrote_or_preferred_are_rows_to_follow(voted: Hand) -> None:
    home = voted.store.path.parent
    (path,) = as_files(("votes",), home, "sft")
    assert as_files(("votes", "starter"), home, "sft") == (path, "starter"), "the same file"
    found = [json.loads(line)["messages"] for line in Path(path).read_text().splitlines()]
    said = {(row[-2]["content"], row[-1]["content"]) for row in found}
    assert ("edit?", "best") in said
    assert ("three", "xyz") in said, "what was written, not what was ranked first"
    assert ("0?", "left 0") in said
    assert {("three", "x"), ("edit?", "good"), ("equal?", "same")} & said == set()
    ledger = Ledger()
    corpus = load_corpus((path,), DataOptions(heldout=0), 0, ledger)
    assert len(corpus.train) == len(said) == len(found)
    with pytest.raises(ExportError, match="no vote prefers"):
        as_files(("synthetic-votes",), home, "sft")
