"""`--data verified:…`: prompts with checks, answers brought into form, and what is kept of them."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from tuning.config_files import load_config
from tuning.evaluation.form_suite import TOPICS, constraint_items
from tuning.evaluation.verifiers import parse_check
from tuning.starter import shipped_models
from tuning.verified import asks
from tuning.verified.cleaning import is_worth_learning, whole_sentences, without_filler
from tuning.verified.prompts import DEMANDS, TOPIC, CheckedPrompt, form_asks
from tuning.verified.rows import (
    AS_IT_WAS,
    IN_FORM,
    PLAIN,
    Sampled,
    VerifiedRowsError,
    choose,
    with_verified_rows,
)
from tuning.verified.shaping import WAYS, shape

TEXT = (
    "The sea is wide and deep. Gulls cry over the grey water. Fishermen mend their nets at dawn, "
    "and children look for shells. Waves run up the sand. Salt hangs in the air. "
    "A lamp burns in the harbour. Boats come home late. The tide turns twice a day. "
    "People have always loved this shore. Nothing here stays the same for long. "
    "The wind moves the dunes a little every year. Old walls keep the houses dry. "
    "In spring the birds come back to the cliffs. Their young learn to fly before summer ends."
)
POEM = [
    f"A line of verse, number {word}," for word in ("one", "two", "three", "four", "five", "six")
]


def test_no_built_in_prompt_is_of_the_constraints_suite() -> None:
    """Topics, words and phrases of the suite are held out, so it can judge what was learnt."""
    made = form_asks(600, 1)
    assert form_asks(600, 1) == made
    assert len({ask.prompt for ask in made}) == 600
    prompts = {item["prompt"] for item in constraint_items()}
    assert not prompts & {ask.prompt for ask in made}
    assert not set(TOPICS) & set(asks.TOPICS)
    wanted = [item["check"] for item in constraint_items()]
    words = {word for check in wanted for word in check.get("words", ())}
    assert not words & {*asks.WORDS, *asks.COMMON}
    phrases = {check.get("phrase") for check in wanted} - {None}
    assert not phrases & {*asks.OPENINGS, *asks.CLOSINGS}
    kinds = {ask.check.kind for ask in made if ask.check}
    assert {check["kind"] for check in wanted} <= kinds


@pytest.mark.parametrize("kind", sorted(DEMANDS))
def test_what_is_brought_into_form_passes(kind: str) -> None:
    """Every kind that code can make is made from plain sentences, whatever was drawn for it."""
    chance = random.Random(0)
    for _ in range(20):
        demand, content = DEMANDS[kind](chance, "the sea")
        assert "{" not in demand.replace(TOPIC, "")
        check = parse_check(content)
        shaped = shape(check, whole_sentences(TEXT), POEM, chance)
        if check.kind not in WAYS:
            assert shaped is None
        else:
            assert shaped is not None, demand
            assert check.passes(shaped), (demand, shaped)


def test_too_little_text_gives_nothing() -> None:
    check = parse_check({"kind": "sentence_count", "count": 4, "relation": "exactly"})
    assert shape(check, ["One sentence stands here."], [], random.Random(0)) is None
    assert shape(check, [], [], random.Random(0)) is None


def test_filler_goes_and_what_speaks_of_itself_is_not_learnt() -> None:
    assert without_filler("Sure, here is a poem:\n\nThe sea sings.") == "The sea sings."
    assert without_filler("The sea sings. I hope this helps! Let me know.") == "The sea sings."
    assert without_filler("Here in the north it rains.") == "Here in the north it rains."
    assert is_worth_learning("The sea sings.")
    for bad in ("", "It rains. It rains.", "In three short sentences, it rains."):
        assert not is_worth_learning(bad)
    assert not is_worth_learning("It rains. And then it")
    assert not is_worth_learning("A message of love and support was a message of love and support.")
    assert whole_sentences("- The sea sings\n- Gulls cry loudly.\nIt ends in the mid") == [
        "Gulls cry loudly."
    ]


def test_an_answer_that_says_its_prompt_again_is_not_learnt() -> None:
    """Unless the prompt asks for those words."""
    bullets = parse_check({"kind": "bullets", "count": 2, "relation": "exactly"})
    ask = CheckedPrompt("Write two bullet points. Compose a brief piece on a lost key.", bullets)
    parrot = Sampled("- Keys\n- Compose a brief piece on a lost key", True)
    assert choose(ask, [parrot], None, random.Random(0)) is None
    phrase = "Every time I look back, I see it."
    begins = parse_check({"kind": "starts_with", "phrase": phrase})
    ask = CheckedPrompt(f"Write about rain. Start with: {phrase}", begins)
    kept = choose(ask, [Sampled(f"{phrase} It rains.", True)], None, random.Random(0))
    assert kept is not None
    assert kept.how == AS_IT_WAS


def test_titles_and_names_are_what_the_answer_is_about() -> None:
    check = parse_check({"kind": "json", "keys": ["title", "text"]})
    shaped = shape(check, whole_sentences(TEXT), [], random.Random(0), "the sea")
    assert shaped is not None
    assert json.loads(shaped)["title"] == "The sea"


def test_an_answer_that_passes_comes_before_one_that_is_made() -> None:
    check = parse_check({"kind": "upper_case"})
    ask, chance = CheckedPrompt("Say it loudly.", check, "Say it."), random.Random(0)
    plain = Sampled("The sea is wide.", True)
    own = choose(ask, [Sampled("The sea.", True), Sampled("THE SEA IS WIDE.", True)], plain, chance)
    assert own is not None
    assert (own.answer, own.how) == ("THE SEA IS WIDE.", AS_IT_WAS)
    made = choose(ask, [Sampled("THE SEA IS", False)], plain, chance)
    assert made is not None
    assert (made.answer, made.how) == ("THE SEA IS WIDE.", IN_FORM)
    free = CheckedPrompt("Say it.", None)
    assert choose(free, [Sampled("The sea is wi", False)], None, chance) is None
    kept = choose(free, [plain], None, chance)
    assert kept is not None
    assert kept.how == PLAIN


@pytest.mark.slow
def test_a_suite_of_ones_own_becomes_rows_once(tmp_path: Path) -> None:
    """With the packaged tuned starter as the base: it answers its own questions rightly."""
    suite = tmp_path / "suite.jsonl"
    questions = {"What is 7 plus 1?": 8, "What is 3 plus 4?": 7, "What is 5 plus 1?": 700}
    items = [
        {"id": str(at), "prompt": prompt, "check": {"kind": "number", "value": value}}
        for at, (prompt, value) in enumerate(questions.items())
    ]
    suite.write_text("".join(json.dumps(item) + "\n" for item in items))
    given = {"base": "starter-full", "name": "mine", "home": tmp_path}
    config = load_config(None, {**given, "data": f"verified:{suite}"})
    said: list[str] = []
    (file,) = with_verified_rows(config, said.append).data
    rows = [json.loads(line) for line in Path(file).read_text().splitlines()]
    assert [row["prompt"] for row in rows] == ["What is 7 plus 1?", "What is 3 plus 4?"]
    assert all(str(questions[row["prompt"]]) in row["completion"] for row in rows)
    assert with_verified_rows(config, said.append).data == (file,)
    assert said[-1].endswith(f"rows made before, {file}")
    for wrong in (
        "verified:",
        "verified:form:0",
        "verified:form:0001000000",
        "verified:form:many",
        "verified:nothing.jsonl",
    ):
        with pytest.raises(Exception, match=r"verified|suite"):
            with_verified_rows(load_config(None, {**given, "data": wrong}), print)
    base = load_config(None, {**given, "base": "starter", "data": "verified:form:5"})
    with pytest.raises(VerifiedRowsError, match="has no chat template"):
        with_verified_rows(base, print)
    assert "starter" in shipped_models()
