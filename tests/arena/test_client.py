"""The client against a real server on loopback: every way an answer can go, and what it says."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
from fault_server import HASH, WORDS, FaultServer, Script

from arena.backends.client import Target, plain_prompt, prompt_sent, stream_answer
from arena.backends.http import install_http_client
from arena.backends.pool import BackendPool, ParticipantError
from arena.backends.probing import probe
from arena.backends.streams import AnswerEnd, AnswerError, AnswerPiece
from arena.values.battle import AskAs, SamplingSettings

ASKED = [{"role": "user", "content": "What is the capital of France?"}]
SCRIPTS = {
    "base": Script(kind="base", chat_template=False, words=(" It", " is", " Paris")),
    "good": Script(words=(" ", "\n", " The", " answer")),
    "cut": Script(fault="cut"),
    "json": Script(fault="json"),
    "list": Script(fault="list"),
    "error": Script(fault="error"),
    "ping": Script(fault="ping"),
    "hang": Script(fault="hang"),
    "busy": Script(fault="429"),
    "refused": Script(fault="422"),
    "broken": Script(fault="500"),
    "locked": Script(fault="401"),
    "teacher": Script(kind="reward"),
}


@pytest.fixture(scope="module")
def server() -> Iterator[FaultServer]:
    with FaultServer(SCRIPTS) as running:
        install_http_client()
        yield running


def targets(server: FaultServer) -> dict[str, Target]:
    """The server's participants as the page would find them."""
    found = asyncio.run(probe(server.url, SamplingSettings(max_new_tokens=9)))
    return {target.name: target for target in found.targets}


def ask(target: Target) -> tuple[str, AnswerEnd]:
    """The whole answer, or the AnswerError it ended in."""

    async def collect() -> tuple[str, AnswerEnd]:
        text = ""
        async for item in stream_answer(target, ASKED):
            if isinstance(item, AnswerEnd):
                return text, item
            text += item.text
        raise AssertionError("a stream ended without saying so")

    return asyncio.run(collect())


def test_base_is_asked_in_completion_mode_with_the_plain_prompt(server: FaultServer) -> None:
    target = targets(server)["base"]
    assert target.participant.ask_as is AskAs.COMPLETION
    text, end = ask(target)
    assert text == " It is Paris"
    assert (end.finish_reason, end.num_tokens, end.num_prompt_tokens) == ("eos_token", 4, 5)
    assert end.weights_sha256 == HASH
    sent = server.requests[-1]
    assert sent["inputs"] == "What is the capital of France?"
    assert sent["parameters"]["max_new_tokens"] == 9
    assert "temperature" not in sent["parameters"], "TGI refuses a temperature of 0"


def test_variant_is_asked_by_chat_and_the_leading_space_is_dropped(server: FaultServer) -> None:
    text, end = ask(targets(server)["good"])
    assert text == "The answer"
    assert (end.model, end.weights_sha256, end.num_tokens) == ("good", HASH, 4)
    sent = server.requests[-1]
    assert (sent["model"], sent["messages"]) == ("good", ASKED)


def test_no_saved_token_is_sent(server: FaultServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("MY_KEY", "key-of-this-server")
    good = targets(server)["good"]
    ask(good)
    assert server.headers[-1]["authorization"] == "Bearer -"
    ask(replace(good, key_env="MY_KEY"))
    assert server.headers[-1]["authorization"] == "Bearer key-of-this-server"


def test_system_prompt_and_sampling_are_sent(server: FaultServer) -> None:
    good = targets(server)["good"]
    sampling = SamplingSettings(temperature=0.5, top_p=0.9, max_new_tokens=1000, seed=7)
    participant = replace(good.participant, system_prompt="Be brief.", sampling=sampling)
    ask(replace(good, participant=participant))
    sent = server.requests[-1]
    assert sent["messages"] == [{"role": "system", "content": "Be brief."}, *ASKED]
    assert (sent["temperature"], sent["top_p"], sent["seed"]) == (0.5, 0.9, 7)
    assert sent["max_tokens"] == 256, "at most half of what the model can hold"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("cut", "cut-off"),
        ("json", "malformed"),
        ("list", "malformed"),
        ("error", "server-error"),
        ("busy", "overloaded"),
        ("refused", "refused"),
        ("broken", "server-error"),
        ("locked", "no-access"),
    ],
)
def test_failure_has_a_kind_and_names_nobody(server: FaultServer, name: str, kind: str) -> None:
    with pytest.raises(AnswerError) as caught:
        ask(targets(server)[name])
    assert caught.value.kind == kind
    told = str(caught.value)
    assert told.endswith(".")
    for secret in ("secret reason", "out of memory", "127.0.0.1"):
        assert secret not in told


