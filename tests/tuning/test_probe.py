"""Templates that lose, move or repeat text are refused before a run, by name and with a remedy."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tuning_fixtures import (
    GEMMA_TEMPLATE,
    make_base,
    make_gemma_tokenizer,
    make_tokenizer,
    rows,
    write_rows,
)

from tuning import TuningConfig, TuningError, tune
from tuning.config import DataOptions, TemplateOptions, TrainingOptions
from tuning.data.encode import TokenRow, encode_examples
from tuning.data.examples import Example
from tuning.data.fields import Conversation
from tuning.data.ledger import Ledger
from tuning.data.probe import check_template, mark, shapes
from tuning.data.rendering import RenderError, TemplateError, render
from tuning.data.template import DEFAULT_TEMPLATE, ensure_template
from tuning.training.inputs import prepare

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
USER = {"role": "user", "content": "Say red."}
ANSWER = {"role": "assistant", "content": "red"}
SYSTEM = {"role": "system", "content": "Be brief."}
TOOL = {"role": "tool", "content": "12 degrees"}
CALL = {
    "role": "assistant",
    "content": "",
    "tool_calls": [
        {
            "type": "function",
            "id": "call_1",
            "function": {"name": "weather", "arguments": {"town": "Paris", "days": 3}},
        }
    ],
}
TOOLS = tuple(
    {"type": "function", "function": {"name": name, "description": text, "parameters": {}}}
    for name, text in (("weather", "Looks out."), ("clock", "Tells the time."))
)
PLAIN = "{% for m in messages %}{{ '<' + m.role + '>' + m.content + '</s>' }}{% endfor %}"
ASK = "{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
CALLING = (
    "{% for m in messages %}{{ '<' + m.role + '>' + m.content }}"
    "{% for call in m.tool_calls or [] %}{{ call.function | tojson }}{% endfor %}{{ '</s>' }}"
    "{% endfor %}"
)
WITHIN = "{% for m in messages %}{{ '<' + m.role + '>' }}%BODY{{ '</s>' }}{% endfor %}" + ASK


def check(template: str, *conversations: list[dict[str, Any]], tools: Any = ()) -> None:
    """The check of a run, with this template."""
    tokenizer = make_tokenizer()
    tokenizer.chat_template = template
    check_template(
        tokenizer, [Conversation(tuple(item), tools) for item in conversations], "base 'b'"
    )


@pytest.mark.parametrize(
    ("template", "conversation"),
    [
        (DEFAULT_TEMPLATE, [SYSTEM, USER, ANSWER, USER, ANSWER]),
        (DEFAULT_TEMPLATE, [USER, ANSWER, TOOL, TOOL, ANSWER]),
        (PLAIN + ASK, [USER, ANSWER]),
        (CALLING + ASK, [USER, CALL, TOOL, ANSWER]),
        (GEMMA_TEMPLATE, [SYSTEM, USER, ANSWER, USER, ANSWER]),
        (GEMMA_TEMPLATE, [USER, ANSWER, TOOL, ANSWER]),  # refuses by itself: counted row by row
    ],
)
def test_templates_that_lose_nothing_pass(template: str, conversation: list[Any]) -> None:
    check(template, conversation)


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (
            "{% for part in m.content %}{{ part.text }}{% endfor %}",
            r"loses the content of message 1",
        ),
        ("{% if m.role != 'system' %}{{ m.content }}{% endif %}", r"loses .* message 1 \(system\)"),
        ("{% if m.role != 'tool' %}{{ m.content }}{% endif %}", r"loses .* message 5 \(tool\)"),
        (
            "{{ m.content if not loop.last or m.role == 'user' }}",
            r"loses .* message 3 \(assistant\)",
        ),
        ("{{ m.content if loop.index < 5 }}", r"loses .* message 5 \(tool\)"),
        ("{{ m.content if loop.last or m.role != 'assistant' }}", r"loses .* message 3 \(assistan"),
        ("{{ m.content[:60] }}", r"loses the content"),
        ("{{ m.content | upper }}", r"loses the content"),
        ("{{ m.content | truncate }}", r"loses the content"),
        ("{{ m.content | reverse }}", r"loses the content"),
        ("{{ m.content + m.content }}", r"writes the content of message 1 \(system\) 2 times"),
        ("{{ messages[0].content }}", r"writes the content of message 1 \(system\) \d times"),
        ("{{ messages[-loop.index].content }}", r"out of order|elsewhere|does not follow|loses"),
    ],
)
def test_templates_that_lose_text_are_refused_by_name(body: str, problem: str) -> None:
    with pytest.raises(TemplateError, match=rf"^chat template of base 'b': .*{problem}") as caught:
        check(WITHIN.replace("%BODY", body), [SYSTEM, USER, ANSWER, USER, TOOL, ANSWER])
    assert "template.file" in str(caught.value)


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("{{ messages[0].content }}" + PLAIN + ASK, "2 times"),
        (PLAIN + "{{ messages[0].content if not add_generation_prompt }}" + ASK, "2 times"),
        (
            "{% if not add_generation_prompt %}" + PLAIN + "{% else %}{{ '<user><assistant>' }}"
            "{% endif %}",
            "loses the content of message 1 .* in the prompt after",
        ),
        (
            "{% for m in messages | reverse %}{{ '<' + m.role + '>' + m.content + '</s>' }}"
            "{% endfor %}" + ASK,
            "out of order",
        ),
    ],
)
def test_prompts_and_wholes_are_both_looked_at(template: str, problem: str) -> None:
    with pytest.raises(TemplateError, match=problem):
        check(template, [USER, ANSWER, USER, ANSWER])


def test_a_system_text_may_stand_with_the_newest_question_but_not_behind_it() -> None:
    """The first as Mistral's do."""
    mistral = (
        "{% set system = messages[0].content if messages[0].role == 'system' else '' %}"
        "{% set rest = messages[1:] if system else messages %}{% set newest = namespace(at=0) %}"
        "{% for m in rest if m.role == 'user' %}{% set newest.at = m %}{% endfor %}"
        "{% for m in rest %}{% if m.role != 'user' %}{{ m.content + '</s>' }}"
        "{% elif m == newest.at %}{{ '[INST]' }}%TEXTS{{ '[/INST]' }}"
        "{% else %}{{ '[INST]' + m.content + '[/INST]' }}{% endif %}{% endfor %}"
    )
    conversation = [SYSTEM, USER, ANSWER, USER, ANSWER]
    check(mistral.replace("%TEXTS", "{{ system + ' ' + m.content }}"), conversation)
    with pytest.raises(TemplateError, match=r"writes the content of message 1 \(system\) out of"):
        check(mistral.replace("%TEXTS", "{{ m.content + ' ' + system }}"), conversation)


