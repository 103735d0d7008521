"""Every client, sync and async, over text, chat, streams, details and errors.

None of these clients was written for this server; what they should read is transformers' text.
"""

from __future__ import annotations

import asyncio
import math
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import serving_models as tiny
import torch
import transformers
from huggingface_hub import AsyncInferenceClient, InferenceClient
from huggingface_hub.errors import HfHubHTTPError, OverloadedError, UnknownError, ValidationError
from serving_fixtures import tiny_config

from serving.config import ServingLimits
from serving.http.server import ServerThread

PROMPT = "the river sings under"
MESSAGES = [{"role": "user", "content": PROMPT}]
CHAT = f"user: {PROMPT}\nassistant:"
COUNT = 8


@pytest.fixture(autouse=True)
def hub_clients_may_ask_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Offline mode would stop the hub client before it reaches this machine."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)


def ids_of(text: str) -> tuple[int, ...]:
    return tuple(tiny.make_tokenizer()(text)["input_ids"])


def truth(home: Path, text: str) -> tuple[int, ...]:
    """Greedy tokens of the LoRA."""
    return tiny.generate(home / "base", home / "lora", ids_of(text), COUNT)


@contextmanager
def busy(home: Path) -> Iterator[str]:
    """URL of a server whose only place is taken."""
    limits = ServingLimits(max_concurrent_requests=1)
    with ServerThread(tiny_config(home, limits=limits)) as server:
        # A grammar that forbids an end keeps the place taken.
        grammar = {"type": "regex", "value": "[ab]{390,}"}
        body = {"inputs": "a", "parameters": {"max_new_tokens": 400, "grammar": grammar}}
        assert server.registry is not None
        engine = server.registry.base.engine
        step, held = engine.step, threading.Event()

        def slow_step() -> Any:
            held.wait(0.05)
            return step()

        engine.step = slow_step  # type: ignore[method-assign]
        with httpx.stream("POST", f"{server.url}/generate_stream", json=body, timeout=30) as taken:
            lines = taken.iter_lines()  # Closed when nobody holds it, and the stream with it.
            next(lines)
            yield server.url
        held.set()


def test_hub_client_async(tiny_server: ServerThread, tiny_home: Path) -> None:
    async def ask() -> None:
        async with AsyncInferenceClient(tiny_server.url, headers={"authorization": None}) as api:
            wish = {"adapter_id": "lora", "max_new_tokens": COUNT, "return_full_text": False}
            assert await api.text_generation(PROMPT, **wish) == tiny.texts(truth(tiny_home, PROMPT))
            full = await api.text_generation(PROMPT, **{**wish, "return_full_text": True})
            assert full == PROMPT + tiny.texts(truth(tiny_home, PROMPT))
            told = await api.text_generation(
                PROMPT, **wish, details=True, decoder_input_details=True, top_n_tokens=3
            )
            assert tuple(t.id for t in told.details.tokens) == truth(tiny_home, PROMPT)
            assert told.details.seed is None
            assert all(
                top[0]["logprob"] == token.logprob
                for top, token in zip(told.details.top_tokens, told.details.tokens, strict=True)
            )
            twice = await api.text_generation(
                PROMPT, **wish, details=True, best_of=2, do_sample=True
            )
            (loser,) = twice.details.best_of_sequences
            assert mean_logprob(loser.tokens) <= mean_logprob(twice.details.tokens)
            pieces = await api.text_generation(PROMPT, **wish, stream=True)
            text = "".join([piece async for piece in pieces])
            assert text == tiny.texts(truth(tiny_home, PROMPT))
            extra = {"adapter_id": "lora"}
            chat = await api.chat_completion(
                MESSAGES, max_tokens=COUNT, temperature=0, logprobs=True, top_logprobs=2,
                extra_body=extra,
            )  # fmt: skip
            choice = chat.choices[0]
            assert choice.message.content == tiny.texts(truth(tiny_home, CHAT))
            assert [len(entry.top_logprobs) for entry in choice.logprobs.content] == [2] * len(
                truth(tiny_home, CHAT)
            )
            stream = await api.chat_completion(
                MESSAGES, max_tokens=COUNT, temperature=0, stream=True, extra_body=extra
            )
            chunks = [chunk async for chunk in stream]
            text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
            assert text == tiny.texts(truth(tiny_home, CHAT))
            with pytest.raises(ValidationError, match="`top_k` must be strictly positive"):
                await api.text_generation(PROMPT, top_k=0)
            with pytest.raises(HfHubHTTPError, match="422"):
                await api.chat_completion(MESSAGES, temperature=-1, extra_body=extra)

    asyncio.run(ask())


