"""Several bases in one server, models with a slash in their names, unusual tokenizers and kinds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import serving_models as tiny
import transformers
from huggingface_hub import AsyncInferenceClient
from serving_fixtures import tiny_config
from tokenizers import processors
from transformers import AutoTokenizer, ByT5Tokenizer

from serving.http.app import create_app
from serving.http.server import ServerThread
from serving.models.registry import Registry
from serving.models.watcher import Watcher
from tuning.variant import Base, weights_sha256
from tuning.variant.manifest import seal_variant

PROMPT = "the river sings under"
COUNT = 10
OTHER = "somebody/other"


@pytest.fixture(autouse=True)
def hub_clients_may_ask_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Offline mode would stop the hub client before it reaches this machine."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)


@pytest.fixture(scope="module")
def other_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GPT-2 as a second base, with a LoRA and a prefix of its own."""
    home = tmp_path_factory.mktemp("other")
    tiny.save_checkpoint("gpt2", home / "base")
    origin = Base(OTHER, None, weights_sha256(home / "base"))
    for kind in ("lora", "prefix"):
        tiny.save_adapter("gpt2", home / "base", home / kind, kind)
        tiny.save_tokenizer(home / kind, tiny.TEMPLATE)
        seal_variant(home / kind, name=f"other-{kind}", kind=kind, base=origin)
    return home


@pytest.fixture(scope="module")
def server(tiny_home: Path, other_home: Path) -> Iterator[ServerThread]:
    """Two bases of different architectures, adapters on each, a full checkpoint beside them."""
    models = (
        (OTHER, other_home / "base"),
        *((f"other-{kind}", other_home / kind) for kind in ("lora", "prefix")),
        *((name, tiny_home / name) for name in ("full", "lora", "prefix")),
    )
    with ServerThread(tiny_config(tiny_home, models=models)) as running:
        yield running


def ids_of(text: str) -> tuple[int, ...]:
    return tuple(tiny.make_tokenizer()(text)["input_ids"])


def expected(tiny_home: Path, other_home: Path) -> dict[str, str]:
    """The greedy answer of each model, by transformers and PEFT."""
    asked = ids_of(PROMPT)
    where = {
        "base": (tiny_home / "base", None), "full": (tiny_home / "full", None),
        "lora": (tiny_home / "base", tiny_home / "lora"),
        "prefix": (tiny_home / "base", tiny_home / "prefix"), OTHER: (other_home / "base", None),
        "other-lora": (other_home / "base", other_home / "lora"),
        "other-prefix": (other_home / "base", other_home / "prefix"),
    }  # fmt: skip
    return {
        name: tiny.texts(tiny.generate(base, adapter, asked, COUNT))
        for name, (base, adapter) in where.items()
    }


def test_adapters_of_two_bases_answer_at_once(
    server: ServerThread, tiny_home: Path, other_home: Path
) -> None:
    want = expected(tiny_home, other_home)
    assert len(set(want.values())) == len(want)
    listed = httpx.get(f"{server.url}/v1/models").json()["data"]
    parents = {entry["id"]: entry["parent"] for entry in listed}
    assert parents == {
        "base": None, "full": None, OTHER: None, "lora": "base", "prefix": "base",
        "other-lora": OTHER, "other-prefix": OTHER,
    }  # fmt: skip

    async def ask(name: str) -> tuple[str, str]:
        wish = {"max_new_tokens": COUNT, "return_full_text": False}
        headers = {"authorization": None}
        async with (
            AsyncInferenceClient(server.url, headers=headers) as named,
            AsyncInferenceClient(f"{server.url}/models/{name}", headers=headers) as own,
        ):
            whole = await named.text_generation(PROMPT, adapter_id=name, **wish)
            pieces = await own.text_generation(PROMPT, stream=True, **wish)
            return whole, "".join([piece async for piece in pieces])

    async def ask_all() -> list[tuple[str, str]]:
        return list(await asyncio.gather(*(ask(name) for name in want)))

    assert asyncio.run(ask_all()) == [(text, text) for text in want.values()]


