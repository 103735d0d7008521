"""Rows of kept files, searched, corrected and left out; settings as YAML and back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fault_server import FaultServer, Script
from page_server import PageServer

from arena.runs.data_rows import find_rows, name_of_corrected
from arena.runs.requests import RunRequest
from arena.runs.settings_yaml import SettingsYamlError, as_yaml, from_yaml
from arena.runs.uploads import UploadRefusedError
from arena.web.authentication import Authenticator
from tuning.config_files import load_config

LINES = ['{"prompt": "Say red.", "completion": "blue"}', "", "{broken", '{"prompt": "Größe?"}']


@pytest.fixture
def client(tmp_path: Path) -> Iterator[httpx2.Client]:
    with FaultServer({"a": Script()}) as server, PageServer(tmp_path, server.url) as page:
        key = {"authorization": f"Bearer {Authenticator(tmp_path).key}"}
        with httpx2.Client(base_url=f"{page.url}/api/tune", headers=key, trust_env=False) as one:
            yield one


def test_corrected_rows_are_a_new_file_and_the_old_one_stays(
    client: httpx2.Client, tmp_path: Path
) -> None:
    content = "\n".join(LINES)
    name = client.put("/data/own.jsonl", content=content.encode()).json()["name"]
    found = client.get(f"/data/{name}/rows", params={"search": "GRÖSSE"}).json()
    assert (found["total"], [row["number"] for row in found["rows"]]) == (3, [4]), (
        "as files have it"
    )
    change = {"changes": {"1": '{"prompt": "Say red.", "completion": "red"}'}, "left_out": [3]}
    kept = client.post(f"/data/{name}/rows", json=change).json()["name"]
    assert kept != name
    rows = [json.loads(line) for line in (tmp_path / "data" / kept).read_text().splitlines()]
    assert rows == [{"prompt": "Say red.", "completion": "red"}, {"prompt": "Größe?"}]
    assert (tmp_path / "data" / name).read_text() == content
    again = client.post(f"/data/{kept}/rows", json={"left_out": [1]}).json()["name"]
    assert again.startswith("own-"), "one hash, not one behind the other"
    for bad in ({"changes": {"2": "{}"}}, {"changes": {"1": "[]"}}, {"changes": {"1": "{"}}):
        assert client.post(f"/data/{name}/rows", json=bad).status_code == 422, bad
    everything = {"left_out": [1, 3, 4]}
    assert "is empty" in client.post(f"/data/{name}/rows", json=everything).json()["error"]
    for other in ("arena.db", "..%2Fadmin.key", "gone.jsonl"):
        assert client.get(f"/data/{other}/rows").status_code in (404, 422), other


def test_half_a_pair_of_surrogates_is_shown_and_kept_as_its_escape(
    client: httpx2.Client, tmp_path: Path
) -> None:
    for name, content in (("a.json", '[{"a": "\\ud83d"}]'), ("b.jsonl", '{"a": "x"}')):
        kept = client.put(f"/data/{name}", content=content.encode()).json()["name"]
        assert client.get(f"/data/{kept}/rows").status_code == 200
        change = {"changes": {"1": '{"a": "\\ud800 é"}'}}
        made = client.post(f"/data/{kept}/rows", json=change).json()["name"]
        text = (tmp_path / "data" / made).read_bytes().decode("utf-8")
        assert json.loads(text) == {"a": "\ud800 é"}
        assert client.get(f"/data/{made}/rows").json()["total"] == 1


def test_rows_of_csv_and_json_and_of_none(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('prompt,completion\n"two\nlines",b\nc,d\n', encoding="utf-8")
    found = find_rows(tmp_path / "a.csv", "", 0)["rows"]
    assert [(row["number"], json.loads(row["text"])["completion"]) for row in found] == [
        (3, "b"),
        (4, "d"),
    ]
    (tmp_path / "a.json").write_text('[{"a": 1}, 7]')
    assert find_rows(tmp_path / "a.json", "", 1)["rows"] == [{"number": 2, "text": "7"}]
    for name, content in (("b.csv", b"a,b\n1\n"), ("b.json", b"{}"), ("b.jsonl", b"\xff")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UploadRefusedError, match=name):
            find_rows(tmp_path / name, "", 0)
    assert name_of_corrected("my.rows-0123456789ab.csv") == "my.rows.jsonl"


def test_settings_go_into_yaml_and_back_as_arena_tune_reads_them(tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "base": "starter",
        "data": ["starter", "rows: 1.jsonl"],
        "training.epochs": "2",
        "seed": "10",
        "data_options.columns": {"prompt": "ask"},
    }
    text = as_yaml(RunRequest("no", settings))
    assert from_yaml(text) == ("no", settings)
    (tmp_path / "run.yaml").write_text(text, encoding="utf-8")
    config = load_config(tmp_path / "run.yaml", {})
    assert (config.name, config.data, config.seed) == ("no", ("starter", "rows: 1.jsonl"), 10)
    nested = "training:\n  epochs: 3\nseed: null\n"
    assert from_yaml(nested) == (None, {"training.epochs": "3"})
    for bad, named in (
        ("a: 1\na: 2", "stands twice"),
        ("training: {epochs: 1}\ntraining.epochs: 2", "stands twice"),
        ("- a", "key: value"),
        ("a: [[1]]", "a: give a value"),
        ("a: &x [*x]", "no YAML|give a value"),
        ("{" * 5000, "no YAML|too deep"),
        ("", "key: value"),
    ):
        with pytest.raises(SettingsYamlError, match=named):
            from_yaml(bad)