def test_hub_client_sync(tiny_server: ServerThread, tiny_home: Path) -> None:
    api = InferenceClient(f"{tiny_server.url}/models/lora", headers={"authorization": None})
    wish = {"max_new_tokens": COUNT, "return_full_text": False}
    want = truth(tiny_home, PROMPT)
    assert api.text_generation(PROMPT, **wish) == tiny.texts(want)
    told = api.text_generation(PROMPT, **wish, details=True)
    assert tuple(token.id for token in told.details.tokens) == want
    assert "".join(api.text_generation(PROMPT, **wish, stream=True)) == tiny.texts(want)
    events = list(api.text_generation(PROMPT, **wish, stream=True, details=True, top_n_tokens=2))
    assert tuple(event.token.id for event in events) == want
    assert [len(event.top_tokens) for event in events] == [2] * len(want)
    assert events[-1].details.input_length == len(ids_of(PROMPT))
    chat = api.chat_completion(
        MESSAGES, max_tokens=COUNT, temperature=0, logprobs=True, top_logprobs=2
    )
    assert chat.choices[0].message.content == tiny.texts(truth(tiny_home, CHAT))
    assert len(chat.choices[0].logprobs.content) == chat.usage.completion_tokens
    chunks = api.chat_completion(
        MESSAGES, max_tokens=COUNT, temperature=0, stream=True,
        stream_options={"include_usage": True},
    )  # fmt: skip
    *others, last = chunks
    assert last.usage.completion_tokens == chat.usage.completion_tokens
    text = "".join(chunk.choices[0].delta.content or "" for chunk in others)
    assert text == tiny.texts(truth(tiny_home, CHAT))
    for stream in (False, True):
        with pytest.raises(ValidationError, match="`top_k` must be strictly positive"):
            list(api.text_generation(PROMPT, top_k=0, stream=stream))
        with pytest.raises(HfHubHTTPError, match="422"):
            list(api.chat_completion(MESSAGES, temperature=-1, stream=stream))


def test_openai_client_sync(tiny_server: ServerThread, tiny_home: Path) -> None:
    api = openai.OpenAI(base_url=f"{tiny_server.url}/v1", api_key="-", max_retries=0)
    wish: dict[str, Any] = {"model": "lora", "max_tokens": COUNT, "temperature": 0}
    want = tiny.texts(truth(tiny_home, PROMPT))
    text = api.completions.create(prompt=PROMPT, **wish)
    assert (text.choices[0].text, text.object) == (want, "text_completion")
    chunks = list(api.completions.create(prompt=PROMPT, stream=True, **wish))
    assert "".join(chunk.choices[0].text for chunk in chunks) == want
    reasons = [chunk.choices[0].finish_reason for chunk in chunks]
    assert set(reasons[:-1]) <= {None}
    assert reasons[-1] == text.choices[0].finish_reason
    chat = api.chat.completions.create(messages=MESSAGES, logprobs=True, top_logprobs=2, **wish)
    assert chat.choices[0].message.content == tiny.texts(truth(tiny_home, CHAT))
    entries = chat.choices[0].logprobs.content
    raw = b"".join(bytes(e.bytes) for e in entries if e.token != "</s>")
    assert raw.decode("utf-8", "replace") == chat.choices[0].message.content
    told = list(
        api.chat.completions.create(
            messages=MESSAGES, stream=True, logprobs=True, top_logprobs=2, **wish
        )
    )
    streamed = [entry for chunk in told for entry in chunk.choices[0].logprobs.content]
    assert [e.token for e in streamed] == [e.token for e in entries]
    assert {chunk.usage for chunk in told} == {None}
    for change, error in (
        ({"model": "nobody"}, openai.NotFoundError),
        ({"temperature": -1}, openai.UnprocessableEntityError),
    ):
        for stream in (False, True):
            with pytest.raises(error) as caught:
                api.completions.create(prompt=PROMPT, stream=stream, **{**wish, **change})
            assert caught.value.body["message"]


def test_clients_send_the_key(tiny_home: Path) -> None:
    with ServerThread(tiny_config(tiny_home, api_key="Sesame")) as server:
        url = f"{server.url}/models/lora"
        want = tiny.texts(truth(tiny_home, PROMPT))
        wish = {"max_new_tokens": COUNT, "return_full_text": False}
        assert InferenceClient(url, api_key="Sesame").text_generation(PROMPT, **wish) == want
        with pytest.raises(UnknownError, match="Send the server's key"):
            InferenceClient(url, api_key="-").text_generation(PROMPT, **wish)
        ask: dict[str, Any] = {"model": "lora", "prompt": PROMPT, "max_tokens": 2}
        api = openai.OpenAI(base_url=f"{url}/v1", api_key="Sesame", max_retries=0)
        assert api.completions.create(**ask).model == "lora"
        with pytest.raises(openai.AuthenticationError):
            api.with_options(api_key="-").completions.create(**ask)


