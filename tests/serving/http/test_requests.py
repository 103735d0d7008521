"""Parameters and settings one by one: what each changes in an answer, a header or the log."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest
import serving_models as tiny
import transformers
from serving_fixtures import tiny_config

from serving.completion import completion
from serving.engine.efficiency import eta, rho
from serving.engine.stats import StepTimes
from serving.http.server import ServerThread

PROMPT = "the river sings under the stone"
MESSAGES = [{"role": "user", "content": PROMPT}]
# TGI 3.3: what its router and back ends export.
TGI_HISTOGRAMS = [
    "request_duration", "request_validation_duration", "request_queue_duration",
    "request_inference_duration", "request_mean_time_per_token_duration",
    "request_generated_tokens", "request_input_length", "request_max_new_tokens",
    "request_skipped_tokens", "batch_inference_duration", "batch_forward_duration",
    "batch_decode_duration", "batch_filter_duration", "batch_concat_duration", "batch_next_size",
]  # fmt: skip
TGI_COUNTERS = [
    "request_count", "request_success", "request_failure", "batch_inference_count",
    "batch_inference_success", "batch_inference_failure", "batch_concat",
]  # fmt: skip
TGI_GAUGES = [
    "queue_size", "batch_current_size", "batch_current_max_tokens", "batch_total_tokens",
    "batch_max_total_tokens",
]  # fmt: skip


def post(server: ServerThread, route: str, body: dict[str, Any], **kwargs: Any) -> httpx.Response:
    return httpx.post(f"{server.url}/{route}", json=body, timeout=30, **kwargs)


def generate(server: ServerThread, **parameters: Any) -> dict[str, Any]:
    reply = post(server, "generate", {"inputs": PROMPT, "parameters": parameters})
    return dict(reply.raise_for_status().json())


def ids_of(text: str) -> tuple[int, ...]:
    return tuple(tiny.make_tokenizer()(text)["input_ids"])


def test_truncate_keeps_the_last_tokens(tiny_server: ServerThread, tiny_home: Path) -> None:
    short = ids_of(PROMPT)[-3:]
    want = tiny.generate(tiny_home / "base", tiny_home / "lora", short, 6)
    assert want != tiny.generate(tiny_home / "base", tiny_home / "lora", ids_of(PROMPT), 6)
    told = generate(tiny_server, truncate=3, max_new_tokens=6, adapter_id="lora", details=True)
    assert tuple(token["id"] for token in told["details"]["tokens"]) == want


def test_without_parameters_an_answer_is_sampled(tiny_server: ServerThread) -> None:
    """TGI draws when nothing is said, and is greedy when `parameters` is there and empty."""
    answers = [post(tiny_server, "generate", {"inputs": PROMPT}).json() for _ in range(3)]
    assert len({answer["generated_text"] for answer in answers}) == 3
    for empty in ({}, None):
        body = {"inputs": PROMPT, "parameters": empty}
        greedy = {post(tiny_server, "generate", body).json()["generated_text"] for _ in range(2)}
        assert len(greedy) == 1
    assert generate(tiny_server, max_new_tokens=1, details=True)["details"]["seed"] is None
    drawn = generate(tiny_server, max_new_tokens=1, details=True, top_k=3)["details"]["seed"]
    again = generate(tiny_server, max_new_tokens=1, details=True, top_k=3, seed=drawn)
    assert again["details"]["seed"] == drawn


def test_penalties_change_the_text_as_transformers_does(
    tiny_server: ServerThread, tiny_home: Path
) -> None:
    """A repetition penalty over prompt and answer, and frequency over the answer alone."""
    model = tiny.reference_model(tiny_home / "base", None)
    want = tiny.penalised(model, ids_of(PROMPT), 20, repetition_penalty=1.9)
    told = generate(tiny_server, max_new_tokens=20, repetition_penalty=1.9, details=True)
    assert [token["id"] for token in told["details"]["tokens"]] == want
    often = generate(tiny_server, max_new_tokens=60, frequency_penalty=-2.0, details=True)
    tokens = [token["id"] for token in often["details"]["tokens"]]
    plain = generate(tiny_server, max_new_tokens=60, details=True)["details"]["tokens"]
    assert len(set(tokens)) < len({token["id"] for token in plain})


def test_what_is_not_supported_is_refused(tiny_server: ServerThread) -> None:
    reply = post(tiny_server, "generate", {"inputs": "a", "parameters": {"watermark": True}})
    assert reply.status_code == 422
    assert "`watermark` is not supported" in reply.json()["error"]
    image = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
    chat = {"model": "lora", "messages": [{"role": "user", "content": [image]}]}
    reply = post(tiny_server, "v1/chat/completions", chat)
    assert reply.status_code == 422
    assert "no images" in reply.json()["error"]


def test_content_in_parts_is_one_text(tiny_server: ServerThread) -> None:
    parts = [{"type": "text", "text": "the river "}, {"type": "text", "text": "sings"}]
    told = [
        post(
            tiny_server, "chat_tokenize",
            {"model": "lora", "messages": [{"role": "user", "content": content}]},
        ).json()
        for content in (parts, "the river sings")
    ]  # fmt: skip
    assert told[0] == told[1]


def test_a_reward_model_without_a_tokenizer_is_refused(tiny_home: Path, tmp_path: Path) -> None:
    config = transformers.LlamaConfig(**tiny.COMMON, **tiny.WIDE, num_labels=1)
    transformers.LlamaForSequenceClassification(config).save_pretrained(tmp_path / "judge")
    models = (("judge", tmp_path / "judge"),)
    with ServerThread(tiny_config(tiny_home, models=models)) as server:
        info = httpx.get(f"{server.url}/info").json()
        assert "no usable tokenizer" in info["refused"]["judge"]
        assert post(server, "generate", {"inputs": "a"}).is_success


def test_other_origins_only_when_asked_for(tiny_server: ServerThread, tiny_home: Path) -> None:
    headers = {"origin": "https://example.org", "access-control-request-method": "POST"}
    closed = httpx.options(f"{tiny_server.url}/generate", headers=headers)
    assert "access-control-allow-origin" not in closed.headers
    with ServerThread(tiny_config(tiny_home, models=(), cors=True)) as server:
        opened = httpx.options(f"{server.url}/generate", headers=headers)
        assert opened.headers["access-control-allow-origin"] == "*"


def test_the_log_tells_texts_only_when_asked_to(
    tiny_home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for asked in (False, True):
        caplog.clear()
        config = tiny_config(tiny_home, models=(), log_prompts=asked)
        with caplog.at_level(logging.DEBUG, "serving"), ServerThread(config) as server:
            answer = generate(server, max_new_tokens=8)["generated_text"]
        (line,) = [m for m in caplog.messages if m.startswith("completion ")]
        for part in ("model=base", "prompt_tokens=6", "generated_tokens=8", "finish=length"):
            assert part in line.split()
        told = "\n".join(caplog.messages)
        assert (PROMPT in told) is asked
        assert (repr(answer) in told) is asked


def test_a_silent_stream_is_kept_alive(tiny_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert completion.HEARTBEAT_SECONDS == 15.0
    monkeypatch.setattr(completion, "HEARTBEAT_SECONDS", 0.02)
    with ServerThread(tiny_config(tiny_home)) as server:
        assert server.registry is not None
        body = {"inputs": PROMPT, "parameters": {"max_new_tokens": 2}}
        chat = {"model": "lora", "messages": MESSAGES, "max_tokens": 2, "stream": True}
        for route, ask in (("generate_stream", body), ("v1/chat/completions", chat)):
            let_go = threading.Event()
            server.registry.worker.call(let_go.wait)
            with httpx.stream("POST", f"{server.url}/{route}", json=ask, timeout=30) as reply:
                lines = []
                for line in reply.iter_lines():
                    lines.append(line)
                    if line.startswith(":"):
                        let_go.set()
            assert lines[0].startswith(":")
            assert sum(line.startswith("data: {") for line in lines) == 2


def test_every_series_of_tgi_is_there(tiny_home: Path) -> None:
    with ServerThread(tiny_config(tiny_home)) as server:
        generate(server, max_new_tokens=2)
        lines = httpx.get(f"{server.url}/metrics").text.splitlines()
    kinds = {name: kind for _, _, name, kind in (x.split() for x in lines if x.startswith("# T"))}
    for kind, names in (
        ("histogram", TGI_HISTOGRAMS), ("counter", TGI_COUNTERS), ("gauge", TGI_GAUGES)
    ):  # fmt: skip
        assert {name: kinds.get(f"tgi_{name}") for name in names} == dict.fromkeys(names, kind)


def test_buckets_are_those_of_tgi(tiny_home: Path) -> None:
    with ServerThread(tiny_config(tiny_home, models=())) as server:
        generate(server, max_new_tokens=2)
        lines = httpx.get(f"{server.url}/metrics").text.splitlines()

    def edges(name: str) -> list[float]:
        start = f"tgi_{name}_bucket{{"
        told = [line.partition('le="')[2].partition('"')[0] for line in lines if start in line]
        assert told[-1] == "+Inf"
        return [float(edge) for edge in told[:-1]]

    durations = [0.0001 * 1.5**k for k in range(1, 36)]
    assert edges("request_duration") == pytest.approx(durations, rel=1e-5)
    assert edges("request_input_length") == pytest.approx([5.11 * k for k in range(1, 101)])
    assert edges("request_generated_tokens") == pytest.approx([5.12 * k for k in range(1, 101)])
    sizes = [line for line in lines if line.startswith("tgi_batch_next_size_bucket")]
    assert len(sizes) == 12  # 1, 2, 4 … 1024 and +Inf


def test_efficiencies_are_what_they_say() -> None:
    """Two steps by hand: 30 bytes in 2 s at 60 bytes/s; tuned steps take 1.25 times as long."""
    times = StepTimes()
    times.record(1, 1.0, 10, tuned=False)
    times.record(1, 1.0, 20, tuned=False)
    assert eta(times, 60.0) == {1: pytest.approx(0.25)}
    assert rho(times) is None
    times.record(1, 1.25, 20, tuned=True)
    times.record(8, 9.0, 10, tuned=True)  # Nothing to compare it with.
    assert rho(times) == pytest.approx(1.25)
    assert eta(times, 60.0)[1] == pytest.approx(50 / 3.25 / 60)


def test_the_body_of_an_openai_error_is_an_object(tiny_server: ServerThread) -> None:
    chat = {"model": "nobody", "messages": MESSAGES}
    told = post(tiny_server, "v1/chat/completions", chat).json()
    assert told["error_type"] == "adapter_not_found"
    assert isinstance(told["error"], str)
    headers = {"x-stainless-lang": "js"}
    told = post(tiny_server, "v1/chat/completions", chat, headers=headers).json()
    assert told["error"]["code"] == 404
    assert told.keys() == {"error"}
