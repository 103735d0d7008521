"""Brings engines up on this processor with the starter and its LoRA variant, and pages and servers
of this project beside them.

Each is a process group of its own, with a log, that is gone at the end. Knows the engines' command
lines; does not know what they are asked.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx2

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / ".engines"
THREADS = 1
"""Nothing here is timed, and threads that wait for each other lose most on a busy machine."""
VLLM_SPACE = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": str(THREADS),
}
VLLM_SMALL = ("--max-model-len", "512", "--dtype", "float32", "--enforce-eager")


class EngineError(Exception):
    """An engine that does not come up; the message is the end of its log."""


@dataclass(frozen=True)
class Engine:
    """An engine that answers: where, and what it calls the base and the LoRA variant.

    `how` it takes variants, in words; `prefix`: what it would call a prefix variant, or "load";
    `plain`: words of a request that switch its own sampling off.
    """

    url: str
    base: str
    lora: str
    how: str
    prefix: str = ""
    log: Path = field(default_factory=Path)
    plain: Mapping[str, float] = field(default_factory=dict)


def environment(**more: str) -> dict[str, str]:
    """Without the Python paths of this process; the hub and usage servers are not asked."""
    dropped = {"PYTHONPATH", "VIRTUAL_ENV"}
    kept = {key: value for key, value in os.environ.items() if key not in dropped}
    quiet = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    return {**kept, **quiet, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", **more}


def free_port() -> int:
    """A TCP port of loopback that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(
    words: Sequence[str | Path],
    answers: str,
    log: Path,
    variables: Mapping[str, str],
    seconds: float = 900,
) -> Iterator[subprocess.Popen[bytes]]:
    """The command from the moment its address answers; its whole group is ended at the end."""
    with log.open("ab") as sink:
        process = subprocess.Popen(
            list(map(str, words)), stdin=subprocess.DEVNULL, stdout=sink, stderr=sink,
            env=dict(variables), cwd=ROOT, start_new_session=True,
        )  # fmt: skip
    limit = time.monotonic() + seconds
    try:
        while not _is_there(answers):
            if process.poll() is not None or time.monotonic() > limit:
                raise EngineError(log.read_text(errors="replace")[-1500:])
            time.sleep(0.5)
        yield process
    finally:
        for number in (signal.SIGINT, signal.SIGKILL):
            try:
                os.killpg(process.pid, number)
                process.wait(30)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue
        process.wait()


def _is_there(url: str) -> bool:
    try:
        return bool(httpx2.get(url, trust_env=False, timeout=5).status_code == 200)
    except httpx2.HTTPError:
        return False


def arena(*words: str | Path) -> None:
    """Run an `arena` command to its end."""
    command = [sys.executable, "-m", "arena.cli", *map(str, words)]
    subprocess.run(command, check=True, cwd=ROOT, env=_ours(), stdout=subprocess.DEVNULL)


@contextmanager
def own_server(folder: Path, *words: str | Path, **variables: str) -> Iterator[Engine]:
    """`arena serve` in fp32, as the engines are."""
    port = free_port()
    url, log = f"http://127.0.0.1:{port}", folder / "own.log"
    command = [sys.executable, "-m", "arena.cli", "serve", "--port", port, "--dtype", "float32"]
    command += ["--home", folder / "home", *words]
    with running(command, f"{url}/health", log, _ours(**variables)):
        yield Engine(url, "starter", "starter-lora", "by name", "starter-prefix", log)


@contextmanager
def page(home: Path, *words: str) -> Iterator[tuple[str, Path]]:
    """`arena ui` on this home: its address, and its log."""
    port, log = free_port(), home / "ui.log"
    home.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "arena.cli", "ui", "--port", port, "--home", home, *words]
    url = f"http://127.0.0.1:{port}"
    with running(command, f"{url}/healthz", log, _ours()):
        yield url, log


@contextmanager
def up(folder: Path, *words: str, **variables: str) -> Iterator[tuple[str, Engine]]:
    """`arena up`: the page's address, and its own server."""
    port, serve_port, log = free_port(), free_port(), folder / "up.log"
    command = [sys.executable, "-m", "arena.cli", "up", "--port", port, "--serve-port", serve_port]
    command += ["--home", folder / "home", "--no-smollm2", *words]
    url, serve_url = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{serve_port}"
    with running(command, f"{serve_url}/health", log, _ours(**variables)):
        while not _is_there(f"{url}/healthz"):
            time.sleep(0.5)
        yield url, Engine(serve_url, "starter", "starter-lora", "by name", "", log)


