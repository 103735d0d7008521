"""The `arena` command: its fixed surface, and what a person's mistake looks like."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import cli_reference
import pytest
from running import ARENA, free_port, run_arena

from tuning.starter import shipped_models

TREE = dict(cli_reference.commands())

# Scripts rely on these. A new command or option may join; none may go or change its name.
SURFACE = {
    ("up",): {"--base", "--model", "--home", "--port", "--serve-port"},
    ("tune",): {"--base", "--data", "--method", "--name", "--home", "--json"},
    ("eval",): {"--home", "--json"},
    ("serve",): {"--base", "--home", "--port"},
    ("ui",): {"--backend", "--home", "--port"},
    ("export",): {"--format", "--out", "--home", "--json"},
    ("models", "list"): {"--home", "--json"},
    ("models", "verify"): {"--home", "--base"},
    ("starter", "pretrain"): {"--minutes", "--out"},
}


@pytest.mark.parametrize("words", SURFACE, ids=" ".join)
def test_command_is_there_with_its_options(words: tuple[str, ...]) -> None:
    assert words in TREE
    assert SURFACE[words] <= cli_reference.options(TREE[words])
    assert TREE[words].help


@pytest.mark.parametrize("words", [("ui",), ("up",)], ids=" ".join)
def test_nothing_shares_the_page_through_others(words: tuple[str, ...]) -> None:
    assert "--share" not in cli_reference.options(TREE[words])


@pytest.mark.slow
def test_every_command_prints_its_help() -> None:
    for words in TREE:
        text = cli_reference.help_text(words)
        assert text.startswith(f"Usage: {' '.join(('arena', *words))}")
        assert len(text.splitlines()) >= 5


def test_version_is_that_of_the_distribution(tmp_path: Path) -> None:
    """By the script that pip made, in a new interpreter."""
    printed = subprocess.check_output([ARENA, "--version"], cwd=tmp_path, text=True)
    assert printed == f"arena {version('instruct-arena')}\n"


def empty_folder(place: Path) -> list[str | Path]:
    (place / "empty").mkdir()
    return ["serve", "--base", place / "empty"]


def malformed_data(place: Path) -> list[str | Path]:
    (place / "rows.jsonl").write_text('{"instruction": "Say hi.", "response": "Hi."}\n{"instr\n')
    words = ["tune", "--base", "starter", "--data", place / "rows.jsonl", "--name", "x"]
    return [*words, "--strict"]


def data_without_rows(place: Path) -> list[str | Path]:
    (place / "rows.jsonl").write_text("these are\nno rows\n")
    return ["tune", "--base", "starter", "--data", place / "rows.jsonl", "--name", "x"]


def home_in_a_file(place: Path) -> list[str | Path]:
    (place / "file").write_text("not a folder")
    return ["ui", "--backend", "http://127.0.0.1:9", "--home", place / "file" / "home"]


def tampered_variant(place: Path) -> list[str | Path]:
    folder = place / "home" / "models" / "mine"
    shutil.copytree(shipped_models()["starter-lora"], folder)
    weights = folder / "adapter_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    return ["models", "verify", "mine", "--home", place / "home"]


def truncated_variant(place: Path) -> list[str | Path]:
    folder = place / "home" / "models" / "mine"
    shutil.copytree(shipped_models()["starter-lora"], folder)
    weights = folder / "adapter_model.safetensors"
    os.truncate(weights, weights.stat().st_size // 2)
    return ["models", "verify", "mine", "--home", place / "home"]


TUNE = ["tune", "--base", "starter", "--data", "starter", "--name", "x"]
MISTAKES: dict[str, tuple[list[str] | Callable[[Path], list[str | Path]], list[str]]] = {
    "no such command": (["tuen"], ["tuen", "--help"]),
    "no such option": (["up", "--prot", "1"], ["--prot", "--help"]),
    "port is no number": (["up", "--port", "web"], ["--port", "integer", "--help"]),
    "unknown method": ([*TUNE, "--method", "loar"], ["loar", "lora", "prefix"]),
    "missing data": (
        ["tune", "--base", "starter", "--data", "gone.jsonl", "--name", "x"],
        ["gone.jsonl"],
    ),
    "malformed row": (malformed_data, ["rows.jsonl", "2"]),
    "data without rows": (data_without_rows, ["rows.jsonl"]),
    "name that leaves the folder": (
        ["tune", "--base", "starter", "--data", "starter", "--name", "../x"],
        ["../x"],
    ),
    "unknown base": (["serve", "--base", "no/such/folder"], ["no/such/folder"]),
    "base without weights": (empty_folder, ["empty", "safetensors"]),
    "home inside a file": (home_in_a_file, ["file/home"]),
    "backend is no address": (["ui", "--backend", "nonsense"], ["nonsense"]),
    "unknown model": (["eval", "no-such-model"], ["no-such-model"]),
    "unknown format": (["export", "--format", "xml", "--out", "out"], ["xml", "trl"]),
    "tampered variant": (tampered_variant, ["mine", "adapter_model.safetensors"]),
    "truncated variant": (truncated_variant, ["mine", "adapter_model.safetensors"]),
}


@pytest.mark.slow
@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_is_one_line_with_name_and_value(mistake: str, tmp_path: Path) -> None:
    words, expected = MISTAKES[mistake]
    arguments = words(tmp_path) if callable(words) else words
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    done = run_arena(*arguments, cwd=tmp_path)
    assert done.status in (1, 2), done
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("arena: ")
    for word in expected:
        assert word in lines[0]
    left = {path for path in tmp_path.rglob("*") if path.is_file()} - before
    assert not {path for path in left if "models" in path.parts or path.name == "out"}


@pytest.mark.slow
@pytest.mark.parametrize("command", ["up", "serve"])
def test_port_in_use_is_named(command: str, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ports = ["--port", str(port)] + (["--serve-port", str(free_port())] * (command == "up"))
        done = run_arena(command, *ports, "--home", tmp_path / "home", cwd=tmp_path)
    assert done.status == 1, done
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert str(port) in done.stderr
    assert "--port" in done.stderr, "the remedy"


def test_nothing_given_shows_the_help(tmp_path: Path) -> None:
    done = run_arena(cwd=tmp_path)
    assert done.status == 2
    assert done.stderr.startswith("Usage: arena")
    assert done.stdout == ""
