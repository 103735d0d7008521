"""Every parameter on the wire, one by one: what it does to the probabilities and to the reply.

What a parameter should do to a row of scores is told by transformers' processor of that name, on
the logits of transformers' model.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import serving_models as tiny
import torch
from huggingface_hub import InferenceClient
from serving_fixtures import tiny_config
from transformers import (
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

from serving.config import ServingLimits
from serving.http.server import ServerThread

PROMPT = "the river sings under the stone"
MESSAGES = [{"role": "user", "content": PROMPT}]
CHAT = f"user: {PROMPT}\nassistant:"
TOOL = {
    "type": "function",
    "function": {
        "name": "pick",
        "description": "Picks one.",
        "parameters": {
            "type": "object",
            "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 9}},
            "required": ["n"],
        },
    },
}
OTHER = {"type": "function", "function": {"name": "drop", "parameters": {}}}
SCHEMA = {
    "type": "object",
    "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["n"],
    "additionalProperties": False,
}
# In the order in which transformers and TGI apply them.
PROCESSORS = {
    "repetition_penalty": RepetitionPenaltyLogitsProcessor,
    "temperature": TemperatureLogitsWarper,
    "top_k": TopKLogitsWarper,
    "top_p": TopPLogitsWarper,
    "typical_p": TypicalLogitsWarper,
}
ALL = {
    "repetition_penalty": 1.2, "frequency_penalty": 0.4, "temperature": 1.5, "top_k": 40,
    "top_p": 0.95, "typical_p": 0.9,
}  # fmt: skip


@pytest.fixture(autouse=True)
def hub_clients_may_ask_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Offline mode would stop the hub client before it reaches this machine."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)


@pytest.fixture(scope="module")
def narrow_server(tiny_home: Path) -> Iterator[ServerThread]:
    """Takes prompts of four tokens and one answer to each."""
    limits = ServingLimits(max_input_tokens=4, max_best_of=1)
    with ServerThread(tiny_config(tiny_home, models=(), limits=limits)) as server:
        yield server


def post(server: ServerThread, route: str, body: dict[str, Any]) -> httpx.Response:
    return httpx.post(f"{server.url}/{route}", json=body, timeout=30)


def generate(server: ServerThread, **parameters: Any) -> dict[str, Any]:
    body = {"inputs": PROMPT, "parameters": {"adapter_id": "lora", **parameters}}
    return dict(post(server, "generate", body).raise_for_status().json())


def chat(server: ServerThread, **wishes: Any) -> dict[str, Any]:
    body = {"model": "lora", "messages": MESSAGES, **wishes}
    return dict(post(server, "v1/chat/completions", body).raise_for_status().json())


def events(reply: httpx.Response) -> list[Any]:
    blocks = [b.removeprefix("data: ") for b in reply.text.split("\n\n") if b.startswith("data: ")]
    return [block if block == "[DONE]" else json.loads(block) for block in blocks]


def ids_of(text: str) -> list[int]:
    return list(tiny.make_tokenizer()(text)["input_ids"])


def greedy(home: Path, text: str, count: int) -> str:
    """The LoRA's answer."""
    return tiny.texts(tiny.generate(home / "base", home / "lora", tuple(ids_of(text)), count))


def logprobs_after(
    home: Path, prompt: list[int], generated: list[int], wish: dict[str, Any]
) -> torch.Tensor:
    """The LoRA's log probabilities of the next token, after the processors of these parameters."""
    known = torch.tensor([[*prompt, *generated]])
    with torch.inference_mode():
        model = tiny.reference_model(home / "base", home / "lora")
        scores = model(input_ids=known).logits[:, -1]
    scores = scores.float().clone()  # One that may be changed.
    early = LogitsProcessorList()
    late = LogitsProcessorList()
    for name, kind in PROCESSORS.items():
        if name in wish:
            (early if name == "repetition_penalty" else late).append(kind(wish[name]))
    scores = early(known, scores)
    for token in set(generated):  # OpenAI's formula
        scores[0, token] -= generated.count(token) * wish.get("frequency_penalty", 0.0)
        scores[0, token] -= wish.get("presence_penalty", 0.0)
    for token, bias in wish.get("logit_bias", {}).items():
        scores[0, int(token)] += bias
    return torch.log_softmax(late(known, scores)[0], -1)


