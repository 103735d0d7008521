"""Keys beyond OpenAI's and TGI's that clients send on /v1: honoured, or refused by name; and null.

Null is no value, on every route.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import serving_models as tiny
import torch
from serving_fixtures import tiny_config
from transformers import MinPLogitsWarper

from serving.engine.sampling import SamplingParams, TokenSampler
from serving.http.server import ServerThread

PROMPT = "the river sings under"
MESSAGES = [{"role": "user", "content": PROMPT}]
TEMPLATE = (
    "{% if enable_thinking is defined %}[thinking={{ enable_thinking }}]{% endif %}"
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
ROUTES = ("v1/chat/completions", "v1/completions")


@pytest.fixture(scope="module")
def server(tiny_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerThread]:
    folder = tmp_path_factory.mktemp("extras") / "thinks"
    thinks = tiny.save_checkpoint("llama", folder, template=TEMPLATE)
    models = (("lora", tiny_home / "lora"), ("thinks", thinks))
    with ServerThread(tiny_config(tiny_home, models=models)) as running:
        yield running


def ask(server: ServerThread, route: str, **wish: Any) -> httpx.Response:
    body = {"model": "lora", "messages": MESSAGES, "prompt": PROMPT, **wish}
    del body["prompt" if "chat" in route else "messages"]
    return httpx.post(f"{server.url}/{route}", json=body, timeout=60)


def counted(server: ServerThread, route: str, **wish: Any) -> tuple[str, int, str]:
    """(text, tokens, finish reason) of an answer."""
    reply = ask(server, route, **wish)
    assert reply.status_code == 200, reply.text
    (choice,) = reply.json()["choices"]
    text = choice["text"] if "text" in choice else choice["message"]["content"]
    return text, reply.json()["usage"]["completion_tokens"], choice["finish_reason"]


def first_token(server: ServerThread, route: str, **wish: Any) -> str:
    return counted(server, route, max_tokens=1, **wish)[0]


@pytest.mark.parametrize("route", ROUTES)
def test_top_k_and_min_p_leave_the_likely_tokens(server: ServerThread, route: str) -> None:
    greedy = first_token(server, route, temperature=0)
    seeds = range(12)
    hot = {first_token(server, route, temperature=2, seed=seed) for seed in seeds}
    assert len(hot) > 3
    for wish in ({"top_k": 1}, {"min_p": 1.0}):
        assert {first_token(server, route, temperature=2, seed=seed, **wish) for seed in seeds} == {
            greedy
        }
    two = {first_token(server, route, temperature=2, seed=seed, top_k=2) for seed in seeds}
    assert greedy in two
    assert len(two) <= 2
    for off in ({"top_k": -1}, {"top_k": 0}, {"min_p": 0}):
        assert first_token(server, route, temperature=2, seed=5, **off) == first_token(
            server, route, temperature=2, seed=5
        )


@pytest.mark.parametrize("min_p", [0.02, 0.3, 0.9])
def test_min_p_filters_as_transformers_does(min_p: float) -> None:
    torch.manual_seed(0)
    logits = torch.randn(200) * 3
    sampler = TokenSampler(SamplingParams(do_sample=True, min_p=min_p), [1])
    want = MinPLogitsWarper(min_p)(torch.tensor([[1]]), logits[None].clone())[0]
    assert torch.equal(sampler.scores(logits), want)


def ended_early(server: ServerThread, route: str) -> tuple[int, int]:
    """(seed, tokens) of an answer that ends by itself before its twentieth token."""
    for seed in itertools.count():
        _, count, reason = counted(server, route, temperature=3, seed=seed, max_tokens=20)
        if reason == "stop" and count > 1:
            return seed, count
    raise AssertionError


@pytest.mark.parametrize("route", ROUTES)
def test_an_end_may_be_ignored_or_put_off(server: ServerThread, route: str) -> None:
    seed, count = ended_early(server, route)
    wish = {"temperature": 3, "seed": seed, "max_tokens": 25}
    assert counted(server, route, **wish)[1] == count
    _, longer, reason = counted(server, route, **wish, ignore_eos=True)
    assert (longer, reason) == (25, "length")
    assert counted(server, route, **wish, min_tokens=count + 1)[1] > count
    assert counted(server, route, **wish, min_tokens=25)[1:] == (25, "length")
    assert counted(server, route, **wish, min_tokens=0)[1] == count


@pytest.mark.parametrize("route", ROUTES)
def test_stop_strings_do_not_count_before_the_least_length(
    server: ServerThread, route: str
) -> None:
    wish = {"temperature": 0, "max_tokens": 20, "ignore_eos": True}
    text, _, _ = counted(server, route, **wish)
    stop = text.strip()[0]
    assert counted(server, route, **wish, stop=stop)[1] < 20
    held, count, _ = counted(server, route, **wish, stop=stop, min_tokens=20)
    assert count == 20
    assert held == text


def rendered(server: ServerThread, **wish: Any) -> str:
    body = {"model": "thinks", "messages": MESSAGES, **wish}
    reply = httpx.post(f"{server.url}/chat_tokenize", json=body)
    assert reply.status_code == 200, reply.text
    told = httpx.post(f"{server.url}/v1/chat/completions", json={**body, "max_tokens": 1}).json()
    assert told["usage"]["prompt_tokens"] == len(reply.json()["tokenize_response"])
    return str(reply.json()["templated_text"])


def test_variables_of_a_template_reach_it(server: ServerThread) -> None:
    plain = f"user: {PROMPT}\nassistant:"
    assert rendered(server) == plain
    for value in (True, False, "low"):
        kwargs = {"enable_thinking": value}
        assert rendered(server, chat_template_kwargs=kwargs) == f"[thinking={value}]{plain}"
    assert rendered(server, chat_template_kwargs={}) == plain


@pytest.mark.parametrize("name", ["nobody", "chat_template", "tokenize", "messages", "tools"])
def test_variables_no_template_takes_are_refused(server: ServerThread, name: str) -> None:
    reply = ask(server, ROUTES[0], model="thinks", chat_template_kwargs={name: "x"})
    assert reply.status_code == 422
    assert f"`chat_template_kwargs` has '{name}'" in reply.json()["error"]


def test_how_a_conversation_is_opened_or_continued(server: ServerThread) -> None:
    user, said = MESSAGES[0], {"role": "assistant", "content": "I say"}
    before = f"user: {PROMPT}\n"
    for messages, wish, want in (
        ([user], {"add_generation_prompt": False}, before),
        ([user], {"add_generation_prompt": True}, f"{before}assistant:"),
        ([user, said], {}, f"{before}assistant: I say"),
        ([user, said], {"continue_final_message": True}, f"{before}assistant: I say"),
        ([user, said], {"continue_final_message": True, "add_generation_prompt": False},
         f"{before}assistant: I say"),
        ([user, said], {"continue_final_message": False},
         f"{before}assistant: I say\nassistant:"),
        ([user, said], {"add_generation_prompt": True}, f"{before}assistant: I say\nassistant:"),
        ([user, said], {"add_generation_prompt": False}, f"{before}assistant: I say\n"),
    ):  # fmt: skip
        assert rendered(server, messages=messages, **wish) == want
    for messages, wish in (
        ([user], {"continue_final_message": True}),
        ([user, said], {"continue_final_message": True, "add_generation_prompt": True}),
    ):
        reply = ask(server, ROUTES[0], messages=messages, **wish)
        assert reply.status_code == 422
        assert "continue_final_message" in reply.json()["error"]


def test_a_developer_speaks_as_the_system(server: ServerThread) -> None:
    messages = [{"role": "developer", "content": "be kind"}, *MESSAGES]
    assert rendered(server, messages=messages) == (f"system: be kind\nuser: {PROMPT}\nassistant:")


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("stop_token_ids", [3]), ("use_beam_search", True), ("length_penalty", 2.0),
        ("guided_json", {"type": "object"}), ("bad_words", ["a"]), ("mirostat", 2),
        ("functions", [{"name": "f"}]), ("reasoning_effort", "low"), ("modalities", ["audio"]),
        ("skip_special_tokens", 5), ("chat_template", "{{ x }}"), ("lora_request", "x"),
    ],
)  # fmt: skip
def test_keys_nobody_knows_here_are_refused_by_name(
    server: ServerThread, route: str, key: str, value: Any
) -> None:
    reply = ask(server, route, **{key: value})
    assert reply.status_code == 422
    assert f"`{key}` is not supported" in reply.json()["error"]


@pytest.mark.parametrize("route", ROUTES)
def test_keys_that_change_nothing_are_taken(server: ServerThread, route: str) -> None:
    plain = counted(server, route, max_tokens=4, temperature=0)
    more = {
        "user": "me", "metadata": {"a": "b"}, "store": True, "service_tier": "auto",
        "parallel_tool_calls": False, "safety_identifier": "x", "prompt_cache_key": "x",
        "skip_special_tokens": True, "length_penalty": 1.0, "modalities": ["text"],
        "use_beam_search": False, "stop_token_ids": [], "guided_json": None,
    }  # fmt: skip
    assert counted(server, route, max_tokens=4, temperature=0, **more) == plain


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ({"min_p": 1.5}, "`min_p` must be"),
        ({"top_k": -2}, "`top_k` must be"),
        ({"min_tokens": 9, "max_tokens": 8}, "`min_tokens` must be >= 0 and <= 8"),
        ({"min_tokens": -1}, "`min_tokens` must be"),
    ],
)
@pytest.mark.parametrize("route", ROUTES)
def test_values_out_of_bounds_are_refused(
    server: ServerThread, route: str, wish: dict[str, Any], words: str
) -> None:
    reply = ask(server, route, **wish)
    assert reply.status_code == 422
    assert words in reply.json()["error"]


def test_likely_tokens_without_log_probabilities_are_refused(server: ServerThread) -> None:
    reply = ask(server, ROUTES[0], top_logprobs=3)
    assert reply.status_code == 422
    assert "`top_logprobs` needs `logprobs`" in reply.json()["error"]


OPENAI_NULLS = [
    "model", "adapter_id", "temperature", "top_p", "seed", "stop", "frequency_penalty", "n",
    "presence_penalty", "repetition_penalty", "logit_bias", "stream", "stream_options", "top_k",
    "min_p", "ignore_eos", "min_tokens", "logprobs", "top_logprobs", "tools", "tool_choice",
    "tool_prompt", "response_format", "chat_template_kwargs", "add_generation_prompt",
    "continue_final_message", "guideline", "suffix", "echo", "best_of", "add_special_tokens",
    "user", "anything_else",
]  # fmt: skip
TGI_NULLS = [
    "best_of", "temperature", "repetition_penalty", "frequency_penalty", "top_k", "top_p",
    "typical_p", "do_sample", "return_full_text", "stop", "truncate", "watermark", "details",
    "decoder_input_details", "seed", "top_n_tokens", "grammar", "adapter_id",
]  # fmt: skip


@pytest.mark.parametrize("route", ROUTES)
def test_null_counts_as_absent_on_v1(server: ServerThread, route: str) -> None:
    nulls = dict.fromkeys(OPENAI_NULLS)
    for length in ({"max_tokens": None, "max_completion_tokens": 5},
                   {"max_tokens": 5, "max_completion_tokens": None}):  # fmt: skip
        wish = {**nulls, **length, "temperature": 0, "model": "lora", "ignore_eos": True}
        assert counted(server, route, **wish)[1] == 5
    options = {"include_usage": None, "continuous_usage_stats": None}
    wish = {**nulls, "stream": True, "stream_options": options, "max_tokens": 2, "model": "lora"}
    streamed = ask(server, route, **wish)
    assert streamed.status_code == 200
    assert streamed.text.endswith("data: [DONE]\n\n")


@pytest.mark.parametrize("route", ["generate", "generate_stream", "", "tokenize"])
def test_null_counts_as_absent_on_tgis_routes(server: ServerThread, route: str) -> None:
    nulls: dict[str, Any] = {**dict.fromkeys(TGI_NULLS), "max_new_tokens": 3}
    body = {"inputs": PROMPT, "parameters": nulls, "stream": None}
    reply = httpx.post(f"{server.url}/{route}", json=body)
    assert reply.status_code == 200, reply.text
    plain = {"inputs": PROMPT, "parameters": {"max_new_tokens": 3}}
    want = httpx.post(f"{server.url}/{route}", json=plain)
    assert reply.text == want.text


def test_nulls_inside_messages_and_tools(server: ServerThread) -> None:
    message = {"role": "user", "name": None, "tool_calls": None, "tool_call_id": None,
               "content": [{"type": "text", "text": PROMPT, "image_url": None}]}  # fmt: skip
    assert rendered(server, messages=[message]) == f"user: {PROMPT}\nassistant:"
    tool = {"type": "function", "function": {"name": "f", "description": None, "parameters": None}}
    reply = ask(server, ROUTES[0], tools=[tool], tool_choice="required", max_tokens=40)
    (call,) = reply.json()["choices"][0]["message"]["tool_calls"]
    assert call["function"]["arguments"] == "{}"
    schema = {"type": "json_schema", "value": None,
              "json_schema": {"name": "x", "strict": None, "schema": {"type": "object",
              "properties": {"a": {"type": "null"}}, "required": ["a"]}}}  # fmt: skip
    told = counted(server, ROUTES[0], response_format=schema, max_tokens=40)
    assert told[0] == '{"a":null}'
    for route in ("v1/load_lora_adapter", "v1/unload_lora_adapter"):
        nulls = {"lora_name": None, "lora_path": None, "load_inplace": None}
        assert httpx.post(f"{server.url}/{route}", json=nulls).status_code == 400
