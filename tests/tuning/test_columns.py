"""Every column and key of a row is used, harmless, left out as asked, or refused by name."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from tuning_fixtures import write_rows

from tuning.config import DataOptions
from tuning.config_files import add_assignments, load_config
from tuning.data.columns import HARMLESS
from tuning.data.corpus import Corpus, load_corpus
from tuning.data.formats import CHOICES, EXTRAS, FORMATS, SYSTEM
from tuning.data.ledger import Ledger
from tuning.errors import TuningError

USER = {"role": "user", "content": "Hi?"}
ANSWER = {"role": "assistant", "content": "Yes."}
BAD = {"role": "assistant", "content": "BAD"}
MORE = {"role": "user", "content": "More?"}
PAIR = {"question": "Hi?", "answer": "Yes."}
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}


def load(tmp_path: Path, *rows: dict[str, Any], **options: Any) -> tuple[Corpus, Ledger]:
    """The corpus of rows in one file, nothing held out, and its ledger."""
    ledger = Ledger()
    path = write_rows(tmp_path / "rows.jsonl", list(rows))
    return load_corpus((str(path),), DataOptions(heldout=0, **options), 0, ledger), ledger


def texts(corpus: Corpus) -> list[list[str]]:
    """The contents of the messages of each training row."""
    return [[message["content"] for message in example.messages] for example in corpus.train]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"question": "Who?", "context": "By Ann.", "answer": "Ann"}, ["Who?\n\nBy Ann.", "Ann"]),
        (
            {"instruction": "Translate", "input": "cat", "response": "chat"},
            ["Translate\n\ncat", "chat"],
        ),
        ({"prompt": "Who?", "context": "By Ann.", "response": "Ann"}, ["Who?\n\nBy Ann.", "Ann"]),
        ({"inputs": "Hi?", "targets": "Yes.", "system": "Be kind."}, ["Be kind.", "Hi?", "Yes."]),
        ({"messages": [USER, ANSWER], "system": "Be kind."}, ["Be kind.", "Hi?", "Yes."]),
        (
            {"system_prompt": "Be kind.", "question": "Hi?", "response": "Yes."},
            ["Be kind.", "Hi?", "Yes."],
        ),
        (
            {"question": "Which?", "choices": ["red", "blue"], "answer": 1},
            ["Which?\n\nA) red\nB) blue", "blue"],
        ),
        (
            {
                "question": "Which?",
                "choices": {"text": ["red", "blue"], "label": ["1", "2"]},
                "answer": "2",
            },
            ["Which?\n\n1) red\n2) blue", "2"],
        ),
        (
            {"prompt": "Hi?", "response": "Yes.", "history": [["a", "b"]]},
            ["a", "b", "Hi?", "Yes."],
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi?"}]}, ANSWER]},
            ["Hi?", "Yes."],
        ),
    ],
)
def test_what_belongs_to_the_question_is_asked(
    tmp_path: Path, row: dict[str, Any], expected: list[str]
) -> None:
    corpus, ledger = load(tmp_path, row)
    assert texts(corpus) == [expected]
    assert ledger.tally.used == dict.fromkeys(row, 1)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({**PAIR, "rationale": "Since so."}, r":1: rationale: column holds 'Since so\.'"),
        ({**PAIR, "images": ["a.png"]}, r":1: images: column holds \['a\.png'\]"),
        ({**PAIR, "rejected": "No."}, r":1: rejected: column holds"),
        ({**PAIR, "weight": 0}, r":1: weight: column holds 0"),
        ({**PAIR, "label": 3}, r":1: label: is 3; a label of an answer is true or false"),
        ({**PAIR, "choices": {"A": "x"}}, r":1: choices: holds \{'A': 'x'\}; give a list of texts"),
        ({"messages": [USER, ANSWER], "context": "By Ann."}, r":1: context: column holds"),
        ({"messages": [USER, ANSWER], "chosen": [ANSWER]}, r":1: chosen: column holds"),
        ({"conversations": [USER, ANSWER], "input": "cat"}, r":1: input: column holds 'cat'"),
        ({"prompt": [USER], "completion": [ANSWER], "context": "c"}, r":1: context: stands beside"),
        (
            {"messages": [{**USER, "name": "Ann"}, ANSWER]},
            r":1: messages\[0\]\.name: is 'Ann' on a user turn",
        ),
        (
            {"messages": [USER, {**ANSWER, "audio": {"id": "x"}}]},
            r":1: messages\[1\]\.audio: holds \{'id': 'x'\}, which nothing uses; leave it out with "
            r"--set drop=messages\.audio$",
        ),
        (
            {"messages": [USER, {**ANSWER, "weight": 0.5}]},
            r":1: messages\[1\]\.weight: is 0\.5; a turn is trained or not: 0 or 1",
        ),
        (
            {"messages": [{**USER, "train": True}, ANSWER]},
            r":1: messages\[0\]\.train: is True on a user turn",
        ),
        (
            {
                "messages": [
                    {"role": "system", "content": "Be kind."},
                    USER,
                    ANSWER,
                ],
                "system": "Be rude.",
            },
            r":1: system: differs from the system message of the turns",
        ),
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, r":1: rows of chosen and rejected"),
    ],
)
def test_what_nothing_uses_stops_the_run_by_name(
    tmp_path: Path, row: dict[str, Any], message: str
) -> None:
    with pytest.raises(TuningError, match=message) as caught:
        load(tmp_path, row)
    said = str(caught.value)
    assert said.startswith(str(tmp_path / "rows.jsonl"))
    assert "drop=" in said or "data_options.drop" in said or "--set columns=" in said
    assert "\n" not in said


def test_all_columns_that_nothing_uses_are_named_at_once(tmp_path: Path) -> None:
    rows_: list[dict[str, Any]] = [{**PAIR, "moodx": "sad"}, {**PAIR, "zeal": 3, "my own": "x"}]
    with pytest.raises(TuningError) as caught:
        load(tmp_path, *rows_)
    assert str(caught.value) == (
        f"{tmp_path / 'rows.jsonl'}:1: columns moodx, zeal, my own are used by nothing; moodx "
        "holds 'sad'; leave them out with --set drop='moodx,zeal,my own', or map one with "
        "--set columns=context:moodx"
    )
    given = shlex.split(str(caught.value).partition("--set ")[2])[0].partition("=")[2].rstrip(",")
    assert texts(load(tmp_path, *rows_, drop=tuple(given.split(",")))[0]) == [["Hi?", "Yes."]]


PART = {"type": "text", "text": "Hi?", "cache_control": {"type": "ephemeral"}}


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [{"role": "user", "content": [PART]}, ANSWER]},
        {"messages": [USER, ANSWER], "full_topic": "x"},
        {"messages": [USER, ANSWER], "views": 3, "title": "x"},
        {"conversations": [{**USER, "audio": "x"}, ANSWER]},
        {"prompt": [USER], "completion": [ANSWER], "rationale": "x"},
        {**PAIR, "rationale": "x"},
    ],
    ids=repr,
)
def test_the_advice_for_what_nothing_uses_works(tmp_path: Path, row: dict[str, Any]) -> None:
    with pytest.raises(TuningError) as caught:
        load(tmp_path, row)
    (given, *others) = re.findall(r"--set drop=([^ ,]+(?:,\S+)*)", str(caught.value))
    assert not others
    assert ("context:" in str(caught.value)) == ("question" in row)
    assert texts(load(tmp_path, row, drop=tuple(given.rstrip(",").split(",")))[0]) == [
        ["Hi?", "Yes."]
    ]


def test_a_column_mapped_to_two_parts_is_refused(tmp_path: Path) -> None:
    row = {"chosen": "Human: Hi? Assistant: Yes.", "rejected": "x"}
    with pytest.raises(TuningError, match="'chosen' is mapped to response and prompt, so"):
        load(tmp_path, row, columns={"response": "chosen", "prompt": "chosen"}, drop=("rejected",))


def test_a_text_of_the_whole_row_is_harmless_with_an_input(tmp_path: Path) -> None:
    row = {"instruction": "Translate.", "input": "cat", "output": "chat"}
    text = "### Instruction:\nTranslate.\n\n### Input:\ncat\n\n### Response:\nchat"
    corpus, ledger = load(tmp_path, {**row, "text": text})
    assert texts(corpus) == [["Translate.\n\ncat", "chat"]]
    assert ledger.tally.harmless == {"text": 1}
    with pytest.raises(TuningError, match=":1: text: column holds"):
        load(tmp_path, {**row, "text": text.replace("cat\n", "dog\n")})


def test_all_keys_of_turns_that_nothing_uses_are_named_at_once(tmp_path: Path) -> None:
    rows_: list[dict[str, Any]] = [
        {"conversations": [{**USER, "audio": "x"}, {**ANSWER, "mood": 1}]},
        {"conversations": [{**USER, "name": "Ann"}, {**ANSWER, "seen": 1}], "views": 3},
        {"conversations": [{"role": "user", "content": [PART]}, ANSWER]},
    ]
    with pytest.raises(TuningError) as caught:
        load(tmp_path, *rows_)
    names = [
        *("conversations.audio", "conversations.mood", "views", "conversations.name"),
        "conversations.seen",
        "conversations.content.cache_control",
    ]
    message = str(caught.value)
    assert ":1: columns and keys conversations.audio, " in message
    assert "; conversations[0].audio holds 'x'; leave them out with --set drop=" in message
    given = message.partition("drop=")[2].split(",")
    assert sorted(given) == sorted(names)
    corpus, _ = load(tmp_path, *rows_, drop=tuple(given), deduplicate=False)
    assert texts(corpus) == [["Hi?", "Yes."]] * 3


@pytest.mark.parametrize("name", ["language", "task", "topic", "subject"])
def test_a_harmless_column_that_the_prompt_leaves_out_is_named(tmp_path: Path, name: str) -> None:
    asked = {"instruction": "Translate.", "input": "cat"}
    rows_ = [
        {**asked, "output": "chat", name: "French"},
        {**asked, "output": "gato", name: "Spanish"},
        {**asked, "output": "chatte", name: "French"},
        {**asked, "input": "dog", "output": "Hund", name: "German"},
    ]
    _, ledger = load(tmp_path, *rows_)
    assert ledger.to_json()["differing_columns"] == {name: 1}
    (line,) = [line for line in ledger.lines() if line.startswith("warning: ")]
    assert line.startswith(f"warning: {name} (1) differ between rows of the same prompt, and")
    advice = re.findall(r"--set columns=context:(\w+)", line)
    assert advice == [name]
    _, quiet = load(tmp_path, rows_[0], rows_[3])
    assert quiet.tally.differing == {}
    assert not [line for line in quiet.lines() if line.startswith("warning: ")]


@pytest.mark.parametrize("key", ["system", "context"])
def test_metadata_may_not_hide_part_of_the_prompt(tmp_path: Path, key: str) -> None:
    with pytest.raises(TuningError, match=r":1: metadata: column holds .* drop=metadata$"):
        load(tmp_path, {**PAIR, "metadata": {key: "Be kind."}})
    row = {**PAIR, "system": "Be kind.", "metadata": {"system": "Be kind.", "n": 1, key: None}}
    assert load(tmp_path, row)[1].tally.harmless == {"metadata": 1}


PREFERENCES: list[dict[str, Any]] = [
    {"prompt": "Hi?", "chosen": "Yes.", "rejected": "No."},
    {"question": "Hi?", "chosen": "Yes.", "rejected": "No.", "system": ""},
    {"prompt": [USER], "chosen": [ANSWER], "rejected": [BAD]},
    {"prompt": "Hi?", "chosen": [USER, ANSWER], "rejected": [USER, BAD]},
    {"chosen": [USER, ANSWER], "rejected": [USER, BAD]},
    {"prompt": [USER], "chosen": [USER, ANSWER], "rejected": [USER, BAD]},
]


@pytest.mark.parametrize("row", PREFERENCES, ids=repr)
def test_the_advice_for_preference_rows_works(tmp_path: Path, row: dict[str, Any]) -> None:
    with pytest.raises(TuningError, match="rows of chosen and rejected") as caught:
        load(tmp_path, row)
    advice = re.findall(r"--set (\S+)", str(caught.value))
    config = load_config(None, add_assignments({"base": "b", "data": "d", "name": "n"}, advice))
    options = config.data_options
    corpus, _ = load(tmp_path, row, columns=options.columns, drop=options.drop)
    assert texts(corpus) == [["Hi?", "Yes."]]


def test_columns_of_our_exports_are_harmless_in_them_alone(tmp_path: Path) -> None:
    with pytest.raises(TuningError, match="columns weight, vote_id are used by nothing"):
        load(tmp_path, {**PAIR, "weight": 1, "vote_id": 1})


def test_a_part_that_is_no_text_is_a_bad_row(tmp_path: Path) -> None:
    image = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}
    _, ledger = load(tmp_path, {"messages": [USER, ANSWER]}, {"messages": [image, ANSWER]})
    (bad,) = ledger.bad_rows
    assert str(bad).endswith(
        ":2: messages[0].content[0]: is a part of type 'image_url', which is no text"
    )


def test_harmless_and_empty_columns_are_no_obstacle(tmp_path: Path) -> None:
    row: dict[str, Any] = {
        **PAIR,
        **dict.fromkeys(HARMLESS, "x"),
        "rationale": None,
        "images": [],
        "extra": {"a": [None, " "]},
    }
    corpus, ledger = load(tmp_path, row)
    assert texts(corpus) == [["Hi?", "Yes."]]
    assert set(ledger.tally.harmless) == set(HARMLESS)
    assert ledger.tally.used == {"question": 1, "answer": 1}


def test_columns_that_say_again_what_is_trained_are_harmless(tmp_path: Path) -> None:
    """UltraChat repeats the prompt, Alpaca the whole row; a text that says more is refused."""
    chat = {"prompt": "Hi?", "messages": [USER, ANSWER]}
    assert texts(load(tmp_path, chat)[0]) == [["Hi?", "Yes."]]
    alpaca = {"instruction": "Hi?", "output": "Yes.", "text": "### Hi?\n### Yes."}
    assert texts(load(tmp_path, alpaca)[0]) == [["Hi?", "Yes."]]
    with pytest.raises(TuningError, match=":1: text: column holds 'A poem'"):
        load(tmp_path, {**alpaca, "text": "A poem"})


def test_dropped_columns_and_keys_are_left_out_and_counted(tmp_path: Path) -> None:
    rows = [
        {"messages": [{**USER, "name": "Ann"}, {**ANSWER, "name": "Bo"}], "rationale": "x"},
        {"messages": [MORE, ANSWER], "rationale": "y"},
    ]
    corpus, ledger = load(tmp_path, *rows, drop=("rationale", "messages.name"))
    assert [list(example.messages) for example in corpus.train] == [[USER, ANSWER], [MORE, ANSWER]]
    assert ledger.tally.dropped == {"rationale": 2, "messages.name": 2}
    assert ledger.to_json()["columns"] == {
        "used": {"messages": 2},
        "harmless": {},
        "dropped": {"rationale": 2, "messages.name": 2},
    }
    assert "columns: messages used; messages.name, rationale left out as asked" in ledger.lines()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"drop": ("rationle",)}, "data_options.drop: 'rationle' is in no row; the columns are"),
        ({"columns": {"context": "pasage"}}, "data_options.columns: 'pasage' is in no row"),
        ({"columns": {"promt": "question"}}, "data_options.columns: 'promt' is nothing a row is"),
        (
            {"columns": {"answer": "best"}},
            r"maps answer to 'best', but there is a column 'answer' as well; name one of them",
        ),
    ],
)
def test_a_slip_in_a_name_is_no_silence(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(TuningError, match=message):
        load(tmp_path, {**PAIR, "best": "", "id": 1}, **options)


def test_columns_are_mapped_to_what_a_row_is_made_of(tmp_path: Path) -> None:
    row = {"q": "Hi?", "a": "Yes.", "s": "Be kind.", "passage": "By Ann."}
    asked = {"prompt": "q", "response": "a", "system": "s", "context": "passage"}
    corpus, ledger = load(tmp_path, row, columns=asked)
    assert texts(corpus) == [["Be kind.", "Hi?\n\nBy Ann.", "Yes."]]
    assert set(ledger.tally.used) == {"q", "a", "s", "passage"}
    corpus, _ = load(tmp_path, {**PAIR, "passage": "By Ann."}, columns={"context": "passage"})
    assert texts(corpus) == [["Hi?\n\nBy Ann.", "Yes."]]
    corpus, _ = load(
        tmp_path,
        {"prompt": "Hi?", "chosen": [USER, ANSWER], "rejected": [USER, BAD]},
        columns={"messages": "chosen"},
        drop=("rejected",),
    )
    assert texts(corpus) == [["Hi?", "Yes."]]
    _, ledger = load(tmp_path, row, {"q": "Hi?", "s": ""}, columns=asked)
    assert str(ledger.bad_rows[0]).endswith(":2: a: column is missing (format prompt-response)")


@pytest.mark.parametrize("off", [{"weight": 0}, {"weight": 0.0}, {"train": False}])
def test_a_turn_without_weight_is_context_only(tmp_path: Path, off: dict[str, Any]) -> None:
    turns = [USER, {**BAD, **off}, MORE, {**ANSWER, "weight": 1}]
    corpus, ledger = load(tmp_path, {"messages": turns}, {"messages": [USER, {**ANSWER, **off}]})
    (example,) = corpus.train
    assert example.untrained == {1}
    assert set(example.messages[1]) == {"role", "content"}
    assert ledger.tally.context_turns == 2
    (key,) = off
    assert ledger.tally.used == {"messages": 2, f"messages.{key}": 2} | {
        "messages.weight": 3 if key == "weight" else 1
    }
    assert ledger.rows_dropped == {"of no trained turn": 1}


@pytest.mark.parametrize(
    "row",
    [
        {"messages": None, "question": "Hi?", "answer": "Yes."},
        {"prompt": "Hi?", "completion": None, "response": "Yes."},
        {"question": "Hi?", "answer": "", "response": "Yes."},
        {"instruction": "Hi?", "output": [], "response": "Yes."},
    ],
)
def test_columns_that_say_nothing_decide_no_format(tmp_path: Path, row: dict[str, Any]) -> None:
    blank = dict.fromkeys(row)
    corpus, ledger = load(tmp_path, blank, row, {**row, [*row][-1]: "No."})
    assert texts(corpus) == [["Hi?", "Yes."], ["Hi?", "No."]]
    assert len(ledger.bad_rows) == 1


def test_null_filled_formats_in_one_file_are_refused(tmp_path: Path) -> None:
    pair = {"messages": None, "prompt": "a", "response": "b"}
    with pytest.raises(TuningError, match=":2: row is of format prompt-response, those before"):
        load(tmp_path, {"messages": [USER, ANSWER], "prompt": None, "response": None}, pair)


def test_labels_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TuningError, match=":1: kto_tag: is false, but label is true"):
        load(tmp_path, {**PAIR, "label": True, "kto_tag": 0})


@pytest.mark.parametrize("name", ["label", "kto_tag"])
@pytest.mark.parametrize(("good", "bad"), [(1, 0), (1.0, 0.0), ("1", "0"), (True, "False")])
def test_labels_may_be_numbers(tmp_path: Path, name: str, good: Any, bad: Any) -> None:
    corpus, ledger = load(tmp_path, {**PAIR, name: good}, {**PAIR, "answer": "BAD", name: bad})
    assert texts(corpus) == [["Hi?", "Yes."]]
    assert ledger.rows_dropped == {f"{name} false": 1}


@pytest.mark.parametrize("name", ["label", "kto_tag"])
def test_answers_labelled_bad_are_not_trained(tmp_path: Path, name: str) -> None:
    rows: list[dict[str, Any]] = [
        {"prompt": "Hi?", "completion": "Yes.", name: True},
        {"prompt": "Hi?", "completion": "BAD", name: False},
        {"prompt": "Go?", "completion": "BAD", name: "false"},
    ]
    corpus, ledger = load(tmp_path, *rows)
    assert texts(corpus) == [["Hi?", "Yes."]]
    assert ledger.rows_dropped == {f"{name} false": 2}
    with pytest.raises(TuningError, match=f"no row is left to train on \\(2 {name} false\\)"):
        load(tmp_path, *rows[1:])


def test_keys_that_parquet_fills_with_null_say_nothing(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    turns = [[USER, {**ANSWER, "weight": 0}, MORE, ANSWER], [USER, ANSWER]]
    table = pyarrow.Table.from_pylist([{"messages": item, "id": 1} for item in turns])
    pyarrow.parquet.write_table(table, tmp_path / "rows.parquet")
    ledger = Ledger()
    corpus = load_corpus((str(tmp_path / "rows.parquet"),), DataOptions(heldout=0), 0, ledger)
    assert [sorted(example.untrained) for example in corpus.train] == [[1], []]
    assert json.dumps(corpus.train[1].messages) == json.dumps([USER, ANSWER])


def test_the_page_lists_formats_and_harmless_columns() -> None:
    page = (Path(__file__).parents[2] / "docs" / "tuning.md").read_text(encoding="utf-8")
    listed = page.partition("<!-- harmless columns -->")[2].partition("<!-- end -->")[0]
    assert set(re.findall(r"`([^`]+)`", listed)) == HARMLESS - {""}
    table = dict(re.findall(r"^\| `([a-z-]+)` \| (`.*) \|$", page, re.MULTILINE))
    for known in FORMATS:
        assert known.required <= set(re.findall(r"`(\w+)`", table[known.name]))
    said = page.partition("Any of them may have")[2].partition("\n\n")[0]
    beside = set(re.findall(r"`(\w+)`", said))
    assert beside == {*SYSTEM, *EXTRAS, *CHOICES, "history"}


ASKED = {"role": "assistant", "content": "", "tool_calls": [CALL]}
AS_TEXT = {**CALL, "function": {"name": "add", "arguments": '{"a": 1}'}}
RESULT = {"role": "tool", "content": "1", "name": "add", "tool_call_id": "c1"}


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [USER, ASKED, RESULT, ANSWER], "tools": [TOOL]},
        {
            "messages": [USER, {**ASKED, "content": None}, RESULT, ANSWER],
            "tools": json.dumps([TOOL]),
        },
        {
            "messages": [
                USER,
                {
                    **ASKED,
                    "tool_calls": [{**CALL, "function": {"name": "add", "arguments": '{"a": 1}'}}],
                },
                RESULT,
                ANSWER,
            ],
            "tools": [json.dumps(TOOL)],
        },
        {
            "conversations": [
                {"from": "human", "value": "Hi?"},
                {"from": "function_call", "value": '{"name": "add", "arguments": {"a": 1}}'},
                {"from": "observation", "value": "1", "name": "add", "tool_call_id": "c1"},
                {"from": "gpt", "value": "Yes."},
            ],
            "tools": json.dumps([TOOL]),
        },
    ],
)
def test_tools_and_calls_are_read_from_every_way_to_write_them(
    tmp_path: Path, row: dict[str, Any]
) -> None:
    (example,) = load(tmp_path, row)[0].train
    assert example.tools == (TOOL,)
    assert list(example.messages) == [USER, ASKED, RESULT, ANSWER]


@pytest.mark.parametrize(
    ("row", "field", "reason"),
    [
        ({"messages": [USER, ANSWER], "tools": "{"}, "tools", "is no JSON"),
        ({"messages": [USER, ANSWER], "tools": ["x"]}, "tools[0]", "is no JSON"),
        ({"messages": [USER, ANSWER], "tools": [3]}, "tools[0]", "is int, not an object"),
        (
            {"messages": [USER, {**ANSWER, "tool_calls": [{"id": 1}]}]},
            "messages[1].tool_calls[0]",
            "has no function with a name",
        ),
        (
            {
                "conversations": [
                    {"from": "human", "value": "Hi?"},
                    {"from": "function_call", "value": "add(1)"},
                ],
                "tools": [TOOL],
            },
            "conversations[1]",
            "is no JSON",
        ),
    ],
)
def test_tools_and_calls_that_are_none_are_bad_rows(
    tmp_path: Path, row: dict[str, Any], field: str, reason: str
) -> None:
    (name,) = set(row) - {"tools"}
    _, ledger = load(tmp_path, {name: [MORE, ANSWER]}, row)
    (bad,) = ledger.bad_rows
    assert bad.field == field
    assert reason in bad.reason
