"""Names of models on the wire: odd ones, taken ones, and two in one request; and who goes on when a
name goes."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import httpx
import openai
import pytest
import serving_models as tiny
from serving_fixtures import tiny_config

from serving.config import name_models
from serving.http.server import ServerThread
from serving.models.names import printable
from serving.models.watcher import Watcher
from tuning.variant import list_variants

ODD = ["模型", "café", 'a "b" 100%', "Ω-lora", "🙂"]
REFUSED = ["two\nlines", "bell\x07", " blank ", "base", "tgi", "dummy"]
ASK = {"inputs": "the river", "parameters": {"max_new_tokens": 6}}


@pytest.fixture(scope="module")
def odd_home(tiny_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("odd")
    for name in (*ODD, *REFUSED):
        shutil.copytree(tiny_home / "lora", home / "models" / name)
    return home


@pytest.fixture(scope="module")
def server(tiny_home: Path, odd_home: Path) -> Iterator[ServerThread]:
    named = name_models(tiny_home / "base", packaged={}, variants=list_variants(odd_home), given=[])
    with ServerThread(tiny_config(tiny_home, models=named, home=odd_home)) as running:
        yield running


@pytest.mark.parametrize("name", ODD)
def test_names_that_are_no_latin_1_are_served(server: ServerThread, name: str) -> None:
    want = httpx.post(f"{server.url}/generate", json={**ASK, "adapter_id": "x"}).json()
    named = {**ASK, "parameters": {"max_new_tokens": 6, "adapter_id": name}}
    for path, body in (("/generate", named), ("/generate_stream", named), ("/tokenize", named),
                       (f"/models/{quote(name)}/generate", ASK)):  # fmt: skip
        reply = httpx.post(server.url + path, json=body)
        assert reply.is_success
        assert reply.headers["x-adapter-id"].isascii()
        assert unquote(reply.headers["x-adapter-id"]) == name
    assert reply.json()["adapter_id"] == name
    assert reply.json()["generated_text"] != want["generated_text"]
    api = openai.OpenAI(base_url=f"{server.url}/v1", api_key="-")
    messages: Any = [{"role": "user", "content": "a"}]
    chunks = api.chat.completions.create(model=name, messages=messages, max_tokens=2, stream=True)
    assert {chunk.model for chunk in chunks} == {name}
    assert api.models.retrieve(name).id == name
    assert httpx.get(f"{server.url}/metrics").is_success


def test_names_that_cannot_be_are_refused_with_the_reason(
    server: ServerThread, odd_home: Path
) -> None:
    info = httpx.get(f"{server.url}/info").json()
    assert set(info["refused"]) == {printable(name) for name in REFUSED}
    assert set(info["adapters"]) == set(ODD)
    for name in ("base", "tgi", "dummy"):
        assert "means the base; choose another name" in info["refused"][name]
    for name in ("two\nlines", "bell\x07", " blank "):
        assert "rename its folder" in info["refused"][printable(name)]
    # The same while the server runs.
    assert server.registry is not None
    watcher = Watcher(server.registry, odd_home)
    late = [odd_home / "models" / name for name in ("模型2", "tab\there")]
    for folder in late:
        shutil.copytree(odd_home / "models" / "模型", folder)
    watcher.poll()
    assert "模型2" in server.registry.names
    assert "rename its folder" in server.registry.refused[printable("tab\there")]
    for folder in late:
        shutil.rmtree(folder)
    watcher.poll()
    assert "模型2" not in server.registry.names
    assert printable("tab\there") not in server.registry.refused


def test_one_model_of_several_is_told(server: ServerThread) -> None:
    every = {model["id"]: model for model in httpx.get(f"{server.url}/v1/models").json()["data"]}
    for name in ("base", "模型", 'a "b" 100%'):
        assert httpx.get(f"{server.url}/v1/models/{quote(name)}").json() == every[name]
    api = openai.OpenAI(base_url=f"{server.url}/v1", api_key="-")
    with pytest.raises(openai.NotFoundError, match="'nobody' is not served here"):
        api.models.retrieve("nobody")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("generate", {**ASK, "parameters": {"adapter_id": "full"}}),
        ("", {**ASK, "parameters": {"adapter_id": "base"}}),
        ("generate_stream", {**ASK, "parameters": {"adapter_id": "nobody"}}),
        ("tokenize", {**ASK, "parameters": {"adapter_id": "full"}}),
        ("v1/completions", {"prompt": "a", "max_tokens": 1, "model": "full"}),
        ("v1/completions", {"prompt": "a", "max_tokens": 1, "model": "base"}),
        ("v1/completions", {"prompt": "a", "max_tokens": 1, "model": "http://a/models/full"}),
        ("v1/completions", {"prompt": "a", "max_tokens": 1, "model": "http://[/models/lora"}),
        ("v1/chat/completions", {"messages": [{"role": "user", "content": "a"}], "model": "full"}),
        ("v1/completions", {"prompt": "a", "max_tokens": 1, "adapter_id": "prefix"}),
        ("chat_tokenize", {"messages": [{"role": "user", "content": "a"}], "adapter_id": "full"}),
    ],
)
def test_a_url_and_a_body_that_name_two_models_are_refused(
    tiny_server: ServerThread, path: str, body: dict[str, Any]
) -> None:
    reply = httpx.post(f"{tiny_server.url}/models/lora/{path}".rstrip("/"), json=body)
    assert reply.status_code == 422
    assert "differs from 'lora' in the URL" in reply.json()["error"]


@pytest.mark.parametrize(
    "named",
    ["lora", "", "tgi", "dummy", None, "http://a:1/models/lora", "http://a/p/models/lora/v1/"],
)
def test_a_body_may_repeat_the_url(tiny_server: ServerThread, named: str | None) -> None:
    url = f"{tiny_server.url}/models/lora"
    text = {"prompt": "a", "max_tokens": 1, "model": named}
    assert httpx.post(f"{url}/v1/completions", json=text).json()["model"] == "lora"
    ask = {"inputs": "a", "parameters": {"max_new_tokens": 1, "adapter_id": named}}
    assert httpx.post(f"{url}/generate", json=ask).json()["adapter_id"] == "lora"


@pytest.mark.parametrize("how", ["unload", "replace", "unload twice"])
def test_streams_of_a_checkpoint_that_is_unloaded_finish(
    tiny_home: Path, tmp_path: Path, how: str
) -> None:
    count = 60
    with ServerThread(tiny_config(tiny_home, models=())) as server:
        assert server.registry is not None
        registry = server.registry
        model = registry.load("full", tiny_home / "full")
        object.__setattr__(model, "eos_ids", frozenset())
        paused, step = threading.Event(), model.engine.step

        def step_unless_paused() -> Any:
            if not paused.is_set():
                return step()
            time.sleep(0.002)
            return None

        model.engine.step = step_unless_paused  # type: ignore[method-assign]
        streams: list[list[dict[str, Any]]] = [[] for _ in range(3)]

        def read(events: list[dict[str, Any]], ending: int) -> None:
            parameters = {"max_new_tokens": count, "adapter_id": "full"}
            body = {"inputs": f"the river {ending}", "parameters": parameters}
            with httpx.stream(
                "POST", f"{server.url}/generate_stream", json=body, timeout=60
            ) as reply:
                for line in reply.iter_lines():
                    if line.startswith("data: "):
                        events.append(json.loads(line[6:]))

        readers = [
            threading.Thread(target=read, args=(events, i)) for i, events in enumerate(streams)
        ]
        for reader in readers:
            reader.start()
        deadline = time.monotonic() + 20
        while not all(len(events) > 2 for events in streams) and time.monotonic() < deadline:
            time.sleep(0.002)
        paused.set()
        if how == "replace":
            registry.load("full", tiny_home / "full", replace=True)
        else:
            registry.unload("full")
        running = [len(events) for events in streams]
        if how == "unload twice":
            registry.load("full", tiny_home / "full")
            registry.unload("full")
        paused.clear()
        for reader in readers:
            reader.join(60)
        assert min(running) < count
        truth = tiny.reference_model(tiny_home / "full", None)
        for i, events in enumerate(streams):
            got = [event["token"]["id"] for event in events]
            assert len(got) == count
            assert events[-1]["generated_text"] is not None
            ids = tuple(tiny.make_tokenizer()(f"the river {i}")["input_ids"])
            assert got[:30] == greedy_without_end(truth, ids, 30)
        # Done with its rows, the old engine is gone; a request that was taken before still runs.
        deadline = time.monotonic() + 20
        alive = 2 if how == "replace" else 1
        while len(registry.worker._engines) > alive and time.monotonic() < deadline:
            time.sleep(0.01)
        assert len(registry.worker._engines) == alive


def greedy_without_end(model: Any, ids: tuple[int, ...], count: int) -> list[int]:
    """Greedy tokens that go on after the end token."""
    import torch

    tokens = list(ids)
    with torch.inference_mode():
        for _ in range(count):
            tokens.append(int(model(torch.tensor([tokens])).logits[0, -1].argmax()))
    return tokens[len(ids) :]


def test_a_chat_that_asks_twice_finishes_though_its_lora_is_unloaded(tiny_home: Path) -> None:
    """The model decides for no tool, and is asked for text after its name is gone."""
    tool = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
    ask: dict[str, Any] = {"model": "late", "tools": [tool], "max_tokens": 20}
    ask["messages"] = [{"role": "user", "content": "the river"}]
    with ServerThread(tiny_config(tiny_home, models=())) as server:
        assert server.registry is not None
        registry = server.registry
        model = registry.load("late", tiny_home / "lora")

        def chat(seed: int) -> httpx.Response:
            url = f"{server.url}/v1/chat/completions"
            return httpx.post(url, json={**ask, "seed": seed}, timeout=60)

        texts = {}
        while not any(texts.values()):
            told = chat(len(texts)).json()["choices"][0]["message"]
            texts[len(texts)] = told.get("content")
        go_on, steps, step = threading.Event(), [0], model.engine.step

        def three_steps_first() -> Any:
            if go_on.is_set():
                return step()
            if steps[0] < 3:
                steps[0] += 1
                return step()
            time.sleep(0.002)
            return None

        model.engine.step = three_steps_first  # type: ignore[method-assign]
        with ThreadPoolExecutor(1) as pool:
            seed = max(texts)
            asked = pool.submit(chat, seed)
            deadline = time.monotonic() + 20
            while steps[0] < 3 and time.monotonic() < deadline:
                time.sleep(0.002)
            registry.unload("late")
            go_on.set()
            reply = asked.result(60)
        assert reply.status_code == 200, reply.text
        assert reply.json()["choices"][0]["message"]["content"] == texts[seed]
        assert chat(seed).status_code == 404
        # Nothing holds it any more: the next change frees its place.
        registry.load("next", tiny_home / "lora")
        assert len(model.engine.adapters.adapters) == 1
