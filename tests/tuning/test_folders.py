"""Which files of a folder are trained: split names as whole words, READMEs, a list of it all."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from tuning_fixtures import write_rows

from tuning.config import DataOptions
from tuning.data.corpus import load_corpus
from tuning.data.ledger import Ledger, Tally
from tuning.data.sources import read_source
from tuning.errors import TuningError


def fill(folder: Path, *names: str) -> None:
    """Files of one row each, whose answer is the file's name."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        row = {"question": f"Which file is {name}?", "answer": name}
        if path.suffix == ".parquet":
            import pyarrow
            import pyarrow.parquet

            pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row]), path)
        elif path.suffix == ".json":
            path.write_text(json.dumps([row]))
        elif path.suffix == ".csv":
            path.write_text(f"question,answer\n{row['question']},{name}\n")
        else:
            write_rows(path, [row])


def read(folder: Path) -> tuple[list[str], dict[str, str]]:
    """The files whose rows were read, and those that were not with the reason."""
    tally = Tally()
    rows = [raw.columns["answer"] for raw in read_source(str(folder), tally=tally)]
    left = [item.removeprefix(f"{folder}/").removesuffix(")") for item in tally.files_left]
    assert tally.files_read == [str(folder / name) for name in rows]
    return rows, dict(item.split(" (") for item in left)


@pytest.mark.parametrize(
    ("files", "trained"),
    [
        (["constraints.jsonl", "stories.jsonl"], ["constraints.jsonl", "stories.jsonl"]),
        (["trains.csv", "strain.json"], ["strain.json", "trains.csv"]),
        (["train.jsonl", "extra.jsonl"], ["train.jsonl"]),
        (["a.parquet", "b.jsonl"], ["a.parquet", "b.jsonl"]),
        (["train-00000-of-00002.parquet", "my_train.jsonl"], None),
        (["dev.jsonl", "stories.jsonl", "test.jsonl"], ["stories.jsonl"]),
        (["data/validation-1.jsonl", "data/training_1.jsonl"], ["data/training_1.jsonl"]),
        (["train/cats.jsonl", "test/cats.jsonl", "val/cats.jsonl"], ["train/cats.jsonl"]),
        (["train/cats.jsonl", "train/test-cats.jsonl"], ["train/cats.jsonl"]),
        (["latest.jsonl", "contest.jsonl", "devices.jsonl", "values.jsonl"], None),
        (["TRAIN.JSONL", "Test.jsonl"], ["TRAIN.JSONL"]),
        ([".git/train.jsonl", ".cache.jsonl", "rows.jsonl"], ["rows.jsonl"]),
        (["__old/train.jsonl", "rows.jsonl"], ["rows.jsonl"]),
        (["_extra.jsonl", "_more/b.jsonl", "__c.jsonl"], None),
    ],
)
def test_names_say_what_is_trained(
    tmp_path: Path, files: list[str], trained: list[str] | None
) -> None:
    fill(tmp_path, *files)
    rows, left = read(tmp_path)
    assert rows == (sorted(files) if trained is None else trained)
    hidden = {name for name in files if name.startswith((".", "__old"))}
    assert set(left) - {".git", "__old"} == set(files) - set(rows) - {
        name for name in hidden if "/" in name
    }


def test_the_reasons_are_listed_and_stored(tmp_path: Path) -> None:
    folder = tmp_path / "rows"
    fill(folder, "train.jsonl", "dev.jsonl", "test.csv", "more.jsonl", ".git/rows.jsonl")
    (folder / "notes.txt").write_text("x")
    (folder / "dataset_infos.json").write_text("{}")
    ledger = Ledger()
    load_corpus((str(folder),), DataOptions(heldout=0), 0, ledger)
    expected = {
        ".git": "hidden",
        "dataset_infos.json": "no data file",
        "dev.jsonl": "validation split",
        "more.jsonl": "not in the train split",
        "notes.txt": "no data file",
        "test.csv": "test split",
    }
    listed = [f"{folder}/{name} ({reason})" for name, reason in expected.items()]
    assert ledger.to_json()["files"] == {
        "read": [f"{folder}/train.jsonl"],
        "num_read": 1,
        "not_read": listed,
        "num_not_read": 6,
    }
    assert f"files: 6 not read: {'; '.join(listed)}" in ledger.lines()
    assert f"files: 1 read: {folder}/train.jsonl" in ledger.lines()


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["dev.jsonl", "test.jsonl"], r"holds only validation and test files \(dev.*test\.jsonl\)"),
        (["train_test.jsonl"], r"train_test\.jsonl is named after train and test at once"),
        ([".rows.jsonl"], r"the folder holds no \.jsonl, .* files"),
        ([], r"the folder holds no \.jsonl, .* files"),
    ],
)
def test_folders_without_a_clear_choice_are_refused(
    tmp_path: Path, files: list[str], message: str
) -> None:
    fill(tmp_path, *files)
    with pytest.raises(TuningError, match=message):
        read(tmp_path)


