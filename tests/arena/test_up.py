"""`arena up` and `arena ui` as processes: ready, told apart from trouble, and gone when told."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest
from fault_server import FaultServer, Script
from running import Running, arena_up, clean_environment, free_port, run_arena, wait_ready
from serving_models import TEMPLATE, save_adapter, save_checkpoint, save_tokenizer

from arena.children import ModelServer
from arena.config.page_config import PageConfig, SettingsError
from arena.web.server import HomeError, ListenError, bind, prepare_home


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny base, and a home with one LoRA variant of it."""
    place = tmp_path_factory.mktemp("models")
    base = save_checkpoint("llama", place / "base")
    folder = save_adapter("llama", base, place / "home" / "models" / "mine", "lora")
    save_tokenizer(folder, TEMPLATE)
    return place


def get(url: str) -> dict[str, object]:
    with urllib.request.urlopen(url, timeout=10) as reply:
        found: dict[str, object] = json.loads(reply.read())
    return found


def is_up(url: str) -> bool:
    """Whether a server answers; one that starts refuses or resets connections."""
    try:
        with urllib.request.urlopen(url, timeout=10) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


def model_server(running: Running) -> psutil.Process:
    (child,) = psutil.Process(running.process.pid).children()
    return child


@pytest.mark.slow
def test_up_serves_survives_a_crash_and_leaves_nothing(models: Path, tmp_path: Path) -> None:
    port = free_port()
    words = ("--base", str(models / "base"), "--home", str(models / "home"))
    with arena_up(*words, "--serve-port", str(port), cwd=tmp_path) as running:
        served = f"http://127.0.0.1:{port}"
        # The server logs when its steps are compiled, sooner or later.
        compiled = "INFO model base: steps of few tokens are compiled"
        lines = running.log.read_text().splitlines()
        told = [line for line in lines if not line.endswith(compiled)]
        key = (models / "home" / "admin.key").read_text().strip()
        assert told == [
            f"arena: {served} answers by the TGI API: base (completion), mine (chat)",
            f"arena: to tune on the page, open http://127.0.0.1:{running.port}/enter?key={key}",
            f"Arena ready at http://127.0.0.1:{running.port}",
        ]
        assert get(f"{running.url}/healthz")["servers_up"] == 1
        names = [m["id"] for m in get(f"http://127.0.0.1:{port}/v1/models")["data"]]  # type: ignore[attr-defined]
        assert names == ["base", "mine"]
        first = model_server(running)
        first.kill()
        limit = time.monotonic() + 150  # a busy machine loads torch slowly
        while "ended with status -9; starting it again" not in running.log.read_text():
            assert time.monotonic() < limit
            time.sleep(0.1)
        while not is_up(f"http://127.0.0.1:{port}/health"):
            assert time.monotonic() < limit
            time.sleep(0.1)
        while get(f"{running.url}/healthz")["servers_up"] != 1:
            assert time.monotonic() < limit
            time.sleep(0.2)
        second = model_server(running)
        assert second.pid != first.pid
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(20) == 0
    assert not second.is_running()
    with pytest.raises(urllib.error.URLError):
        get(f"http://127.0.0.1:{port}/v1/models")
    kept = (models / "home" / "logs" / f"arena-{running.port}.log").read_text().splitlines()
    assert {line.split()[1] for line in kept} == {"page", "models"}
    # The link is a secret, and stands on the terminal alone.
    shown = {line for line in running.log.read_text().splitlines() if key not in line}
    assert {line.split(" ", 2)[2] for line in kept} == shown
    assert not [line for line in kept if key in line]


@pytest.mark.slow
def test_the_model_server_dies_with_a_killed_page(models: Path, tmp_path: Path) -> None:
    words = ("--base", str(models / "base"), "--home", str(models / "home"))
    with arena_up(*words, cwd=tmp_path) as running:
        child = model_server(running)
        os.kill(running.process.pid, signal.SIGKILL)
        running.process.wait(10)
        child.wait(10)


@pytest.mark.slow
def test_bad_base_is_one_line(tmp_path: Path) -> None:
    ports = ("--port", str(free_port()), "--serve-port", str(free_port()))
    done = run_arena("up", "--base", tmp_path / "none", *ports, "--home", "home", cwd=tmp_path)
    assert done.status == 1
    assert done.stderr.count("\n") == 1, done.stderr
    assert str(tmp_path / "none") in done.stderr


@pytest.mark.slow
def test_ui_answers_alone_and_ends_on_ctrl_c(tmp_path: Path) -> None:
    import subprocess

    from running import ARENA, stop

    with FaultServer({"one": Script(), "two": Script()}) as server:
        log = tmp_path / "log"
        down = f"http://127.0.0.1:{free_port()}"
        words = [str(ARENA), "ui", "--backend", server.url, "--backend", down, "--home", "home"]
        with log.open("wb") as sink:
            process = subprocess.Popen(
                [*words, "--port", str(free_port())],
                cwd=tmp_path,
                env=clean_environment(),
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            url = wait_ready(process, log, 60)
            assert get(f"{url}/healthz")["servers_up"] == 1
            assert (tmp_path / "home" / "arena.db").exists()
        finally:
            stop(process)
    assert process.returncode == 0
    up, missing, link, ready = log.read_text().splitlines()
    assert up == f"arena: {server.url} answers by the TGI API: one (chat), two (chat)"
    assert missing.startswith(f"arena: {down} is down: no answer")
    assert link.startswith(f"arena: to tune on the page, open {url}/enter?key=")
    assert ready == f"Arena ready at {url}"


def test_taken_port_names_the_option() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ListenError, match=f"port {port} is in use.*--serve-port"):
            bind("127.0.0.1", port, "--serve-port")
    with pytest.raises(ListenError, match="70000"):
        bind("127.0.0.1", 70_000)
    with pytest.raises(ListenError, match=r"203\.0\.113\.1"):
        bind("203.0.113.1", 0)


def test_home_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(HomeError, match="file/home"):
        prepare_home(tmp_path / "file" / "home")
    made = prepare_home(tmp_path / "new" / "home")
    assert list(made.iterdir()) == [], "no trace of the test"


@pytest.mark.parametrize("url", ["nonsense", "ftp://x", "http://", "http://me:secret@host"])
def test_backend_that_is_no_address_is_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="backend") as caught:
        PageConfig((url,), tmp_path)
    assert "secret" not in str(caught.value)


def test_child_is_started_with_the_words_of_arena_serve() -> None:
    words = ModelServer("b", ("m", "n"), "h", "127.0.0.1", 1, "float32", "cpu").arguments
    assert words[0] == "serve"
    assert dict(zip(words[1:-4:2], words[2:-4:2], strict=True)) == {
        "--base": "b",
        "--home": "h",
        "--host": "127.0.0.1",
        "--port": "1",
        "--dtype": "float32",
        "--device": "cpu",
    }
    assert words[-4:] == ["--model", "m", "--model", "n"]
