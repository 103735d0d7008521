"""`arena deploy`: what each engine gets is whole, says what the folders say, and names what is not.

The engines' own parsers run in `make engines`; here a script's words are those that a program of
the engine's name is started with, YAML is read again, and the models are loaded.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import serving_models as tiny
import yaml
from serving_fixtures import tiny_home
from transformers import AutoTokenizer
from typer.testing import CliRunner

from arena.cli import app
from arena.commands.deploy import DeployError
from serving.deploy.kserve import kserve_bundle
from serving.deploy.page import participants
from serving.deploy.placement import place
from serving.deploy.ray_serve import ray_bundle
from serving.deploy.scripts import sglang_bundle
from serving.errors import ServingError
from tuning.variant import Base, weights_sha256
from tuning.variant.manifest import seal_variant

__all__ = ["tiny_home"]


def deployed(target: str, home: Path, out: Path, *more: str) -> dict[str, Any]:
    """What `arena deploy` prints of the tiny base and all its variants."""
    words = ["deploy", target, "--base", str(home / "base"), "--home", str(home.parent)]
    done = CliRunner().invoke(app, [*words, "--out", str(out), "--json", *more])
    if done.exception is not None:
        raise done.exception
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def words_of(script: Path, program: str, place: Path, count: int) -> list[list[str]]:
    """What the script starts `program` with, so many times: one that writes its words down
    stands in, and ends when all have.
    """
    place.mkdir()
    (place / program).write_text(
        "#!/usr/bin/env python3\nimport json, os, pathlib, sys, time\n"
        "if sys.argv[1:2] != ['-c']:\n"
        f"    place = pathlib.Path({str(place)!r})\n"
        "    said = place / f'{os.getpid()}.part'\n"
        "    said.write_text(json.dumps(sys.argv[1:]))\n"
        "    said.rename(said.with_suffix('.said'))\n"
        f"    while len(list(place.glob('*.said'))) < {count}: time.sleep(0.05)\n"
    )
    (place / program).chmod(0o755)
    path = f"{place}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(["bash", "-n", str(script)], check=True)
    subprocess.run(["bash", str(script), "--max-model-len", "64"], check=True, cwd="/",
                   env={**os.environ, "PATH": path, "PORT": "9000"}, timeout=60)  # fmt: skip
    said = [json.loads(path.read_text()) for path in place.glob("*.said")]
    return sorted(said, key=lambda words: words[words.index("--port") + 1])


def option(words: list[str], name: str) -> str:
    return words[words.index(name) + 1]


@pytest.mark.slow
def test_vllm_gets_base_lora_and_checkpoint_and_is_told_what_is_missing(
    tiny_home: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    done = deployed("vllm", tiny_home, out)
    assert [one["name"] for one in done["models"]] == ["base", "lora", "full"]
    assert list(done["left_out"]) == ["prefix"]
    assert "arena serve" in done["left_out"]["prefix"]
    hashes = {one["name"]: one["weights_sha256"] for one in done["models"]}
    assert hashes == {name: weights_sha256(tiny_home / name) for name in hashes}

    first, second = words_of(out / "serve.sh", "vllm", tmp_path / "bin", 2)
    assert (option(first, "--served-model-name"), option(first, "--port")) == ("base", "9000")
    assert (option(second, "--served-model-name"), option(second, "--port")) == ("full", "9001")
    rank = json.loads((tiny_home / "lora" / "adapter_config.json").read_text())["r"]
    assert 512 >= int(option(first, "--max-lora-rank")) >= rank
    module = json.loads(option(first, "--lora-modules"))
    assert (module["name"], option(first, "--max-model-len")) == ("lora", "64")
    assert weights_sha256(out / module["path"]) == hashes["lora"]
    assert "--enable-lora" not in second

    for words, name in ((first, "base"), (second, "full")):
        assert weights_sha256(out / words[1]) == hashes[name]
    base = AutoTokenizer.from_pretrained(out / first[1])
    own = AutoTokenizer.from_pretrained(tiny_home / "lora")
    asked = [{"role": "user", "content": "the river"}]
    assert base.apply_chat_template(asked, tokenize=False) == own.apply_chat_template(
        asked, tokenize=False
    )
    tables = tomllib.loads((out / "arena.toml").read_text())["participant"]
    assert [(one["name"], one.get("mode")) for one in tables] == [
        ("base", "completion"), ("lora", None), ("full", None),
    ]  # fmt: skip
    assert "prefix" in (out / "README.md").read_text()
    with pytest.raises(DeployError, match="exists"):
        deployed("vllm", tiny_home, out)


@pytest.mark.slow
def test_the_script_says_what_to_install(tiny_home: Path, tmp_path: Path) -> None:
    deployed("sglang", tiny_home, tmp_path / "out", str(tiny_home / "lora"))
    (tmp_path / "none").mkdir()
    done = subprocess.run(
        ["/bin/bash", str(tmp_path / "out" / "serve.sh")],
        env={"PATH": str(tmp_path / "none") + ":/bin"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("missing: pip install")
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_stores_hold_what_the_config_files_name(tiny_home: Path, tmp_path: Path) -> None:
    """Each address below --uri is a folder below --out."""
    uri = "s3://bucket/arena"
    for target in ("ray", "kserve"):
        out = tmp_path / target
        done = deployed(target, tiny_home, out, "--uri", uri + "/")
        texts = [(out / name).read_text() for name in done["files"] if name.endswith(".yaml")]
        named = [word for word in "\n".join(texts).split() if word.startswith(uri)]
        assert len(named) == 3
        assert all((out / word.removeprefix(f"{uri}/")).is_dir() for word in named)
    ray = yaml.safe_load((tmp_path / "ray" / "serve_config.yaml").read_text())
    lora, full = ray["applications"][0]["args"]["llm_configs"]
    most = lora["lora_config"]["max_num_adapters_per_replica"]
    assert most == lora["engine_kwargs"]["max_loras"] == 1
    assert "lora_config" not in full
    services = list(yaml.safe_load_all((tmp_path / "kserve" / "kserve.yaml").read_text()))
    assert [one["spec"]["model"]["name"] for one in services] == ["base", "full"]
    (adapter,) = services[0]["spec"]["model"]["lora"]["adapters"]
    assert adapter["name"] == "lora"


def test_what_no_such_engine_serves_is_left_out_with_its_reason(
    tiny_home: Path, tmp_path: Path
) -> None:
    origin = Base("base", None, weights_sha256(tiny_home / "base"))
    made = {}
    for name, kind in (("dora", "dora"), ("ia3", "ia3"), ("stranger", "lora"), ("odd", "lora")):
        folder = tiny.save_adapter("llama", tiny_home / "base", tmp_path / name, kind)
        tiny.save_tokenizer(folder, tiny.TEMPLATE + ("{{ 'x' }}" if name == "odd" else ""))
        base = Base("other", None, "0" * 64) if name == "stranger" else origin
        seal_variant(folder, name=name, kind=kind, base=base)
        made[name] = folder
    patterned = tiny.save_adapter("llama", tiny_home / "base", tmp_path / "patterned", "lora")
    settings = json.loads((patterned / "adapter_config.json").read_text())
    settings["alpha_pattern"] = {"q_proj": 3}
    (patterned / "adapter_config.json").write_text(json.dumps(settings))
    seal_variant(patterned, name="patterned", kind="lora", base=origin)
    (tmp_path / "empty").mkdir()
    models = [*made.items(), ("patterned", patterned), ("empty", tmp_path / "empty")]
    more = [(name, tiny_home / name) for name in ("lora", "full", "prefix")]
    found = place(("base", tiny_home / "base"), [*more, *models])
    assert [one.name for one in found.models] == ["base", "lora", "full"]
    reasons = {
        "dora": "arena models merge dora", "ia3": "arena models merge ia3", "prefix": "arena serve",
        "stranger": "tuned from 'other'", "odd": "another chat template",
        "patterned": "alpha_pattern", "empty": "config.json",
    }  # fmt: skip
    assert set(found.left_out) == set(reasons)
    assert all(word in found.left_out[name] for name, word in reasons.items())
    with pytest.raises(ServingError, match="whole checkpoint"):
        place(("prefix", tiny_home / "prefix"), [])


def test_any_name_is_quoted_or_labelled(tiny_home: Path, tmp_path: Path) -> None:
    odd = ["$(touch x)", "a b=c", "ü'\"", "A B=c"]
    for name in odd:
        (tmp_path / name).symlink_to(tiny_home / "lora")
    found = place(("base", tiny_home / "base"), [(name, tmp_path / name) for name in odd])
    assert [one.name for one in found.adapters] == odd
    bundle = sglang_bundle(found)
    tables = tomllib.loads(participants(bundle.models))["participant"]
    assert [one["name"] for one in tables] == ["base", *odd]
    (service,) = yaml.safe_load_all(kserve_bundle(found, "pvc://c/p").files["kserve.yaml"])
    uris = [one["uri"] for one in service["spec"]["model"]["lora"]["adapters"]]
    assert len(set(uris)) == len(odd)
    assert all(uri.removeprefix("pvc://c/p/").replace("/", "").replace("-", "").isalnum()
               for uri in uris)  # fmt: skip
    with pytest.raises(ServingError, match="--uri"):
        ray_bundle(found, "/home/me")


@pytest.mark.slow
def test_ollama_gets_a_model_a_folder(tiny_home: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    odd = [tmp_path / name for name in ("LORA", "so $(odd)")]
    for folder in odd:
        shutil.copytree(tiny_home / "lora", folder)
    names = [str(folder) for folder in (*map(tiny_home.joinpath, ("lora", "prefix")), *odd)]
    done = deployed("ollama", tiny_home, out, "--type", "f16", *names)
    left_out = done["left_out"]
    assert {one["name"] for one in done["models"]} | set(left_out) == {
        "base", "lora", "prefix", "LORA", "so $(odd)",
    }  # fmt: skip
    assert "prefix" in left_out
    assert "name of lora there" in left_out["LORA"], "the one would overwrite the other"
    assert "Ollama takes letters" in left_out["so $(odd)"]
    for one in done["models"]:
        assert (out / one["name"] / "Modelfile").read_text().startswith("FROM ./")
        assert f"./{one['name']}/Modelfile" in (out / "create.sh").read_text()
    subprocess.run(["bash", "-n", str(out / "create.sh")], check=True)