README = "---\nlicense: mit\nconfigs:\n{configs}\n---\n# Rows\n"


@pytest.mark.parametrize(
    ("configs", "trained"),
    [
        ("- config_name: default\n  data_files: b.jsonl", ["b.jsonl"]),
        ("- config_name: default\n  data_files: ['b.jsonl', 'sub/*']", ["b.jsonl", "sub/c.jsonl"]),
        (
            "- config_name: x\n  data_files:\n  - split: train\n    path: b.*\n"
            "  - split: test\n    path: train.jsonl",
            ["b.jsonl"],
        ),
        (
            "- config_name: x\n  data_files:\n  - split: train_sft\n    path: [b.jsonl]\n"
            "  - split: test_sft\n    path: train.jsonl",
            ["b.jsonl"],
        ),
        (
            "- config_name: one\n  data_files: train.jsonl\n"
            "- config_name: two\n  data_files: b.jsonl\n  default: true",
            ["b.jsonl"],
        ),
        ("- config_name: x\n  data_dir: sub", ["sub/c.jsonl"]),
        ("- config_name: x\n  data_files: {train: sub/c.jsonl, dev: b.jsonl}", ["sub/c.jsonl"]),
    ],
)
def test_a_readme_decides_as_it_does_for_datasets(
    tmp_path: Path, configs: str, trained: list[str]
) -> None:
    fill(tmp_path, "train.jsonl", "b.jsonl", "sub/c.jsonl")
    (tmp_path / "README.md").write_text(README.format(configs=configs))
    rows, left = read(tmp_path)
    assert rows == trained
    assert set(left) == {"train.jsonl", "b.jsonl", "sub/c.jsonl", "README.md"} - set(trained)


@pytest.mark.parametrize(
    ("config", "trained"),
    [
        ("data_dir: data", ["data/train.jsonl"]),
        ("data_dir: ./more/", ["more/x.jsonl"]),
        ("data_files: '**/*.jsonl'", ["data/test.jsonl", "data/train.jsonl", "more/x.jsonl"]),
        ("data_files: 'data/train*'", ["data/train.jsonl"]),
        ("data_files: '*/*'", ["data/test.jsonl", "data/train.jsonl", "more/x.jsonl"]),
        ("data_files: '.hid/*'", [".hid/b.jsonl"]),
        ("data_files: __h/c.jsonl", ["__h/c.jsonl"]),
        ("data_files: 'tra*'\n  data_dir: data", ["data/train.jsonl"]),
    ],
)
def test_a_readme_names_data_files_as_datasets_finds_them(
    tmp_path: Path, config: str, trained: list[str]
) -> None:
    folder = tmp_path / "rows"
    names = ["data/train.jsonl", "data/test.jsonl", "more/x.jsonl", ".hid/b.jsonl", "__h/c.jsonl"]
    fill(folder, *names)
    (folder / "data" / "notes.txt").write_text("x")
    (folder / "data" / "train.jsonl.lock").write_text("")
    (folder / "README.md").write_text(README.format(configs=f"- config_name: default\n  {config}"))
    rows, left = read(folder)
    assert rows == trained
    hidden = {".hid", "__h"} - {name.partition("/")[0] for name in rows}
    others = {"README.md", "data/notes.txt", "data/train.jsonl.lock", *names[:3]}
    assert set(left) == (others | hidden) - set(rows)


@pytest.mark.parametrize("name", ["train.jsonl.gz", "train.tsv", "train.json.zst", "t/train.arrow"])
def test_rows_in_a_form_that_is_not_read_are_refused_by_name(tmp_path: Path, name: str) -> None:
    fill(tmp_path, "other.jsonl", name)
    with pytest.raises(TuningError, match=rf"{name} holds rows in a form that is not read; unpack"):
        read(tmp_path)
    fill(tmp_path, "train.ndjson", "train_2.jsonl")
    (tmp_path / name).rename(tmp_path / f"test{(tmp_path / name).suffix}")
    rows, left = read(tmp_path)
    assert rows == ["train.ndjson", "train_2.jsonl"]
    assert left == {
        f"test{Path(name).suffix}": "test split",
        "other.jsonl": "not in the train split",
    }


