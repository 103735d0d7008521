"""The page's process and its model server's: kept up, replaced, ended in time, reachable again."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import signal
import socket
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import httpx2
import psutil
import pytest
from fault_server import FaultServer, Script
from hostile_server import within
from running import arena_ui, arena_up, environment_with_tree, stop

from arena.storage.store import Store
from arena.values.battle import AnswerStatus

FILES = 200
DEAD_SECONDS = 60.0


def until(is_so: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait for it, so long at most."""
    limit = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < limit, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.2)


def is_healthy(url: str) -> bool:
    """The page answers."""
    with contextlib.suppress(httpx2.HTTPError):
        return httpx2.get(f"{url}/healthz", trust_env=False, timeout=2).status_code == 200
    return False


def few_files() -> None:
    """Runs in the child before it starts."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (FILES, FILES))


def idle_connections(port: int) -> list[socket.socket]:
    """More than the page has descriptors for; they say nothing."""
    made = []
    for _ in range(2 * FILES):
        connection = socket.socket()
        connection.settimeout(0.5)
        with contextlib.suppress(OSError):
            connection.connect(("127.0.0.1", port))
            made.append(connection)
    return made


@pytest.mark.slow
def test_page_without_descriptors_says_so_once_and_comes_back(tmp_path: Path) -> None:
    with (
        FaultServer({"one": Script(), "two": Script()}) as server,
        arena_ui(tmp_path, server.url, preexec_fn=few_files) as (url, port, log, process),
    ):
        began, idle = time.monotonic(), idle_connections(port)
        assert len(idle) > FILES - 100
        until(lambda: is_healthy(url), DEAD_SECONDS, "it takes connections again")
        for connection in idle:
            connection.close()
        assert log.stat().st_size < 100_000, "the log stays small"
        assert "connections cannot be accepted" in log.read_text()
        times = sum(map(int, re.findall(r"(\d+) times since", log.read_text())))
        assert times <= time.monotonic() - began + 2, "it tries again once a second"
        idle = idle_connections(port)
        stop(process)
        for connection in idle:
            connection.close()
        assert "Traceback" not in log.read_text()


@pytest.mark.slow
def test_slow_and_idle_connections_are_closed(tmp_path: Path) -> None:
    with (
        FaultServer({"one": Script()}) as server,
        arena_ui(tmp_path, server.url) as (url, port, _, _),
    ):
        for begin in (b"", b"GET / HTTP/1.1\r\nx: ", b"POST /live/send HTTP/1.1\r\n"):
            with socket.create_connection(("127.0.0.1", port)) as slow, within(DEAD_SECONDS):
                slow.settimeout(DEAD_SECONDS)
                slow.sendall(begin)
                with contextlib.suppress(ConnectionError):
                    assert slow.recv(1) == b"", "closed without a word"
        assert is_healthy(url)


@pytest.mark.slow
def test_page_with_25_streams_ends_in_time(tmp_path: Path) -> None:
    scripts = {name: Script(("word ",) * 5000, delay=0.05) for name in ("one", "two")}
    with FaultServer(scripts) as server, arena_ui(tmp_path, server.url) as (url, _, log, process):
        streams = []
        for i in range(25):
            cookies = {"arena_voter": f"a-voter-of-this-test-{i}"}
            client = httpx2.Client(base_url=url, trust_env=False, timeout=60, cookies=cookies)
            reply = client.post("/api/battles", json={"prompt": "Go on."})
            assert reply.status_code == 201, reply.text
            opened = reply.json()
            path = f"/api/battles/{opened['battle']}/events"
            request = client.build_request("GET", path, headers={"x-battle-token": opened["token"]})
            streams.append((client, client.send(request, stream=True)))
        until(lambda: server.open_streams >= 40, 60, "they are being written")
        began = time.monotonic()
        process.terminate()
        process.wait(30)
        took = time.monotonic() - began
        for client, stream in streams:
            words = stream.read().decode()  # also what came after it was told to end
            assert "The server was shut down while this answer was being written." in words
            client.close()
        assert process.returncode == 0, log.read_text()
        assert took < 5 + 5, f"took {took:.1f} s; 5 s, and as much for a busy machine"
        server.wait_for_streams(0)


@pytest.mark.slow
def test_clients_that_hardly_read_cost_little(tmp_path: Path) -> None:
    """30 read a byte a second, 60 join Gradio's queue and never listen: memory stays, others go on.

    When they leave, their answers end at the model servers, too.
    """
    home = tmp_path / "home"
    home.mkdir()
    (home / "arena.toml").write_text("[limits]\nnew_voters_per_minute = 200\n")
    scripts = {name: Script(("many words " * 50,) * 2000, delay=0.5) for name in ("one", "two")}
    with FaultServer(scripts) as server, arena_ui(tmp_path, server.url) as (url, port, _, process):
        page, lines = psutil.Process(process.pid), []
        with httpx2.Client(base_url=url, trust_env=False, timeout=60) as client:
            for i in range(30):
                cookie = f"arena_voter=hardly-reading-voter-{i}"
                opened = client.post(
                    "/api/battles", json={"prompt": "Go on."}, headers={"cookie": cookie}
                ).json()
                line = socket.socket()
                line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                line.settimeout(60)
                line.connect(("127.0.0.1", port))
                line.sendall(
                    f"GET /api/battles/{opened['battle']}/events HTTP/1.1\r\nhost: 127.0.0.1:{port}"
                    f"\r\ncookie: {cookie}\r\nx-battle-token: {opened['token']}\r\n\r\n".encode()
                )
                lines.append(line)
            client.cookies.clear()
            before = page.memory_info().rss
            for i in range(60):
                joined = {"fn_index": 0, "data": [], "session_hash": f"ghost{i}"}
                assert client.post("/gradio_api/queue/join", json=joined).status_code < 500
            for _ in range(10):
                assert all(line.recv(1) for line in lines), (
                    "they are served, as slowly as they read"
                )
                until(lambda: is_healthy(url), 60, "others are answered")
                time.sleep(1)
            assert page.memory_info().rss - before < 50e6
            assert server.open_streams >= 50, "their answers are being written"
            for line in lines:
                line.close()
            server.wait_for_streams(0)
            assert begins_battles(url)


@pytest.mark.slow
def test_killed_page_keeps_what_was_written(tmp_path: Path) -> None:
    """After kill -9 amid an answer the next program shows its text, as an answer that failed."""
    scripts = {name: Script(("word ",) * 5000, delay=0.05) for name in ("one", "two")}
    with (
        FaultServer(scripts) as server,
        arena_ui(tmp_path, server.url) as (url, _, _, process),
        httpx2.Client(base_url=url, trust_env=False, timeout=60) as client,
    ):
        opened = client.post("/api/battles", json={"prompt": "Go on."}).json()
        path, token = f"/api/battles/{opened['battle']}", opened["token"]
        events = client.build_request("GET", f"{path}/events", headers={"x-battle-token": token})
        watching = client.send(events, stream=True)
        store = Store(tmp_path / "home" / "arena.db")

        def texts() -> list[str]:
            turn = store.load_battle(opened["battle"], token=token).battle.turns[0]
            return sorted(answer.text for answer in turn.attempts)

        until(lambda: all(texts()), 60, "the texts so far are stored")
        process.kill()
        process.wait(30)
        watching.close()
    assert store.close_orphans() == 2
    assert all(text.startswith("word word ") for text in texts())
    turn = store.load_battle(opened["battle"], token=token).battle.turns[0]
    assert {answer.status for answer in turn.attempts} == {AnswerStatus.FAILED}
    assert all("The program was stopped" in (answer.error or "") for answer in turn.attempts)
    store.close()


def children(pid: int) -> list[int]:
    """The processes that this one started and that still are."""
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(one) for one in listed]


def model_server(pid: int) -> int | None:
    """The model server of `arena up`."""
    for one in children(pid):
        with contextlib.suppress(OSError):
            if b"arena.serve_child\0serve\0" in Path(f"/proc/{one}/cmdline").read_bytes():
                return one
    return None


def is_told(log: Path, what: str) -> bool:
    """The log has it."""
    return what in log.read_text()


def is_another(pid: int, before: int) -> bool:
    """A model server stands that is not the one of before."""
    return model_server(pid) not in (None, before)


def begins_battles(url: str) -> bool:
    """Models can be asked."""
    asked = {"prompt": "Hi"}
    reply = httpx2.post(f"{url}/api/battles", json=asked, trust_env=False, timeout=60)
    return reply.status_code == 201


@pytest.mark.slow
def test_model_server_that_dies_or_hangs_is_replaced(tmp_path: Path) -> None:
    if not Path("/proc/self/task").is_dir():
        pytest.skip("children are found in /proc")
    with arena_up("--home", "home", cwd=tmp_path, environment=environment_with_tree()) as running:
        first = model_server(running.process.pid)
        assert first is not None
        for number, why in (
            (signal.SIGKILL, "ended with status -9"),
            (signal.SIGSTOP, "did not answer for"),
        ):
            before = model_server(running.process.pid)
            assert before is not None
            time.sleep(5)  # the arena has heard from it
            os.kill(before, number)
            until(partial(is_told, running.log, why), 120, f"it is told: {why}")
            reply = httpx2.post(
                f"{running.url}/api/battles", json={"prompt": "Hi"}, trust_env=False, timeout=60
            )
            if reply.status_code != 201:
                assert "restarting" in reply.json()["error"], reply.text
            until(partial(is_another, running.process.pid, before), 120, "another one stands")
            until(partial(begins_battles, running.url), 240, "battles begin again")
        last = model_server(running.process.pid)
        assert last is not None
        running.process.send_signal(signal.SIGTERM)
        running.process.wait(30)
        assert running.process.returncode == 0
        assert not Path(f"/proc/{last}").exists(), "it leaves no orphan"