@pytest.mark.parametrize(
    "wish", [*({name: ALL[name]} for name in ALL), {"top_k": 2}, ALL], ids=lambda w: "+".join(w)
)
def test_generate_draws_as_transformers_processors_say(
    tiny_server: ServerThread, tiny_home: Path, wish: dict[str, Any]
) -> None:
    told = generate(
        tiny_server, **wish, do_sample=True, seed=4, max_new_tokens=12, details=True, top_n_tokens=5
    )["details"]
    generated: list[int] = []
    changed = False
    for token, top in zip(told["tokens"], told["top_tokens"], strict=True):
        want = logprobs_after(tiny_home, ids_of(PROMPT), generated, wish)
        plain = logprobs_after(tiny_home, ids_of(PROMPT), generated, {})
        assert token["logprob"] == pytest.approx(float(want[token["id"]]), abs=1e-4)
        changed |= abs(token["logprob"] - float(plain[token["id"]])) > 1e-3
        # What can never be drawn is not among the likeliest.
        likely = [i for i in want.topk(5).indices.tolist() if want[i] > float("-inf")]
        assert [t["id"] for t in top] == likely
        assert [t["logprob"] for t in top] == pytest.approx(want[likely].tolist(), abs=1e-4)
        generated.append(token["id"])
    assert changed
    again = generate(tiny_server, **wish, do_sample=True, seed=4, max_new_tokens=12, details=True)
    assert [t["id"] for t in again["details"]["tokens"]] == generated


@pytest.mark.parametrize(
    "wish",
    [
        {"temperature": 0.6}, {"top_p": 0.7}, {"top_p": 1.0}, {"frequency_penalty": 1.5},
        {"presence_penalty": 1.5}, {"repetition_penalty": 1.4}, {"logit_bias": {"50": 4, "9": -3}},
        {"temperature": 1.3, "presence_penalty": -1.0, "top_p": 0.9},
    ],
    ids=lambda w: "+".join(w),
)  # fmt: skip
def test_chat_draws_as_transformers_processors_say(
    tiny_server: ServerThread, tiny_home: Path, wish: dict[str, Any]
) -> None:
    told = chat(tiny_server, **wish, seed=8, max_tokens=12, logprobs=True, top_logprobs=4)
    generated: list[int] = []
    for entry in told["choices"][0]["logprobs"]["content"]:
        known = {name: value for name, value in wish.items() if value != 1.0}
        want = logprobs_after(tiny_home, ids_of(CHAT), generated, known)
        likely = [i for i in want.topk(4).indices.tolist() if want[i] > float("-inf")]
        found = [top["logprob"] for top in entry["top_logprobs"]]
        assert found == pytest.approx(want[likely].tolist(), abs=1e-4)
        # The reply has texts, not ids: the token is the one with that log probability.
        distance = (want - entry["logprob"]).abs()
        generated.append(int(distance.argmin()))
        assert float(distance.min()) < 1e-4
    assert len(generated) == told["usage"]["completion_tokens"]


def test_which_parameters_turn_sampling_on(tiny_server: ServerThread) -> None:
    """Only an answer that was drawn has a seed."""
    for wish, is_drawn in (
        ({}, False), ({"temperature": 1.0}, False), ({"repetition_penalty": 1.2}, False),
        ({"seed": 3}, False), ({"do_sample": True}, True), ({"temperature": 0.9}, True),
        ({"top_k": 3}, True), ({"top_p": 0.9}, True), ({"typical_p": 0.9}, True),
    ):  # fmt: skip
        told = generate(tiny_server, max_new_tokens=1, details=True, **wish)["details"]["seed"]
        assert (told is not None) == is_drawn, wish


def test_stop_strings_stay_in_the_text_on_tgi_routes(
    tiny_server: ServerThread, tiny_home: Path
) -> None:
    text = greedy(tiny_home, PROMPT, 40)
    stop = text[5:8]
    want = text[: text.index(stop) + len(stop)]
    wish = {"stop": ["never there", stop], "max_new_tokens": 40, "details": True}
    told = generate(tiny_server, **wish)
    assert told["generated_text"] == want
    assert told["details"]["finish_reason"] == "stop_sequence"
    body = {"inputs": PROMPT, "parameters": {"adapter_id": "lora", **wish}}
    *_, last = events(post(tiny_server, "generate_stream", body))
    assert last["generated_text"] == want
    assert last["details"]["finish_reason"] == "stop_sequence"
    assert last["details"]["generated_tokens"] == told["details"]["generated_tokens"]