def mean_logprob(tokens: list[Any]) -> float:
    return math.fsum(token.logprob for token in tokens) / len(tokens)


def test_openai_client_async(tiny_server: ServerThread, tiny_home: Path) -> None:
    async def ask() -> None:
        async with openai.AsyncOpenAI(
            base_url=f"{tiny_server.url}/v1", api_key="-", max_retries=0
        ) as api:
            wish: dict[str, Any] = {"model": "lora", "max_tokens": COUNT, "temperature": 0}
            text = await api.completions.create(prompt=PROMPT, **wish)
            assert text.choices[0].text == tiny.texts(truth(tiny_home, PROMPT))
            assert text.usage.prompt_tokens == len(ids_of(PROMPT))
            chat = await api.chat.completions.create(
                messages=MESSAGES, logprobs=True, top_logprobs=2, **wish
            )
            assert chat.choices[0].message.content == tiny.texts(truth(tiny_home, CHAT))
            entries = chat.choices[0].logprobs.content
            assert all(e.top_logprobs[0].logprob == e.logprob for e in entries)
            chunks = [
                chunk
                async for chunk in await api.chat.completions.create(
                    messages=MESSAGES, stream=True, stream_options={"include_usage": True}, **wish
                )
            ]
            assert chunks[-1].choices == []
            assert chunks[-1].usage == chat.usage
            text = "".join(c.choices[0].delta.content for c in chunks[:-1])
            assert text == tiny.texts(truth(tiny_home, CHAT))
            assert [m.id async for m in api.models.list()] == ["base", "full", "lora", "prefix"]
            for change, error, status in (
                ({"model": "nobody"}, openai.NotFoundError, 404),
                ({"temperature": -1}, openai.UnprocessableEntityError, 422),
                ({"n": 0}, openai.UnprocessableEntityError, 422),
            ):
                for stream in (False, True):
                    with pytest.raises(error) as caught:
                        await api.chat.completions.create(
                            messages=MESSAGES, stream=stream, **{**wish, **change}
                        )
                    assert caught.value.status_code == status
                    assert caught.value.body["message"]

    asyncio.run(ask())


@pytest.mark.filterwarnings("ignore::pydantic.PydanticDeprecatedSince20")  # written for pydantic 1
def test_legacy_client_async(tiny_server: ServerThread, tiny_home: Path) -> None:
    legacy = pytest.importorskip("text_generation", reason="needs pip install --no-deps")
    from text_generation import errors

    async def ask() -> None:
        api = legacy.AsyncClient(f"{tiny_server.url}/models/lora")
        want = tiny.texts(truth(tiny_home, PROMPT))
        reply = await api.generate(PROMPT, max_new_tokens=COUNT, decoder_input_details=True)
        assert reply.generated_text == want
        assert tuple(t.id for t in reply.details.tokens) == truth(tiny_home, PROMPT)
        events = [e async for e in api.generate_stream(PROMPT, max_new_tokens=COUNT)]
        assert events[-1].generated_text == want
        assert events[-1].details.finish_reason.value in ("length", "eos_token")
        chat = await api.chat(messages=MESSAGES, max_tokens=COUNT)
        assert chat.choices[0].message.role == "assistant"
        # Its chunks need a `tool_calls`, which TGI leaves out of a text's delta: it takes the
        # first chunk for an error, and finds no `error` in it.
        with pytest.raises(KeyError, match="error"):
            async for _ in await api.chat(messages=MESSAGES, max_tokens=COUNT, stream=True):
                pass
        with pytest.raises(errors.ValidationError, match="`inputs` tokens"):
            await api.generate(PROMPT, max_new_tokens=10_000)
        with pytest.raises(errors.ValidationError, match="`inputs` tokens"):
            async for _ in api.generate_stream(PROMPT, max_new_tokens=10_000):
                pass
        lost = legacy.AsyncClient(f"{tiny_server.url}/models/nobody")
        with pytest.raises(errors.NotFoundError, match="'nobody' is not served"):
            await lost.generate(PROMPT)

    asyncio.run(ask())


