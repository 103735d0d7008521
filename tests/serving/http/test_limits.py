"""What bounds a request before it is read, and how long a line is kept: places, bodies, numbers."""

from __future__ import annotations

import gzip
import json
import socket
import threading
import time
import zlib
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from serving_fixtures import tiny_config

from serving.config import EngineLimits, ServingLimits
from serving.errors import ServingError
from serving.http.server import ServerThread

MESSAGES = [{"role": "user", "content": "the river"}]
ROUTES: dict[str, dict[str, Any]] = {
    "v1/chat/completions": {"model": "lora", "messages": MESSAGES, "max_tokens": 300, "seed": 3},
    "v1/completions": {"prompt": "a", "max_tokens": 300, "seed": 3},
    "generate_stream": {"inputs": "a", "parameters": {"max_new_tokens": 300, "seed": 3}},
    "": {"inputs": "a", "parameters": {"max_new_tokens": 300, "seed": 3}},
}


def held_worker(server: ServerThread, stack: ExitStack) -> None:
    """Stop the engines between two steps until the stack is left."""
    assert server.registry is not None
    held, let_go = threading.Event(), threading.Event()

    def hold() -> None:
        held.set()
        assert let_go.wait(60)

    server.registry.worker.call(hold)
    stack.callback(let_go.set)
    assert held.wait(30)


def test_one_bound_holds_for_all_routes(tiny_home: Path) -> None:
    """Forty ask at once where four may: each route in turn fills the places, streamed or not."""
    limits = ServingLimits(max_concurrent_requests=4)
    with ServerThread(tiny_config(tiny_home, limits=limits)) as server, ExitStack() as stack:
        held_worker(server, stack)
        codes: list[int] = []
        lock = threading.Lock()
        everyone_asked = threading.Event()

        def ask(i: int) -> None:
            route, body = list(ROUTES.items())[i % 4]
            stream = {"stream": i % 8 < 4}
            with httpx.stream(
                "POST", f"{server.url}/{route}", json={**body, **stream}, timeout=60
            ) as reply:
                with lock:
                    codes.append(reply.status_code)
                    if codes.count(429) == 36:
                        everyone_asked.set()
                if reply.status_code == 429:
                    assert reply.headers["retry-after"] == "1"
                for _ in reply.iter_bytes():
                    pass

        callers = [threading.Thread(target=ask, args=(i,)) for i in range(40)]
        for caller in callers:
            caller.start()
        assert everyone_asked.wait(30)
        full = httpx.post(f"{server.url}/tokenize", json={"inputs": "a"})
        assert full.status_code == 429
        assert httpx.get(f"{server.url}/health").is_success
        stack.close()
        for caller in callers:
            caller.join(60)
        assert sorted(codes) == [200] * 4 + [429] * 36
        # All places are free again, also those of requests that were refused later on.
        for _ in range(5):
            bad = httpx.post(f"{server.url}/generate", json={"inputs": ""})
            assert bad.status_code == 422
        assert httpx.post(f"{server.url}/tokenize", json={"inputs": "a"}).is_success


@pytest.mark.parametrize(
    ("route", "body", "more"),
    [
        ("v1/chat/completions", ROUTES["v1/chat/completions"], '"temperature": 1e999'),
        ("v1/completions", ROUTES["v1/completions"], '"presence_penalty": -1e400'),
        ("generate", {}, '"inputs": "a", "parameters": {"top_p": 0.1E+9999}'),
    ],
)
def test_numbers_beyond_all_floats_are_refused(
    tiny_server: ServerThread, route: str, body: dict[str, Any], more: str
) -> None:
    text = json.dumps(body)[:-1] + (", " if body else "") + more + "}"
    headers = {"content-type": "application/json"}
    reply = httpx.post(f"{tiny_server.url}/{route}", content=text, headers=headers)
    assert reply.status_code == 400
    assert "too large a number" in reply.json()["error"]


