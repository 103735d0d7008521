"""Sources of every file type, bad rows reported with file and line, repeats, splits, weights."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from tuning_fixtures import rows, write_rows

from tuning.config import DataOptions
from tuning.data.corpus import load_corpus
from tuning.data.duplicates import NearDuplicates
from tuning.data.ledger import Ledger
from tuning.data.sources import read_source
from tuning.data.split import plain_words
from tuning.errors import TuningError

PAIRS = [{"question": f"What is {i}?", "answer": f"It is {i}."} for i in range(20)]
NONE = DataOptions(heldout=0.0)


def write(path: Path, items: list[dict[str, Any]]) -> Path:
    """Write items in the format that the suffix names."""
    if path.suffix == ".jsonl":
        return write_rows(path, items)
    if path.suffix == ".json":
        path.write_text(json.dumps(items))
    elif path.suffix == ".csv":
        with path.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, items[0].keys())
            writer.writeheader()
            writer.writerows(items)
    else:
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(items), path)
    return path


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".parquet"])
def test_file_types_give_the_same_rows(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"data{suffix}", PAIRS)
    corpus = load_corpus((str(path),), NONE, 0, Ledger())
    texts = [[message["content"] for message in example.messages] for example in corpus.train]
    assert texts == [[pair["question"], pair["answer"]] for pair in PAIRS]


def test_nested_parquet_and_dataset_folder(tmp_path: Path) -> None:
    from datasets import Dataset

    write(tmp_path / "train.parquet", rows(5))
    Dataset.from_list(rows(5)).save_to_disk(str(tmp_path / "saved"))
    for source in (tmp_path / "train.parquet", tmp_path / "saved"):
        corpus = load_corpus((str(source),), NONE, 0, Ledger())
        assert [list(example.messages) for example in corpus.train] == [
            row["messages"] for row in rows(5)
        ]


def test_dataset_folder_of_splits_gives_train_and_a_torn_one_is_named(tmp_path: Path) -> None:
    from datasets import Dataset, DatasetDict

    folder = tmp_path / "saved"
    splits = {"test": Dataset.from_list(PAIRS[:2]), "train": Dataset.from_list(PAIRS[2:])}
    DatasetDict(splits).save_to_disk(str(folder))
    assert [raw.columns for raw in read_source(str(folder))] == PAIRS[2:]
    (stored,) = (folder / "train").glob("*.arrow")
    stored.write_bytes(b"torn")
    with pytest.raises(TuningError, match=r"saved': is no whole folder of datasets \("):
        list(read_source(str(folder)))


def test_folder_of_files_prefers_train(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", PAIRS[:3])
    write(tmp_path / "test.jsonl", PAIRS[3:])
    assert len(list(read_source(str(tmp_path)))) == 3


def test_bad_rows_are_reported_with_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "mixed.jsonl"
    good = json.dumps(PAIRS[0])
    path.write_bytes(
        b"\n".join(
            [
                good.encode(),
                b"{broken",
                b"[1]",
                b'{"question": "\xff", "answer": "x"}',
                b'{"question": "q", "answer": ""}',
                b'{"question": "q"}',
                b'{"question": ' + b"1" * 5000 + b', "answer": "x"}',
                json.dumps(PAIRS[1]).encode(),
            ]
        )
    )
    ledger = Ledger()
    corpus = load_corpus((str(path),), NONE, 0, ledger)
    assert len(corpus.train) == 2
    assert [(bad.line, bad.field) for bad in ledger.bad_rows] == [
        (2, "row"),
        (3, "row"),
        (4, "row"),
        (5, "answer"),
        (6, "answer"),
        (7, "row"),
    ]
    assert str(ledger.bad_rows[0]).startswith(f"{path}:2: row: is no JSON")
    assert ledger.rows_read == 8
    with pytest.raises(TuningError, match=r"mixed\.jsonl:2: row: is no JSON .* --strict"):
        load_corpus((str(path),), DataOptions(strict=True), 0, Ledger())


@pytest.mark.parametrize(
    ("name", "content", "places"),
    [
        ("data.csv", "question,answer\na,b\nc,\nd,e,f\n", [(3, "answer"), (4, "row")]),
        (
            "data.json",
            '[{"question": "a", "answer": "b"}, 3, {"question": null, "answer": "d"}]',
            [(2, "row"), (3, "question")],
        ),
    ],
)
def test_bad_rows_of_other_files_are_reported_too(
    tmp_path: Path, name: str, content: str, places: list[tuple[int, str]]
) -> None:
    path = tmp_path / name
    path.write_text(content)
    ledger = Ledger()
    assert len(load_corpus((str(path),), NONE, 0, ledger).train) == 1
    assert [(bad.line, bad.field) for bad in ledger.bad_rows] == places
    assert {bad.source for bad in ledger.bad_rows} == {str(path)}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "file is empty"),
        ("\n\n", "holds no rows"),
        ('{"a": 1}\n', "columns a fit no known format"),
        ('{"question": "q", "answer": ""}\n', "no row is left to train on .*1 bad"),
        (
            '{"question": "q", "answer": "a"}\n{"instruction": "i", "output": "o"}\n',
            r":2: row is of format alpaca, those before are question-answer",
        ),
    ],
)
def test_useless_files_are_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text(content)
    with pytest.raises(TuningError, match=message) as caught:
        load_corpus((str(path),), NONE, 0, Ledger())
    assert "\n" not in str(caught.value)
    assert "data.jsonl" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("data.txt", "x", "unknown file type '.txt'"),
        ("data.json", "{", "is no JSON"),
        ("data.json", "3", "must be a JSON list"),
        ("data.json", "[" + "1" * 5000 + "]", "number of too many digits"),
        ("data.parquet", "x", "no valid Parquet"),
        ("data.csv", 'question,answer\n"q,a\n', "no valid CSV"),
    ],
)
def test_broken_files_are_named(tmp_path: Path, name: str, content: str, message: str) -> None:
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(TuningError, match=message):
        load_corpus((str(path),), NONE, 0, Ledger())


def test_a_bad_row_of_the_heldout_file_is_an_error(tmp_path: Path) -> None:
    train, heldout = tmp_path / "data.jsonl", tmp_path / "own.jsonl"
    train.write_text('{"question": "q", "answer": "a"}\n')
    heldout.write_text('{"question": "p", "answer": "a"}\n{"question": "r", "answer": ""}\n')
    with pytest.raises(TuningError, match=r"own\.jsonl:2: answer: is empty"):
        load_corpus((str(train),), DataOptions(heldout_file=str(heldout)), 0, Ledger())


def test_a_heldout_file_without_a_usable_row_is_an_error(tmp_path: Path) -> None:
    train = write(tmp_path / "data.jsonl", PAIRS)
    own = write(tmp_path / "own.jsonl", [{**PAIRS[0], "label": False}])
    with pytest.raises(TuningError, match=r"own\.jsonl' leaves no row to .*\(1 label false\)"):
        load_corpus((str(train),), DataOptions(heldout_file=str(own)), 0, Ledger())


def test_what_stands_beside_the_rows_of_a_json_object_is_not_lost(tmp_path: Path) -> None:
    path = tmp_path / "data.json"
    path.write_text(json.dumps({"version": "1", "data": PAIRS, "name": "x"}))
    assert [raw.columns for raw in read_source(str(path))] == PAIRS
    path.write_text(json.dumps({"data": PAIRS, "system": "Be kind."}))
    with pytest.raises(TuningError, match=r"'system' beside the list 'data' holds 'Be kind\.'"):
        list(read_source(str(path)))


def test_missing_source_is_named() -> None:
    with pytest.raises(TuningError, match=r"'nowhere\.jsonl': no such file or folder"):
        load_corpus(("nowhere.jsonl",), NONE, 0, Ledger())


def test_repeats_are_dropped_and_counted(tmp_path: Path) -> None:
    spaced = {"question": " What is 2?\n", "answer": "It is 2. "}
    path = write(tmp_path / "data.jsonl", [*PAIRS, PAIRS[0], spaced])
    ledger = Ledger()
    corpus = load_corpus((str(path),), NONE, 0, ledger)
    assert len(corpus.train) == 20
    assert dict(ledger.rows_dropped) == {"duplicate": 2}
    ledger = Ledger()
    kept = load_corpus((str(path),), DataOptions(deduplicate=False, heldout=0), 0, ledger)
    assert len(kept.train) == 22


@pytest.mark.parametrize(
    ("near", "pairs"),
    [
        (1, [("Shout: paris", "PARIS"), ("Shout: PARIS", "PARIS")]),
        (0.9, [("Shout: paris", "PARIS"), ("Shout: PARIS", "PARIS")]),
        (0.9, [("Title: paris", "Paris"), ("Title: Paris", "Paris"), ("Title: PARIS", "Paris")]),
        (1, [("Add a full stop: Go on", "Go on."), ("Add a full stop: Go on.", "Go on.")]),
        (1, [("One space: a  b", "a b"), ("One space: a b", "a b")]),
        (1, [("Did you come?", "No."), ("Did you come?", "No!")]),
        (1, [("Indent:\nif x:\n  y", "ok"), ("Indent:\nif x:\n    y", "ok")]),
    ],
)
def test_rows_that_differ_where_the_lesson_is_are_all_kept(
    tmp_path: Path, near: float, pairs: list[tuple[str, str]]
) -> None:
    """Case, signs and spaces can be what is taught, so a row is a repeat only when all is equal."""
    rows = [{"question": question, "answer": answer} for question, answer in pairs]
    path = write(tmp_path / "data.jsonl", rows)
    ledger = Ledger()
    options = DataOptions(heldout=0, near_duplicates=near)
    assert len(load_corpus((str(path),), options, 0, ledger).train) == len(rows)
    assert not ledger.rows_dropped


def test_near_duplicates_are_dropped_where_asked_for(tmp_path: Path) -> None:
    path = write(
        tmp_path / "data.jsonl", [PAIRS[1], {"question": "What is 1", "answer": "It is 1!"}]
    )
    ledger = Ledger()
    options = DataOptions(heldout=0, near_duplicates=0.9)
    assert len(load_corpus((str(path),), options, 0, ledger).train) == 1
    assert dict(ledger.rows_dropped) == {"near duplicate": 1}


def test_near_duplicates_follow_the_jaccard_threshold() -> None:
    """Ten words have eight triples; one changed last word changes one: 7 of 9 are shared."""
    text = "one two three four five six seven eight nine ten"
    changed = text.replace("ten", "eleven")
    loose, tight = NearDuplicates(7 / 9), NearDuplicates(7 / 9 + 0.001)
    assert [loose.seen_before(text), loose.seen_before(changed)] == [False, True]
    assert [tight.seen_before(text), tight.seen_before(changed)] == [False, False]


def test_signs_keep_questions_apart() -> None:
    assert plain_words("What is 3 + 2?") != plain_words("What is 3 - 2?")
    assert plain_words("What is 3 + 2?") == plain_words("What is 3 + 2")
    assert plain_words("what is US?") != plain_words("what is us?")


def test_split_keeps_prompts_on_one_side_and_is_repeatable(tmp_path: Path) -> None:
    twice = [{**pair, "answer": f"{pair['answer']} Really {i}."} for pair in PAIRS for i in (1, 2)]
    path = write(tmp_path / "data.jsonl", twice)
    options = DataOptions(heldout=0.2)
    first = load_corpus((str(path),), options, 0, Ledger())
    again = load_corpus((str(path),), options, 0, Ledger())
    other = load_corpus((str(path),), options, 1, Ledger())
    assert first.heldout == again.heldout
    assert first.heldout != other.heldout
    assert len(first.heldout) == 8
    assert not {e.group for e in first.train} & {e.group for e in first.heldout}


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({}, "no row held out: 2 % of 20 prompts is less than one; raise data_options.heldout"),
        ({"heldout": 0.05}, None),
        ({"heldout": 0}, None),
        (
            {"heldout": 0.4, "group_by": "category"},
            "no row held out: 40 % of 2 groups of category is less than one; raise "
            "data_options.heldout",
        ),
    ],
)
def test_a_share_that_holds_out_nothing_is_said(
    tmp_path: Path, options: dict[str, Any], line: str | None
) -> None:
    items = [{**pair, "category": "ab"[number % 2]} for number, pair in enumerate(PAIRS)]
    ledger = Ledger()
    load_corpus((str(write(tmp_path / "d.jsonl", items)),), DataOptions(**options), 0, ledger)
    said = [text for text in ledger.lines() if text.startswith("no row held out")]
    assert said == ([line] if line else [])


def test_heldout_file_leaks_are_removed(tmp_path: Path) -> None:
    path = write(tmp_path / "data.jsonl", PAIRS)
    heldout = write(tmp_path / "held.jsonl", [{"question": "What is 3", "answer": "Three."}])
    ledger = Ledger()
    corpus = load_corpus((str(path),), DataOptions(heldout_file=str(heldout)), 0, ledger)
    assert len(corpus.train) == 19
    assert ledger.rows_dropped["also in the held-out set"] == 1
    assert [example.messages[1]["content"] for example in corpus.heldout] == ["Three."]


def test_a_prompt_of_another_case_is_no_leak_but_stays_on_its_side(tmp_path: Path) -> None:
    cases = [{"question": "Shout: paris", "answer": "PARIS"}]
    heldout = write(tmp_path / "held.jsonl", [{"question": "Shout: PARIS", "answer": "PARIS"}])
    path = write(tmp_path / "data.jsonl", cases)
    ledger = Ledger()
    options = DataOptions(heldout_file=str(heldout))
    assert len(load_corpus((str(path),), options, 0, ledger).train) == 1
    both = [
        {"question": f"{start} {i}", "answer": "x"} for i in range(20) for start in ("go", "GO")
    ]
    path = write(tmp_path / "both.jsonl", both)
    corpus = load_corpus((str(path),), DataOptions(heldout=0.2), 0, Ledger())
    prompts = [
        {row.messages[0]["content"].lower() for row in rows}
        for rows in (corpus.train, corpus.heldout)
    ]
    assert len(corpus.heldout) == 8
    assert not prompts[0] & prompts[1]


def test_weights_repeat_and_sample(tmp_path: Path) -> None:
    first = write(tmp_path / "a.jsonl", PAIRS[:10])
    second = write(tmp_path / "b.jsonl", PAIRS[10:])
    options = DataOptions(heldout=0, weights=(2.5, 0.5))
    corpus = load_corpus((str(first), str(second)), options, 0, Ledger())
    assert len(corpus.train) == 20
    counts = [corpus.order.count(i) for i in range(20)]
    assert sorted(counts[:10]) == [2] * 5 + [3] * 5
    assert sorted(counts[10:]) == [0] * 5 + [1] * 5


def test_group_by_column(tmp_path: Path) -> None:
    items = [{**pair, "topic": f"t{i // 5}"} for i, pair in enumerate(PAIRS)]
    path = write(tmp_path / "data.jsonl", items)
    corpus = load_corpus((str(path),), DataOptions(heldout=0.3, group_by="topic"), 0, Ledger())
    assert len(corpus.heldout) == 5
    assert len({example.group for example in corpus.heldout}) == 1


def test_a_prompt_of_two_groups_is_never_on_both_sides(tmp_path: Path) -> None:
    asked = [*PAIRS, *({**pair, "answer": "Ask me later."} for pair in PAIRS)]
    items = [{**pair, "topic": f"t{i // 5}"} for i, pair in enumerate(asked)]
    path = write(tmp_path / "data.jsonl", items)
    ledger = Ledger()
    options = DataOptions(heldout=0.15, group_by="topic")
    corpus = load_corpus((str(path),), options, 0, ledger)
    assert len(corpus.heldout) == ledger.rows_dropped["also in the held-out set"] == 5
    prompts = [
        {row.messages[0]["content"] for row in rows} for rows in (corpus.train, corpus.heldout)
    ]
    assert not prompts[0] & prompts[1]
    assert ledger.rows_read == ledger.rows_trained + ledger.rows_heldout + 5