def test_details_come_when_asked_for(tiny_server: ServerThread, tiny_home: Path) -> None:
    assert "details" not in generate(tiny_server, max_new_tokens=4)
    told = generate(tiny_server, max_new_tokens=4, decoder_input_details=True)["details"]
    assert told["prefill"] == []  # This server was not started to tell them.
    assert "top_tokens" not in told
    assert "best_of_sequences" not in told
    for wanted in (False, True):
        parameters = {"adapter_id": "lora", "max_new_tokens": 4, "details": wanted}
        body = {"inputs": PROMPT, "parameters": parameters}
        *others, last = events(post(tiny_server, "generate_stream", body))
        assert all(event["generated_text"] is event["details"] is None for event in others)
        assert last["generated_text"] == greedy(tiny_home, PROMPT, 4)
        assert not any("top_tokens" in event for event in (*others, last))
        assert last["details"] == (
            {
                "finish_reason": "length",
                "generated_tokens": 4,
                "seed": None,
                "input_length": len(ids_of(PROMPT)),
            }
            if wanted
            else None
        )


def test_the_prompt_stands_before_the_answer_when_asked_for(
    tiny_server: ServerThread, tiny_home: Path
) -> None:
    answer = greedy(tiny_home, PROMPT, 4)
    for route, wish, want in (
        ("generate", None, answer), ("generate", True, PROMPT + answer),
        ("", None, PROMPT + answer), ("", False, answer),
    ):  # fmt: skip
        parameters = {"adapter_id": "lora", "max_new_tokens": 4, "return_full_text": wish}
        body = {"inputs": PROMPT, "parameters": parameters}
        told = post(tiny_server, route, body).json()
        assert (told[0] if route == "" else told)["generated_text"] == want
        streamed = post(tiny_server, route or "", {**body, "stream": True})
        if route == "generate":
            streamed = post(tiny_server, "generate_stream", body)
        *_, last = events(streamed)
        assert last["generated_text"] == want


def test_fields_nobody_knows_and_empty_ones_are_ignored(tiny_server: ServerThread) -> None:
    plain = generate(tiny_server, max_new_tokens=4)
    assert generate(tiny_server, max_new_tokens=4, mirostat=2, stop=None) == plain
    want = chat(tiny_server, max_tokens=4, temperature=0)
    for more in (
        {"max_tokens": 4, "stream_options": None, "user": "me", "store": True},
        {"max_completion_tokens": 4},
        {"max_tokens": 4, "stop": None, "logit_bias": {}, "response_format": {"type": "text"}},
    ):
        told = chat(tiny_server, temperature=0, **more)
        assert told["choices"] == want["choices"]


def test_two_names_that_differ_are_refused(tiny_server: ServerThread) -> None:
    for model, adapter, status in (
        ("full", "lora", 422), ("lora", "lora", 200), ("base", "lora", 200), ("tgi", "lora", 200),
    ):  # fmt: skip
        body = {"model": model, "adapter_id": adapter, "messages": MESSAGES, "max_tokens": 1}
        reply = post(tiny_server, "v1/chat/completions", body)
        assert reply.status_code == status
        if status == 200:
            assert reply.json()["model"] == "lora"
        else:
            assert "'full' and `adapter_id` 'lora' differ" in reply.json()["error"]


def test_checks_come_in_order(tiny_server: ServerThread) -> None:
    """All is wrong at first, and mended one by one: each time the next is named."""
    bad: dict[str, Any] = {
        "best_of": 3, "temperature": 0, "repetition_penalty": 0, "frequency_penalty": 3,
        "top_p": 1.0, "typical_p": 1.0, "top_k": 0, "max_new_tokens": 0, "stop": list("abcde"),
        "seed": 1, "top_n_tokens": 9, "truncate": 0, "grammar": {"type": "regex", "value": "["},
    }  # fmt: skip
    mended: list[tuple[str, Any, str]] = [
        ("best_of", 2, "`best_of` must be > 0"),
        ("temperature", 0.5, "`temperature` must"),
        ("repetition_penalty", 1.1, "`repetition_penalty` must"),
        ("frequency_penalty", 0.1, "`frequency_penalty` must"),
        ("top_p", 0.9, "`top_p` must"),
        ("typical_p", 0.9, "`typical_p` must"),
        ("top_k", 5, "`top_k` must"),
        ("max_new_tokens", 600, "`max_new_tokens` must be strictly positive"),
        ("stop", ["a"], "`stop` supports up to 4"),
        ("best_of", 1, "`seed` must not be set when `best_of` > 1"),
        ("top_n_tokens", 5, "`top_n_tokens` must"),
        ("inputs", PROMPT, "`inputs` cannot be empty"),
        ("truncate", 5, "`truncate` must be strictly positive and less than 511"),
        ("max_new_tokens", 5, "`inputs` tokens + `max_new_tokens` must be <= 512"),
        ("grammar", None, "grammar is not valid"),
    ]
    inputs = ""
    for name, value, message in mended:
        reply = post(tiny_server, "generate", {"inputs": inputs, "parameters": bad})
        assert reply.status_code == 422
        assert reply.json()["error"].startswith(f"Input validation error: {message}")
        if name == "inputs":
            inputs = value
        else:
            bad[name] = value
    assert post(tiny_server, "generate", {"inputs": inputs, "parameters": bad}).is_success