def test_files_are_listed_where_all_are_read(tmp_path: Path) -> None:
    fill(tmp_path, "a.jsonl", "b.jsonl")
    ledger = Ledger()
    load_corpus((str(tmp_path),), DataOptions(heldout=0), 0, ledger)
    assert f"files: 2 read: {tmp_path}/a.jsonl, {tmp_path}/b.jsonl" in ledger.lines()


def test_the_choice_is_that_of_datasets(tmp_path: Path) -> None:
    """The same README, read by the library that the rule is taken from."""
    from datasets import load_dataset

    fill(tmp_path, "train.jsonl", "b.jsonl", "sub/c.jsonl")
    configs = "- config_name: x\n  data_files:\n  - split: train\n    path: ['b.*', sub/c.jsonl]"
    (tmp_path / "README.md").write_text(README.format(configs=configs))
    loaded = load_dataset(str(tmp_path), split="train", cache_dir=str(tmp_path / ".cache"))
    assert sorted(loaded["answer"]) == sorted(read(tmp_path)[0]) == ["b.jsonl", "sub/c.jsonl"]


@pytest.mark.parametrize(
    ("configs", "message"),
    [
        ("- [", r"the head of README\.md is no YAML"),
        ("- x", r"configs of README\.md is no list of maps"),
        ("- config_name: x\n  data_files: gone.jsonl", r"names 'gone\.jsonl' .* no such file"),
        ("- config_name: x\n  data_files: ../b.jsonl", r"names '\.\./b\.jsonl', which is no file"),
        ("- config_name: x\n  data_files: /etc/passwd", r"names '/etc/passwd', which is no file"),
        (
            "- config_name: a\n  data_dir: a\n- config_name: b\n  data_dir: b",
            r"several configs \(a",
        ),
        (
            "- config_name: x\n  data_files:\n  - split: test\n    path: b.jsonl",
            "has no split to train on, only test",
        ),
        (
            "- config_name: x\n  data_files: {train_a: b.jsonl, train_b: b.jsonl}",
            r"several splits to train on \(train_a, train_b\)",
        ),
        ("- config_name: x\n  data_files: sub", r"names 'sub', which is a folder; .* sub/\*, or"),
        ("- config_name: x\n  data_dir: gone", "the folder holds no"),
        ("- config_name: x\n  data_files: []", "names nothing to train on"),
        ("- config_name: x\n  data_files: [{split: train}]", "names None, which is no file"),
    ],
)
def test_a_readme_that_does_not_fit_is_named(tmp_path: Path, configs: str, message: str) -> None:
    fill(tmp_path, "b.jsonl", "sub/c.jsonl")
    (tmp_path / "README.md").write_text(README.format(configs=configs))
    with pytest.raises(TuningError, match=message) as caught:
        read(tmp_path)
    assert "\n" not in str(caught.value)


def test_saved_splits_are_chosen_and_listed(tmp_path: Path) -> None:
    from datasets import Dataset, DatasetDict

    def saved(*names: str) -> str:
        place = tmp_path / "-".join(names)
        splits = {name: Dataset.from_list([{"answer": name}]) for name in names}
        DatasetDict(splits).save_to_disk(str(place))
        return str(place)

    folder, tally = saved("test_sft", "train_sft"), Tally()
    assert [raw.columns["answer"] for raw in read_source(folder, tally=tally)] == ["train_sft"]
    assert tally.files_read == [f"{folder}: split train_sft"]
    assert tally.files_left == [f"{folder}: split test_sft"]
    with pytest.raises(TuningError, match="has no split to train on, only test, validation"):
        list(read_source(saved("test", "validation")))


def test_files_that_cannot_be_files_of_rows_are_named(tmp_path: Path) -> None:
    fill(tmp_path, "rows.jsonl")
    os.mkfifo(tmp_path / "pipe.jsonl")
    (tmp_path / "gone.jsonl").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop").symlink_to(tmp_path)
    rows, left = read(tmp_path)
    assert rows == ["rows.jsonl"]
    assert left == {
        "pipe.jsonl": "no plain file",
        "gone.jsonl": "no plain file",
        "loop": "link to a folder",
    }
    Path(os.fsdecode(bytes(tmp_path) + b"/\xff.jsonl")).write_text("x")
    with pytest.raises(TuningError, match=r"the name '\\udcff\.jsonl' is not UTF-8"):
        read(tmp_path)
