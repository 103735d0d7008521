"""Files that somebody brings to tune on: bounded, named by what they hold, never served again.

They lie in `<home>/data`. The same content is the same file, and none is ever written over.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import re
import secrets
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from arena.runs.requests import RunRefusedError

FOLDER = "data"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\.(?:jsonl|ndjson|json|csv|parquet)")
FILE_BYTES = 64 << 20
ALL_BYTES = 2 << 30
BESIDE = ".upload-"
ABANDONED_SECONDS = 3600.0
"""What nobody has written to for so long was left by a page that was killed."""
OWNER_ONLY = 0o600


class UploadRefusedError(RunRefusedError):
    """A file that is not taken; the message says why and what to do."""

    status = 422


def _refused(why: str) -> UploadRefusedError:
    return UploadRefusedError(why)


async def keep(home: Path, name: str, pieces: AsyncIterator[bytes]) -> Path:
    """Write what comes beside, and give it a name with its hash when it is whole.

    Raises UploadRefusedError.
    """
    if not NAME.fullmatch(name):
        raise _refused(
            f"{name[:100]!r} is no name of a data file; call it like rows.jsonl "
            "(.json, .jsonl, .ndjson, .csv or .parquet)"
        )
    folder = home / FOLDER
    beside = folder / f"{BESIDE}{secrets.token_hex(8)}"
    digest, size = hashlib.sha256(), 0
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _sweep(folder)
        most = min(FILE_BYTES, ALL_BYTES - sum(found["bytes"] for found in uploads(home)))
        handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, OWNER_ONLY)
        with os.fdopen(handle, "wb") as sink:
            async for piece in pieces:
                size += len(piece)
                if size > most:
                    raise _refused(f"{name} is larger than the {most >> 20} MB there are for it")
                digest.update(piece)
                sink.write(piece)
            sink.flush()
            await asyncio.to_thread(os.fsync, sink.fileno())
        if not size:
            raise _refused(f"{name} is empty; give rows of prompts and answers")
        stem, _, suffix = name.rpartition(".")
        path = folder / f"{stem}-{digest.hexdigest()[:12]}.{suffix}"
        os.replace(beside, path)
        await asyncio.to_thread(_sync, folder)
        return path
    except OSError as error:
        raise _refused(f"{name} could not be kept ({error.strerror})") from error
    finally:
        with contextlib.suppress(OSError):  # named, or never made; what is left is swept later
            beside.unlink()


def _sweep(folder: Path) -> None:
    """Remove what uploads left whose page was killed."""
    for path in folder.glob(f"{BESIDE}*"):
        with contextlib.suppress(OSError):  # another page was first
            if time.time() - path.lstat().st_mtime > ABANDONED_SECONDS:
                path.unlink()


def _sync(folder: Path) -> None:
    """Have the names in a folder on the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def uploads(home: Path) -> list[dict[str, Any]]:
    """The files that can be tuned on, the newest first."""
    found = []
    for path in (home / FOLDER).glob("*"):
        if NAME.fullmatch(path.name) and path.is_file() and not path.is_symlink():
            state = path.stat()
            found.append((state.st_mtime_ns, {"name": path.name, "bytes": state.st_size}))
    return [one for _, one in sorted(found, key=lambda item: -item[0])]


def path_of(home: Path, name: str) -> Path | None:
    """The file of this name below `<home>/data`; None where there is none."""
    path = home / FOLDER / name
    return path if NAME.fullmatch(name) and path.is_file() and not path.is_symlink() else None
