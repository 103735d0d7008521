"""Which programs are writing answers into a store now, told by a lock that ends with its holder.

Each open store that asks has a name and a file of that name, locked as long as its process lives;
the kernel lets go of it at any death. So several pages may share one home, and none takes the
other's running answers for those of a dead program. Knows no table.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import weakref
from pathlib import Path


class AnsweringProgram:
    """This process as a writer of one store, until the object or the process ends."""

    def __init__(self, folder: Path) -> None:
        """Take a name of one's own in `folder`. Raises OSError."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.name = secrets.token_hex(8)
        path = folder / self.name
        descriptor = _locked(path)
        self._end = weakref.finalize(self, _end, descriptor, path)

    def close(self) -> None:
        """Be no writer any more."""
        self._end()


def is_alive(folder: Path, name: str) -> bool:
    """Whether the writer of that name still lives; its file is taken away if it does not."""
    path = folder / name
    try:
        descriptor = os.open(path, os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    else:
        path.unlink(missing_ok=True)
        return False
    finally:
        os.close(descriptor)


def _locked(path: Path) -> int:
    """A locked file that has this name: who looks for the dead may just have taken it away."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        os.close(descriptor)


def _end(descriptor: int, path: Path) -> None:
    path.unlink(missing_ok=True)
    os.close(descriptor)