@pytest.mark.parametrize("tools", [TOOLS, tuple(tool["function"] for tool in TOOLS)])
def test_tools_that_are_not_written_are_refused(tools: Any) -> None:
    listed = "{% for tool in tools or [] %}{{ tool | tojson }}{% endfor %}"
    check(listed + CALLING + ASK, [USER, CALL, TOOL, ANSWER], tools=tools)
    with pytest.raises(TemplateError, match="loses the name of tool 1 in a conversation"):
        check(CALLING + ASK, [USER, CALL, TOOL, ANSWER], tools=tools)
    named = "{% for tool in tools %}{{ (tool.function or tool).name }}{% endfor %}"
    with pytest.raises(TemplateError, match="loses the description of tool 1 in a conversation"):
        check(named + CALLING + ASK, [USER, ANSWER], tools=tools)
    first = "{{ tools[0] | tojson }}"
    with pytest.raises(TemplateError, match="loses the name of tool 2 in a conversation"):
        check(first + CALLING + ASK, [USER, ANSWER], tools=tools)


def test_tools_and_calls_are_trained_as_serving_renders_them() -> None:
    tokenizer = make_tokenizer()
    listed = "{% for tool in tools or [] %}{{ tool | tojson }}{% endfor %}"
    tokenizer.chat_template = listed + CALLING + ASK
    ensure_template(tokenizer, "here")
    called = Example((USER, CALL, TOOL, ANSWER), "d", 1, "", TOOLS, frozenset({3}))
    plain = Example((USER, ANSWER), "d", 2, "")
    ledger = Ledger(rows_read=2, rows_trained=2)
    rows_ = encode_examples(tokenizer, [called, plain], 900, DataOptions(), ledger)
    prompt = tokenizer.apply_chat_template(
        [USER], tools=list(TOOLS), add_generation_prompt=True, tokenize=False
    )
    assert [tokenizer.decode(row.ids[row.labels < 0]) for row in rows_] == [
        prompt,
        "<user>Say red.</s><assistant>",
    ]
    assert [tokenizer.decode(row.ids[row.labels >= 0]) for row in rows_] == [
        json.dumps(CALL["tool_calls"][0]["function"]) + "</s>",
        "red</s>",
    ]


