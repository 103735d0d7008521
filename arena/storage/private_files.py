"""Files that hold secrets or votes: only their owner reads them, and they are whole or absent."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

OWNER_ONLY = 0o600


def make_private(path: Path) -> None:
    """An empty file that only its owner can read, unless there is one already."""
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, OWNER_ONLY))


def write_private(path: Path, text: str, *, replace: bool = True) -> None:
    """Write a file under another name, have it on disk, and give it its own.

    Without `replace` a file that is there already stays as it is. Raises OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, OWNER_ONLY)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        if replace:
            os.replace(beside, path)
        else:
            with contextlib.suppress(FileExistsError):
                _name(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _name(beside: Path, path: Path) -> None:
    """Give a file its name, unless that is taken: FileExistsError."""
    try:
        os.link(beside, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        if not path.exists():
            os.replace(beside, path)
