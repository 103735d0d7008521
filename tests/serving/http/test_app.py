"""The HTTP API through clients this project did not write, over loopback."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from pathlib import Path

import httpx
import openai
import pytest
import serving_models as tiny
from forked import Forked
from huggingface_hub import AsyncInferenceClient, InferenceClient
from huggingface_hub.errors import HfHubHTTPError, UnknownError, ValidationError
from serving_fixtures import tiny_config

from serving.config import ServingLimits
from serving.engine.stats import StepReport
from serving.errors import PortInUseError, ServingError
from serving.http.server import ServerThread, bind

PROMPT = "the river sings under"
KINDS = ("base", "full", "lora", "prefix")


@pytest.fixture(autouse=True)
def hub_clients_may_ask_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Offline mode would stop the hub client before it reaches this machine."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)


def truth(home: Path, name: str, ids: list[int], count: int = 10) -> list[int]:
    """Greedy tokens of transformers/PEFT."""
    base = home / ("full" if name == "full" else "base")
    adapter = home / name if name in ("lora", "prefix") else None
    return list(tiny.generate(base, adapter, tuple(ids), count))


def prompt_ids(text: str = PROMPT) -> list[int]:
    return list(tiny.make_tokenizer()(text)["input_ids"])


def expected(home: Path, name: str, text: str = PROMPT, count: int = 10) -> str:
    return tiny.texts(truth(home, name, prompt_ids(text), count))


def client(server: ServerThread) -> InferenceClient:
    return InferenceClient(server.url, headers={"authorization": None}, timeout=30)


@pytest.mark.parametrize("name", KINDS)
def test_text_generation_is_what_generate_writes(
    tiny_server: ServerThread, tiny_home: Path, name: str
) -> None:
    out = client(tiny_server).text_generation(
        PROMPT, max_new_tokens=10, adapter_id=name, details=True, return_full_text=False
    )
    assert out.generated_text == expected(tiny_home, name)
    assert [t.id for t in out.details.tokens] == truth(tiny_home, name, prompt_ids())
    assert out.details.finish_reason in ("length", "eos_token")


@pytest.mark.parametrize("name", KINDS)
def test_streams_of_all_models_at_once_add_up_to_the_text(
    tiny_server: ServerThread, tiny_home: Path, name: str
) -> None:
    async def ask() -> tuple[list[str], str]:
        async with AsyncInferenceClient(tiny_server.url, headers={"authorization": None}) as api:
            events = await api.text_generation(
                PROMPT, max_new_tokens=10, adapter_id=name, stream=True, details=True,
                return_full_text=False,
            )  # fmt: skip
            found = [event async for event in events]
            whole = found[-1].generated_text
            assert whole is not None
            assert found[-1].details is not None
            assert [e.index for e in found] == list(range(1, len(found) + 1))
            return [e.token.text for e in found if not e.token.special], whole

    pieces, whole = asyncio.run(ask())
    assert "".join(pieces) == whole == expected(tiny_home, name)


def chat_text(home: Path, name: str, count: int = 10) -> str:
    rendered = f"user: {PROMPT}\nassistant:"
    return expected(home, name, rendered, count)


@pytest.mark.parametrize("name", ["full", "lora", "prefix"])
def test_chat_through_openai_and_hub_clients(
    tiny_server: ServerThread, tiny_home: Path, name: str
) -> None:
    messages = [{"role": "user", "content": PROMPT}]
    want = chat_text(tiny_home, name)
    api = openai.OpenAI(base_url=f"{tiny_server.url}/v1", api_key="-")
    whole = api.chat.completions.create(model=name, messages=messages, max_tokens=10, temperature=0)
    assert whole.choices[0].message.content == want
    assert whole.model == name
    assert whole.usage.completion_tokens == len(
        truth(tiny_home, name, prompt_ids(f"user: {PROMPT}\nassistant:"))
    )
    chunks = api.chat.completions.create(
        model=name, messages=messages, max_tokens=10, temperature=0, stream=True,
        stream_options={"include_usage": True},
    )  # fmt: skip
    found = list(chunks)
    assert "".join(c.choices[0].delta.content or "" for c in found if c.choices) == want
    assert found[-1].usage.total_tokens == whole.usage.total_tokens
    assert len({c.id for c in found}) == 1
    assert found[0].id.startswith("chatcmpl-")
    hub = client(tiny_server)
    extra = {"adapter_id": name}
    answer = hub.chat_completion(messages, max_tokens=10, temperature=0, extra_body=extra)
    assert answer.choices[0].message.content == want
    streamed = hub.chat_completion(
        messages, max_tokens=10, temperature=0, stream=True, extra_body={"adapter_id": name}
    )
    assert "".join(c.choices[0].delta.content or "" for c in streamed) == want


def test_a_mixed_load_runs_in_one_batch_and_stays_exact(
    tiny_server: ServerThread, tiny_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry, sizes = tiny_server.registry, []
    assert registry is not None
    on_step = registry.worker.on_step
    assert on_step is not None

    def note(report: StepReport) -> None:
        sizes.append(report.num_rows)
        on_step(report)

    monkeypatch.setattr(registry.worker, "on_step", note)

    async def ask() -> list[str]:
        async with AsyncInferenceClient(tiny_server.url, headers={"authorization": None}) as api:
            return list(
                await asyncio.gather(
                    *(
                        api.text_generation(
                            PROMPT, max_new_tokens=40, adapter_id=name, return_full_text=False
                        )
                        for name in KINDS * 2
                    )
                )
            )

    texts = asyncio.run(ask())
    assert texts == [expected(tiny_home, name, count=40) for name in KINDS * 2]
    assert max(sizes) >= 4


def test_replies_name_the_weights(tiny_server: ServerThread, tiny_home: Path) -> None:
    listed = {m["id"]: m for m in httpx.get(f"{tiny_server.url}/v1/models").json()["data"]}
    assert list(listed) == list(KINDS)
    assert listed["lora"]["parent"] == "base"
    assert listed["base"]["parent"] is None
    # Of the path only the folder's name: where it lies is nobody's business.
    assert [listed[name]["root"] for name in KINDS] == list(KINDS)
    assert [listed[n]["kind"] for n in KINDS] == list(KINDS)
    assert [listed[n]["chat_template"] for n in KINDS] == [False, True, True, True]
    shas = {m["weights_sha256"] for m in listed.values()}
    assert len(shas) == 4
    for name in KINDS:
        body = {"inputs": "a", "parameters": {"max_new_tokens": 1, "adapter_id": name}}
        reply = httpx.post(f"{tiny_server.url}/generate", json=body)
        assert reply.headers["x-adapter-id"] == name
        assert reply.headers["x-weights-sha256"] == listed[name]["weights_sha256"]
        assert reply.json()["weights_sha256"] == listed[name]["weights_sha256"]
        assert reply.json()["adapter_id"] == name
        stream = httpx.post(f"{tiny_server.url}/generate_stream", json=body)
        assert stream.headers["x-adapter-id"] == name
        last = json.loads(stream.text.strip().split("\n\n")[-1].removeprefix("data: "))
        assert last["weights_sha256"] == listed[name]["weights_sha256"]
        assert last["adapter_id"] == name


def test_an_unknown_model_is_404_with_the_names_there_are(tiny_server: ServerThread) -> None:
    reply = httpx.post(
        f"{tiny_server.url}/generate", json={"inputs": "a", "parameters": {"adapter_id": "nobody"}}
    )
    assert reply.status_code == 404
    assert reply.json()["error_type"] == "adapter_not_found"
    assert "base, full, lora, prefix" in reply.json()["error"]
    api = openai.OpenAI(base_url=f"{tiny_server.url}/v1", api_key="-")
    with pytest.raises(openai.NotFoundError) as caught:
        api.chat.completions.create(model="nobody", messages=[{"role": "user", "content": "a"}])
    assert "'nobody' is not served" in caught.value.message
    assert caught.value.type == "NotFoundError"
    for stream in (False, True):
        with pytest.raises(UnknownError, match="'nobody' is not served"):
            list(client(tiny_server).text_generation("a", adapter_id="nobody", stream=stream))
    with pytest.raises(HfHubHTTPError, match="404"):
        client(tiny_server).chat_completion(
            [{"role": "user", "content": "a"}], extra_body={"adapter_id": "nobody"}
        )


def test_aliases_of_the_base(tiny_server: ServerThread) -> None:
    for alias in ("", "tgi", "dummy", "base", None):
        body = {"inputs": "a", "parameters": {"max_new_tokens": 1, "adapter_id": alias}}
        reply = httpx.post(f"{tiny_server.url}/generate", json=body)
        assert reply.headers["x-adapter-id"] == "base"


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"temperature": 0}, "`temperature` must be strictly positive"),
        ({"repetition_penalty": 0}, "`repetition_penalty` must be strictly positive"),
        ({"frequency_penalty": 3}, "`frequency_penalty` must be >= -2.0 and <= 2.0"),
        ({"top_p": 1.0}, "`top_p` must be > 0.0 and < 1.0"),
        ({"typical_p": 0}, "`typical_p` must be > 0.0 and < 1.0"),
        ({"top_k": 0}, "`top_k` must be strictly positive"),
        ({"max_new_tokens": 0}, "`max_new_tokens` must be strictly positive"),
        ({"stop": list("abcde")}, "`stop` supports up to 4 stop sequences. Given: 5"),
        ({"best_of": 3}, "`best_of` must be > 0 and <= 2. Given: 3"),
        ({"best_of": 2}, "you must use sampling when `best_of` is > 1"),
        (
            {"best_of": 2, "do_sample": True, "seed": 1},
            "`seed` must not be set when `best_of` > 1",
        ),
        ({"top_n_tokens": 9}, "`top_n_tokens` must be >= 0 and <= 5. Given: 9"),
        (
            {"truncate": 0},
            "`truncate` must be strictly positive and less than 511. Given: 0",
        ),
        (
            {"max_new_tokens": 600},
            "`inputs` tokens + `max_new_tokens` must be <= 512. "
            "Given: 1 `inputs` tokens and 600 `max_new_tokens`",
        ),
    ],
)  # fmt: skip
def test_validation_speaks_as_tgi_does(
    tiny_server: ServerThread, parameters: dict[str, object], message: str
) -> None:
    for route in ("generate", "generate_stream", ""):
        if route == "generate_stream" and "best_of" in parameters:
            continue
        reply = httpx.post(
            f"{tiny_server.url}/{route}", json={"inputs": "a", "parameters": parameters}
        )
        assert reply.status_code == 422
        assert reply.json() == {
            "error": f"Input validation error: {message}", "error_type": "validation",
        }  # fmt: skip


def test_hub_client_raises_its_validation_error(tiny_server: ServerThread) -> None:
    with pytest.raises(ValidationError, match="`top_p` must be"):
        client(tiny_server).text_generation("a", top_p=1.0)
    with pytest.raises(ValidationError, match="`inputs` cannot be empty"):
        client(tiny_server).text_generation("", max_new_tokens=3)


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"{", "application/json", 400),
        (b"{}", "text/plain", 415),
        (b'{"inputs": 3}', "application/json", 422),
        (b'{"inputs": "\\ud800"}', "application/json", 422),
        (b'{"inputs": "' + b"a" * 2_000_001 + b'"}', "application/json", 413),
    ],
)
def test_bad_bodies_get_json_with_the_right_code(
    tiny_server: ServerThread, content: bytes, kind: str, status: int
) -> None:
    reply = httpx.post(
        f"{tiny_server.url}/generate", content=content, headers={"content-type": kind}
    )
    assert reply.status_code == status
    assert reply.json()["error_type"] == "validation"


def test_a_base_without_template_says_so(tiny_server: ServerThread) -> None:
    api = openai.OpenAI(base_url=f"{tiny_server.url}/v1", api_key="-", max_retries=0)
    with pytest.raises(openai.UnprocessableEntityError, match="no chat template"):
        api.chat.completions.create(model="base", messages=[{"role": "user", "content": "a"}])


def test_stop_strings_inside_tokens_end_the_text(
    tiny_server: ServerThread, tiny_home: Path
) -> None:
    text = chat_text(tiny_home, "lora", 40)
    stop = text[4:7]
    before = text[: text.index(stop)]
    body = {
        "model": "lora", "messages": [{"role": "user", "content": PROMPT}], "temperature": 0,
        "max_tokens": 40, "stop": stop,
    }  # fmt: skip
    url = f"{tiny_server.url}/v1/chat/completions"
    tgi = httpx.post(url, json=body).json()["choices"][0]
    assert tgi["message"]["content"] == before + stop
    assert tgi["finish_reason"] == "stop_sequence"
    api = openai.OpenAI(base_url=f"{tiny_server.url}/v1", api_key="-")
    chunks = list(api.chat.completions.create(**body, stream=True))
    assert "".join(c.choices[0].delta.content for c in chunks) == before
    assert chunks[-1].choices[0].finish_reason == "stop"


def running_rows(server: ServerThread) -> int:
    assert server.registry is not None
    return sum(len(e.rows) + len(e.waiting) for e in server.registry.engines.values())


@pytest.mark.parametrize("route", ["generate", "generate_stream", "v1/chat/completions"])
def test_a_caller_who_leaves_takes_the_row_along(tiny_home: Path, route: str) -> None:
    body = {
        "inputs": "a", "parameters": {"max_new_tokens": 400, "adapter_id": "lora"},
        "model": "lora", "messages": [{"role": "user", "content": "a"}], "max_tokens": 400,
        "logit_bias": {"1": -100}, "stream": True, "temperature": 1.5,
    }  # fmt: skip
    body["parameters"].update(seed=7, temperature=1.5)  # type: ignore[attr-defined]
    foreign = ("inputs", "parameters") if route.startswith("v1/") else ()
    body = {name: value for name, value in body.items() if name not in foreign}
    with ServerThread(tiny_config(tiny_home)) as server:
        assert server.registry is not None
        engine = server.registry.engines["base"]
        probed = engine.stats.decode_tokens  # by the rows that were tried at load
        # Slow steps, so that the answer is still being written when the caller goes.
        step = engine.step

        def slow_step() -> None:
            time.sleep(0.02)
            step()

        engine.step = slow_step  # type: ignore[method-assign]
        host, port = server.url.removeprefix("http://").split(":")
        payload = json.dumps(body).encode()
        head = f"POST /{route} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        with socket.create_connection((host, int(port))) as line:
            line.sendall(f"{head}Content-Length: {len(payload)}\r\n\r\n".encode() + payload)
            deadline = time.monotonic() + 60
            while engine.stats.decode_tokens < probed + 3 and time.monotonic() < deadline:
                time.sleep(0.005)
            assert running_rows(server) == 1
        left_at, told = engine.stats.steps, time.monotonic()
        while running_rows(server) and time.monotonic() < told + 30:
            time.sleep(0.002)
        assert running_rows(server) == 0
        assert engine.stats.steps - left_at <= 3
        assert engine.stats.rows_cancelled == 1
        wanted = 'tgi_request_failure{err="dropped"} 1.0'
        while wanted not in httpx.get(f"{server.url}/metrics").text.splitlines():
            assert time.monotonic() < told + 30
            time.sleep(0.02)


def test_a_full_server_says_429_and_recovers(tiny_home: Path) -> None:
    limits = ServingLimits(max_concurrent_requests=1)
    with ServerThread(tiny_config(tiny_home, limits=limits)) as server:
        assert server.registry is not None
        body = {"inputs": "a", "parameters": {"max_new_tokens": 300, "seed": 3, "top_k": 50}}
        with httpx.stream("POST", f"{server.url}/generate_stream", json=body, timeout=30) as busy:
            lines = busy.iter_lines()
            next(lines)
            held, let_go = threading.Event(), threading.Event()

            def hold() -> None:  # between two steps: so fast a model might be done too soon
                held.set()
                assert let_go.wait(30)

            server.registry.worker.call(hold)
            assert held.wait(30)
            refused = httpx.post(f"{server.url}/generate", json=body)
            let_go.set()
            assert refused.status_code == 429
            assert refused.json() == {"error": "Model is overloaded", "error_type": "overloaded"}
            assert refused.headers["retry-after"] == "1"
        deadline = time.monotonic() + 5
        body["parameters"]["max_new_tokens"] = 1  # type: ignore[index]
        while httpx.post(f"{server.url}/generate", json=body).status_code == 429:
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_health_and_info(tiny_home: Path) -> None:
    with ServerThread(tiny_config(tiny_home)) as server:
        assert server.registry is not None
        for path in ("/", "/health", "/ping"):
            assert httpx.get(server.url + path).status_code == 200
        info = httpx.get(f"{server.url}/info").json()
        assert info["model_id"] == "base"
        assert info["max_total_tokens"] == 512
        assert info["adapters"] == ["lora", "prefix"]
        server.registry.worker.stop()
        sick = httpx.get(f"{server.url}/health")
        assert sick.status_code == 503
        assert sick.json() == {"error": "unhealthy", "error_type": "healthcheck"}


def test_a_bad_folder_is_refused_by_name_while_the_others_serve(
    tiny_home: Path, tmp_path: Path
) -> None:
    import shutil

    bad = tmp_path / "tampered"
    shutil.copytree(tiny_home / "lora", bad)
    with (bad / "adapter_model.safetensors").open("r+b") as stream:
        stream.seek(-1, 2)
        stream.write(b"\x7f")
    config = tiny_config(tiny_home, models=(("lora", tiny_home / "lora"), ("tampered", bad)))
    with ServerThread(config) as server:
        info = httpx.get(f"{server.url}/info").json()
        assert "content differs from its sha256" in info["refused"]["tampered"]
        ids = [m["id"] for m in httpx.get(f"{server.url}/v1/models").json()["data"]]
        assert ids == ["base", "lora"]


def test_a_taken_port_is_one_clear_error() -> None:
    with bind("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PortInUseError, match=f"port {port} on 127.0.0.1 is in use"):
            bind("127.0.0.1", port)


def test_small_pieces_are_sent_at_once() -> None:
    """Without it a stream's first token waits 40 ms for the other side's acknowledgement."""
    found = []

    async def accept() -> None:
        got = asyncio.Event()

        async def note(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            taken = writer.get_extra_info("socket")
            found.append(taken.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()
            got.set()

        with bind("127.0.0.1", 0) as listener:
            async with await asyncio.start_server(note, sock=listener):
                _, writer = await asyncio.open_connection(*listener.getsockname())
                await got.wait()
                writer.close()

    asyncio.run(accept())
    assert found == [1]


def test_a_base_without_safetensors_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"safetensors"):
        ServerThread(tiny_config(tmp_path, models=())).start()
    with pytest.raises(ServingError, match="dtype 'int3' is unknown"):
        tiny_config(tmp_path, dtype="int3")


@pytest.mark.slow
def test_the_command_prints_one_line_and_fails(tmp_path: Path) -> None:
    with bind("127.0.0.1", 0) as taken:
        port = str(taken.getsockname()[1])
        base = tiny.save_checkpoint("llama", tmp_path / "b")
        done = Forked(["serve", "--base", base, "--port", port]).wait()
    assert done.status == 1
    assert "is in use" in done.stderr
    assert done.stderr.count("\n") == 1
