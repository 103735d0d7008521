"""Every data format gives the same messages; every bad row is named with its field."""

from __future__ import annotations

from typing import Any

import pytest

from tuning.data.formats import (
    FormatError,
    RowError,
    UnusedError,
    detect_format,
    format_named,
    normalise_row,
)

USER = {"role": "user", "content": "Hi?"}
ANSWER = {"role": "assistant", "content": "Yes."}
SYSTEM = {"role": "system", "content": "Be kind."}


@pytest.mark.parametrize(
    ("row", "name", "messages"),
    [
        ({"messages": [USER, ANSWER]}, "messages", [USER, ANSWER]),
        (
            {
                "conversations": [
                    {"from": "human", "value": "Hi?"},
                    {"from": "gpt", "value": "Yes."},
                ]
            },
            "sharegpt",
            [USER, ANSWER],
        ),
        (
            {"system": "Be kind.", "conversations": [USER, ANSWER]},
            "sharegpt",
            [SYSTEM, USER, ANSWER],
        ),
        ({"prompt": "Hi?", "completion": "Yes."}, "prompt-completion", [USER, ANSWER]),
        ({"prompt": [SYSTEM, USER], "completion": [ANSWER]}, "prompt-completion", None),
        ({"instruction": "Hi?", "input": "", "output": "Yes."}, "alpaca", [USER, ANSWER]),
        (
            {"instruction": "Hi?", "input": "It rains.", "output": "Yes."},
            "alpaca",
            [{"role": "user", "content": "Hi?\n\nIt rains."}, ANSWER],
        ),
        (
            {"instruction": "Hi?", "output": "Yes.", "history": [["a", "b"]]},
            "alpaca",
            [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, USER, ANSWER],
        ),
        ({"instruction": "Hi?", "context": None, "response": "Yes."}, "dolly", [USER, ANSWER]),
        ({"inputs": "Hi?", "targets": "Yes."}, "flan", [USER, ANSWER]),
        ({"question": "Hi?", "answer": "Yes."}, "question-answer", [USER, ANSWER]),
        ({"prompt": "Hi?", "response": "Yes."}, "prompt-response", [USER, ANSWER]),
    ],
)
def test_formats(row: dict[str, Any], name: str, messages: list[dict[str, str]] | None) -> None:
    found = detect_format(row)
    assert found.name == name
    assert list(normalise_row(row, found).messages) == (messages or [SYSTEM, USER, ANSWER])
    assert format_named(name) is found


@pytest.mark.parametrize(
    ("value", "text"), [(42, "42"), (True, "true"), (-0.5, "-0.5"), (10**30, "1" + "0" * 30)]
)
@pytest.mark.parametrize("names", [("question", "answer"), ("prompt", "completion")])
def test_numbers_and_truth_values_are_their_text(
    value: Any, text: str, names: tuple[str, str]
) -> None:
    row = {names[0]: "Hi?", names[1]: value}
    assert normalise_row(row, detect_format(row)).messages[1]["content"] == text


CHOSEN = ["red", "blue", "3"]


@pytest.mark.parametrize(
    ("choices", "answer", "text"),
    [
        (CHOSEN, "1", "blue"),
        (CHOSEN, " 0 ", "red"),
        (CHOSEN, "3", "3"),
        (CHOSEN, "blue", "blue"),
        ({"text": CHOSEN, "label": ["1", "2", "3"]}, "1", "1"),
        (CHOSEN, "7", None),
    ],
)
def test_an_answer_that_is_a_number_gives_its_choice(
    choices: Any, answer: str, text: str | None
) -> None:
    row = {"question": "Which?", "choices": choices, "answer": answer}
    if text is None:
        with pytest.raises(RowError, match="is 7, but there are 3 choices"):
            normalise_row(row, detect_format(row))
    else:
        assert normalise_row(row, detect_format(row)).messages[1]["content"] == text


