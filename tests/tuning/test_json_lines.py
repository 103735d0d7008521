"""One reader of JSON Lines for rows, histories and suites: whole lines, numbered, named errors."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuning.config import DataOptions
from tuning.data.corpus import load_corpus
from tuning.data.ledger import Ledger
from tuning.evaluation.suites import SuiteError, load_suite
from tuning.json_lines import JsonError, load_records, parse_json, read_json_lines
from tuning.training.history import History
from tuning.variant.plots import PlotError, read_history

# What str.splitlines takes for the end of a line, and JSON Lines does not.
INSIDE = "one\u2028two\u2029three\u0085four\u000bfive\u000csix\u001cseven"


def line(content: dict[str, Any]) -> bytes:
    """One line as other programs write it: the characters themselves, no escapes above 0x1f."""
    return json.dumps(content, ensure_ascii=False).encode() + b"\n"


def test_only_a_line_feed_ends_a_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(
        b"\xef\xbb\xbf" + line({"text": INSIDE}) + b"\n  \r\n" + b'{"text": "last"}\r\n'
    )
    found = [(item.number, item.value()["text"]) for item in read_json_lines(path)]
    assert found == [(1, INSIDE), (4, "last")]
    assert load_records(path) == [{"text": INSIDE}, {"text": "last"}]


def test_a_history_keeps_samples_of_any_text(tmp_path: Path) -> None:
    """Resume, plots and reproduce read what a run wrote, whatever its model answered."""
    written = History(tmp_path / "history.jsonl")
    written.add({"step": 1, "loss": 2.0})
    written.add({"step": 1, "samples": [{"prompt": INSIDE, "answer": INSIDE}]})
    resumed = History(None)
    resumed.load(tmp_path / "history.jsonl")
    assert resumed.records == written.records
    assert read_history(tmp_path) == written.records


def test_a_broken_history_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "history.jsonl").write_bytes(b'{"step": 1}\n\n{"step"')
    with pytest.raises(PlotError, match=r"history\.jsonl: no history to draw \(.*:3: is no JSON"):
        read_history(tmp_path)


def test_a_suite_and_rows_hold_any_text(tmp_path: Path) -> None:
    suite, data = tmp_path / "suite.jsonl", tmp_path / "rows.jsonl"
    check = {"kind": "exact", "answers": ["x"]}
    suite.write_bytes(b"\xef\xbb\xbf\n" + line({"prompt": INSIDE, "check": check}))
    (item,) = load_suite(str(suite))
    assert item.prompt == INSIDE
    assert item.id == f"{suite}:2"
    data.write_bytes(b"\xef\xbb\xbf\n" + line({"question": INSIDE, "answer": "x"}))
    (example,) = load_corpus((str(data),), DataOptions(heldout=0), 0, Ledger()).train
    assert example.messages[0]["content"] == INSIDE
    assert example.line == 2


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b'{"answer": "a", "answer": "b"}', "has the key 'answer' twice"),
        (b'{"a": [{"b": 1, "b": 1}]}', "has the key 'b' twice"),
        (b'{"a": "\xff"}', r"is not UTF-8 \(invalid start byte at byte 7\)"),
        (b"[" * 100_000 + b"]" * 100_000, "is nested too deeply"),
        (b"1" * 5000, "number of too many digits"),
        (b'{"a": 1', r"is no JSON \(.* at column 8\)"),
        (b'{"a": "x\x00"}', r"is no JSON \(Invalid control character at at column 9\)"),
        (b'{\n"a": ?}', r"is no JSON \(.* at line 2, column 6\)"),
    ],
)
def test_what_is_wrong_with_a_line_is_said(tmp_path: Path, raw: bytes, reason: str) -> None:
    with pytest.raises(JsonError, match=reason):
        parse_json(raw)
    (tmp_path / "suite.jsonl").write_bytes(b"\n" + raw.replace(b"\n", b" "))
    with pytest.raises(SuiteError, match=r"suite\.jsonl:2: "):
        load_suite(str(tmp_path / "suite.jsonl"))


@given(st.binary(max_size=200))
def test_any_bytes_are_a_value_or_a_named_problem(raw: bytes) -> None:
    with suppress(JsonError):
        parse_json(raw)
