"""Exports of votes as training data: the arena writes them, `arena tune` reads them as advised."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from store_fixtures import Hand

from arena.exports.dataset import ExportOptions, export
from arena.exports.trl import PREFERENCE_SCHEMA, UNPAIRED_SCHEMA
from arena.values.vote import Judgement, Strength, Winner
from tuning import tune
from tuning.config_files import add_assignments, load_config
from tuning.data.columns import HARMLESS, OF_EXPORTS
from tuning.data.corpus import Corpus, load_corpus
from tuning.data.ledger import Ledger
from tuning.errors import TuningError

PAGE = Path(__file__).parents[2] / "docs" / "data.md"


def read(folder: Path, *assignments: str) -> Corpus:
    """The corpus of an exported folder, with these settings."""
    given = {"base": "b", "name": "n", "data": (str(folder),)}
    config = load_config(None, add_assignments(given, [*assignments, "heldout=0"]))
    return load_corpus(config.data, config.data_options, 0, Ledger())


@pytest.fixture
def voted(hand: Hand) -> Hand:
    """Two votes with all that a voter may say."""
    judgement = Judgement(Winner.MODEL_B, strength=Strength.MUCH, reasons=("correct",), comment="c")
    hand.vote(texts=["bad", "good"], prompt="One?", judgement=judgement, tags=["facts"])
    hand.vote(texts=["fine", "poor"], prompt="Two?", judgement=Judgement(Winner.MODEL_A))
    return hand


def answers(corpus: Corpus) -> set[tuple[str, ...]]:
    """What is asked and answered in each row."""
    return {tuple(message["content"] for message in row.messages) for row in corpus.train}


def test_the_better_answers_of_an_export_are_trained(voted: Hand, tmp_path: Path) -> None:
    export(voted.store, tmp_path / "votes", ExportOptions())
    with pytest.raises(TuningError, match="rows of chosen and rejected") as caught:
        read(tmp_path / "votes")
    advice = re.findall(r"--set (\S+)", str(caught.value))
    assert advice == ["columns=completion:chosen", "drop=rejected"]
    assert answers(read(tmp_path / "votes", *advice)) == {("One?", "good"), ("Two?", "fine")}
    for setting in advice:
        assert f"--set {setting}" in PAGE.read_text(encoding="utf-8")


def test_a_variant_is_tuned_on_an_export(voted: Hand, tiny_base: Path, tmp_path: Path) -> None:
    export(voted.store, tmp_path / "votes", ExportOptions())
    given = {"base": str(tiny_base), "name": "voted", "data": (str(tmp_path / "votes"),)}
    assignments = ["columns=completion:chosen", "drop=rejected", "max_steps=1", "samples=0"]
    settings = add_assignments({**given, "home": tmp_path}, assignments)
    made = tune(load_config(None, settings))
    assert made.run["ledger"]["rows"]["trained"] == 2
    assert "vote_id" in made.run["ledger"]["columns"]["harmless"]


def test_the_good_answers_of_an_unpaired_export_are_trained(voted: Hand, tmp_path: Path) -> None:
    export(voted.store, tmp_path / "votes", ExportOptions(format="kto"))
    assert answers(read(tmp_path / "votes")) == {("One?", "good"), ("Two?", "fine")}


def test_every_column_about_a_vote_is_known_as_such() -> None:
    names = {*PREFERENCE_SCHEMA.names, *UNPAIRED_SCHEMA.names}
    lesson = {"prompt", "chosen", "rejected", "completion", "label"}
    assert names - lesson == OF_EXPORTS | (names & HARMLESS)
