"""No server under the page can hold it up, fill its memory or send it elsewhere.

Each test meets a server that does what no honest one does, and a deadline of its own.
"""

from __future__ import annotations

import asyncio
import json

import httpx2
import pytest
from fault_server import FaultServer, Script
from hostile_server import (
    EVENTS,
    HEAD,
    JSON,
    Act,
    HostileServer,
    bomb,
    events,
    floods,
    lists,
    longest_halt,
    says,
    trickles,
    within,
)

from arena.backends.bounds import LOOKUP, Bounds
from arena.backends.client import Target, prompt_sent, stream_answer
from arena.backends.http import http_client, install_http_client
from arena.backends.pool import QUICK_SECONDS, BackendPool
from arena.backends.probing import PROBE_SECONDS, Backend, probe
from arena.backends.queues import Queue, ask_queues
from arena.backends.streams import AnswerStreams, Side
from arena.config.page_config import Deadlines
from arena.values.battle import AskAs, Participant, SamplingSettings

ASKED = [{"role": "user", "content": "What is the capital of France?"}]
SLACK = 4.0
"""Seconds that a busy machine may add to a deadline."""
MEGABYTE = 1 << 20
CHUNK = {"object": "chat.completion.chunk", "id": "", "created": 0, "model": "m"}
MODELS = "GET /v1/models"


@pytest.fixture(autouse=True)
def client() -> None:
    install_http_client()


def chunk(content: object, reason: str | None = None, **more: object) -> dict[str, object]:
    """A chunk of a chat answer."""
    delta = {"role": "assistant", "content": content}
    choice = {"index": 0, "delta": delta, "finish_reason": reason, **more}
    return {**CHUNK, "system_fingerprint": "", "choices": [choice]}


def word(content: str) -> bytes:
    """A chunk of a chat answer as it is on the wire."""
    return b"data: " + json.dumps(chunk(content)).encode() + b"\n\n"


def probed(url: str) -> Backend:
    """What the page makes of this server."""
    return asyncio.run(probe(url, SamplingSettings()))


def target(url: str, ask_as: AskAs = AskAs.CHAT, wire: str = "openai") -> Target:
    """The one model of a server."""
    assert wire in ("openai", "tgi")
    return Target(Participant("m", "m", ask_as=ask_as), url, wire)  # type: ignore[arg-type]


def answered(where: Target, deadlines: Deadlines | None = None) -> tuple[Side, float]:
    """How the answer of a side ended, and the longest time for which the loop was held."""

    async def main() -> tuple[Side, float]:
        limits = deadlines or Deadlines(first_token=2.0, idle=2.0, total=6.0)
        streams = AnswerStreams([stream_answer(where, ASKED)], limits, 40_000)
        async with longest_halt() as halt:
            await streams.start()
            async for _ in streams.watch(lambda: 20.0):
                pass
            return streams.sides[0], halt()

    return asyncio.run(main())


