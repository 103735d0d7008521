"""Whatever the page is sent, it answers with a status that says what was wrong: never a 500."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import pytest
from fault_server import FaultServer, Script
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from page_server import PageServer

JSON = b"content-type: application/json\r\n"
REQUESTS: dict[str, tuple[bytes, bytes, bytes, bytes]] = {
    "origin [": (b"POST", b"/api/battles", JSON + b"origin: http://[\r\n", b'{"prompt":"x"}'),
    "origin port": (b"POST", b"/live/send", JSON + b"origin: http://h:port\r\n", b'{"prompt":"x"}'),
    "origin bytes": (b"POST", b"/live/send", JSON + b"origin: \xff\xfe\r\n", b'{"prompt":"x"}'),
    "auth bytes": (b"GET", b"/api/battles", b"authorization: Bearer \xff\xfe\r\n", b""),
    "auth basic": (b"GET", b"/api/battles", b"authorization: Basic \xff\xfe\r\n", b""),
    "auth basic2": (b"GET", b"/api/battles", b"authorization: Basic //4=\r\n", b""),
    "cookie bytes": (b"GET", b"/api/battles", b"cookie: arena_voter=\xff\xfe\r\n", b""),
    "cookie bad": (b"GET", b"/", b'cookie: a[b]="\\777; ;;;=\r\n', b""),
    "search nul": (b"GET", b"/api/battles?search=%00", b"", b""),
    "search sur": (b"GET", b"/api/battles?search=%ed%a0%80", b"", b""),
    "search fts": (b"GET", b"/api/battles?search=%22%20OR%20NEAR(", b"", b""),
    "battle nul": (b"GET", b"/api/battles/%00", b"", b""),
    "token nul": (b"GET", b"/api/battles/x", b"x-battle-token: \xff\r\n", b""),
    "prompt nul": (b"POST", b"/api/battles", JSON, b'{"prompt":"a\\u0000"}'),
    "prompt sur": (b"POST", b"/api/battles", JSON, b'{"prompt":"a\\ud800"}'),
    "models sur": (
        b"POST",
        b"/api/battles",
        JSON,
        b'{"prompt":"a","models":["\\ud800","\\u0000"]}',
    ),
    "deep": (b"POST", b"/api/battles", JSON, b"[" * 30000),
    "deep live": (b"POST", b"/live/send", JSON, b"[" * 30000),
    "deep live2": (b"POST", b"/live/send", JSON, b'{"prompt":' * 9000),
    "deep join": (b"POST", b"/gradio_api/queue/join", JSON, b"[" * 30000),
    "live nul": (b"POST", b"/live/send", JSON, b'{"prompt":"a\\u0000","mode":"blind"}'),
    "live sur": (b"POST", b"/live/send", JSON, b'{"prompt":"a\\ud800","mode":"blind"}'),
    "live link": (b"POST", b"/live/stop", JSON, b'{"link":"battle=\\ud800&t=%00"}'),
    "live link2": (b"POST", b"/live/stop", JSON, b'{"link":"battle=%ed%a0%80&t=\\udfff"}'),
    "live side": (b"POST", b"/live/stop", JSON, b'{"link":"battle=x","side":true}'),
    "live set": (b"POST", b"/live/next", JSON, b'{"link":"","set":"\\ud800/../x\\u0000"}'),
    "live models": (
        b"POST",
        b"/live/send",
        JSON,
        b'{"prompt":"x","mode":"named","models":["\\ud800"]}',
    ),
    "live bytes": (b"POST", b"/live/send", JSON, b"\xff\xfe{"),
    "live utf16": (b"POST", b"/live/send", JSON, b'{"prompt":1e400}'),
    "live t": (b"GET", b"/live/x?t=%00%ff", b"", b""),
    "watch": (b"GET", b"/live/%ff", b"", b""),
    "join inf": (
        b"POST",
        b"/gradio_api/queue/join",
        JSON,
        b'{"data":[1e400],"fn_index":0,"session_hash":"abc"}',
    ),
    "join fn": (
        b"POST",
        b"/gradio_api/queue/join",
        JSON,
        b'{"data":[],"fn_index":99999,"session_hash":"abc"}',
    ),
    "join fn neg": (
        b"POST",
        b"/gradio_api/queue/join",
        JSON,
        b'{"data":[],"fn_index":-1,"session_hash":"abc"}',
    ),
    "join none": (b"POST", b"/gradio_api/queue/join", JSON, b'{"data":null}'),
    "join list": (b"POST", b"/gradio_api/queue/join", JSON, b"[]"),
    "join str": (
        b"POST",
        b"/gradio_api/queue/join",
        JSON,
        b'{"data":[],"fn_index":"x","session_hash":5}',
    ),
    "join nan": (
        b"POST",
        b"/gradio_api/queue/join",
        JSON,
        b'{"data":[NaN],"fn_index":0,"session_hash":"abc"}',
    ),
    "join trig": (
        b"POST",
        b"/gradio_api/queue/join",
        JSON,
        b'{"data":[],"fn_index":1,"session_hash":"a","trigger_id":1e400,"event_data":{"x":"\\ud800"}}',
    ),
    "call": (b"POST", b"/gradio_api/call/nope", JSON, b'{"data":[]}'),
    "call2": (b"POST", b"/gradio_api/call/ask", JSON, b'{"data":["\\ud800"]}'),
    "call inf": (b"POST", b"/gradio_api/call/ask", JSON, b'{"data":[1e400]}'),
    "call get": (b"GET", b"/gradio_api/call/ask/nope", b"", b""),
    "call get2": (b"GET", b"/gradio_api/call/nope/nope", b"", b""),
    "cancel": (
        b"POST",
        b"/gradio_api/cancel",
        JSON,
        b'{"session_hash":"x","fn_index":1e400,"event_id":"x"}',
    ),
    "cancel2": (b"POST", b"/gradio_api/cancel", JSON, b"{}"),
    "reset": (b"POST", b"/gradio_api/reset", JSON, b'{"event_id":"nope"}'),
    "reset2": (b"POST", b"/gradio_api/reset", JSON, b"[1]"),
    "data": (b"GET", b"/gradio_api/queue/data?session_hash=nope", b"", b""),
    "heartbeat": (b"GET", b"/gradio_api/heartbeat/x", b"", b""),
    "signin": (
        b"POST",
        b"/signin",
        b"content-type: application/x-www-form-urlencoded\r\n",
        b"name=%00&password=%ff",
    ),
    "signin2": (b"POST", b"/signin", b"content-type: multipart/form-data\r\n", b"xx"),
    "enter": (b"GET", b"/enter?key=%ff%00", b"", b""),
    "lang": (b"GET", b"/", b"accept-language: \xff;q=x,de;q=1e400,fr;q=nan\r\n", b""),
    "host": (b"GET", b"/", b"x-forwarded-host: [\r\nx-forwarded-proto: \xff\r\n", b""),
    "asset": (b"GET", b"/assets/%00", b"", b""),
    "static": (b"GET", b"/static/..%2f..%2f%00", b"", b""),
    "theme": (b"GET", b"/?battle=%00&t=%ed%a0%80&set=%ff", b"", b""),
    "config": (b"GET", b"/config?deep_link=%00", b"", b""),
    "range": (b"GET", b"/favicon.ico", b"range: bytes=9-1,x\r\n", b""),
}


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageServer]:
    scripts = {"one": Script(), "two": Script()}
    with (
        FaultServer(scripts) as server,
        PageServer(tmp_path_factory.mktemp("home"), server.url) as running,
    ):
        yield running


def answered(page: PageServer, request: tuple[bytes, bytes, bytes, bytes]) -> int:
    """The status of the reply to these very bytes."""
    method, path, headers, body = request
    head = b"%s %s HTTP/1.1\r\nhost: 127.0.0.1:%d\r\n" % (method, path, page.config.port)
    head += b"connection: close\r\ncontent-length: %d\r\n" % len(body)
    with socket.create_connection(("127.0.0.1", page.config.port), timeout=60) as connection:
        connection.sendall(head + headers + b"\r\n" + body)
        told = b""
        while b"\r\n" not in told:
            part = connection.recv(65536)
            assert part, "closed without a word"
            told += part
    return int(told.split(b" ")[1])


@pytest.mark.slow
@pytest.mark.parametrize("name", REQUESTS)
def test_no_request_is_a_fault_of_ours(name: str, page: PageServer) -> None:
    assert answered(page, REQUESTS[name]) < 500


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
NAMES = (
    *("prompt", "models", "mode", "link", "side", "set", "following", "data", "fn_index"),
    *("session_hash", "event_id", "winner", "ranking", "reasons", "partial", "trigger_id"),
    *("choice", "ranks", "strength", "comment", "edited", "marked"),
)
PATHS = [
    *(b"/api/battles", b"/api/battles/x/votes", b"/api/battles/x/turns", b"/api/battles/x/again"),
    *(b"/live/send", b"/live/stop", b"/live/again", b"/live/next", b"/live/marked"),
    *(b"/live/vote", b"/live/rank", b"/live/undo", b"/live/details", b"/live/tokens"),
    *(b"/live/after", b"/live/leave"),
    *(b"/gradio_api/queue/join", b"/gradio_api/cancel", b"/gradio_api/reset"),
    b"/gradio_api/call/vote",
]


@pytest.mark.slow
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    path=st.sampled_from(PATHS),
    body=VALUES | st.dictionaries(st.sampled_from(NAMES), VALUES) | st.just(["", 1e400]),
)
def test_no_json_is_a_fault_of_ours(path: bytes, body: object, page: PageServer) -> None:
    written = json.dumps(body, ensure_ascii=True).encode()
    status = answered(page, (b"POST", path, JSON, written))
    assert status < 500 or status == 503, "503: too many battles, told as such"
