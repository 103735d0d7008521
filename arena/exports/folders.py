"""Writes a folder under a temporary name and renames it, so that it is whole or absent."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from arena.errors import ArenaError
from arena.storage.private_files import OWNER_ONLY


class FolderError(ArenaError):
    """The folder exists already or cannot be written."""

    code = "folder_refused"


@contextmanager
def replacing(out: Path, *, marker: str, overwrite: bool) -> Iterator[Path]:
    """A temporary folder that becomes `out` when the block ends well, else vanishes.

    Folder and files are for their owner only.

    An existing `out` is replaced only with `overwrite` and only if it holds the file
    `marker`, that is, if this program wrote it. Everything is on disk before the rename.
    """
    out = Path(os.path.abspath(out))
    if out.exists() and not (overwrite and (out / marker).is_file()):
        remedy = "give another folder" if overwrite else "give another folder or --overwrite"
        raise FolderError(f"{out} exists already; {remedy}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".tmp", dir=out.parent))
    except OSError as error:
        raise FolderError(f"{out.parent} is not writable ({error.strerror})") from error
    try:
        yield temporary
        _sync(temporary)
        _swap(temporary, out)
    except OSError as error:
        raise FolderError(f"{out} was not written: {error.strerror}; nothing changed") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _swap(temporary: Path, out: Path) -> None:
    if not out.exists():
        temporary.rename(out)
        return
    old = temporary.with_suffix(".old")
    out.rename(old)
    try:
        temporary.rename(out)
    except BaseException:
        old.rename(out)
        raise
    shutil.rmtree(old)


def _sync(folder: Path) -> None:
    for path in [*folder.rglob("*"), folder]:
        path.chmod(0o700 if path.is_dir() else OWNER_ONLY)
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
