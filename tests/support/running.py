"""Starts `arena` commands as a person would, waits until they are ready, and ends them."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forked import Finished, Forked

ARENA = Path(sys.executable).with_name("arena")
READY = re.compile(r"^Arena ready at (http://\S+)", re.MULTILINE)


@dataclass(frozen=True)
class Running:
    """A command that has said it is ready."""

    url: str
    serve_url: str
    port: int
    log: Path
    process: subprocess.Popen[bytes]


def free_port() -> int:
    """A TCP port of loopback that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def clean_environment(**extra: str) -> dict[str, str]:
    """This process's environment without the Python paths of the tests and any home."""
    dropped = {"PYTHONPATH", "ARENA_HOME", "PYTEST_CURRENT_TEST"}
    kept = {name: value for name, value in os.environ.items() if name not in dropped}
    return {**kept, "PYTHONUNBUFFERED": "1", **extra}


def environment_with_tree() -> dict[str, str]:
    """A clean one, with the code that is tested where that is not the installed one."""
    path = os.environ.get("PYTHONPATH")
    return clean_environment(**({"PYTHONPATH": path} if path else {}))


def run_arena(*arguments: str | Path, cwd: Path, timeout: float = 240) -> Finished:
    """Run `arena <arguments>` in a folder until it ends by itself."""
    return Forked(arguments, cwd=cwd, environment=clean_environment()).wait(timeout)


@contextmanager
def arena_up(
    *arguments: str | Path,
    cwd: Path,
    command: Sequence[str | Path] = (ARENA,),
    environment: Mapping[str, str] | None = None,
    timeout: float = 240,
) -> Iterator[Running]:
    """`arena up` from the moment it says it is ready; stopped by SIGINT at the end.

    Ports that `arguments` do not give are free ones; `command` is what stands before `up`;
    smollm2 joins only if it is asked for.
    Raises AssertionError with the whole log if it ends early or is not ready after `timeout`
    seconds.
    """
    given = list(map(str, arguments))
    for option in ("--port", "--serve-port"):
        if option not in given:
            given += [option, str(free_port())]
    if not {"--smollm2", "--no-smollm2"} & set(given):
        given.append("--no-smollm2")  # half a minute of unpacking in each new home
    words = [*map(str, command), "up", *given]
    log = cwd / "arena-up.log"
    with log.open("wb") as sink:
        process = subprocess.Popen(
            words,
            cwd=cwd,
            env=dict(environment or clean_environment()),
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        url = wait_ready(process, log, timeout)
        serve_url = f"http://127.0.0.1:{given[given.index('--serve-port') + 1]}"
        yield Running(url, serve_url, int(url.rsplit(":", 1)[1].strip("/")), log, process)
    finally:
        stop(process)


@contextmanager
def arena_ui(
    folder: Path, backend: str, **options: Any
) -> Iterator[tuple[str, int, Path, subprocess.Popen[bytes]]]:
    """`arena ui` over a server: its address, port, log and process; its home is in `folder`."""
    log, port = folder / "ui.log", free_port()
    words = [str(ARENA), "ui", "--backend", backend, "--home", str(folder / "home")]
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [*words, "--port", str(port)],
            env=environment_with_tree(),
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            **options,
        )
    try:
        yield wait_ready(process, log, 120), port, log, process
    finally:
        stop(process)


def wait_ready(process: subprocess.Popen[bytes], log: Path, timeout: float) -> str:
    """The address that the command printed."""
    limit = time.monotonic() + timeout
    while time.monotonic() < limit:
        ready = READY.search(log.read_text(errors="replace"))
        if ready:
            return ready[1]
        assert process.poll() is None, f"ended with {process.returncode}:\n{log.read_text()}"
        time.sleep(0.1)
    raise AssertionError(f"not ready after {timeout:.0f} s:\n{log.read_text(errors='replace')}")


def stop(process: subprocess.Popen[bytes], patience: float = 20) -> None:
    """End the process as Ctrl-C would; its whole group is killed if that takes too long."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGINT)
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
