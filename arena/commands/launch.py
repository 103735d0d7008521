"""`arena tune --launch FILE`: the same command by `accelerate launch`, in several processes.

Knows accelerate's command line and the words of ours; does not know what tuning is.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from arena.errors import ArenaError


class LaunchError(ArenaError):
    """A launch that cannot be made."""


def launched(file: Path, words: Sequence[str]) -> list[str]:
    """The command that runs `arena tune` with these words as accelerate's config file says.

    LaunchError without that file, and inside a process that was launched already.
    """
    if "RANK" in os.environ:
        raise LaunchError(
            f"--launch {file}: this process was launched already; leave --launch out inside "
            "accelerate launch or torchrun"
        )
    if not file.is_file():
        raise LaunchError(
            f"--launch {file}: no such file; make one by 'accelerate config --config_file {file}'"
        )
    start = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(file)]
    return [*start, "-m", "arena.cli", "tune", *without_launch(words)]


def without_launch(words: Sequence[str]) -> list[str]:
    """The words but for `--launch` and its file."""
    kept: list[str] = []
    rest = iter(words)
    for word in rest:
        if word == "--launch":
            next(rest, None)
        elif not word.startswith("--launch="):
            kept.append(word)
    return kept


def launch(file: Path) -> None:
    """Become that command: signals and the exit status are accelerate's."""
    words = sys.argv[sys.argv.index("tune") + 1 :]
    command = launched(file, words)
    sys.stdout.flush()
    os.execv(command[0], command)
