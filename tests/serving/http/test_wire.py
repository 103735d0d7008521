"""The rest of the wire: completions, tokens, tools, grammars, keys, hot loading, metrics."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import serving_models as tiny
from huggingface_hub import InferenceClient
from serving_fixtures import tiny_config

from serving.config import ServingLimits
from serving.http.server import ServerThread
from serving.models.watcher import Watcher

PROMPT = "the river sings under"
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "The weather of a place.",
            "parameters": {
                "type": "object",
                "properties": {
                    "unit": {"type": "string", "enum": ["C", "F"]},
                    "days": {"type": "integer", "minimum": 1, "maximum": 9},
                },
                "required": ["unit", "days"],
            },
        },
    }
]
MESSAGES = [{"role": "user", "content": PROMPT}]


@pytest.fixture(autouse=True)
def hub_clients_may_ask_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Offline mode would stop the hub client before it reaches this machine."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)


@pytest.fixture
def server(tiny_home: Path, tmp_path: Path) -> Iterator[ServerThread]:
    """A server of its own, whose models may be changed; home is `tmp_path`."""
    (tmp_path / "models").mkdir()
    with ServerThread(tiny_config(tiny_home, home=tmp_path)) as running:
        yield running


def expected(home: Path, name: str, text: str, count: int) -> str:
    ids = tuple(tiny.make_tokenizer()(text)["input_ids"])
    base = home / ("full" if name == "full" else "base")
    adapter = home / name if name in ("lora", "prefix") else None
    return tiny.texts(tiny.generate(base, adapter, ids, count))


def post(server: ServerThread, route: str, body: dict[str, Any], **kwargs: Any) -> httpx.Response:
    return httpx.post(f"{server.url}/{route}", json=body, timeout=30, **kwargs)


def frames(reply: httpx.Response) -> list[Any]:
    """The data of each event; comments are left out."""
    blocks = [b for b in reply.text.split("\n\n") if b.startswith("data: ")]
    texts = [block.removeprefix("data: ") for block in blocks]
    return [text if text == "[DONE]" else json.loads(text) for text in texts]


def test_completions_of_several_prompts(tiny_server: ServerThread, tiny_home: Path) -> None:
    prompts = [PROMPT, "and the lantern"]
    want = [expected(tiny_home, "lora", p, 8) for p in prompts]
    api = openai.OpenAI(base_url=f"{tiny_server.url}/v1", api_key="-")
    whole = api.completions.create(model="lora", prompt=prompts, max_tokens=8, temperature=0)
    assert [c.text for c in whole.choices] == want
    assert [c.index for c in whole.choices] == [0, 1]
    chunks = list(
        api.completions.create(
            model="lora", prompt=prompts, max_tokens=8, temperature=0, stream=True
        )
    )
    for index in (0, 1):
        texts = [c.choices[0].text for c in chunks if c.choices[0].index == index]
        assert "".join(texts) == want[index]
    body = {"model": "lora", "prompt": PROMPT, "max_tokens": 8, "temperature": 0, "stream": True}
    told = frames(post(tiny_server, "v1/completions", body))
    assert told[-1] == "[DONE]"
    assert {f["choices"][0]["finish_reason"] for f in told[:-2]} <= {""}
    assert told[-2]["choices"][0]["finish_reason"] in ("length", "eos_token")
    assert told[-2]["usage"]["completion_tokens"] == len(told) - 1


@pytest.mark.parametrize(
    ("change", "error_type", "text"),
    [
        ({"suffix": "x"}, "suffix not supported", "Suffix is not supported"),
        ({"prompt": ["a"] * 129}, "batch size exceeded", "allowed batch size of 128"),
        ({"prompt": []}, "validation", "cannot be empty"),
        ({"n": 129}, "validation", "`n` must be > 0 and <= 128. Given: 129"),
        ({"top_p": 2}, "validation", "`top_p` must be"),
        ({"presence_penalty": 3}, "validation", "`presence_penalty` must be"),
        ({"logit_bias": {"999999": 1}}, "validation", "not below 400"),
    ],
)
def test_completions_refuse_in_tgi_words(
    tiny_server: ServerThread, change: dict[str, Any], error_type: str, text: str
) -> None:
    reply = post(tiny_server, "v1/completions", {"prompt": "a", **change})
    assert reply.status_code == 422
    assert reply.json()["error_type"] == error_type
    assert text in reply.json()["error"]


def test_tokenize_counts_bytes(tiny_server: ServerThread) -> None:
    text = "the ünï 漢字 🙂 end"
    tokens = post(tiny_server, "tokenize", {"inputs": text}).json()
    assert [t["id"] for t in tokens] == tiny.make_tokenizer()(text)["input_ids"]
    raw = text.encode()
    covered = b"".join(
        raw[t["start"] : t["stop"]]
        for i, t in enumerate(tokens)
        if i == 0 or t["start"] != tokens[i - 1]["start"]
    )
    assert covered == raw
    for token in tokens:
        assert raw[token["start"] : token["stop"]].decode() == token["text"]
    chat = post(tiny_server, "chat_tokenize", {"model": "lora", "messages": MESSAGES}).json()
    assert chat["templated_text"] == f"user: {PROMPT}\nassistant:"
    assert "".join(t["text"] for t in chat["tokenize_response"]) == chat["templated_text"]


def test_a_last_assistant_message_is_continued(tiny_server: ServerThread) -> None:
    messages = [*MESSAGES, {"role": "assistant", "content": "the lantern"}]
    chat = post(tiny_server, "chat_tokenize", {"model": "lora", "messages": messages}).json()
    assert chat["templated_text"] == f"user: {PROMPT}\nassistant: the lantern"


def test_json_and_regex_answers(tiny_server: ServerThread) -> None:
    hub = InferenceClient(tiny_server.url, headers={"authorization": None})
    schema = {"properties": {"n": {"type": "integer", "maximum": 99}}, "required": ["n"],
              "type": "object", "additionalProperties": False}  # fmt: skip
    for seed in range(3):
        sampled = {"do_sample": True, "seed": seed, "max_new_tokens": 60}
        text = hub.text_generation(
            PROMPT, adapter_id="lora", grammar={"type": "json", "value": schema},
            return_full_text=False, **sampled,
        )  # fmt: skip
        assert isinstance(json.loads(text)["n"], int)
        text = hub.text_generation(
            PROMPT, grammar={"type": "regex", "value": "[0-9]{3}-[a-c]+x"},
            return_full_text=False, **sampled,
        )  # fmt: skip
        assert re.fullmatch("[0-9]{3}-[a-c]+x", text)
    api = openai.OpenAI(base_url=f"{tiny_server.url}/v1", api_key="-")
    reply = api.chat.completions.create(
        model="lora", messages=MESSAGES, max_tokens=60, seed=1,
        response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}},
    )  # fmt: skip
    assert set(json.loads(reply.choices[0].message.content)) == {"n"}


@pytest.mark.parametrize(
    ("grammar", "text"),
    [
        ({"type": "regex", "value": "["}, "grammar is not valid"),
        ({"type": "json", "value": {"type": "object"}}, "must have a 'properties' field"),
        ({"type": "json", "value": "{"}, "grammar is not valid"),
    ],
)
def test_bad_grammars(tiny_server: ServerThread, grammar: dict[str, Any], text: str) -> None:
    reply = post(tiny_server, "generate", {"inputs": "a", "parameters": {"grammar": grammar}})
    assert reply.status_code == 422
    assert text in reply.json()["error"]


def test_a_required_tool_is_called(tiny_server: ServerThread) -> None:
    api = openai.OpenAI(base_url=f"{tiny_server.url}/v1", api_key="-")
    for choice in ("required", {"type": "function", "function": {"name": "weather"}}):
        ask = {"model": "lora", "messages": MESSAGES, "tools": TOOLS, "tool_choice": choice,
               "max_tokens": 80, "seed": 3}  # fmt: skip
        reply = api.chat.completions.create(**ask).choices[0]
        assert reply.finish_reason == "tool_calls"
        assert reply.message.content is None
        call = reply.message.tool_calls[0].function
        assert call.name == "weather"
        arguments = json.loads(call.arguments)
        assert arguments["unit"] in "CF"
        assert 1 <= arguments["days"] <= 9
        deltas = [
            c.choices[0].delta.tool_calls[0].function
            for c in api.chat.completions.create(**ask, stream=True)
        ]
        assert deltas[0].name == "weather"
        assert {d.name for d in deltas[1:]} == {None}
        assert "".join(d.arguments for d in deltas) == call.arguments


def test_tool_choice_auto_may_answer_in_text(tiny_server: ServerThread) -> None:
    seen = set()
    for seed in range(20):
        if len(seen) == 2:
            break
        ask = {"model": "lora", "messages": MESSAGES, "tools": TOOLS, "max_tokens": 30,
               "seed": seed}  # fmt: skip
        message = post(tiny_server, "v1/chat/completions", ask).json()["choices"][0]["message"]
        told = frames(post(tiny_server, "v1/chat/completions", {**ask, "stream": True}))
        kind = "tool" if "tool_calls" in message else "text"
        seen.add(kind)
        deltas = [f["choices"][0]["delta"] for f in told[:-1]]
        if kind == "text":
            assert "".join(d["content"] for d in deltas) == message["content"]
        else:
            pieces = [d["tool_calls"][0]["function"] for d in deltas]
            assert pieces[0]["arguments"] == "{"
            assert (
                "".join(p["arguments"] for p in pieces)
                == (message["tool_calls"][0]["function"]["arguments"])
            )
    assert seen == {"tool", "text"}


def test_tool_errors(tiny_server: ServerThread) -> None:
    grammar = {"type": "json", "value": {"properties": {}}}
    ask = {"model": "lora", "messages": MESSAGES, "tools": TOOLS}
    for change, text in (
        ({"response_format": grammar}, "Tool error: Grammar and tools are mutually exclusive"),
        ({"response_format": grammar, "tools": []}, "mutually exclusive"),
        ({"tool_choice": "hammer"}, "Tool error: Tool with name hammer not found"),
    ):
        reply = post(tiny_server, "v1/chat/completions", {**ask, **change})
        assert reply.status_code == 422
        assert reply.json()["error_type"] == "tool_error"
        assert text in reply.json()["error"]


def test_each_model_has_its_own_url(tiny_server: ServerThread, tiny_home: Path) -> None:
    want = expected(tiny_home, "prefix", PROMPT, 6)
    hub = InferenceClient(f"{tiny_server.url}/models/prefix", headers={"authorization": None})
    assert hub.text_generation(PROMPT, max_new_tokens=6, return_full_text=False) == want
    chat = hub.chat_completion(MESSAGES, max_tokens=3)
    assert chat.model == "prefix"
    api = openai.OpenAI(base_url=f"{tiny_server.url}/models/prefix/v1", api_key="-")
    for name in ("prefix", "tgi"):
        chosen = api.chat.completions.create(model=name, messages=MESSAGES, max_tokens=3).model
        assert chosen == "prefix"
    info = httpx.get(f"{tiny_server.url}/models/prefix/info").json()
    assert info["model_id"] == "prefix"
    assert info["max_total_tokens"] == 512 - 5
    for path in ("/health", ""):
        assert httpx.get(f"{tiny_server.url}/models/prefix{path}").status_code == 200
    for path in ("/info", "/health", ""):
        assert httpx.get(f"{tiny_server.url}/models/nobody{path}").status_code == 404
    assert post(tiny_server, "models/nobody", {"inputs": "a"}).status_code == 404


@pytest.mark.filterwarnings("ignore::pydantic.PydanticDeprecatedSince20")  # written for pydantic 1
def test_the_legacy_client_works(tiny_server: ServerThread, tiny_home: Path) -> None:
    legacy = pytest.importorskip("text_generation", reason="needs pip install --no-deps")
    from text_generation.errors import ValidationError

    api = legacy.Client(f"{tiny_server.url}/models/lora")
    want = expected(tiny_home, "lora", PROMPT, 6)
    reply = api.generate(PROMPT, max_new_tokens=6, decoder_input_details=True)
    assert reply.generated_text == want
    assert reply.details.finish_reason.value in ("length", "eos_token")
    stream = list(api.generate_stream(PROMPT, max_new_tokens=6))
    assert stream[-1].generated_text == want
    chat = api.chat(messages=[{"role": "user", "content": PROMPT}], max_tokens=4)
    assert chat.choices[0].message.role == "assistant"
    with pytest.raises(ValidationError, match="`temperature` must be"):
        api.generate("a", temperature=-1.0)
    twice = api.generate(PROMPT, max_new_tokens=4, do_sample=True, best_of=2)
    assert len(twice.details.best_of_sequences) == 1


def test_details_hold_what_was_asked_for(tiny_home: Path) -> None:
    with ServerThread(tiny_config(tiny_home, prefill_logprobs=True)) as server:
        parameters = {"max_new_tokens": 3, "details": True, "decoder_input_details": True,
                      "top_n_tokens": 2, "do_sample": True, "seed": 5}  # fmt: skip
        reply = post(server, "generate", {"inputs": PROMPT, "parameters": parameters}).json()
        details = reply["details"]
        assert details["seed"] == 5
        assert [t["id"] for t in details["prefill"]] == tiny.make_tokenizer()(PROMPT)["input_ids"]
        assert details["prefill"][0]["logprob"] is None
        assert all(t["logprob"] < 0 for t in details["prefill"][1:])
        assert [len(top) for top in details["top_tokens"]] == [2] * len(details["tokens"])


def test_a_key_is_asked_for(tiny_home: Path) -> None:
    with ServerThread(tiny_config(tiny_home, api_key="Sesame")) as server:
        body = {"inputs": "a", "parameters": {"max_new_tokens": 1}}
        for header in (None, "Bearer sesame", "Basic Sesame", "Bearer"):
            headers = {"authorization": header} if header else {}
            reply = post(server, "generate", body, headers=headers)
            assert reply.status_code == 401
            assert reply.json()["error_type"] == "unauthorized"
        assert post(server, "generate", body, headers={"authorization": "Bearer Sesame"}).is_success
        for route in ("chat_tokenize", "v1/load_lora_adapter", "v1/completions"):
            assert post(server, route, {}).status_code == 401
        assert httpx.get(f"{server.url}/health").status_code == 200


def test_load_and_unload_in_vllm_form(
    server: ServerThread, tiny_home: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "models" / ".hidden"
    shutil.copytree(tiny_home / "lora", folder)
    load = {"lora_name": "late", "lora_path": str(folder)}
    reply = post(server, "v1/load_lora_adapter", load)
    assert reply.status_code == 200
    assert reply.text == "Success: LoRA adapter 'late' added successfully."
    ask = {"inputs": PROMPT, "parameters": {"max_new_tokens": 8, "adapter_id": "late"}}
    text = post(server, "generate", ask).json()["generated_text"]
    assert text == expected(tiny_home, "lora", PROMPT, 8)
    for body, status, words in (
        (load, 400, "has already been loaded"),
        ({"lora_name": "x"}, 400, "Both 'lora_name' and 'lora_path' must be provided."),
        ({"lora_name": "x", "lora_path": "/etc"}, 400, "outside the folders"),
        ({"lora_name": "x", "lora_path": str(tmp_path / "models" / "no")}, 404, "no such folder"),
        ({**load, "lora_name": "tgi"}, 400, "means the base"),
    ):
        reply = post(server, "v1/load_lora_adapter", body)
        assert reply.status_code == status
        assert words in reply.json()["error"]["message"]
    assert post(server, "v1/load_lora_adapter", {**load, "load_inplace": True}).status_code == 200
    reply = post(server, "v1/unload_lora_adapter", {"lora_name": "late"})
    assert reply.text == "Success: LoRA adapter 'late' removed successfully."
    assert post(server, "generate", ask).status_code == 404
    assert post(server, "v1/unload_lora_adapter", {"lora_name": "late"}).status_code == 404
    assert post(server, "v1/unload_lora_adapter", {"lora_name": "base"}).status_code == 400


def test_home_is_followed(server: ServerThread, tiny_home: Path, tmp_path: Path) -> None:
    assert server.registry is not None
    watcher = Watcher(server.registry, tmp_path)
    models = tmp_path / "models"
    shutil.copytree(tiny_home / "prefix", tmp_path / "new")
    (tmp_path / "new").rename(models / "new")
    shutil.copytree(tiny_home / "lora", tmp_path / "bad")
    (tmp_path / "bad" / "adapter_config.json").write_text("{}")
    (tmp_path / "bad").rename(models / "bad")
    watcher.poll()
    assert "new" in server.registry.names
    assert "adapter_config.json" in server.registry.refused["bad"]
    shutil.rmtree(models / "new")
    shutil.rmtree(models / "bad")
    watcher.poll()
    assert "new" not in server.registry.names
    assert server.registry.refused == {}


def test_streams_run_on_while_variants_come_and_go(
    server: ServerThread, tiny_home: Path, tmp_path: Path
) -> None:
    assert server.registry is not None
    registry = server.registry
    folder = tmp_path / "models" / ".extra"
    shutil.copytree(tiny_home / "lora", folder)
    body = {
        "inputs": PROMPT, "parameters": {"max_new_tokens": 300, "adapter_id": "gone"}
    }  # fmt: skip
    registry.load("gone", folder)
    # Forbid the end token, so that the stream outlives the changes.
    model = registry.resolve("gone")
    object.__setattr__(model, "eos_ids", frozenset())
    got: list[int] = []

    def read() -> None:
        with httpx.stream("POST", f"{server.url}/generate_stream", json=body, timeout=60) as reply:
            for line in reply.iter_lines():
                if line.startswith("data: "):
                    got.append(json.loads(line[6:])["token"]["id"])

    reader = threading.Thread(target=read)
    reader.start()
    deadline = time.monotonic() + 20
    while len(got) < 5 and time.monotonic() < deadline:
        time.sleep(0.002)
    registry.unload("gone")
    while_running = len(got)
    for i in range(3):
        registry.load(f"extra{i}", folder)
    registry.unload("extra1")
    reader.join(30)
    assert while_running < 300
    ids = tuple(tiny.make_tokenizer()(PROMPT)["input_ids"])
    model_truth = tiny.reference_model(tiny_home / "base", tiny_home / "lora")
    assert len(got) == 300
    assert got[:40] == greedy_without_end(model_truth, ids, 40)
    assert "gone" not in registry.names


def greedy_without_end(model: Any, ids: tuple[int, ...], count: int) -> list[int]:
    """The argmax continuation of a reference model that never stops."""
    import torch

    tokens = list(ids)
    with torch.inference_mode():
        for _ in range(count):
            logits = model(input_ids=torch.tensor([tokens])).logits[0, -1]
            tokens.append(int(logits.argmax()))
    return tokens[len(ids) :]


def test_metrics_count_what_happened(server: ServerThread) -> None:
    for name in ("base", "lora", "lora"):
        parameters = {"max_new_tokens": 20, "adapter_id": name}
        post(server, "generate", {"inputs": PROMPT, "parameters": parameters})
    post(server, "generate", {"inputs": "a", "parameters": {"top_k": 0}})
    reply = httpx.get(f"{server.url}/metrics")
    assert reply.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = [line for line in reply.text.splitlines() if not line.startswith("#")]
    series = {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}
    assert series["tgi_request_count"] == 3
    assert series["tgi_request_success"] == 3
    assert series['tgi_request_failure{err="validation"}'] == 1
    assert series['arena_variant_requests_count{model="lora"}'] == 2
    assert series["tgi_request_generated_tokens_count"] == 3
    assert series['tgi_request_generated_tokens_bucket{le="+Inf"}'] == 3
    assert series["tgi_queue_size"] == 0
    assert series["tgi_request_validation_duration_count"] == 3
    assert series["tgi_request_skipped_tokens_count"] == 3
    assert series['tgi_batch_inference_count{method="prefill"}'] == 3
    steps = series['tgi_batch_inference_count{method="decode"}']
    assert steps > 3
    assert series['tgi_batch_inference_success{method="decode"}'] == steps
    for name in ("inference", "forward", "decode", "filter"):
        key = f'tgi_batch_{name}_duration_count{{method="decode"}}'
        assert series[key] == steps
    assert series["tgi_batch_next_size_count"] == steps + 3
    assert series['arena_inter_token_seconds_count{model="lora"}'] > 3
    assert series['arena_variant_rows{model="lora"}'] == 0
    assert series['arena_step_eta_by_rows{base="base",rows="1"}'] > 0
    assert series['arena_step_rho{base="base"}'] > 0
    assert series['arena_step_eta{base="base"}'] > 0
    assert not any(name.startswith("tgi_request_count_total") for name in series)


def test_openapi_page_lists_the_routes(tiny_server: ServerThread) -> None:
    page = httpx.get(f"{tiny_server.url}/api-doc/openapi.json").json()
    wanted = {"/", "/generate", "/generate_stream", "/tokenize", "/chat_tokenize", "/info",
              "/health", "/ping", "/metrics", "/v1/models", "/v1/chat/completions",
              "/v1/completions"}  # fmt: skip
    assert wanted <= set(page["paths"])
    body = page["paths"]["/generate"]["post"]["requestBody"]["content"]["application/json"]
    assert "inputs" in body["schema"]["properties"]
    assert httpx.get(f"{tiny_server.url}/docs").status_code == 200


def test_errors_in_a_stream_end_it_with_a_frame(tiny_home: Path) -> None:
    with ServerThread(tiny_config(tiny_home)) as server:
        assert server.registry is not None
        model = server.registry.resolve("lora")
        engine = model.engine

        def fail() -> None:
            raise MemoryError("no room")

        engine.step = fail  # type: ignore[method-assign]
        ask = {"inputs": "a", "parameters": {"max_new_tokens": 4}}
        (event,) = frames(post(server, "generate_stream", ask))
        assert event["error_type"] == "overloaded"
        chat = {"model": "lora", "messages": MESSAGES, "stream": True}
        event, done = frames(post(server, "v1/chat/completions", chat))
        assert done == "[DONE]"
        assert event["error"]["http_status_code"] == 503
        assert post(server, "generate", ask).status_code == 503


def test_a_deadline_ends_a_request_with_an_error(tiny_home: Path) -> None:
    limits = ServingLimits(deadline_seconds=0.3)
    with ServerThread(tiny_config(tiny_home, limits=limits)) as server:
        assert server.registry is not None
        engine = server.registry.base.engine
        step = engine.step

        def slow_step() -> None:
            time.sleep(0.05)
            step()

        engine.step = slow_step  # type: ignore[method-assign]
        ask = {"inputs": PROMPT, "parameters": {"max_new_tokens": 400, "top_k": 300, "seed": 2}}
        reply = post(server, "generate", ask)
        assert reply.status_code == 424
        assert "the deadline of 0.3 s passed after" in reply.json()["error"]
        *tokens, last = frames(post(server, "generate_stream", ask))
        assert all("token" in event for event in tokens)
        assert last["error_type"] == "generation"
        assert httpx.get(f"{server.url}/health").status_code == 200


@pytest.mark.slow
def test_a_very_long_text_is_refused_and_holds_nobody_up(tiny_server: ServerThread) -> None:
    for body, route in (
        ({"inputs": "the river " * 40_000}, "generate"),
        ({"inputs": "the river " * 40_000}, "generate_stream"),
        ({"model": "lora", "prompt": "the river " * 40_000}, "v1/completions"),
        (
            {"model": "lora", "messages": [{"role": "user", "content": "a river " * 40_000}]},
            "v1/chat/completions",
        ),
    ):
        reply = post(tiny_server, route, body)
        assert reply.status_code == 422
        assert "tokens" in reply.json()["error"]


def test_asyncio_clients_side_by_side_do_not_mix(
    tiny_server: ServerThread, tiny_home: Path
) -> None:
    async def ask() -> list[str]:
        async def one(api: openai.AsyncOpenAI, name: str) -> str:
            stream = await api.completions.create(
                model=name, prompt=PROMPT, max_tokens=20, temperature=0, stream=True
            )
            return "".join([c.choices[0].text async for c in stream])

        names = ("base", "lora", "prefix") * 3
        async with openai.AsyncOpenAI(base_url=f"{tiny_server.url}/v1", api_key="-") as api:
            return list(await asyncio.gather(*(one(api, name) for name in names)))

    want = [expected(tiny_home, n, PROMPT, 20) for n in ("base", "lora", "prefix")]
    assert asyncio.run(ask()) == want * 3