@pytest.mark.filterwarnings("ignore::pydantic.PydanticDeprecatedSince20")
def test_each_client_knows_a_full_server(tiny_home: Path) -> None:
    with busy(tiny_home) as url:
        hub = InferenceClient(url, headers={"authorization": None})
        for stream in (False, True):
            with pytest.raises(OverloadedError, match="Model is overloaded"):
                list(hub.text_generation(PROMPT, stream=stream))
        api = openai.OpenAI(base_url=f"{url}/v1", api_key="-", max_retries=0)
        with pytest.raises(openai.RateLimitError, match="overloaded"):
            api.chat.completions.create(model="lora", messages=MESSAGES)
        # A full server does not look at what is asked, as TGI does not.
        reply = httpx.post(f"{url}/generate", json={"inputs": "", "parameters": {"top_k": 0}})
        assert reply.status_code == 429
        legacy = pytest.importorskip("text_generation", reason="needs pip install --no-deps")
        from text_generation import errors

        with pytest.raises(errors.OverloadedError):
            legacy.Client(f"{url}/models/lora").generate(PROMPT)


@pytest.mark.parametrize("stream", [False, True])
def test_several_answers_to_one_chat(
    tiny_server: ServerThread, tiny_home: Path, stream: bool
) -> None:
    api = openai.OpenAI(base_url=f"{tiny_server.url}/v1", api_key="-")
    ask: dict[str, Any] = {"model": "lora", "messages": MESSAGES, "max_tokens": COUNT, "seed": 40}
    alone = []
    for seed in (40, 41, 42):
        told = api.chat.completions.create(**{**ask, "seed": seed})
        alone.append(told.choices[0].message.content)
    assert len(set(alone)) == 3
    if stream:
        texts = ["", "", ""]
        reasons: list[Any] = [None] * 3
        chunks = api.chat.completions.create(
            **ask, n=3, stream=True, stream_options={"include_usage": True}
        )
        for chunk in chunks:
            for choice in chunk.choices:
                texts[choice.index] += choice.delta.content
                reasons[choice.index] = choice.finish_reason or reasons[choice.index]
            usage = chunk.usage
        assert texts == alone
    else:
        told = api.chat.completions.create(**ask, n=3)
        assert [c.index for c in told.choices] == [0, 1, 2]
        assert [c.message.content for c in told.choices] == alone
        reasons, usage = [c.finish_reason for c in told.choices], told.usage
    assert set(reasons) <= {"stop", "length"}
    assert usage.prompt_tokens == len(ids_of(CHAT))
    assert COUNT < usage.completion_tokens <= 3 * COUNT


def test_several_answers_to_several_texts(tiny_server: ServerThread) -> None:
    api = openai.OpenAI(base_url=f"{tiny_server.url}/v1", api_key="-")
    ask: dict[str, Any] = {"model": "lora", "max_tokens": 6, "seed": 7}
    prompts = [PROMPT, "and the lantern"]
    alone = [
        api.completions.create(**{**ask, "seed": seed}, prompt=prompt).choices[0].text
        for prompt in prompts
        for seed in (7, 8)
    ]
    told = api.completions.create(**ask, prompt=prompts, n=2)
    assert [c.text for c in told.choices] == alone
    assert told.usage.prompt_tokens == sum(len(ids_of(prompt)) for prompt in prompts)
    texts = ["", "", "", ""]
    for chunk in api.completions.create(**ask, prompt=prompts, n=2, stream=True):
        texts[chunk.choices[0].index] += chunk.choices[0].text
    assert texts == alone


def test_several_calls_of_a_tool(tiny_server: ServerThread) -> None:
    tool = {"type": "function", "function": {"name": "pick", "parameters": {
        "type": "object", "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 9}},
        "required": ["n"]}}}  # fmt: skip
    api = openai.OpenAI(base_url=f"{tiny_server.url}/v1", api_key="-")
    ask: dict[str, Any] = {"model": "lora", "messages": MESSAGES, "tools": [tool], "n": 2,
                           "tool_choice": "required", "max_tokens": 60, "seed": 3}  # fmt: skip
    told = api.chat.completions.create(**ask)
    calls = [c.message.tool_calls[0] for c in told.choices]
    assert len({call.id for call in calls}) == 2
    texts = ["", ""]
    for chunk in api.chat.completions.create(**ask, stream=True):
        choice = chunk.choices[0]
        texts[choice.index] += choice.delta.tool_calls[0].function.arguments
    assert texts == [call.function.arguments for call in calls]


def test_numbers_that_are_no_json_are_refused(tiny_server: ServerThread) -> None:
    for value in ("NaN", "Infinity", "-Infinity"):
        content = f'{{"inputs": "a", "parameters": {{"temperature": {value}}}}}'
        reply = httpx.post(
            f"{tiny_server.url}/generate",
            content=content, headers={"content-type": "application/json"},
        )  # fmt: skip
        assert reply.status_code == 400
        assert "is no JSON" in reply.json()["error"]


