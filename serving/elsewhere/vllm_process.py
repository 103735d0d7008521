"""Starts `vllm serve` for a base and its LoRA variants, and says whether it answers.

Knows the command line, the health route and the two routes for adapters; does not know when they
are to be asked (`follower`), nor any request of a caller (`forwarding`).
"""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx2

from serving.deploy.vllm_words import lora_options
from serving.errors import ServingError

ASK_SECONDS = 120.0
"""Loading an adapter waits for the step that runs."""
HEALTH_SECONDS = 5.0
END_SECONDS = 15.0


@dataclass(frozen=True)
class VllmConfig:
    """How vLLM is started: its program, a free port, and options that are passed on as they are."""

    program: str
    port: int
    options: tuple[str, ...] = ()

    @property
    def url(self) -> str:
        """Where it answers, to this machine alone."""
        return f"http://127.0.0.1:{self.port}"


def read_config(program: str, options: str = "") -> VllmConfig:
    """The settings of the command line, on a port that is free; ServingError without vLLM."""
    found = shutil.which(os.path.expanduser(program))
    if found is None:
        raise ServingError(
            f"--vllm {program!r}: is no program here; install vLLM in an environment of its own "
            "(python3 -m venv vllm-env && vllm-env/bin/pip install vllm) and give "
            "--vllm vllm-env/bin/vllm"
        )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    try:
        return VllmConfig(found, port, tuple(shlex.split(options)))
    except ValueError as error:
        raise ServingError(f"--vllm-options {options!r}: {error}; quote them as a shell") from error


class VllmProcess:
    """One vLLM as a child that ends with this process; may be started again."""

    def __init__(self, config: VllmConfig) -> None:
        self.config = config
        self._process: subprocess.Popen[bytes] | None = None
        self._client = httpx2.Client(base_url=config.url, timeout=ASK_SECONDS, trust_env=False)

    def start(
        self, base: Path, base_name: str, adapters: Mapping[str, Path], rank: int, spare: int
    ) -> None:
        """Start it with the base and these adapters, and room for `spare` more up to `rank`."""
        folders = {name: str(folder) for name, folder in adapters.items()}
        words = [self.config.program, "serve", str(base), "--served-model-name", base_name]
        words += ["--host", "127.0.0.1", "--port", str(self.config.port)]
        # What is sampled is what a request says; a template comes with each request.
        words += ["--generation-config", "vllm", "--trust-request-chat-template"]
        words += ["--disable-uvicorn-access-log"]  # we ask for its health twice a second
        words += lora_options(folders, rank, spare) + list(self.config.options)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "serving.elsewhere.guard", *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            env={**os.environ, "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True"},
        )

    @property
    def exit_status(self) -> int | None:
        """None while it runs."""
        return None if self._process is None else self._process.poll()

    def is_healthy(self) -> bool:
        """Whether it answers now."""
        try:
            reply = self._client.get("/health", timeout=HEALTH_SECONDS)
        except httpx2.HTTPError:
            return False
        return bool(reply.status_code == 200)

    def load(self, name: str, folder: Path) -> str:
        """Load an adapter; '' or vLLM's reason why not."""
        return self._post("/v1/load_lora_adapter", {"lora_name": name, "lora_path": str(folder)})

    def unload(self, name: str) -> str:
        """Unload an adapter; '' or vLLM's reason why not."""
        return self._post("/v1/unload_lora_adapter", {"lora_name": name})

    def stop(self) -> None:
        """End it and all its processes; safe to call twice."""
        if self._process is None:
            return
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def close(self) -> None:
        """End it for good."""
        self.stop()
        self._client.close()

    def _post(self, path: str, content: Mapping[str, str]) -> str:
        try:
            reply = self._client.post(path, json=content)
        except httpx2.HTTPError as error:
            return type(error).__name__
        return "" if reply.status_code == 200 else f"HTTP {reply.status_code}: {reply.text[:300]}"