def test_a_call_that_is_not_written_is_refused() -> None:
    with pytest.raises(TemplateError, match=r"loses the tool_calls of message 2 \(assistant\)"):
        check(PLAIN + ASK, [USER, CALL, TOOL, ANSWER])
    nameless = CALLING.replace("call.function |", "call.function.arguments |")
    with pytest.raises(TemplateError, match=r"loses the tool_calls of message 2 \(assistant\)"):
        check(nameless + ASK, [USER, CALL, TOOL, ANSWER])


@pytest.mark.parametrize("arguments", [{"town": "Paris"}, '{"town": "Paris"}'])
def test_arguments_may_be_a_map_or_json(arguments: Any) -> None:
    function = {"name": "weather", "arguments": arguments}
    call = {"role": "assistant", "content": "", "tool_calls": [{"function": function}]}
    check(CALLING + ASK, [USER, call, TOOL, ANSWER])


def test_reasoning_may_be_left_out_of_earlier_turns_only() -> None:
    thinking = {**ANSWER, "reasoning_content": "It is red."}
    body = "{{ m.reasoning_content or '' }}{{ m.content }}"
    conversation = [USER, thinking, USER, thinking]
    check(WITHIN.replace("%BODY", body), conversation)
    check(WITHIN.replace("%BODY", body.replace("or ''", "if loop.last else ''")), conversation)
    with pytest.raises(TemplateError, match=r"loses the reasoning_content of message 2"):
        check(WITHIN.replace("%BODY", "{{ m.content }}"), conversation)


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{% for m in messages %}{{ m.content }}", r"is no valid Jinja \(.*endfor"),
        ("{{ messages | nothing }}", r"is no valid Jinja \(No filter named 'nothing'"),
        ("{{ messages[0]['text'] + '' }}", r"fails \(UndefinedError: .*'text'"),
        ("{{ messages[0].content + 1 }}", r"fails \(TypeError"),
        ("{{ 1 / 0 }}", r"fails \(ZeroDivisionError"),
        ("{{ range(10 ** 9) }}", r"fails \(OverflowError"),
        ("{{ messages.__class__.__base__ }}", r"fails \(SecurityError"),
        ("{% include 'other' %}", r"fails \(TypeError: no loader"),
        ("{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}", r"fails \(RecursionError"),
    ],
)
def test_broken_jinja_is_one_sentence(template: str, reason: str) -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = template
    with pytest.raises(TemplateError, match=reason) as caught:
        ensure_template(tokenizer, "here")
    assert "template.file" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_template_that_breaks_on_later_turns_only_is_refused() -> None:
    broken = "{{ messages[3].nothing.more if messages | length > 3 }}"
    with pytest.raises(TemplateError, match=r"fails \(UndefinedError.* of user, assistant, us"):
        check(broken + PLAIN + ASK, [USER, ANSWER], [USER, ANSWER, USER, ANSWER])