SLOW: dict[str, dict[str, Act]] = {
    "head trickles": {MODELS: trickles(b"HTTP/1.1 200 OK\r\nx-slow: ", b"a")},
    "body trickles": {MODELS: trickles(JSON + b'{"data": [')},
    "first route trickles": {"GET /info": trickles(JSON)},
    "interim replies for ever": {MODELS: trickles(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n")},
    "says nothing": {MODELS: trickles(b"", b"")},
}


@pytest.mark.slow
@pytest.mark.parametrize("routes", SLOW.values(), ids=SLOW)
def test_slow_server_is_down_in_time_and_holds_up_no_other(routes: dict[str, Act]) -> None:
    scripts = {"one": Script(), "two": Script()}
    with HostileServer(routes) as slow, FaultServer(scripts) as good:

        async def main() -> None:
            pool = BackendPool([slow.url, good.url], SamplingSettings())
            with within(PROBE_SECONDS + SLACK):
                down, up = await pool.backends()
            assert (down.fault, up.is_up) == ("silent", True)
            assert f"{slow.url}/v1/models" in down.problem
            await asyncio.sleep(0.6)  # it is due again
            for _ in range(3):
                with within(QUICK_SECONDS + SLACK / 4):
                    assert set(await pool.targets()) == {"one", "two"}
            with within(SLACK):
                await pool.close()

        asyncio.run(main())


def test_server_that_falls_silent_costs_one_short_wait() -> None:
    is_silent = False

    async def act(write: object) -> None:
        if is_silent:
            await asyncio.sleep(3600)
        await lists("m")(write)  # type: ignore[arg-type]

    with HostileServer({MODELS: act}) as server:

        async def main() -> None:
            nonlocal is_silent
            pool = BackendPool([server.url], SamplingSettings())
            assert list(await pool.targets()) == ["m"]
            is_silent = True
            for known in pool._servers:
                known.probed_at -= 60
            for _ in range(10):
                assert list(await pool.targets()) == ["m"], "as it last answered"
            num_asked = server.asked.count("GET /v1/models")
            assert num_asked <= 2, "it is asked once, however many battles begin"
            await pool.close()

        with within(QUICK_SECONDS + SLACK):
            asyncio.run(main())


FLOODS: dict[str, Act] = {
    "endless": floods(JSON + b'{"data": [', b" " * 65536),
    "one of 40 MB": says(JSON + b'{"data": ["' + b"x" * (40 * MEGABYTE) + b'"]}'),
    "gzip bomb": says(bomb(1500 * MEGABYTE)),
    "packed twice": says(HEAD + b"content-encoding: gzip, gzip\r\n\r\n" + b"x" * 99),
    "packed as brotli": says(HEAD + b"content-encoding: br\r\n\r\n" + b"x" * 99),
    "gzip that is none": says(HEAD + b"content-encoding: gzip\r\n\r\n" + b"x" * 99),
    "endless refusal": floods(b"HTTP/1.1 500 No\r\n\r\n", b" " * 65536),
    "endless head": floods(HEAD, b"x-more: " + b"x" * 4000 + b"\r\n"),
    "nested for ever": says(JSON + b"[" * 100_000),
    "says it is text of zlib": says(HEAD + b"content-type: text/plain; charset=zlib\r\n\r\nxx"),
}


@pytest.mark.slow
@pytest.mark.parametrize("act", FLOODS.values(), ids=FLOODS)
def test_no_body_fills_the_memory_or_holds_the_loop(act: Act) -> None:
    with HostileServer({MODELS: act, "GET /info": act}) as server:

        async def main() -> tuple[Backend, float]:
            async with longest_halt() as halt:
                return await probe(server.url, SamplingSettings()), halt()

        with within(PROBE_SECONDS + SLACK):
            backend, halted = asyncio.run(main())
        assert not backend.is_up
        assert halted < 1.0, "seconds of computing at a stretch"
        # Two replies, each with its bound, what sockets hold, and what is on its way.
        assert server.num_bytes < 2 * (LOOKUP.body + 16 * MEGABYTE) or act is FLOODS["one of 40 MB"]


ENDLESS: dict[str, tuple[Act, str]] = {
    "one line": (floods(EVENTS + b"data: ", b"x" * 65536), "malformed"),
    "comments": (trickles(EVENTS, b": ping\n\n", 0.05), "no-token"),
    "comments at full speed": (floods(EVENTS, b": ping\n\n" * 8192), "malformed or no-token"),
    "empty words at full speed": (floods(EVENTS, word("") * 300), "malformed or no-token"),
    "words at full speed": (floods(EVENTS, word("more ") * 300), "too-long"),
    "one word of 3 MB": (says(EVENTS + word("x" * (3 * MEGABYTE))), "malformed"),
    "packed words": (
        says(bomb(300 * MEGABYTE, b"data: ").replace(b"200 OK\r\n", b"200 OK\r\n" + EVENTS[17:-2])),
        "malformed",
    ),
    "nested for ever": (says(EVENTS + b"data: " + b"[" * 100_000 + b"\n\n"), "malformed"),
    "trickles a line": (trickles(EVENTS + b"data: ", b"x"), "no-token"),
    "stops after a word": (trickles(EVENTS + word("one"), b""), "idle"),
    "a word a second": (trickles(EVENTS, word("one"), 1.0), "too-long"),
    "elsewhere": (
        says(b"HTTP/1.1 307 No\r\nlocation: http://127.0.0.1:9/\r\n\r\n"),
        "server-error",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("ask_as", AskAs, ids=str)
@pytest.mark.parametrize("name", ENDLESS)
def test_every_answer_ends_by_a_bound_or_a_deadline(name: str, ask_as: AskAs) -> None:
    act, kinds = ENDLESS[name]
    with HostileServer({"POST /v1": act}) as server, within(6.0 + 2 * SLACK):
        side, halted = answered(target(server.url, ask_as))
    if ask_as is AskAs.COMPLETION and "word" in name:
        kinds += " or no-token or malformed or too-long"  # its words are no completion's
    assert side.state == "failed"
    assert side.error_kind in kinds.split(" or "), side
    assert halted < 1.0, "seconds of computing at a stretch"


def test_the_bounds_hold_where_a_proxy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("arena.backends.http._has_proxies", lambda: True)
    bounds = Bounds(body=50_000, events=50_000)

    async def main(url: str) -> None:
        async with http_client(timeout=5, bounds=bounds) as client:
            await client.get(url)

    for act in (floods(JSON, b" " * 65536), says(bomb(4 * MEGABYTE))):
        with HostileServer({"GET": act}) as server, pytest.raises(httpx2.ReadError):
            asyncio.run(main(server.url))


def test_small_packed_reply_is_read() -> None:
    listed = json.dumps({"data": [{"id": "m"}]}).encode()
    with HostileServer({MODELS: says(bomb(0, listed))}) as server:
        backend = probed(server.url)
        assert [one.name for one in backend.targets] == ["m"]
        assert b"accept-encoding: identity" in server.heads[-1].lower()


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_no_redirect_is_followed(status: int) -> None:
    with HostileServer({"": lists("stolen")}) as other:
        moved = f"HTTP/1.1 {status} Moved\r\nlocation: {other.url}/v1/models\r\n\r\n".encode()
        with HostileServer({"GET": says(moved), "POST": says(moved)}) as server:
            backend = probed(server.url)
            side, _ = answered(target(server.url))
        assert other.asked == [], "whoever runs the page gives the addresses"
    assert backend.fault == "moved"
    assert f"HTTP {status} to {other.url}/v1/models" in backend.problem
    assert (side.state, side.error_kind) == ("failed", "server-error")
    assert other.url not in side.error


def test_trickling_template_ends_with_its_deadline() -> None:
    with HostileServer({"POST /chat_tokenize": trickles(JSON)}) as server, within(2.0 + SLACK):
        sent = asyncio.run(prompt_sent(target(server.url, wire="tgi"), ASKED))
    assert json.loads(sent) == ASKED


@pytest.mark.parametrize("act", [floods(JSON, b" " * 65536), says(JSON + b"[" * 100_000)])
def test_template_that_is_none_leaves_the_messages(act: Act) -> None:
    with HostileServer({"POST /chat_tokenize": act}) as server, within(2.0 + SLACK):
        sent = asyncio.run(prompt_sent(target(server.url, wire="tgi"), ASKED))
    assert json.loads(sent) == ASKED


@pytest.mark.parametrize(
    "act",
    [
        trickles(HEAD + b"\r\nvllm:num_requests_running 3\n", b"x"),
        floods(HEAD + b"\r\n", b"x" * 65536),
        says(HEAD + b"\r\nvllm:num_requests_running inf\nvllm:num_requests_waiting nan\n"),
        says(HEAD + b"\r\nvllm:num_requests_running 1e400\nvllm:num_requests_waiting -1\n"),
    ],
    ids=["trickles", "endless", "inf and nan", "too much"],
)
def test_metrics_that_tell_nothing(act: Act) -> None:
    with HostileServer({"GET /metrics": act}) as server, within(1.0 + SLACK):
        assert asyncio.run(ask_queues([server.url])) == {server.url: Queue()}


NUMBERS = ["1e400", "-1e400", "NaN", "Infinity", "-5", "true", '"7"', "[1]", "9" * 400, "null"]


@pytest.mark.parametrize("number", NUMBERS)
def test_number_that_is_none_counts_as_not_told(number: str) -> None:
    """From the list of models, the usage and the log-probabilities."""
    listed = f'{{"data": [{{"id": "m", "max_model_len": {number}, "weights_sha256": {number}}}]}}'
    told = json.dumps(
        {
            **chunk("Paris", "stop", logprobs={"content": [{"token": "P", "logprob": "N"}]}),
            "usage": {"prompt_tokens": "N", "completion_tokens": "N", "total_tokens": "N"},
            "weights_sha256": "N",
        }
    ).replace('"N"', number)
    stream = EVENTS + f"data: {told}\n\ndata: [DONE]\n\n".encode()
    with HostileServer({MODELS: says(JSON + listed.encode()), "POST": says(stream)}) as server:
        (found,) = probed(server.url).targets
        assert found.max_model_len is None
        side, _ = answered(found, Deadlines())
    if number == "NaN":  # which is no JSON; the client library ends in recursion over it
        assert (side.state, side.error_kind) == ("failed", "malformed")
        return
    assert (side.state, side.text) == ("done", "Paris"), side
    assert side.num_tokens == 1, "the pieces are counted instead"
    assert side.end is not None
    assert side.end.num_prompt_tokens is None


LISTS: dict[str, tuple[object, list[str]]] = {
    "not an object": ([1], []),
    "no data": ({"models": []}, []),
    "lines that are none": ({"data": ["a", 1]}, []),
    "an object of lines": ({"data": {"id": "a"}}, []),
    "half a character": ({"data": [{"id": "a\ud800"}, {"id": "b"}]}, ["b"]),
    "a line break": ({"data": [{"id": "a\nb"}, {"id": "b"}]}, ["b"]),
    "a mark that turns text round": ({"data": [{"id": "a\u202eb"}, {"id": "b"}]}, ["b"]),
    "a name of 100,000": ({"data": [{"id": "a" * 100_000}, {"id": "b"}]}, ["b"]),
    "a number for a name": ({"data": [{"id": 5}, {"id": {}}, {"id": ""}, {"id": "b"}]}, ["b"]),
    "one name twice": ({"data": [{"id": "b"}, {"id": "b", "kind": "lora"}]}, ["b"]),
    "odd facts": (
        {"data": [{"id": "b", "kind": [1], "parent": {"x": 1}, "chat_template": "no"}]},
        ["b"],
    ),
    "too many": ({"data": [{"id": f"m{i}"} for i in range(50_000)]}, []),
}


@pytest.mark.parametrize("name", LISTS)
def test_list_of_models_is_taken_or_refused_by_name(name: str) -> None:
    body, names = LISTS[name]
    with HostileServer({MODELS: says(JSON + json.dumps(body).encode())}) as server, within(SLACK):
        backend = probed(server.url)
    assert [one.name for one in backend.targets] == names
    assert backend.is_up == bool(names)
    if "a" in name.split() and names:
        assert all(line.startswith("model ") for line in backend.refused)
        assert backend.refused


SPLIT = "Größe 😀 fin"


def frames(text: str) -> list[dict[str, object]]:
    """A chat answer of this text, a chunk for each half of a UTF-16 pair."""
    units = text.encode("utf-16-be")
    halves = [chr(int.from_bytes(units[i : i + 2], "big")) for i in range(0, len(units), 2)]
    return [*(chunk(half) for half in halves), chunk("", "stop")]


def pieces_of_bytes(pieces: list[bytes]) -> Act:
    """Writes each piece for itself."""

    async def act(write: object) -> None:
        for piece in pieces:
            await write(piece)  # type: ignore[operator]
            await asyncio.sleep(0.001)

    return act


def raw(value: object) -> bytes:
    """JSON with every character as it is."""
    return json.dumps(value, ensure_ascii=False).encode()


WHOLE = EVENTS + b"".join(
    b"data: " + raw(one) + b"\n\n" for one in (chunk(SPLIT), chunk("", "stop"))
)
STREAMS: dict[str, tuple[Act, str | None]] = {
    "halves of a pair in two chunks": (events(*frames(SPLIT)), SPLIT),
    "a half alone": (events(chunk("a\ud83d"), chunk("b", "stop")), "a�b"),
    "a half at the end": (events(chunk("a\ud83d"), chunk("", "stop")), "a�"),
    "bytes one by one": (pieces_of_bytes([WHOLE[i : i + 1] for i in range(len(WHOLE))]), SPLIT),
    "U+2028 in the text": (
        pieces_of_bytes(
            [
                EVENTS + b"data: " + raw(chunk("a\u2028b"))[:-40],
                raw(chunk("a\u2028b"))[-40:] + b"\n\n",
                b"data: " + raw(chunk("\u2029c\u0085d", "stop")) + b"\n\n",
            ]
        ),
        "a\u2028b\u2029c\u0085d",
    ),
    "carriage returns": (
        says(EVENTS + b"data: " + raw(chunk("a", "stop")) + b"\r\n\r\ndata: [DONE]\r\n\r\n"),
        "a",
    ),
    "no space after the colon": (says(EVENTS + b"data:" + raw(chunk("a", "stop")) + b"\n\n"), "a"),
    "no end": (events(chunk("a"), done=False), None),
    "an end without a reason": (events(chunk("a")), None),
    "an error after words": (events(chunk("a"), {"error": {"message": "x"}}), None),
    "text that is a number": (events(chunk(5), chunk("", "stop")), None),
    "text that is a list": (events(chunk("a"), chunk([1]), chunk("", "stop")), None),
    "data over two lines": (says(EVENTS + b'data: {"choices":\ndata: []}\n\n'), None),
    "another charset": (
        says(
            EVENTS.replace(b"stream", b"stream; charset=utf-16")
            + b"data: "
            + raw(chunk("a", "stop"))
            + b"\n\n"
        ),
        "a",
    ),
}


@pytest.mark.parametrize("name", STREAMS)
def test_malformed_stream_is_understood_or_fails_its_side(name: str) -> None:
    """Never is half of an answer taken for a whole one."""
    act, text = STREAMS[name]
    with HostileServer({"POST /v1": act}) as server:
        side, _ = answered(target(server.url), Deadlines())
    if text is None:
        assert side.state == "failed"
    else:
        assert (side.state, side.text) == ("done", text), side