def test_comments_of_the_stream_are_no_text(server: FaultServer) -> None:
    assert ask(targets(server)["ping"])[0] == "".join(WORDS)


def test_model_that_went_away_and_server_that_is_down(server: FaultServer) -> None:
    good = targets(server)["good"]
    gone = replace(good, participant=replace(good.participant, model="nobody"))
    with pytest.raises(AnswerError) as caught:
        ask(gone)
    assert caught.value.kind == "gone"
    with pytest.raises(AnswerError) as caught:
        ask(replace(good, url="http://127.0.0.1:9"))
    assert caught.value.kind == "down"


def test_closing_the_stream_closes_the_connection_at_once(server: FaultServer) -> None:
    hang = targets(server)["hang"]

    async def leave() -> float:
        stream = stream_answer(hang, ASKED)
        assert isinstance(await anext(stream), AnswerPiece)
        assert server.open_streams == 1
        left = time.monotonic()
        await stream.aclose()
        while server.open_streams and time.monotonic() - left < 30:
            await asyncio.sleep(0.01)
        return time.monotonic() - left

    waits = [asyncio.run(leave())]
    while min(waits) > 0.5 and len(waits) < 8:  # the machine may be busy for a while
        waits.append(asyncio.run(leave()))
    assert min(waits) <= 0.5, waits


def test_exact_prompt_is_what_the_template_made(server: FaultServer) -> None:
    known = targets(server)
    rendered = asyncio.run(prompt_sent(known["good"], ASKED))
    assert rendered == "<user>What is the capital of France?"
    assert asyncio.run(prompt_sent(known["base"], ASKED)) == plain_prompt(ASKED)
    foreign = replace(known["good"], wire="openai")
    assert asyncio.run(prompt_sent(foreign, ASKED)).startswith('[{"role": "user"')


def test_pool_lists_who_can_be_asked_and_marks_who_is_down(server: FaultServer) -> None:
    pool = BackendPool([server.url, server.url + "/", "http://127.0.0.1:9"], SamplingSettings())
    backends = asyncio.run(pool.backends())
    assert [backend.is_up for backend in backends] == [True, False]
    assert "no answer" in backends[1].problem
    names = list(asyncio.run(pool.targets()))
    assert names == [name for name in SCRIPTS if name != "teacher"], "a reward model answers nobody"
    with pytest.raises(ParticipantError, match="nobody"):
        asyncio.run(pool.pick(["nobody"]))


def test_equal_names_of_two_servers_are_told_apart(server: FaultServer) -> None:
    with FaultServer({"good": Script()}) as other:
        pool = BackendPool([server.url, other.url], SamplingSettings())
        names = list(asyncio.run(pool.targets()))
    assert f"good @ {other.url.removeprefix('http://')}" in names
    assert "good" not in names
    assert "base" in names


def test_server_that_is_no_tgi_gets_no_adapter_id_of_ours() -> None:
    with FaultServer({"m": Script(kind="")}) as foreign:
        foreign.is_tgi = False
        (target,) = asyncio.run(probe(foreign.url, SamplingSettings())).targets
    assert (target.wire, target.adapter_id) == ("openai", None)
    assert target.participant.ask_as is AskAs.CHAT


def test_completion_mode_on_a_server_without_tgi_routes() -> None:
    scripts = {"vm": Script(kind="", words=(" on", " and on")), "cutter": Script(fault="cut")}
    with FaultServer(scripts) as foreign:
        foreign.is_tgi = False
        known = {e.name: e for e in asyncio.run(probe(foreign.url, SamplingSettings())).targets}

        def completing(name: str) -> Target:
            participant = replace(known[name].participant, ask_as=AskAs.COMPLETION)
            return replace(known[name], participant=participant)

        text, end = ask(completing("vm"))
        assert (text, end.finish_reason, end.num_tokens) == (" on and on", "length", 2)
        sent = foreign.requests[-1]
        assert sent["prompt"] == ASKED[0]["content"]
        assert sent["stream_options"] == {"include_usage": True}, "else vLLM counts no tokens"
        assert "top_k" not in sent, "OpenAI has no such word"
        wished = SamplingSettings(temperature=0.7, top_k=5, repetition_penalty=1.1)
        completer = completing("vm")
        ask(replace(completer, participant=replace(completer.participant, sampling=wished)))
        sent = foreign.requests[-1]
        assert (sent["temperature"], sent["top_k"], sent["repetition_penalty"]) == (0.7, 5, 1.1)
        with pytest.raises(AnswerError) as caught:
            ask(completing("cutter"))
        assert caught.value.kind == "cut-off"
        scripts["vm"].fault = "503"
        with pytest.raises(AnswerError) as caught:
            ask(completing("vm"))
        assert caught.value.kind == "server-error"
