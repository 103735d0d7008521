"""The starter's world, split and corpus; the shipped weights have tests of their own."""

from __future__ import annotations

from itertools import islice
from random import Random

import pytest
from tuning_fixtures import judged

from tuning.evaluation.suites import load_suite
from tuning.starter.world import corpus, lexicon
from tuning.starter.world.dialogues import cards_text, dialogue_text, open_tasks
from tuning.starter.world.family import Task
from tuning.starter.world.instructions import (
    families,
    heldout_tasks,
    is_heldout,
    training_rows,
    training_tasks,
)


def test_split_shares_no_entity_and_no_prompt() -> None:
    heldout, training = heldout_tasks(), training_tasks()
    assert {(t.family, t.entity) for t in heldout}.isdisjoint(
        (t.family, t.entity) for t in training
    )
    assert {t.entity for t in heldout}.isdisjoint(t.entity for t in training)
    assert {t.prompt for t in heldout}.isdisjoint(t.prompt for t in training)
    assert all(is_heldout(task.entity) for task in heldout)


def test_suite_is_large_and_every_family_is_in_it() -> None:
    suite = load_suite("starter")
    assert len(suite) >= 1000
    assert len({item.prompt for item in suite}) == len(suite)
    assert {item.family for item in suite} == {family.name for family in families()}
    assert len({item.family for item in suite}) >= 12
    assert len({item.id for item in suite}) == len(suite)


@pytest.mark.slow
def test_every_reference_response_passes_and_neighbours_fail() -> None:
    for tasks in (heldout_tasks(), training_tasks()):
        for task in tasks:
            assert judged(task.check, task.response), task
            assert not judged(task.check, task.prompt + " And why?"), task
            assert not judged(task.check, ""), task


@pytest.mark.slow
def test_response_of_another_task_of_the_family_fails() -> None:
    by_family: dict[str, list[Task]] = {}
    for task in heldout_tasks():
        by_family.setdefault(task.family, []).append(task)
    for family, tasks in by_family.items():
        pairs = [
            (a, b) for a in tasks for b in tasks if a.check != b.check and a.response != b.response
        ]
        passed = sum(judged(a.check, b.response) for a, b in pairs)
        # Lists of other lengths fail, of the same group may pass; classes repeat across entities.
        assert passed / len(pairs) < 0.5, family


@pytest.mark.slow
def test_rows_and_documents_follow_from_their_seed() -> None:
    assert training_rows(3) == training_rows(3)
    assert training_rows(3) != training_rows(4)
    assert corpus.document(17) == corpus.document(17)
    assert list(islice(corpus.documents(5), 2)) == [corpus.document(5), corpus.document(6)]


STRETCHES = (0, corpus.RECALL_START, corpus.REVIEW_START, corpus.DIALOGUE_START)


@pytest.mark.slow
@pytest.mark.parametrize("start", STRETCHES)
def test_corpus_holds_no_heldout_prompt_and_no_sheet_is_answered(start: int) -> None:
    prompts = [task.prompt for task in heldout_tasks()]
    opened = {task.prompt for task in training_tasks()}
    responses = {task.response for task in (*heldout_tasks(), *training_tasks())}
    num_sheets = 0
    for number in range(start, start + 1000):
        text = corpus.document(number)
        assert not [prompt for prompt in prompts if prompt in text], text
        lines = text.split("\n")
        if lines[0] in opened or lines[0].endswith("?"):
            num_sheets += 1
            assert responses.isdisjoint(lines), text
    assert num_sheets > 25


@pytest.mark.slow
def test_dialogues_answer_only_what_is_not_held_out() -> None:
    prompts, rng = {task.prompt for task in heldout_tasks()}, Random("dialogues")
    tasks = [task for _ in range(3000) for task in open_tasks(rng)]
    assert {task.family for task in tasks} == {family.name for family in families()}
    assert not [task for task in tasks if is_heldout(task.entity) or task.prompt in prompts]
    for _ in range(300):
        first = dialogue_text(rng).split("\n")[0]
        assert first not in {task.prompt for task in tasks}


def test_cards_agree_with_the_tables() -> None:
    capitals = {country.name: country.capital for country in lexicon.countries()}
    rng = Random("cards")
    lines = [line for _ in range(300) for line in cards_text(rng).split("\n")]
    languages_and_continents = {
        value for country in lexicon.countries() for value in (country.language, country.continent)
    }
    shown = [line.split(": ") for line in lines if line.partition(": ")[0] in capitals]
    assert len(shown) > 20
    assert all(
        right == capitals[left] or right in languages_and_continents for left, right in shown
    )


@pytest.mark.parametrize(
    ("got", "wanted"),
    [
        (lexicon.article("apple"), "an apple"),
        (lexicon.article("hammer"), "a hammer"),
        (lexicon.plural_noun("piece of furniture"), "pieces of furniture"),
        (lexicon.plural_noun("country"), "countries"),
        (lexicon.joined(["a", "b", "c"]), "a, b and c"),
        (lexicon.joined(["a"]), "a"),
        (lexicon.located("farm"), "on the farm"),
    ],
)
def test_grammar_helpers(got: str, wanted: str) -> None:
    assert got == wanted


def test_facts_against_an_independent_source() -> None:
    """A sample of the tables, written down apart from them."""
    capitals = {country.name: country.capital for country in lexicon.countries()}
    symbols = {element.name: (element.symbol, element.number) for element in lexicon.elements()}
    assert capitals["Australia"] == "Canberra"
    assert capitals["Turkey"] == "Ankara"
    assert capitals["Nigeria"] == "Abuja"
    assert symbols["tungsten"] == ("W", 74)
    assert symbols["sodium"] == ("Na", 11)
    assert lexicon.past_tenses()["catch"] == "caught"
    assert len(set(capitals.values())) == len(capitals)
    assert len({symbol for symbol, _ in symbols.values()}) == len(symbols)