PIECES = st.sampled_from(
    [
        "{{ messages[0].content }}", "{% for m in messages %}", "{% endfor %}", "{{ m.content }}",
        "{{ eos_token }}", "{% if add_generation_prompt %}", "{% endif %}", "A:", "{{ m.role }}",
        "{{ m.content | tojson }}", "{% if m.role == 'user' %}", "{% else %}", "\n", "{{ m }}",
        "{{ raise_exception('no') }}", "{{ m.content + 1 }}", "{% set x = namespace(a=1) %}", "{{",
        "{% generation %}", "{% endgeneration %}", "{{ strftime_now('%d') }}", "{% break %}",
    ]
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(template=st.lists(PIECES, max_size=12).map("".join))
def test_any_template_trains_whole_texts_or_is_refused_in_one_sentence(template: str) -> None:
    example = Example((USER, {**ANSWER, "content": "a \u2028 b"}), "d", 1, "")
    outcome = encoded(template, example)
    if isinstance(outcome, str):
        assert "\n" not in outcome
        return
    assert "Say red." in TOKENIZER.decode(outcome.ids)
    assert "a \u2028 b" in TOKENIZER.decode(outcome.ids[outcome.labels >= 0])


def encoded(template: str, example: Example) -> TokenRow | str:
    """The row that a template makes of an example, or what a user is told."""
    TOKENIZER.chat_template = template
    try:
        ensure_template(TOKENIZER, "here")
        check_template(TOKENIZER, [example], "here")
        (row,) = encode_examples(TOKENIZER, [example], 200, DataOptions(), Ledger(rows_trained=1))
    except TuningError as error:
        return str(error)
    return row


TOKENIZER = make_tokenizer()


def test_probes_are_shaped_like_the_data() -> None:
    """New roles, new neighbours and new keys are tried, and the longest; the rest is not."""
    one, many = Conversation((USER, ANSWER)), Conversation((USER, ANSWER, USER, ANSWER))
    longer, briefed = (
        Conversation((*many.messages, *one.messages)),
        Conversation((SYSTEM, USER, ANSWER)),
    )
    calling = Conversation((USER, CALL, TOOL, ANSWER))
    assert shapes([one, one, many, many, one]) == [one, many]
    assert shapes([many, longer, one]) == [many, longer]
    assert shapes([one, briefed, calling]) == [one, briefed, calling]
    assert shapes([one, replace(one, tools=TOOLS), one]) == [one, replace(one, tools=TOOLS)]
    marked, marks = mark([USER, CALL])
    assert [item.key for item in marks] == ["content", "tool_calls", "tool_calls"]
    call = marked[1]["tool_calls"][0]
    assert (call["id"], call["type"]) == ("call_1", "function")
    assert call["function"] == {
        "name": marks[1].text,
        "arguments": {"town": marks[2].text, "days": 3},
    }


def test_answers_that_a_template_cuts_by_their_own_text_are_bad_rows() -> None:
    """As templates do that throw away what stands before `</think>`, also in the last answer."""
    tokenizer = make_tokenizer()
    tokenizer.chat_template = WITHIN.replace("%BODY", "{{ m.content.split('</think>')[-1] }}")
    ensure_template(tokenizer, "here")
    thinking = {"role": "assistant", "content": "<think>hm</think>red"}
    examples = [
        Example((USER, item), "d.jsonl", at, "") for at, item in enumerate([ANSWER, thinking])
    ]
    ledger = Ledger(rows_read=2, rows_trained=2)
    assert len(encode_examples(tokenizer, examples, 90, DataOptions(), ledger)) == 1
    assert [str(bad) for bad in ledger.bad_rows] == [
        "d.jsonl:1: messages: the chat template leaves out some of the text of message 2"
    ]
    ledger.check()


def test_white_space_that_a_template_moves_is_no_loss() -> None:
    tokenizer = make_tokenizer()
    body = "{{ m.content.replace('<think>', '<think>\n').replace('</think>', '\n</think>\n\n') }}"
    tokenizer.chat_template = WITHIN.replace("%BODY", body)
    ensure_template(tokenizer, "here")
    thinking = {"role": "assistant", "content": "<think>hm</think>red"}
    ledger = Ledger(rows_read=1, rows_trained=1)
    rows_ = encode_examples(
        tokenizer, [Example((USER, thinking), "d", 1, "")], 90, DataOptions(), ledger
    )
    assert len(rows_) == 1


def config_for(base: Path, data: Path, home: Path, file: Path | str | None) -> TuningConfig:
    """A step of LoRA with a template of one's own."""
    return TuningConfig(
        base=str(base),
        data=(str(data),),
        name="v",
        home=home,
        template=TemplateOptions(file and str(file)),
        training=TrainingOptions(max_steps=1, batch_size=8, precision="fp32"),
        data_options=DataOptions(heldout=0),
    )


@pytest.mark.slow
def test_a_template_from_a_file_replaces_the_bases_and_travels_with_the_variant(
    tiny_data: Path, tmp_path: Path
) -> None:
    base = make_base(tmp_path / "base")
    (base / "chat_template.jinja").write_text("{{ broken")
    own = tmp_path / "own.jinja"
    own.write_text(PLAIN + ASK, encoding="utf-8")
    with pytest.raises(TuningError, match=r"no valid Jinja .*template\.file"):
        tune(config_for(base, tiny_data, tmp_path, None))
    made = tune(config_for(base, tiny_data, tmp_path, own))
    assert made.run["template"] == "file"
    assert made.run["config"]["template"] == {"file": str(own)}
    assert (made.folder / "chat_template.jinja").read_text() == PLAIN + ASK


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"template\.file: '.*own\.jinja' cannot be read \(.*give a Jinja file"),
        (b"\xff\xfe{", r"template\.file: '.*' cannot be read \(.*utf-8"),
        (b" \n", r"template\.file: '.*' is empty"),
        (b"{% if %}", r"no valid Jinja"),
        (b"{% for m in messages %}</s>{% endfor %}", r"loses the text of an answer"),
    ],
)
def test_files_that_are_no_template_are_refused(
    tiny_base: Path, tiny_data: Path, tmp_path: Path, content: bytes | None, message: str
) -> None:
    own = tmp_path / "own.jinja"
    if content is not None:
        own.write_bytes(content)
    with pytest.raises(TuningError, match=message):
        prepare(config_for(tiny_base, tiny_data, tmp_path, own))
    with pytest.raises(TuningError, match=r"template\.file"):
        prepare(config_for(tiny_base, tiny_data, tmp_path, "a\0b"))


