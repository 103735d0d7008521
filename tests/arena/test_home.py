"""Home where nobody names one: the checkout's workspace, one that is there, or the data folder."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from arena.commands import options
from arena.config.home import data_folder, usual_home
from tuning.config_files import load_config


def test_a_workspace_that_is_there_wins_and_a_wheel_alone_takes_the_data_folder(
    tmp_path: Path,
) -> None:
    checkout, wheel = tmp_path / "checkout", tmp_path / "site-packages"
    checkout.mkdir()
    (checkout / "pyproject.toml").touch()
    given = {"HOME": "/home/ada", "XDG_DATA_HOME": "relative"}
    assert usual_home(tmp_path, checkout / "arena", given) == Path("workspace")
    expected = Path("/home/ada/.local/share/instruct-arena")
    assert usual_home(tmp_path, wheel / "arena", given) == expected
    (tmp_path / "workspace").mkdir()
    assert usual_home(tmp_path, wheel / "arena", given) == Path("workspace")


def test_data_folder_is_where_each_system_keeps_data() -> None:
    user = Path("/home/ada")
    assert data_folder({"HOME": str(user), "XDG_DATA_HOME": "/srv/data"}) == Path("/srv/data")
    support = user / "Library" / "Application Support"
    assert data_folder({"HOME": str(user)}, "darwin") == support
    assert data_folder({"LOCALAPPDATA": "/appdata"}, "win32") == Path("/appdata")


def test_a_command_says_where_home_is_unless_it_was_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(options, "usual_home", lambda: tmp_path)
    app = typer.Typer()

    @app.command()
    def show(home: options.Home = options.DEFAULT_HOME) -> None:
        print(f"in {home}")

    told = CliRunner().invoke(app, [], env={"ARENA_HOME": None})
    assert told.stderr == f"arena: home is {tmp_path} (--home names another)\n"
    assert told.stdout == f"in {tmp_path}\n"
    for words, variables in ((["--home", "x"], {"ARENA_HOME": None}), ([], {"ARENA_HOME": "x"})):
        quiet = CliRunner().invoke(app, words, env=variables)
        assert (quiet.stderr, quiet.stdout) == ("", "in x\n")


def test_a_run_takes_the_home_of_its_config_file_before_the_usual_one(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    given = {"base": "starter", "data": "starter", "name": "mine"}
    file.write_text("seed: 1\n")
    assert load_config(file, given, tmp_path).home == tmp_path
    file.write_text("home: elsewhere\n")
    assert load_config(file, given, tmp_path).home == Path("elsewhere")
    assert load_config(file, {**given, "home": "here"}, tmp_path).home == Path("here")