def test_what_a_stream_cannot_do(tiny_server: ServerThread) -> None:
    for parameters, message in (
        ({"best_of": 2, "decoder_input_details": True}, "`best_of` != 1 is"),
        ({"decoder_input_details": True, "temperature": 0}, "`decoder_input_details` == true is"),
    ):
        for route, more in (("generate_stream", {}), ("", {"stream": True})):
            body = {"inputs": "a", "parameters": parameters, **more}
            reply = post(tiny_server, route, body)
            assert reply.status_code == 422
            want = f"Input validation error: {message} not supported when streaming tokens"
            assert reply.json() == {"error": want, "error_type": "validation"}


@pytest.mark.parametrize(
    ("inputs", "parameters", "message"),
    [
        ("a", {"best_of": 2}, "`best_of` != 1 is not allowed for this endpoint"),
        ("a", {"best_of": 0}, "`best_of` must be > 0 and <= 1. Given: 0"),
        (PROMPT, {"max_new_tokens": 1}, "`inputs` must have less than 4 tokens. Given: 6"),
        (PROMPT, {"truncate": 5},
         "`truncate` must be strictly positive and less than 4. Given: 5"),
        ("é" * 600, {}, "`inputs` tokens + `max_new_tokens` must be <= 512. "
         "Given: 1200 `inputs` tokens and 0 `max_new_tokens`"),
    ],
)  # fmt: skip
def test_limits_of_a_server_are_named(
    narrow_server: ServerThread, inputs: str, parameters: dict[str, Any], message: str
) -> None:
    reply = post(narrow_server, "generate", {"inputs": inputs, "parameters": parameters})
    assert reply.json() == {
        "error": f"Input validation error: {message}", "error_type": "validation",
    }  # fmt: skip


def test_each_form_of_a_grammar_in_chats(tiny_server: ServerThread) -> None:
    forms: list[dict[str, Any]] = [
        {"type": "json", "value": SCHEMA},
        {"type": "json_object", "value": json.dumps(SCHEMA)},
        {"type": "json_schema", "value": {"name": "x", "schema": SCHEMA}},
        {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}},
    ]
    for form in forms:
        told = chat(tiny_server, response_format=form, seed=2, max_tokens=60)
        assert set(json.loads(told["choices"][0]["message"]["content"])) == {"n"}
    hub = InferenceClient(tiny_server.url, headers={"authorization": None})
    told = hub.chat_completion(
        MESSAGES, response_format=forms[-1], seed=2, max_tokens=60, extra_body={"model": "lora"}
    )  # The client sends the form in TGI's words.
    assert set(json.loads(told.choices[0].message.content)) == {"n"}
    regex = {"type": "regex", "value": "[0-4]{3}x"}
    told = chat(tiny_server, response_format=regex, seed=2, max_tokens=60)
    assert re.fullmatch("[0-4]{3}x", told["choices"][0]["message"]["content"])
    # Any object, which these weights may not close before they run out of tokens.
    told = chat(tiny_server, response_format={"type": "json_object"}, seed=2, max_tokens=60)
    assert told["choices"][0]["message"]["content"].startswith("{")