def test_packed_bodies_are_read_or_refused(tiny_server: ServerThread) -> None:
    url = f"{tiny_server.url}/tokenize"
    text = json.dumps({"inputs": "the river"}).encode()
    plain = httpx.post(url, json={"inputs": "the river"}).json()

    def ask(content: bytes, coding: str) -> httpx.Response:
        headers = {"content-type": "application/json", "content-encoding": coding}
        return httpx.post(url, content=content, headers=headers)

    assert ask(gzip.compress(text), "gzip").json() == plain
    assert ask(gzip.compress(text), "GZIP").json() == plain
    assert ask(text, "identity").json() == plain
    assert ask(zlib.compress(text), "deflate").status_code == 415
    assert ask(text, "br").status_code == 415
    assert ask(text, "gzip").status_code == 400
    assert ask(gzip.compress(text)[:-12], "gzip").status_code == 400
    # Small on the wire, and larger than a body may be once it is unpacked.
    bomb = gzip.compress(b'{"inputs": "' + b"a" * 50_000_000)
    assert len(bomb) < 100_000
    assert ask(bomb, "gzip").status_code == 413


def test_a_line_is_kept_for_as_long_as_is_set(tiny_home: Path) -> None:
    assert ServingLimits().keep_alive_seconds >= 75

    def ask(line: socket.socket) -> bytes:
        line.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        return line.recv(4096)

    limits = ServingLimits(keep_alive_seconds=1)
    with ServerThread(tiny_config(tiny_home, limits=limits)) as server:
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=30) as line:
            assert ask(line).startswith(b"HTTP/1.1 200")
            assert line.recv(1) == b""  # The server closes it by itself.


@pytest.mark.slow
def test_a_line_outlives_what_uvicorn_would_keep(tiny_server: ServerThread) -> None:
    host, port = tiny_server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=8) as line:
        for _ in range(2):
            line.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert line.recv(4096).startswith(b"HTTP/1.1 200")
            with pytest.raises(TimeoutError):  # Nothing comes, and no end either.
                line.recv(1)


def test_limits_are_read_from_texts() -> None:
    limits = ServingLimits.read(["max_best_of=7", "deadline_seconds=0.5"], max_rows=3)
    assert limits == ServingLimits(max_best_of=7, deadline_seconds=0.5, max_rows=3)
    for text, words in (("max_bestof=1", "unknown"), ("max_rows=x", "max_rows=8"),
                        ("max_rows", "max_rows=8"), ("max_rows=-1", "from 0 up")):  # fmt: skip
        with pytest.raises(ServingError, match=words):
            ServingLimits.read([text])


@pytest.mark.parametrize(
    ("asked", "positions", "total"),
    [(0, 8192, 8192), (0, None, 4096), (0, 10**6, 65_536), (9000, None, 9000),
     (9000, 8192, 8192), (100, 8192, 100)],
)  # fmt: skip
def test_no_limit_means_what_the_model_and_the_memory_hold(
    asked: int, positions: int | None, total: int
) -> None:
    limits = EngineLimits(max_total_tokens=asked)
    assert limits.within(positions).max_total_tokens == total


def test_head_is_answered_wherever_get_is(tiny_server: ServerThread) -> None:
    for path in ("", "/health", "/ping", "/info", "/v1/models", "/v1/models/lora", "/metrics",
                 "/docs", "/models/lora/info", "/models/lora"):  # fmt: skip
        head = httpx.head(tiny_server.url + path)
        assert head.status_code == httpx.get(tiny_server.url + path).status_code == 200
        assert head.content == b""
    assert httpx.head(f"{tiny_server.url}/models/nobody").status_code == 404
    assert httpx.head(f"{tiny_server.url}/generate").status_code == 405


@pytest.mark.slow
def test_a_long_text_to_tokenize_holds_nobody_up(tiny_server: ServerThread) -> None:
    """/health answers while a long text is taken apart: its longest wait is a part of that."""
    text = "the river " * 60_000
    waits: list[float] = []
    done = threading.Event()

    def poll() -> None:
        with httpx.Client(base_url=tiny_server.url, timeout=60) as client:
            while not done.is_set():
                asked = time.monotonic()
                assert client.get("/health").is_success
                waits.append(time.monotonic() - asked)

    poller = threading.Thread(target=poll)
    poller.start()
    asked = time.monotonic()
    reply = httpx.post(f"{tiny_server.url}/tokenize", json={"inputs": text}, timeout=120)
    took = time.monotonic() - asked
    done.set()
    poller.join()
    assert reply.status_code == 422
    assert "Given: 1" in reply.json()["error"]
    assert max(waits) < took / 3
