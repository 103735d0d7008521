"""Connections that say nothing, trickle, or do not listen cost nobody else anything."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from serving_fixtures import tiny_config

from serving.config import ServeConfig
from serving.errors import ServingError
from serving.http import body, connections
from serving.http.server import ServerThread, _server_of, _Uvicorn, bind
from serving.models.registry import Registry

ROOT = Path(__file__).parents[2]


@contextmanager
def small_server() -> Iterator[tuple[str, int]]:
    """An application without models: `/` says nothing much, `/big` says 200 MB."""
    app = FastAPI()

    @app.get("/")
    def little() -> str:
        return "ok"

    @app.get("/big")
    def big() -> StreamingResponse:
        return StreamingResponse(b"x" * 2**20 for _ in range(200))

    listener, ready = bind("127.0.0.1", 0), threading.Event()
    server = _Uvicorn(app, ready.set, 75)
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    assert ready.wait(60)
    try:
        yield listener.getsockname()[:2]
    finally:
        server.should_exit = True
        thread.join(30)
        listener.close()


def seconds_until_closed(line: socket.socket, most: float) -> float:
    """How long until the other end closed; `most` if it did not."""
    started = time.monotonic()
    line.settimeout(most)
    try:
        while line.recv(2**16):
            pass
    except TimeoutError:
        return most
    except ConnectionError:
        pass
    return time.monotonic() - started


def test_headers_have_a_bound_however_they_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEADER_SECONDS", 0.6)
    whole = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    with small_server() as place:
        with socket.create_connection(place) as silent:
            assert seconds_until_closed(silent, 30) < 30
        with socket.create_connection(place) as trickling:
            closed = False
            for byte in b"GET / HTTP/1.1\r\nX: " + b"y" * 600:
                try:
                    trickling.sendall(bytes([byte]))
                except ConnectionError:
                    closed = True
                    break
                time.sleep(0.05)
            assert closed or seconds_until_closed(trickling, 5) < 5
        with socket.create_connection(place) as again:
            again.sendall(whole)
            assert again.recv(2**16).startswith(b"HTTP/1.1 200")
            again.sendall(whole[:20])  # The next one's headers stop in the middle.
            assert seconds_until_closed(again, 30) < 30
        assert httpx.get(f"http://{place[0]}:{place[1]}/", timeout=30).status_code == 200


def test_a_caller_who_does_not_read_is_let_go_and_one_who_reads_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connections, "DEAF_SECONDS", 0.5)
    monkeypatch.setattr(connections, "HEADER_SECONDS", 0.5)
    request = b"GET /big HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    with small_server() as place:
        deaf = socket.create_connection(place)
        deaf.sendall(request)
        reader = socket.create_connection(place)
        reader.sendall(request + b"")
        total, started = 0, time.monotonic()
        reader.settimeout(30)
        while total < 200 * 2**20:
            part = reader.recv(2**20)
            assert part, "a caller who reads is served to the end"
            total += len(part)
        time.sleep(max(0.0, 1.5 - (time.monotonic() - started)))
        got = 0
        deaf.settimeout(30)
        try:
            while part := deaf.recv(2**20):
                got += len(part)
        except ConnectionError:
            pass
        assert got < 200 * 2**20
        deaf.close()
        reader.close()


SCRIPT = """
import resource, sys
from fastapi import FastAPI
from serving.http import connections
from serving.http.server import _Uvicorn, bind
connections.HEADER_SECONDS = 4.0
app = FastAPI()
app.get("/")(lambda: "ok")
listener = bind("127.0.0.1", 0)
used = len(__import__("os").listdir("/proc/self/fd"))
resource.setrlimit(resource.RLIMIT_NOFILE, (used + 40, used + 40))
server = _Uvicorn(app, lambda: print(listener.getsockname()[1], flush=True), 75)
server.run(sockets=[listener])
"""


@pytest.mark.slow
def test_without_descriptors_the_log_stays_small_and_the_server_recovers() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        began = time.monotonic()
        idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(100)]
        deadline = time.monotonic() + 60
        while True:
            try:
                assert httpx.get(f"http://127.0.0.1:{port}/", timeout=5).status_code == 200
                break
            except httpx.HTTPError:
                assert time.monotonic() < deadline, "it does not recover"
        again = [socket.create_connection(("127.0.0.1", port)) for _ in range(100)]
        process.terminate()
        process.wait(30)
        for line in (*idle, *again):
            line.close()
    finally:
        process.kill()
        _, log = process.communicate()
    assert "connections cannot be accepted (Too many open files" in log
    assert len(log) < 5_000
    assert "Traceback" not in log
    times = sum(map(int, re.findall(r"(\d+) times since", log)))
    assert times <= time.monotonic() - began + 2, "it tries again once a second"


def test_a_body_has_a_bound(tiny_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body, "BODY_SECONDS", 0.5)
    head = (
        "POST /generate HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        "Content-Length: 100\r\n\r\n{"
    )
    with ServerThread(tiny_config(tiny_home, models=())) as server:
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as line:
            line.sendall(head.encode())
            line.settimeout(30)
            assert line.recv(2**16).startswith(b"HTTP/1.1 408")


def test_those_who_wait_are_told_when_the_server_ends(tiny_home: Path) -> None:
    asked = {"inputs": "one two three", "parameters": {"max_new_tokens": 100}}
    with Registry(tiny_config(tiny_home, models=())) as registry, bind("127.0.0.1", 0) as listener:
        ready = threading.Event()
        server = _server_of(registry, ready.set)
        registry.worker.on_step = lambda _: time.sleep(0.5)  # 100 tokens take 50 s
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        assert ready.wait(60)
        host, port = listener.getsockname()[:2]
        with httpx.Client(base_url=f"http://{host}:{port}", timeout=60) as client:
            ask = partial(client.build_request, "POST", json=asked)
            streams = [client.send(ask("/generate_stream"), stream=True) for _ in range(25)]
            began = time.monotonic()
            server.should_exit = True
            told = [stream.read().decode() for stream in streams]
        thread.join(30)
        took = time.monotonic() - began
    assert all("the server is shutting down" in words for words in told), told[0]
    assert took < 5 + 5, f"took {took:.1f} s; 5 s, and as much for a busy machine"


def test_only_names_of_this_machine_are_answered(tiny_home: Path) -> None:
    """A page elsewhere whose name is pointed at this machine gets nothing."""
    with ServerThread(tiny_config(tiny_home, models=(), allowed_hosts=("gpu.lan",))) as server:
        port = server.url.rpartition(":")[2]
        for name, status in (
            ("evil.example", 400), (f"evil.example:{port}", 400), ("127.0.0.1.evil.example", 400),
            (f"127.0.0.1:{port}", 200), ("localhost", 200), (f"[::1]:{port}", 200),
            ("gpu.lan", 200), ("", 400), ("a b", 400),
        ):  # fmt: skip
            for path in ("info", "v1/models", "health", "metrics"):
                answer = httpx.get(f"{server.url}/{path}", headers={"Host": name}, timeout=60)
                assert answer.status_code == status, (name, path)


def test_which_hosts_a_server_answers(tmp_path: Path) -> None:
    def hosts(host: str, *allowed: str) -> tuple[str, ...]:
        return ServeConfig(base=tmp_path, base_name="b", host=host, allowed_hosts=allowed).hosts

    assert "*" not in hosts("127.0.0.1")
    assert "*" not in hosts("localhost")
    assert hosts("0.0.0.0") == ("*",)
    assert "arena.example" in hosts("0.0.0.0", "arena.example")
    assert "*" not in hosts("0.0.0.0", "arena.example")
    with pytest.raises(ServingError, match="api_key is empty"):
        ServeConfig(base=tmp_path, base_name="b", api_key="")
