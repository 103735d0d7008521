"""Runs `arena` and short scripts in processes forked from one that has loaded the libraries.

Each is a real process, with its own folder, environment, files, signals and exit status; what it
is spared are the seconds in which an interpreter loads torch and transformers. So what a start
itself loads, and variables that libraries read while they load, need a new interpreter.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

LOADED = (
    "pytest",  # multiprocessing imports whatever runs the tests again in each child
    "arena.cli",
    "arena.commands.vote_data",
    "arena.exports.dataset",
    "arena.imports.importer",
    "arena.ratings.leaderboard",
    "arena.storage.store",
    "datasets",
    "matplotlib.pyplot",
    "peft",
    "transformers.models.llama.modeling_llama",
    "tuning.commands.tune",
    "tuning.training.train",
    "tuning.training.trainer",
)


@dataclass(frozen=True)
class Finished:
    """How a process that ended by itself ended; the status of a killed one is the signal's, < 0."""

    status: int
    stdout: str
    stderr: str


class Forked:
    """A process that runs `arena`, or a script, from the moment that it is made."""

    def __init__(
        self,
        words: Sequence[str | Path],
        *,
        script: str | None = None,
        cwd: Path | None = None,
        environment: Mapping[str, str] | None = None,
        typed: str = "",
    ) -> None:
        self._files = [tempfile.TemporaryFile() for _ in range(3)]  # noqa: SIM115
        self._files[0].write(typed.encode())
        self._files[0].seek(0)
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(list(LOADED))
        argv = ["-c" if script is not None else "arena", *map(str, words)]
        self._paths = [f"/proc/{os.getpid()}/fd/{file.fileno()}" for file in self._files]
        given = (script, argv, str(cwd or Path.cwd()), dict(environment or os.environ), self._paths)
        self._finished: Finished | None = None
        self._process = context.Process(target=_run, args=given)
        self._process.start()

    @property
    def pid(self) -> int:
        """Its number."""
        assert self._process.pid is not None
        return self._process.pid

    @property
    def status(self) -> int | None:
        """The exit status, None while it runs."""
        return self._process.exitcode

    @property
    def printed(self) -> str:
        """What it has written to stdout so far."""
        return Path(self._paths[1]).read_text()

    def join(self) -> None:
        """Wait until it has ended."""
        self._process.join()

    def kill(self) -> None:
        """End it as the kernel would."""
        self._process.kill()

    def wait(self, timeout: float = 400) -> Finished:
        """How it ended. Raises AssertionError if it has not after `timeout` seconds."""
        if self._finished is not None:
            return self._finished
        self._process.join(timeout)
        status = self._process.exitcode
        if status is None:
            self.kill()
            self._process.join()
        texts = []
        for file in self._files:
            file.seek(0)
            texts.append(file.read().decode())
            file.close()
        assert status is not None, f"not ended after {timeout:.0f} s: {texts[2]}"
        self._finished = Finished(status, *texts[1:])
        return self._finished


def run_script(script: str, *words: str | Path, **options: object) -> Finished:
    """Run a script to its end; `words` are its `sys.argv[1:]`, `options` those of `Forked`."""
    return Forked(words, script=script, **options).wait()  # type: ignore[arg-type]


def _run(
    script: str | None, argv: list[str], cwd: str, environment: dict[str, str], paths: list[str]
) -> None:
    for number, path in enumerate(paths):
        opened = os.open(path, os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_APPEND)
        os.dup2(opened, number)
        os.close(opened)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = argv
    if script is not None:
        exec(compile(script, "<script>", "exec"), {"__name__": "__main__"})
        return
    from arena.cli import main

    main()