@contextmanager
def vllm(weights: Path, folder: Path) -> Iterator[Engine]:
    """`vllm serve` by hand: base and adapter, no chat template."""
    del folder
    port = free_port()
    words = [FOLDER / "vllm" / "bin" / "vllm", "serve", weights / "starter"]
    words += ["--served-model-name", "starter", "--enable-lora", "--max-lora-rank", "16"]
    words += ["--lora-modules", f"starter-lora={weights / 'starter-lora'}"]
    with _vllm([*words, "--host", "127.0.0.1", "--port", port, *VLLM_SMALL], port) as engine:
        yield engine


@contextmanager
def vllm_deployed(weights: Path, folder: Path) -> Iterator[Engine]:
    """What `arena deploy vllm` writes, started by its one command."""
    del weights
    port = free_port()
    arena("deploy", "vllm", "starter-lora", "--home", folder / "none", "--out", folder / "on-vllm")
    words = ["bash", folder / "on-vllm" / "serve.sh", *VLLM_SMALL]
    with _vllm(words, port) as engine:
        yield engine


@contextmanager
def _vllm(words: Sequence[object], port: int) -> Iterator[Engine]:
    place = f"{FOLDER / 'vllm' / 'bin'}{os.pathsep}{os.environ['PATH']}"
    switch = {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True", "PORT": str(port), "PATH": place}
    log = FOLDER / "vllm.log"
    url = f"http://127.0.0.1:{port}"
    variables = environment(**VLLM_SPACE, **switch)
    with running([str(one) for one in words], f"{url}/health", log, variables):
        yield Engine(url, "starter", "starter-lora", "by name", "load", log)


@contextmanager
def transformers_serve(weights: Path, folder: Path) -> Iterator[Engine]:
    """`transformers serve` of our own environment: it takes folders of checkpoints as names."""
    port, home = free_port(), folder / "home"
    arena("models", "merge", "starter-lora", "--home", home)
    log = FOLDER / "transformers.log"
    words = [Path(sys.executable).with_name("transformers"), "serve", "--host", "127.0.0.1"]
    words += ["--port", str(port), "--device", "cpu", "--dtype", "float32"]
    url = f"http://127.0.0.1:{port}"
    variables = environment(OMP_NUM_THREADS=str(THREADS))
    with running(words, f"{url}/health", log, variables):
        lora, how = str(home / "models" / "starter-lora-merged"), "merged, a folder each"
        prefix = str(weights / "starter-prefix")
        yield Engine(url, str(weights / "starter"), lora, how, prefix, log)


@contextmanager
def llama_cpp(weights: Path, folder: Path) -> Iterator[Engine]:
    """llama-cpp-python's server with the GGUF files that `arena deploy ollama` writes."""
    del weights
    out, port = folder / "on-llama", free_port()
    arena(
        "deploy", "ollama", "starter-lora", "--type", "f32", "--home", folder / "home", "--out", out
    )
    models = [
        {"model": str(file), "model_alias": file.parent.name, "n_ctx": 512, "verbose": False,
         "n_threads": THREADS, "n_threads_batch": THREADS, "logits_all": True}
        for file in sorted(out.glob("*/*.gguf"))
    ]  # fmt: skip
    config = folder / "llama.json"
    config.write_text(json.dumps({"interrupt_requests": False, "port": port, "models": models}))
    log = FOLDER / "llama-cpp.log"
    python = FOLDER / "llama-cpp" / "bin" / "python"
    words = [python, "-m", "llama_cpp.server", "--config_file", config]
    url = f"http://127.0.0.1:{port}"
    with running(words, f"{url}/v1/models", log, environment()):
        yield Engine(
            url, "starter", "starter-lora", "merged, a file each", "", log, {"repeat_penalty": 1.0}
        )


def _ours(**more: str) -> dict[str, str]:
    kept = {**os.environ, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": str(THREADS)}
    return {**kept, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT), **more}
