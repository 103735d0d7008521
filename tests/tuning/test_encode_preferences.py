"""Preferences as ids: the prompt that serving sends, the stop token, and what does not fit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tuning_fixtures import make_gemma_tokenizer, make_tokenizer

from tuning.data.preferences.encode import Encoder
from tuning.data.preferences.messages import assistant, user
from tuning.data.preferences.pairs import Labelled, Origin, Pair, PreferenceLedger, Tie
from tuning.data.template import ensure_template, render_prompts, tokenize
from tuning.errors import TuningError

HERE = Origin("data.jsonl", 1)
CHAT = (user("Say red."), assistant("red"), user("Say cat."))
PAIR = Pair(CHAT, (assistant("cat"),), (assistant("dog bird sun moon"),), HERE)


def encoder(tokenizer: Any, max_length: int = 200, **more: Any) -> Encoder:
    """An encoder with a ledger of one pair read."""
    ledger = PreferenceLedger()
    ledger.read["pairs"] = 1
    return Encoder(tokenizer, max_length, ledger, **more)


@pytest.fixture(scope="module", params=["plain", "gemma"])
def tokenizer(request: pytest.FixtureRequest) -> Any:
    made = make_tokenizer() if request.param == "plain" else make_gemma_tokenizer()
    ensure_template(made, "here")
    return made


def test_prompt_is_what_serving_sends_and_answers_end_where_it_stops(tokenizer: Any) -> None:
    (made,) = encoder(tokenizer).pairs([PAIR])
    assert made.prompt_ids.tolist() == tokenize(tokenizer, render_prompts(tokenizer, [CHAT]))[0]
    for ids, text in ((made.chosen_ids, "cat"), (made.rejected_ids, "dog bird sun moon")):
        assert ids[-1] == tokenizer.eos_token_id
        assert tokenizer.eos_token_id not in ids[:-1]
        assert tokenizer.decode(ids[:-1]).strip() == text
    (tie,) = encoder(tokenizer).ties([Tie(CHAT, PAIR.chosen, PAIR.rejected, HERE)])
    (one,) = encoder(tokenizer).labelled([Labelled(CHAT, PAIR.chosen, True, HERE)])
    assert tie.second_ids.tolist() == made.rejected_ids.tolist()
    assert one.completion_ids.tolist() == made.chosen_ids.tolist()


def test_what_does_not_fit_is_cut_or_left_out_and_counted(tokenizer: Any) -> None:
    (whole,) = encoder(tokenizer).pairs([PAIR])
    num_prompt = len(whole.prompt_ids)
    room = num_prompt + len(whole.rejected_ids)
    assert encoder(tokenizer, room).pairs([PAIR])
    for length, cut, reason in (
        (room - 1, False, "too long"),
        (num_prompt, True, "prompt too long"),
        (num_prompt, False, "prompt too long"),
    ):
        small = encoder(tokenizer, length, cut=cut)
        assert not small.pairs([PAIR])
        assert small.ledger.left_out == {reason: 1}
    (cut_one,) = encoder(tokenizer, room - 1, cut=True).pairs([PAIR])
    assert cut_one.rejected_ids.tolist() == whole.rejected_ids[:-1].tolist()
    assert cut_one.chosen_ids.tolist() == whole.chosen_ids.tolist()


def test_answers_that_are_the_same_once_cut_teach_nothing(tokenizer: Any) -> None:
    alike = replace(PAIR, chosen=(assistant("red red red cat"),), rejected=(assistant("red red"),))
    (made,) = encoder(tokenizer).pairs([alike])
    few = encoder(tokenizer, len(made.prompt_ids) + 1, cut=True)
    assert not few.pairs([alike])
    assert few.ledger.left_out == {"identical once cut": 1}


def test_special_tokens_tools_and_refusals_are_counted(tokenizer: Any) -> None:
    special = tokenizer.eos_token
    tight = encoder(tokenizer)
    assert not tight.pairs([replace(PAIR, rejected=(assistant(f"dog {special} cat"),))])
    asked = (*PAIR.chosen, user("Say dog."), assistant("dog"))
    assert not tight.pairs([replace(PAIR, chosen=asked)])
    assert tight.ledger.left_out["special token in a text"] == 1
    assert tight.ledger.left_out["answer of several turns"] == 1


def test_a_template_that_loses_text_is_refused_by_name() -> None:
    made = make_tokenizer()
    made.chat_template = (
        "{% for m in messages %}{{ m['role'] }}:{% if loop.last %}{{ m['content'] }}{% endif %}"
        "{{ eos_token }}{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
    )
    from tuning.data.preferences.pairs import Preferences

    with pytest.raises(TuningError, match="chat template of base 'odd': loses the content"):
        encoder(made, template_of="base 'odd'").check_template(Preferences(pairs=(PAIR,)))


def test_what_is_left_out_of_the_held_out_is_not_held_out(tokenizer: Any) -> None:
    few = encoder(tokenizer, 8, held=True)
    few.ledger.heldout = 1
    assert not few.pairs([PAIR])
    assert few.ledger.heldout == 0
    few.ledger.check()
