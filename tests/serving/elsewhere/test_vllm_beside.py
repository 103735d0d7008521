"""A vLLM beside our own engine: who answers what, by which weights, also when one of both goes.

Only the process of vLLM is stood in for; `make engines` runs the real one.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest
import serving_models as tiny
from serving_fixtures import tiny_config, tiny_home

from serving.elsewhere.vllm_process import read_config
from serving.errors import ServingError
from serving.http.server import ServerThread
from tuning.variant import Base, weights_sha256
from tuning.variant.manifest import seal_variant

__all__ = ["tiny_home"]
pytestmark = pytest.mark.slow
MESSAGES = [{"role": "user", "content": "the river"}]


@dataclass
class Beside:
    """A server with the stand-in beside it, and what that was started with and asked."""

    server: ServerThread
    home: Path
    folder: Path
    client: httpx2.Client

    def lines(self, name: str) -> list[Any]:
        path = self.folder / name
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def chat(self, model: str, **more: Any) -> httpx2.Response:
        body = {"model": model, "messages": MESSAGES, "max_tokens": 3, **more}
        return self.client.post("/v1/chat/completions", json=body)

    def is_outside(self, model: str) -> bool:
        return bool(self.chat(model).json()["choices"][0]["message"]["content"] == "from vllm")


def until(what: Callable[[], bool], seconds: float = 200) -> None:
    limit = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < limit
        time.sleep(0.1)


@pytest.fixture
def beside(tiny_home: Path, tmp_path: Path) -> Iterator[Beside]:
    home = tmp_path / "home"
    shutil.copytree(tiny_home, home / "models")
    program, folder = tmp_path / "vllm", tmp_path / "seen"
    folder.mkdir()
    script = Path(tiny.__file__).with_name("vllm_stand_in.py")
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{script}" "{folder}" "$@"\n')
    program.chmod(0o755)
    vllm = read_config(str(program), "--dtype 'bfloat16'")
    config = tiny_config(home / "models", home=home)
    with (
        ServerThread(config, vllm) as server,
        httpx2.Client(base_url=server.url, trust_env=False, timeout=200) as client,
    ):
        found = Beside(server, home, folder, client)
        until(lambda: found.is_outside("lora"))
        yield found


def test_each_model_is_answered_by_who_has_it(beside: Beside) -> None:
    ((_, words),) = beside.lines("started.jsonl")
    assert words[-2:] == ["--dtype", "bfloat16"]
    sha = {name: weights_sha256(beside.home / "models" / name) for name in ("base", "lora")}

    reply = beside.chat("lora", user="me")
    assert reply.headers["x-weights-sha256"] == sha["lora"]
    assert (reply.json()["model"], reply.json()["weights_sha256"]) == ("lora", sha["lora"])
    path, body = beside.lines("asked.jsonl")[-1]
    assert (path, body["model"]) == ("/v1/chat/completions", f"lora@{sha['lora']}")
    assert body["chat_template"] == tiny.TEMPLATE
    assert "user" not in body
    assert body["messages"] == MESSAGES

    text = beside.client.post("/v1/completions", json={"model": "base", "prompt": "the"})
    assert text.json()["choices"][0]["text"] == "from vllm"
    path, body = beside.lines("asked.jsonl")[-1]
    assert (path, body["model"], body["prompt"]) == ("/v1/completions", "base", "the")
    assert body["max_tokens"] > 16  # the room, as our own engine takes it, not vLLM's sixteen

    with beside.client.stream("POST", "/models/lora/v1/chat/completions",
                              json={"messages": MESSAGES, "stream": True}) as events:  # fmt: skip
        data = [line.removeprefix("data: ") for line in events.iter_lines() if line]
    chunks = [json.loads(one) for one in data[:-1]]
    assert data[-1] == "[DONE]"
    assert {(one["model"], one["weights_sha256"]) for one in chunks} == {("lora", sha["lora"])}

    count = len(beside.lines("asked.jsonl"))
    for name in ("prefix", "full"):
        own = beside.chat(name)
        assert own.status_code == 200
        assert own.headers["x-weights-sha256"] == weights_sha256(beside.home / "models" / name)
    schema = {"type": "json_object", "value": {"type": "object"}}
    beside.chat("lora", response_format=schema)
    beside.client.post("/generate", json={"inputs": "the", "parameters": {"adapter_id": "lora"}})
    assert beside.chat("base").status_code == 422  # it has no template, there as here
    assert beside.chat("nobody").status_code == 404
    assert len(beside.lines("asked.jsonl")) == count
    assert beside.client.get("/info").status_code == 404  # a page asks by /v1 then
    names = [one["id"] for one in beside.client.get("/v1/models").json()["data"]]
    assert names == ["base", "full", "lora", "prefix"]


def test_it_follows_the_folder(beside: Beside) -> None:
    models = beside.home / "models"
    base = models / "base"
    origin = Base("base", None, weights_sha256(base))

    def publish(name: str, seed: int) -> str:
        made = tiny.save_adapter("llama", base, beside.home / f".{name}", "lora", seed=seed)
        tiny.save_tokenizer(made, tiny.TEMPLATE)
        sealed = seal_variant(made, name=name, kind="lora", base=origin)
        if (models / name).exists():
            (models / name).rename(beside.home / f".old-{name}")
        made.rename(models / name)
        return sealed.weights_sha256

    sha = publish("later", 7)
    until(lambda: beside.chat("later").status_code == 200)
    until(lambda: beside.is_outside("later"))
    assert beside.chat("later").json()["weights_sha256"] == sha

    newer = publish("lora", 8)
    until(lambda: beside.chat("lora").headers["x-weights-sha256"] == newer)
    until(lambda: beside.is_outside("lora"))
    _, body = beside.lines("asked.jsonl")[-1]
    assert body["model"] == f"lora@{newer}"

    (beside.folder / "refuse").touch()
    publish("unwanted", 9)
    until(lambda: beside.chat("unwanted").status_code == 200)
    time.sleep(1.5)
    assert not beside.is_outside("unwanted")

    shutil.rmtree(models / "later")
    until(lambda: beside.chat("later").status_code == 404)
    until(lambda: ["/v1/unload_lora_adapter", {"lora_name": f"later@{sha}"}]
          in beside.lines("asked.jsonl"))  # fmt: skip


def test_our_own_engine_answers_while_vllm_is_away_and_it_is_started_again(beside: Beside) -> None:
    ((pid, _),) = beside.lines("started.jsonl")
    os.kill(pid, signal.SIGKILL)
    own = beside.chat("lora")
    assert own.status_code == 200
    assert own.headers["x-weights-sha256"] == weights_sha256(beside.home / "models" / "lora")
    until(lambda: len(beside.lines("started.jsonl")) == 2)
    until(lambda: beside.is_outside("lora"))
    second, _ = beside.lines("started.jsonl")[-1]
    beside.server.stop()
    until(lambda: not psutil.pid_exists(second))


def test_without_vllm_one_sentence_says_how_to_get_it() -> None:
    with pytest.raises(ServingError, match=r"pip install vllm.*--vllm") as found:
        read_config("/nowhere/vllm")
    assert "\n" not in str(found.value)
    with pytest.raises(ServingError, match="quote"):
        read_config("sh", "--a 'b")