def test_a_template_that_wants_a_guideline(tiny_home: Path, tmp_path: Path) -> None:
    folder = tiny.save_checkpoint(
        "llama", tmp_path / "shield", template="{{ guideline }}: {{ messages[0].content }}"
    )
    with ServerThread(tiny_config(tiny_home, models=(("shield", folder),))) as server:
        ask = {"model": "shield", "messages": MESSAGES}
        reply = httpx.post(f"{server.url}/chat_tokenize", json=ask)
        assert reply.status_code == 422
        assert reply.json() == {
            "error": "Missing template vatiable: guideline",
            "error_type": "missing_template_variable",
        }
        reply = httpx.post(f"{server.url}/chat_tokenize", json={**ask, "guideline": "kind"})
        assert reply.json()["templated_text"] == f"kind: {PROMPT}"


def test_replies_carry_tgi_headers(tiny_server: ServerThread) -> None:
    parameters = {"max_new_tokens": 3, "adapter_id": "lora"}
    text = {"inputs": PROMPT, "parameters": parameters}
    chat = {"model": "lora", "messages": MESSAGES, "max_tokens": 3}
    for route, body, length in (
        ("generate", text, len(PROMPT)), ("", text, len(PROMPT)),
        ("v1/chat/completions", chat, len(CHAT)),
        ("v1/completions", {"model": "lora", "prompt": PROMPT, "max_tokens": 3}, len(PROMPT)),
    ):  # fmt: skip
        headers = httpx.post(f"{tiny_server.url}/{route}", json=body).headers
        assert headers["x-compute-type"] == "cpu"
        assert headers["x-compute-characters"] == str(length)
        assert headers["x-generated-tokens"] in "123"
        numbers = [float(headers[f"x-{name}"]) for name in (
            "compute-time", "total-time", "validation-time", "queue-time", "inference-time",
            "time-per-token", "prompt-tokens")]  # fmt: skip
        assert all(number >= 0 for number in numbers)
    headers = httpx.post(f"{tiny_server.url}/generate_stream", json=text).headers
    assert headers["x-compute-characters"] == str(len(PROMPT))
    assert headers["x-accel-buffering"] == "no"
    assert headers["content-type"].startswith("text/event-stream")


OUT_OF_MEMORY = """
import resource, sys
from pathlib import Path
import httpx
from serving.http.server import ServerThread
from serving.config import ServingLimits, ServeConfig
limits = ServingLimits(kv_tokens=60_000, max_total_tokens=50_000)
config = ServeConfig(Path(sys.argv[1]), "base", port=0, device="cpu", limits=limits)
with ServerThread(config) as server:
    def ask(count):
        body = {"inputs": "a " * count, "parameters": {"max_new_tokens": 2}}
        return httpx.post(server.url + "/generate", json=body, timeout=120)
    assert ask(3).status_code == 200
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 2**29, hard))
    reply = ask(20_000)
    print(reply.status_code, reply.json()["error_type"], ask(3).status_code)
"""


@pytest.mark.slow
def test_a_request_without_memory_is_503_and_the_next_is_served(tmp_path: Path) -> None:
    """Keys and values of 32 KiB a token, so that the memory of 40,000 is really not there."""
    wide = {**tiny.WIDE, "head_dim": 1024, "max_position_embeddings": 65_536}
    config = transformers.LlamaConfig(**tiny.COMMON, **wide)
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path)
    tiny.save_tokenizer(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", OUT_OF_MEMORY, str(tmp_path)],
        capture_output=True, text=True, timeout=300, cwd=Path(__file__).parents[3],
    )  # fmt: skip
    assert done.stdout.split() == ["503", "overloaded", "200"], done.stderr[-2000:]


def test_logprobs_over_http_are_those_of_the_model(
    tiny_server: ServerThread, tiny_home: Path
) -> None:
    hub = InferenceClient(tiny_server.url, headers={"authorization": None})
    told = hub.text_generation(PROMPT, adapter_id="lora", max_new_tokens=COUNT, details=True)
    model = tiny.reference_model(tiny_home / "base", tiny_home / "lora")
    tokens = truth(tiny_home, PROMPT)
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([[*ids_of(PROMPT), *tokens]])).logits[0].float()
    rows = torch.log_softmax(logits, -1)[len(ids_of(PROMPT)) - 1 : -1]
    want = [float(row[token]) for row, token in zip(rows, tokens, strict=True)]
    assert [t.logprob for t in told.details.tokens] == pytest.approx(want, abs=1e-4)
