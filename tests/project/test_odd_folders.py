"""The command itself starts whatever lies under home, and says what it leaves out."""

from __future__ import annotations

import shutil
from pathlib import Path

import httpx2
import pytest
from running import arena_up, environment_with_tree

from tuning.models.resolve import resolve_base
from tuning.starter import shipped_models


def test_an_adapter_of_a_packaged_name_is_no_base(tmp_path: Path) -> None:
    """A checkpoint of that name is, and any other folder is where a base has none of it."""
    shipped = shipped_models()
    for name in ("starter", "other"):
        shutil.copytree(shipped["starter-lora"], tmp_path / "models" / name)
    assert resolve_base("starter", tmp_path) == shipped["starter"]
    assert resolve_base("starter", tmp_path, what="model") == tmp_path / "models" / "starter"
    assert resolve_base("other", tmp_path) == tmp_path / "models" / "other"
    shutil.rmtree(tmp_path / "models" / "starter")
    (tmp_path / "models" / "starter").mkdir()
    assert resolve_base("starter", tmp_path) == shipped["starter"]
    shutil.copy(shipped["starter"] / "config.json", tmp_path / "models" / "starter")
    assert resolve_base("starter", tmp_path) == tmp_path / "models" / "starter"


@pytest.mark.slow
def test_no_folder_stops_the_start(tmp_path: Path) -> None:
    models = tmp_path / "home" / "models"
    for name in ("starter", "tgi", "模型", "two\nlines"):
        shutil.copytree(shipped_models()["starter-lora"], models / name)
    (models / "empty").mkdir()
    (models / "cut").mkdir()
    (models / "cut" / "variant.json").write_text("{")
    with arena_up("--home", "home", cwd=tmp_path, environment=environment_with_tree()) as running:
        info = httpx2.get(f"{running.serve_url}/info", trust_env=False).json()
        listed = httpx2.get(f"{running.serve_url}/v1/models", trust_env=False).json()["data"]
    names = {model["id"] for model in listed}
    assert {*shipped_models(), "模型"} <= names
    assert {"starter", "tgi", "cut"} <= info["refused"].keys()
    assert all(info["refused"].values())
    assert "means the base; choose another name" in info["refused"]["starter"]