@pytest.mark.parametrize("choice", ["pick", "none"])
def test_a_choice_of_tools_by_name(tiny_server: ServerThread, tiny_home: Path, choice: str) -> None:
    wish = {"tools": [OTHER, TOOL], "tool_choice": choice, "max_tokens": 60, "temperature": 0}
    (told,) = chat(tiny_server, **wish)["choices"]
    body = {"model": "lora", "messages": MESSAGES, **wish, "stream": True}
    *chunks, done = events(post(tiny_server, "v1/chat/completions", body))
    assert done == "[DONE]"
    assert chunks[-1]["choices"][0]["finish_reason"] == told["finish_reason"]
    if choice == "none":
        assert told["message"] == {
            "role": "assistant", "content": greedy(tiny_home, CHAT, 60)
        }  # fmt: skip
        return
    assert told["finish_reason"] == "stop"
    (call,) = told["message"]["tool_calls"]
    assert "content" not in told["message"]
    assert (call["id"], call["type"]) == ("0", "function")
    assert call["function"]["description"] is None
    assert call["function"]["name"] == "pick"
    assert 0 <= json.loads(call["function"]["arguments"])["n"] <= 9


def test_templates_are_told_of_tools(tiny_home: Path, tmp_path: Path) -> None:
    """One that knows tools is given them; to another the last message tells them."""
    knows = tiny.save_checkpoint(
        "llama", tmp_path / "knows",
        template="{% for t in tools or [] %}[{{ t.function.name }}]{% endfor %}"
        "{{ messages[-1].content }}",
    )  # fmt: skip
    models = (("knows", knows), ("lora", tiny_home / "lora"))
    with ServerThread(tiny_config(tiny_home, models=models)) as server:

        def rendered(**wish: Any) -> str:
            ask = {"messages": MESSAGES, "tools": [OTHER, TOOL], **wish}
            return str(post(server, "chat_tokenize", ask).json()["templated_text"])

        assert rendered(model="knows") == f"[drop][pick]{PROMPT}"
        assert rendered(model="knows", tool_choice="pick") == f"[drop][pick]{PROMPT}"
        assert rendered(model="knows", tools=None) == PROMPT
        told = rendered(model="lora", tool_prompt="Call one of these:")
        before, _, after = told.partition("Call one of these:")
        assert before.startswith(f"user: {PROMPT}\n")
        listed = json.loads(after.strip().removesuffix("assistant:"))
        assert listed == [OTHER, TOOL]


def test_each_answer_of_openai_routes_names_the_weights(tiny_server: ServerThread) -> None:
    listed = httpx.get(f"{tiny_server.url}/v1/models").json()["data"]
    for entry in listed[1:]:
        name, sha = entry["id"], entry["weights_sha256"]
        text = {"model": name, "prompt": PROMPT, "max_tokens": 3}
        talk = {"model": name, "messages": MESSAGES, "max_tokens": 3}
        for route, body in (("v1/completions", text), ("v1/chat/completions", talk)):
            whole = post(tiny_server, route, body)
            streamed = post(tiny_server, route, {**body, "stream": True})
            told = [whole.json(), *events(streamed)[:-1]]
            assert {(part["model"], part["weights_sha256"]) for part in told} == {(name, sha)}
            for reply in (whole, streamed):
                assert reply.headers["x-adapter-id"] == name
                assert reply.headers["x-weights-sha256"] == sha


def test_characters_of_several_tokens_come_whole(tiny_server: ServerThread) -> None:
    """A grammar makes the model write what the tokenizer has to piece together."""
    text = "ünï 漢字かな🙂👩‍👧 end"
    wish = {"grammar": {"type": "regex", "value": re.escape(text)}, "max_new_tokens": 200}
    hub = InferenceClient(f"{tiny_server.url}/models/lora", headers={"authorization": None})
    told = list(hub.text_generation(PROMPT, stream=True, details=True, **wish))
    pieces = [event.token.text for event in told if not event.token.special]
    assert "".join(pieces) == text
    assert told[-1].generated_text in (text, PROMPT + text)
    assert "" in pieces, "some token holds a part of a character"
    # The end is told as a token, counted, and no part of the text.
    end = told[-1].token
    assert (end.id, end.text, end.special) == (1, "</s>", True)
    assert told[-1].details.finish_reason == "eos_token"
    assert told[-1].details.generated_tokens == len(told)
    assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)
    body = {"model": "lora", "messages": MESSAGES, "response_format": wish["grammar"],
            "max_tokens": 200, "stream": True}  # fmt: skip
    *chunks, _ = events(post(tiny_server, "v1/chat/completions", body))
    pieces = [chunk["choices"][0]["delta"]["content"] for chunk in chunks]
    assert "".join(pieces) == text
    assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)
