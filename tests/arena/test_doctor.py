"""`arena doctor`: what it finds, what it advises, and its exit status."""

from __future__ import annotations

import json
import shutil
import socket
import threading
from pathlib import Path

import pytest
from running import free_port
from store_fixtures import Hand
from typer.testing import CliRunner

from arena.cli import app
from arena.commands.doctor import _settings, _votes, examine
from arena.storage.store import Store
from tuning.starter import shipped_models


def run(home: Path, *words: str) -> tuple[int, dict[str, dict[str, str]]]:
    """Exit status, and the findings by what they are about."""
    done = CliRunner().invoke(app, ["doctor", "--home", str(home), "--json", *words])
    content = json.loads(done.stdout)
    assert content["good"] == (done.exit_code == 0)
    return done.exit_code, {one["what"]: one for one in content["findings"]}


@pytest.mark.slow
def test_a_whole_machine_is_good_and_home_need_not_be_there(tmp_path: Path) -> None:
    home = tmp_path / "new"
    status, found = run(home)
    assert status == 0
    assert not home.exists(), "the doctor makes nothing"
    expected = {"arena", "python", "libraries", "home", "processor", "memory", "gpu", "models"}
    assert expected | {"compiled steps"} <= found.keys()
    assert all(one["status"] != "broken" for one in found.values())
    assert "starter-lora" in found["models"]["value"]


def greet(listener: socket.socket) -> None:
    """Answer one caller as a server that speaks no HTTP."""
    caller, _ = listener.accept()
    with caller:
        caller.sendall(b"SSH-2.0\r\n")


@pytest.mark.slow
def test_a_torn_model_a_silent_server_and_a_file_for_home_are_broken(tmp_path: Path) -> None:
    home, url = tmp_path / "home", f"http://127.0.0.1:{free_port()}"
    torn = home / "models" / "torn"
    shutil.copytree(shipped_models()["starter-lora"], torn)
    weights = torn / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-9])
    status, found = run(home, "--backend", url)
    assert status == 1
    broken = {what: one for what, one in found.items() if one["status"] == "broken"}
    assert broken.keys() == {"model torn", f"server {url}"}
    assert all(one["remedy"] for one in broken.values())
    assert "adapter_model.safetensors" in found["model torn"]["value"]
    with socket.create_server(("127.0.0.1", 0)) as other:
        threading.Thread(target=greet, args=(other,), daemon=True).start()
        backend = f"http://127.0.0.1:{other.getsockname()[1]}"
        found = {one.what: one for one in examine(tmp_path, (backend, "file:///etc/hostname"))}
    assert found[f"server {backend}"].status == "broken"
    assert found["server file:///etc/hostname"].status == "broken"
    (tmp_path / "file").touch()
    status, found = run(tmp_path / "file")
    assert (status, found["home"]["status"]) == (1, "broken")


def test_settings_and_votes_that_the_page_cannot_read_are_broken(tmp_path: Path) -> None:
    Hand(Store.at_home(tmp_path)).vote()
    (tmp_path / "arena.toml").write_text("[limits]\nrunning_battles = 3\n")
    looks = {one.what: one.status for one in (*_settings(tmp_path), *_votes(tmp_path))}
    assert looks == {"arena.toml": "good", "votes": "good"}
    store = tmp_path / "arena.db"
    whole = store.read_bytes()
    for text, torn in (
        ("[limits", whole[: len(whole) // 2]),
        ("[limit]\nx = 1\n", b"no database at all" * 100),
        ("participant = 1\n", whole[:100] + b"\xff" * 4096 + whole[4196:]),
    ):
        (tmp_path / "arena.toml").write_text(text)
        store.write_bytes(torn)
        found = [*_settings(tmp_path), *_votes(tmp_path)]
        assert [one.status for one in found] == ["broken", "broken"], found
        assert all(one.remedy for one in found)


def test_a_home_that_no_system_takes_is_broken(tmp_path: Path) -> None:
    found = next(one for one in examine(tmp_path / ("x" * 300)) if one.what == "home")
    assert (found.status, "too long" in found.value) == ("broken", True)
