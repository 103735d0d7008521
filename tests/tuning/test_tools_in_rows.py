"""Tools, calls and reasoning of a row: trained as the chat template writes them, or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tuning_fixtures import make_base, write_rows

from tuning.config import DataOptions, TuningConfig
from tuning.errors import TuningError
from tuning.training.inputs import prepare

TOOL = {
    "type": "function",
    "function": {"name": "add", "description": "Adds.", "parameters": {"type": "object"}},
}
CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
USER = {"role": "user", "content": "Say one."}
ANSWER = {"role": "assistant", "content": "one"}
ASKED = {"role": "assistant", "content": "", "tool_calls": [CALL]}
RESULT = {"role": "tool", "content": "1"}
THOUGHT = {**ANSWER, "reasoning_content": "Hm."}
# Writes all there is, as the templates of models that call tools do.
WHOLE = (
    "{{ bos_token }}{% for tool in tools or [] %}{{ 'Tool: ' + tool | tojson + '\n' }}{% endfor %}"
    "{% for m in messages %}"
    "{% if m.role == 'assistant' %}{{ 'Assistant:' }}"
    "{% if m.reasoning_content %}{{ ' <think>' + m.reasoning_content + '</think>' }}{% endif %}"
    "{{ ' ' + m.content }}"
    "{% for call in m.tool_calls or [] %}"
    "{{ call.function.name + '(' + call.function.arguments | tojson + ')' }}{% endfor %}"
    "{{ eos_token + '\n' }}"
    "{% else %}{{ m.role + ': ' + m.content + '\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A base whose template writes all there is, and one without a template of its own."""
    from transformers import AutoTokenizer

    home = tmp_path_factory.mktemp("bases")
    made = {name: make_base(home / name) for name in ("whole", "plain")}
    tokenizer = AutoTokenizer.from_pretrained(made["whole"])
    tokenizer.chat_template = WHOLE
    tokenizer.save_pretrained(made["whole"])
    return made


def prepared(base: Path, tmp_path: Path, row: dict[str, Any], **options: Any) -> Any:
    """What a run on this row alone would train on."""
    data = write_rows(tmp_path / "rows.jsonl", [row])
    config = TuningConfig(
        base=str(base),
        data=(str(data),),
        name="v",
        home=tmp_path,
        data_options=DataOptions(heldout=0, **options),
    )
    return prepare(config)


def test_a_template_that_knows_them_gets_them(bases: dict[str, Path], tmp_path: Path) -> None:
    row = {"messages": [USER, ASKED, RESULT, THOUGHT], "tools": [TOOL]}
    found = prepared(bases["whole"], tmp_path, row)
    (tokens,) = found.rows
    text = found.tokenizer.decode(tokens.ids)
    assert text.startswith('<s>Tool: {"type": "function", "function": {"name": "add"')
    trained = found.tokenizer.decode(tokens.ids[tokens.labels >= 0])
    assert trained == ' add({"a": 1})</s> <think>Hm.</think> one</s>'
    assert found.ledger.tally.used == {
        "messages": 1,
        "tools": 1,
        "messages.tool_calls": 1,
        "messages.reasoning_content": 1,
    }


@pytest.mark.parametrize(
    ("row", "lost", "drop"),
    [
        ({"messages": [USER, ANSWER], "tools": [TOOL]}, "loses the name of tool 1", "tools"),
        ({"messages": [USER, ASKED, RESULT, ANSWER]}, "loses the tool_calls of message 2", None),
        (
            {"messages": [USER, THOUGHT]},
            "loses the reasoning_content of message 2",
            "messages.reasoning_content",
        ),
    ],
)
def test_a_template_that_does_not_know_them_stops_the_run(
    bases: dict[str, Path], tmp_path: Path, row: dict[str, Any], lost: str, drop: str | None
) -> None:
    with pytest.raises(TuningError, match=lost) as caught:
        prepared(bases["plain"], tmp_path, row)
    assert "data_options.drop" in str(caught.value)
    assert "\n" not in str(caught.value)
    if drop is not None:
        (tokens,) = prepared(bases["plain"], tmp_path, row, drop=(drop,)).rows
        assert tokens.num_trained > 1
