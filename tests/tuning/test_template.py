"""Rendering: what is trained is exactly what serving sends, and every answer ends with EOS."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
from tuning_fixtures import make_tokenizer

from serving.completion.chat_template import render_chat
from serving.completion.checks import encode
from serving.models.registry import ServedModel
from serving.models.rendering import TemplateRenderer
from serving.models.tokenizers import TokenizerCache
from serving.protocol.schema import ChatRequest
from tuning.config import DataOptions
from tuning.data.encode import IGNORED, encode_examples, encode_heldout
from tuning.data.examples import Example
from tuning.data.ledger import Ledger
from tuning.data.rendering import TemplateError
from tuning.data.template import (
    ensure_template,
    render_prompts,
    render_training,
    tokenize,
)
from tuning.errors import TuningError

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# Marks the answer that is the last one, so that earlier turns are written anew with each turn.
FORGETFUL = (
    "{% for m in messages %}{% if m.role == 'assistant' %}{{ 'A:' + (' (old) ' if not loop.last "
    "else '') + m.content + eos_token }}{% else %}{{ 'U:' + m.content }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'A:' }}{% endif %}"
)
CHAT = [
    {"role": "system", "content": " Be brief. "},
    {"role": "user", "content": "Say red then blue."},
    {"role": "assistant", "content": "red blue"},
    {"role": "user", "content": "Say cat."},
    {"role": "assistant", "content": "cat "},
]


@pytest.fixture
def tokenizer() -> Any:
    made = make_tokenizer()
    assert ensure_template(made, "here") == "default"
    return made


def decode_trained(tokenizer: Any, span: Any) -> list[str]:
    """The trained stretches of a span as text."""
    return [tokenizer.decode(span.ids[start:stop]) for start, stop in span.trained]


def test_default_template_text(tokenizer: Any) -> None:
    assert tokenizer.apply_chat_template(CHAT, tokenize=False) == (
        "<s>System: Be brief.\nUser: Say red then blue.\nAssistant: red blue</s>\n"
        "User: Say cat.\nAssistant: cat</s>\n"
    )
    assert render_prompts(tokenizer, [CHAT[:2]]) == [
        "<s>System: Be brief.\nUser: Say red then blue.\nAssistant:"
    ]


def test_without_bos_none_is_written() -> None:
    tokenizer = make_tokenizer(bos=False)
    ensure_template(tokenizer, "here")
    assert render_prompts(tokenizer, [CHAT[1:2]]) == ["User: Say red then blue.\nAssistant:"]


def test_every_assistant_turn_is_trained_with_its_stop(tokenizer: Any) -> None:
    (spans,) = render_training(tokenizer, [CHAT])
    (span,) = spans
    assert decode_trained(tokenizer, span) == [" red blue</s>", " cat</s>"]


def test_training_and_serving_see_the_same_ids(tokenizer: Any, tmp_path: Path) -> None:
    """Serving renders with the saved tokenizer, in one piece, with a generation prompt."""
    from transformers import AutoTokenizer

    tokenizer.save_pretrained(tmp_path)
    served = AutoTokenizer.from_pretrained(tmp_path)
    (span,) = render_training(tokenizer, [CHAT])[0]
    for cut, (start, _) in zip((2, 4), span.trained, strict=True):
        ids = served.apply_chat_template(CHAT[:cut], add_generation_prompt=True, return_dict=True)[
            "input_ids"
        ]
        assert ids == span.ids[:start]


@pytest.mark.parametrize("own", [False, True])
def test_training_and_serving_code_give_the_same_ids(tmp_path: Path, own: bool) -> None:
    """Serving loads, renders and encodes by its own code, with the default and an own template."""
    made = make_tokenizer()
    if own:
        made.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
        made.chat_template = CHATML
    ensure_template(made, "here")
    made.save_pretrained(tmp_path)
    shelf, nothing = TokenizerCache(), cast(Any, None)  # rendering needs no engine
    renderer = TemplateRenderer()
    served = ServedModel(
        "m", "full", nothing, None, shelf.load(tmp_path), tmp_path, "", None, frozenset(), renderer
    )
    (span,) = render_training(made, [CHAT])[0]
    for cut, (start, _) in zip((2, 4), span.trained, strict=True):
        request = ChatRequest.model_validate({"model": "m", "messages": CHAT[:cut]})
        text = render_chat(served, request, None)
        assert encode(served.tokenizer, text, special=False) == span.ids[:start]
    renderer.close()


def test_generation_marks_agree_with_the_trained_spans(tokenizer: Any) -> None:
    """transformers' own assistant mask, from the template's marks, covers the same text."""
    (span,) = render_training(tokenizer, [CHAT])[0]
    marked = tokenizer.apply_chat_template(
        CHAT, return_dict=True, return_assistant_tokens_mask=True
    )
    mask = [0] * len(span.ids)
    for start, stop in span.trained:
        mask[start:stop] = [1] * (stop - start)
    assert marked["input_ids"] == span.ids
    assert marked["assistant_masks"] == mask


def test_own_template_is_kept_and_its_end_becomes_eos() -> None:
    tokenizer = make_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = CHATML
    assert ensure_template(tokenizer, "here") == "base"
    assert tokenizer.chat_template == CHATML
    assert tokenizer.eos_token == "<|im_end|>"
    (span,) = render_training(tokenizer, [CHAT])[0]
    assert decode_trained(tokenizer, span) == ["red blue<|im_end|>", "cat <|im_end|>"]


def test_a_template_that_rewrites_history_gives_a_span_for_each_turn(tokenizer: Any) -> None:
    tokenizer.chat_template = FORGETFUL
    spans = render_training(tokenizer, [CHAT])[0]
    assert [decode_trained(tokenizer, span) for span in spans] == [["red blue</s>"], ["cat </s>"]]
    for cut, span in zip((2, 4), spans, strict=True):
        prompt = tokenize(tokenizer, render_prompts(tokenizer, [CHAT[:cut]]))[0]
        assert span.ids[: len(prompt)] == prompt


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{% for m in messages %}{{ m.role + ':' + m.content }}{% endfor %}", "no special token"),
        ("{{ messages[0].content }}{% if add_generation_prompt %}A:{% endif %}", "does not follow"),
    ],
)
def test_templates_that_cannot_train_are_refused(template: str, message: str) -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = template
    with pytest.raises(TemplateError, match=message):
        ensure_template(tokenizer, "here")


def test_tokenizer_without_eos_is_refused() -> None:
    tokenizer = make_tokenizer()
    tokenizer.eos_token = None
    with pytest.raises(TemplateError, match="no EOS token"):
        ensure_template(tokenizer, "here")


def example(*texts: str) -> Example:
    """A conversation of user and assistant texts."""
    roles = ("user", "assistant")
    messages = tuple({"role": roles[i % 2], "content": text} for i, text in enumerate(texts))
    return Example(messages, "data.jsonl", 1, "")


def test_labels_are_the_answer_and_eos_only(tokenizer: Any) -> None:
    ledger = Ledger(rows_read=1, rows_trained=1)
    (row,) = encode_examples(tokenizer, [example("Say red.", "red")], 100, DataOptions(), ledger)
    kept = row.labels != IGNORED
    assert tokenizer.decode(row.labels[kept]) == " red</s>"
    assert (row.labels[kept] == row.ids[kept]).all()
    ledger.check()
    assert ledger.tokens_trained == kept.sum()
    assert ledger.tokens_masked == (~kept).sum()


def test_truncation_is_refused_then_counted(tokenizer: Any) -> None:
    examples = [example("Say red.", "red " * 30), example("Say red. " * 30, "red")]
    named = r"max_length 20: would cut .* in 2 rows; the longest is data\.jsonl:1 of \d+ tokens"
    with pytest.raises(TuningError, match=named):
        encode_examples(tokenizer, examples, 20, DataOptions(), Ledger(rows_read=2, rows_trained=2))
    ledger = Ledger(rows_read=2, rows_trained=2)
    rows = encode_examples(tokenizer, examples, 20, DataOptions(max_cut_share=1), ledger)
    assert [len(row) for row in rows] == [20]
    assert ledger.rows_dropped == {"no answer within max_length": 1}
    assert (ledger.rows_truncated, ledger.rows_trained) == (1, 1)
    ledger.check()


def test_special_tokens_in_texts_are_bad_rows(tokenizer: Any) -> None:
    examples = [example("Say </s> now", "red"), example("Say red.", "red")]
    ledger = Ledger(rows_read=2, rows_trained=2)
    rows = encode_examples(tokenizer, examples, 50, DataOptions(), ledger)
    assert len(rows) == 1
    assert "holds the special token '</s>'" in str(ledger.bad_rows[0])
    ledger.check()


# As some models' own templates do with a system message.
STERN = "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"


def test_rows_that_the_own_template_refuses_are_bad_rows(tokenizer: Any) -> None:
    tokenizer.chat_template = STERN + tokenizer.chat_template
    system = {"role": "system", "content": "Be brief."}
    examples = [example("Say red.", "red"), example("Say cat.", "cat")]
    examples[1] = Example((system, *examples[1].messages), "data.jsonl", 2, "")
    ledger = Ledger(rows_read=2, rows_trained=2)
    assert len(encode_examples(tokenizer, examples, 50, DataOptions(), ledger)) == 1
    assert [str(bad) for bad in ledger.bad_rows] == [
        "data.jsonl:2: messages: the chat template refuses it (no system role)"
    ]
    ledger.check()
    with pytest.raises(TuningError, match=r"data\.jsonl:2: messages: .*; mend the row"):
        encode_examples(tokenizer, examples, 50, DataOptions(strict=True), Ledger())


def test_heldout_rows_that_cannot_be_used_are_counted(tokenizer: Any) -> None:
    examples = [
        example("Say </s> now", "red"),
        example("Say red.", "red"),
        example("Say red. " * 30, "red"),
    ]
    ledger = Ledger(rows_read=3, rows_heldout=3)
    rows = encode_heldout(tokenizer, examples, 30, DataOptions(), ledger)
    assert [row.example for row in rows] == [1]
    assert (ledger.rows_heldout, len(ledger.bad_rows)) == (1, 1)
    assert ledger.rows_dropped == {"no answer within max_length": 1}
    ledger.check()
    own = DataOptions(heldout_file="own.jsonl")
    with pytest.raises(TuningError, match=r"data\.jsonl:1: .*special token"):
        encode_heldout(tokenizer, examples, 30, own, Ledger())