def test_a_name_with_a_slash_has_its_own_url(server: ServerThread) -> None:
    url = f"{server.url}/models/{OTHER}"
    assert httpx.get(f"{url}/info").json()["model_id"] == OTHER
    assert httpx.get(f"{url}/health").status_code == 200
    api = openai.OpenAI(base_url=f"{url}/v1", api_key="-")
    assert api.completions.create(model=OTHER, prompt=PROMPT, max_tokens=2).model == OTHER
    assert len(api.models.list().data) == 7
    body = {"inputs": PROMPT, "parameters": {"max_new_tokens": 2}}
    for path in ("", "/generate"):
        assert httpx.post(url + path, json=body).headers["x-adapter-id"] == OTHER
    tokens = httpx.post(f"{url}/tokenize", json={**body, "parameters": {"truncate": 1}}).json()
    assert [token["id"] for token in tokens] == list(ids_of(PROMPT))  # As TGI: all of them.
    chat = {"messages": [{"role": "user", "content": "a"}]}
    reply = httpx.post(f"{server.url}/models/other-lora/chat_tokenize", json=chat)
    assert reply.json()["templated_text"] == "user: a\nassistant:"


def test_info_has_what_tgi_tells(server: ServerThread) -> None:
    info = httpx.get(f"{server.url}/info").json()
    wanted = {
        "model_id": "base", "model_sha": None, "model_pipeline_tag": "text-generation",
        "max_concurrent_requests": 128, "max_best_of": 2, "max_stop_sequences": 4,
        "max_input_tokens": 511, "max_total_tokens": 512, "validation_workers": 1,
        "max_client_batch_size": 128, "router": "instruct-arena", "version": "3.3.6-dev0",
        "sha": None, "docker_label": None,
    }  # fmt: skip
    assert {name: info[name] for name in wanted} == wanted
    assert info["adapters"] == ["other-lora", "other-prefix", "lora", "prefix"]
    assert info["refused"] == {}


def test_tokens_that_a_tokenizer_adds(tiny_home: Path, tmp_path: Path) -> None:
    """In a text they have no place of their own; a chat's template says all there is."""
    folder = tiny.save_checkpoint("llama", tmp_path / "begins")
    tokenizer = tiny.make_tokenizer.__wrapped__(tiny.TEMPLATE)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 0)]
    )
    tokenizer.save_pretrained(folder)
    with ServerThread(tiny_config(tiny_home, models=(("begins", folder),))) as server:
        url = f"{server.url}/models/begins"
        first, *others = httpx.post(f"{url}/tokenize", json={"inputs": PROMPT}).json()
        assert first == {"id": 0, "text": "", "start": 0, "stop": 0}
        assert [token["id"] for token in others] == list(ids_of(PROMPT))
        assert others[0]["start"] == 0
        told = httpx.post(
            f"{url}/chat_tokenize", json={"messages": [{"role": "user", "content": "a"}]}
        ).json()["tokenize_response"]
        assert 0 not in [token["id"] for token in told]
        body = {"inputs": PROMPT, "parameters": {"max_new_tokens": 6, "details": True}}
        details = httpx.post(f"{url}/generate", json=body).json()["details"]
        want = tiny.generate(folder, None, (0, *ids_of(PROMPT)), 6)
        assert tuple(token["id"] for token in details["tokens"]) == want