@pytest.mark.parametrize(
    ("row", "roles"),
    [
        ({"messages": [{**SYSTEM, "role": "developer"}, USER, ANSWER]}, "system user assistant"),
        (
            {"messages": [{**USER, "role": "User"}, {**ANSWER, "role": "Assistant"}]},
            "user assistant",
        ),
        (
            {"conversations": [{"from": "Human", "value": "a"}, {"from": "GPT", "value": "b"}]},
            "user assistant",
        ),
        (
            {
                "messages": [
                    {**USER, "weight": 1},
                    {
                        "role": "assistant",
                        "content": None,
                        "function_call": {"name": "add", "arguments": '{"a": 1}'},
                    },
                    {"role": "function", "name": "add", "content": "1", "weight": 1},
                    {**ANSWER, "weight": 1},
                ]
            },
            "user assistant tool assistant",
        ),
        ({"messages": [{**SYSTEM, "weight": 0}, USER, ANSWER]}, "system user assistant"),
    ],
)
def test_roles_of_other_writers(row: dict[str, Any], roles: str) -> None:
    read = normalise_row(row, detect_format(row))
    assert [message["role"] for message in read.messages] == roles.split()
    assert not read.untrained
    for message in read.messages:
        for call in message.get("tool_calls", ()):
            assert call == {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}


def test_a_call_written_in_both_ways_is_refused() -> None:
    call = {"name": "add", "arguments": "{}"}
    turn = {**ANSWER, "function_call": call, "tool_calls": [{"function": call}]}
    with pytest.raises(UnusedError, match=r"messages\[1\].function_call: stands beside tool_calls"):
        normalise_row({"messages": [USER, turn]}, format_named("messages"))


def test_sharegpt_roles_are_not_trained_as_prompts() -> None:
    """The known trap: human and gpt must become user and assistant, in this order."""
    row = {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}
    roles = [message["role"] for message in normalise_row(row, detect_format(row)).messages]
    assert roles == ["user", "assistant"]


@pytest.mark.parametrize(
    ("row", "field", "reason"),
    [
        ({"messages": []}, "messages", "is empty"),
        ({"messages": None}, "messages", "missing or null"),
        ({"messages": "hi"}, "messages", "is str, not a list"),
        ({"messages": [USER]}, "messages", "no assistant turn"),
        ({"messages": [SYSTEM]}, "messages", "no assistant turn"),
        ({"messages": [ANSWER]}, "messages", "no user turn"),
        ({"messages": [ANSWER, USER, ANSWER]}, "messages[0]", "starts with the assistant"),
        ({"messages": [USER, ANSWER, USER]}, "messages[2]", "ends on user"),
        ({"messages": [USER, USER, ANSWER]}, "messages[1]", "two user turns"),
        ({"messages": [USER, SYSTEM, ANSWER]}, "messages[1]", "not the first"),
        ({"messages": [USER, {"role": "bot", "content": "x"}]}, "messages[1].role", "'bot'"),
        ({"messages": [{"role": ["user"], "content": "x"}]}, "messages[0].role", "['user']"),
        ({"messages": [USER, {"role": "assistant"}]}, "messages[1].content", "NoneType"),
        ({"messages": [USER, "x"]}, "messages[1]", "not an object"),
        ({"messages": [USER, {"role": "assistant", "content": " "}]}, "messages[1].content", "em"),
        ({"messages": [{"role": "user", "content": "\ud800"}, ANSWER]}, "messages[0].content", "U"),
        ({"prompt": "Hi?", "completion": [ANSWER]}, "completion", "both be text"),
        ({"prompt": "Hi?", "completion": None}, "completion", "both"),
        ({"instruction": "", "output": "x"}, "instruction", "is empty"),
        ({"instruction": "x", "output": float("nan")}, "output", "is float"),
        ({"instruction": "x", "output": [3]}, "output", "is list"),
        ({"conversations": ["Hi?", "Yes."]}, "conversations[0]", "write turns with from and value"),
        ({"instruction": "x", "output": "y", "history": [["a"]]}, "history[0]", "no pair"),
        ({"messages": [{"role": "user", "content": "x" * 10_000_001}, ANSWER]}, "messages", "long"),
    ],
)
def test_bad_rows_are_named(row: dict[str, Any], field: str, reason: str) -> None:
    with pytest.raises(RowError) as caught:
        normalise_row(row, detect_format(row))
    assert caught.value.field == field
    assert reason in caught.value.reason


def test_unknown_columns_list_what_is_known() -> None:
    with pytest.raises(FormatError, match=r"columns a, b fit no known format .*alpaca"):
        detect_format({"a": 1, "b": 2})
    with pytest.raises(
        FormatError, match=r"text holds a whole dialogue, .* write its turns as mess"
    ):
        detect_format({"text": "### Human: Hi? ### Assistant: Yes."})
    with pytest.raises(FormatError, match="unknown format 'alpacca'"):
        format_named("alpacca")