def test_a_run_on_a_template_without_a_tool_branch_names_the_loss(
    tiny_base: Path, tmp_path: Path
) -> None:
    messages = [USER, ANSWER, TOOL, ANSWER]
    data = write_rows(tmp_path / "rows.jsonl", [{"messages": messages}, *rows(8)])
    own = tmp_path / "own.jinja"
    own.write_text(WITHIN.replace("%BODY", "{{ m.content if m.role != 'tool' }}"))
    with pytest.raises(TuningError) as caught:
        tune(config_for(tiny_base, data, tmp_path, own))
    assert str(caught.value) == (
        f"chat template of template.file {str(own)!r}: loses the content of message 3 (tool) in a "
        "conversation in the prompt after user, assistant, tool; mend the template, or set another "
        "one with template.file"
    )
    assert list((tmp_path / "models").iterdir()) == []


def test_rows_that_the_template_itself_refuses_are_counted(tmp_path: Path) -> None:
    tokenizer = make_gemma_tokenizer()
    ensure_template(tokenizer, "here")
    examples = [
        Example((USER, ANSWER), "d.jsonl", 1, ""),
        Example((USER, ANSWER, TOOL, ANSWER), "d.jsonl", 2, ""),
    ]
    check_template(tokenizer, examples, "here")
    ledger = Ledger(rows_read=2, rows_trained=2)
    assert len(encode_examples(tokenizer, examples, 99, DataOptions(), ledger)) == 1
    assert "the chat template refuses it (Conversation roles must alt" in str(ledger.bad_rows[0])


def test_rendering_nothing_is_nothing() -> None:
    assert render(TOKENIZER, [], prompt=True) == []
    with pytest.raises(RenderError):
        render(TOKENIZER, [[]], prompt=True)
    assert json.dumps(mark([])) == "[[], []]"
