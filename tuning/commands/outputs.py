"""Files that a command was asked to write: refused at its start where they cannot be written."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from tuning.errors import TuningError

PICTURES = (".png", ".svg", ".pdf")


class OutputError(TuningError):
    """A file that cannot be written where it was asked for; names it and the remedy."""


def check_output(path: Path, endings: Collection[str] = ()) -> None:
    """Refuse a path whose folder is not there or not writable, or that is a folder itself.

    With `endings` also one that ends otherwise.
    """
    folder = path.parent
    if endings and path.suffix.lower() not in endings:
        raise OutputError(f"{path}: is no name of a picture; end it in {' or '.join(endings)}")
    if not os.path.isdir(folder):
        raise OutputError(f"{path}: there is no folder {folder}; make it or choose another file")
    if os.path.isdir(path) or not os.access(path if os.path.exists(path) else folder, os.W_OK):
        raise OutputError(f"{path}: cannot be written; choose another file")