def test_a_tokenizer_written_in_python(tiny_home: Path, tmp_path: Path) -> None:
    """It knows no offsets and no grammars; texts and streams are right."""
    folder = tmp_path / "bytes"
    config = transformers.LlamaConfig(**{**tiny.COMMON, **tiny.WIDE, "vocab_size": 384})
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    ByT5Tokenizer().save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert not tokenizer.is_fast
    with ServerThread(tiny_config(tiny_home, models=(("bytes", folder),))) as server:
        url = f"{server.url}/models/bytes"
        text = "a 漢🙂"
        tokens = httpx.post(f"{url}/tokenize", json={"inputs": text}).json()
        ids = tokenizer(text)["input_ids"]
        assert tokens == [{"id": i, "text": "", "start": 0, "stop": 0} for i in ids]
        parameters: dict[str, Any] = {"max_new_tokens": 12, "details": True}
        body = {"inputs": text, "parameters": parameters}
        told = httpx.post(f"{url}/generate", json=body).json()
        want = tiny.generate(folder, None, tuple(ids), 12)
        assert tuple(token["id"] for token in told["details"]["tokens"]) == want
        assert told["generated_text"] == tokenizer.decode(want, skip_special_tokens=True)
        parameters["grammar"] = {"type": "regex", "value": "a"}
        reply = httpx.post(f"{url}/generate", json=body)
        assert reply.status_code == 422
        assert "grammar is not supported" in reply.json()["error"]


def test_what_nobody_thought_of_is_answered_in_json(tiny_home: Path, tmp_path: Path) -> None:
    """A token the model has and this tokenizer has not: it raises, and the server goes on."""
    folder = tmp_path / "padded"
    tiny.make_model("llama", 3).save_pretrained(folder)
    ByT5Tokenizer().save_pretrained(folder)
    with ServerThread(tiny_config(tiny_home, models=(("padded", folder),))) as server:
        url = f"{server.url}/models/padded/v1/completions"
        body = {"prompt": "a", "max_tokens": 2, "logit_bias": {"399": 100}}
        reply = httpx.post(url, json=body)
        assert reply.status_code == 424
        assert reply.json()["error_type"] == "generation"
        streamed = httpx.post(url, json={**body, "stream": True})
        assert '"http_status_code":424' in streamed.text
        assert streamed.text.endswith("data: [DONE]\n\n")
        assert httpx.post(url, json={**body, "logit_bias": {"40": 100}}).is_success


def test_an_architecture_with_an_attention_of_its_own_is_refused(
    tiny_home: Path, tmp_path: Path
) -> None:
    config = transformers.BloomConfig(**tiny.COMMON, hidden_size=32, n_layer=2, n_head=4)
    transformers.BloomForCausalLM(config).save_pretrained(tmp_path)
    tiny.save_tokenizer(tmp_path)
    with Registry(tiny_config(tiny_home, models=(("odd", tmp_path),))) as registry:
        assert registry.names == ["base"]
        assert "BloomForCausalLM" in registry.refused["odd"]
        assert "cannot be served" in registry.refused["odd"]


def test_from_another_machine_only_a_key_may_change_models(tiny_home: Path) -> None:
    body = {"lora_name": "late", "lora_path": str(tiny_home / "lora")}

    async def ask(registry: Registry, key: str | None, host: str) -> httpx.Response:
        app = create_app(registry, tiny_config(tiny_home, api_key=key))
        headers = {"authorization": f"Bearer {key}"} if key else {}
        transport = httpx.ASGITransport(app, client=(host, 5000))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as api:
            await api.post("/v1/load_lora_adapter", json=body, headers=headers)
            return await api.post(
                "/v1/unload_lora_adapter", json={"lora_name": "late"}, headers=headers
            )

    with Registry(tiny_config(tiny_home)) as registry:
        afar, near = "192.0.2.7", "127.0.0.1"
        for key, host, status in ((None, afar, 403), (None, near, 200), ("Sesame", afar, 200)):
            assert asyncio.run(ask(registry, key, host)).status_code == status


def test_the_watcher_looks_by_itself(tiny_home: Path, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    with Registry(tiny_config(tiny_home, models=(), home=tmp_path)) as registry:
        watcher = Watcher(registry, tmp_path, seconds=0.02)
        watcher.start()
        try:
            link = tmp_path / "models" / "new"
            link.symlink_to(tiny_home / "lora")
            wait_until(lambda: "new" in registry.names)
            assert registry.resolve("new").parent == "base"
            link.unlink()
            wait_until(lambda: "new" not in registry.names)
        finally:
            watcher.stop()


def wait_until(is_so: Any) -> None:
    deadline = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)
