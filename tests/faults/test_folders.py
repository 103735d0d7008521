"""Whatever lies under home's models: it is refused with its reason, and all else is served."""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from pathlib import Path
from urllib.parse import quote

import folders
import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from serving_fixtures import tiny_config

from serving.config import name_models
from serving.errors import ServingError
from serving.http.server import ServerThread
from serving.models.registry import Registry
from serving.models.watcher import Watcher
from tuning.variant import VariantError, list_variants

KINDS = {"lora": folders.LORA, "prefix": folders.PREFIX, "full": folders.FULL}


def spoilt(tiny_home: Path, kind: str, target: Path, spoil: folders.Spoil) -> Path:
    shutil.copytree(tiny_home / kind, target)
    (target / "variant.json").unlink()
    spoil(target)
    return target


@pytest.fixture(scope="module")
def broken_home(tiny_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with all of them, and a good one at each end of the alphabet."""
    home = tmp_path_factory.mktemp("broken")
    for kind, cases in KINDS.items():
        for case, spoil in cases.items():
            spoilt(tiny_home, kind, home / "models" / f"{kind} {case}", spoil)
    for name in ("a good one", "ζ good too"):
        shutil.copytree(tiny_home / "lora", home / "models" / name)
    return home


def config_of(tiny_home: Path, home: Path) -> object:
    named = name_models(tiny_home / "base", packaged={}, variants=list_variants(home), given=[])
    return tiny_config(tiny_home, models=named, home=home)


@pytest.mark.slow
def test_each_is_refused_with_its_reason_while_all_else_is_served(
    tiny_home: Path, broken_home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = {f"{kind} {case}" for kind, cases in KINDS.items() for case in cases}
    assert len(names) >= 40
    with (
        caplog.at_level(logging.WARNING, "serving"),
        ServerThread(config_of(tiny_home, broken_home)) as server,  # type: ignore[arg-type]
    ):
        info = httpx.get(f"{server.url}/info", timeout=60).json()
        assert set(info["refused"]) == names
        assert info["adapters"] == ["a good one", "ζ good too"]
        for name, reason in info["refused"].items():
            assert 20 < len(reason) < 800, (name, reason)
            assert "\n" not in reason
            assert str(broken_home) not in reason
            assert f"model {name} is not served: " in caplog.text
        assert "Traceback" not in caplog.text
        for name in info["adapters"]:
            body = {"inputs": "the river", "parameters": {"adapter_id": name, "max_new_tokens": 3}}
            answer = httpx.post(f"{server.url}/generate", json=body, timeout=60)
            assert answer.status_code == 200
            assert answer.headers["x-adapter-id"].isascii()
        listed = httpx.get(f"{server.url}/v1/models", timeout=60).json()["data"]
        assert not any("/" in model["root"] for model in listed)


@pytest.mark.slow
def test_the_watcher_goes_on_past_each_of_them(tiny_home: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / "models").mkdir(parents=True)
    with Registry(tiny_config(tiny_home, models=(), home=home)) as registry:
        watcher = Watcher(registry, home)
        for case in ("weights are a pipe", "seal is deep", "template takes for ever"):
            spoilt(tiny_home, "lora", home / "models" / case, folders.LORA[case])
        spoilt(tiny_home, "lora", home / "models" / "tgi", lambda folder: None)
        shutil.copytree(tiny_home / "lora", home / "models" / "zz")
        watcher.poll()
        assert registry.names == ["base", "zz"]
        assert len(registry.refused) == 4
        assert "means the base" in registry.refused["tgi"]
        shutil.rmtree(home / "models" / "seal is deep")
        watcher.poll()
        assert len(registry.refused) == 3


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"line\nbreak", "line\\nbreak"),
        (b"\x1b[31mred", "\\x1b[31mred"),
        (b"bytes\xff", "bytes\\udcff"),
        ("turned\u202eround".encode(), "turned\\u202eround"),
    ],
)
def test_names_that_cannot_be_shown_are_refused_as_they_can_be(
    tiny_home: Path, tmp_path: Path, name: bytes, shown: str, caplog: pytest.LogCaptureFixture
) -> None:
    models = tmp_path / "models"
    models.mkdir()
    shutil.copytree(tiny_home / "lora", models / os.fsdecode(name))
    with ServerThread(config_of(tiny_home, tmp_path)) as server:  # type: ignore[arg-type]
        info = httpx.get(f"{server.url}/info", timeout=60).json()
        assert list(info["refused"]) == [shown]
        assert "has characters that cannot be shown" in info["refused"][shown]
        assert info["adapters"] == []
        assert shown in caplog.text
        assert httpx.get(f"{server.url}/metrics", timeout=60).status_code == 200


@pytest.mark.parametrize("name", ["größe", "模型", "🙂 smile", "a b%c&d=e#f?g"])
def test_names_of_any_script_are_served_encoded(tiny_home: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "models").mkdir()
    shutil.copytree(tiny_home / "lora", tmp_path / "models" / name)
    with ServerThread(config_of(tiny_home, tmp_path)) as server:  # type: ignore[arg-type]
        body = {"prompt": "the", "model": name, "max_tokens": 2}
        answer = httpx.post(f"{server.url}/v1/completions", json=body, timeout=60)
        assert answer.status_code == 200, answer.text
        assert answer.json()["model"] == name
        own = f"{server.url}/models/{quote(name)}/health"
        assert httpx.get(own, timeout=60).status_code == 200
        for path in ("info", "v1/models", "metrics"):
            assert httpx.get(f"{server.url}/{path}", timeout=60).status_code == 200


@pytest.fixture(scope="module")
def running(tiny_home: Path) -> object:
    with Registry(tiny_config(tiny_home, models=(("good", tiny_home / "lora"),))) as registry:
        yield registry


plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
values = (
    plain | st.lists(plain, max_size=2) | st.dictionaries(st.text(max_size=5), plain, max_size=2)
)
ADAPTER_KEYS = (
    "peft_type", "lora_alpha", "alpha_pattern", "use_rslora", "use_dora", "modules_to_save", "bias",
    "init_lora_weights", "base_model_name_or_path", "target_parameters", "fan_in_fan_out", "r",
    "target_modules", "rank_pattern", "task_type",
)  # fmt: skip


@pytest.mark.slow
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(changes=st.dictionaries(st.sampled_from(ADAPTER_KEYS), values, min_size=1, max_size=3))
def test_any_settings_of_an_adapter_are_served_or_refused(
    running: Registry, tiny_home: Path, tmp_path: Path, changes: dict[str, object]
) -> None:
    folder = tmp_path / f"any-{time.monotonic_ns()}"
    spoilt(tiny_home, "lora", folder, folders.change(folders.ADAPTER, **changes))
    try:
        running.load("any", folder)
    except (ServingError, VariantError):
        pass
    else:
        running.unload("any")
    assert running.names == ["base", "good"]


@pytest.mark.slow
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    data=st.binary(max_size=300) | st.text(max_size=50).map(lambda t: json.dumps({t: t}).encode()),
    name=st.sampled_from([
        folders.ADAPTER, folders.WEIGHTS, "variant.json", "tokenizer.json", "tokenizer_config.json",
        "chat_template.jinja", "generation_config.json",
    ]),
)  # fmt: skip
def test_any_bytes_in_any_file_are_served_or_refused(
    running: Registry, tiny_home: Path, tmp_path: Path, data: bytes, name: str
) -> None:
    folder = tmp_path / f"any-{time.monotonic_ns()}"
    spoilt(tiny_home, "lora", folder, folders.write(name, data))
    try:
        running.load("any", folder)
    except (ServingError, VariantError):
        pass
    else:
        running.unload("any")
    assert running.names == ["base", "good"]
