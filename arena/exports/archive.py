"""Writes a dataset into the home folder for a page or the API, and hands it out as one file.

Knows the store and the folder `exports/`; who may ask is checked before.
"""

from __future__ import annotations

import io
import re
import secrets
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path

from arena.errors import ArenaError
from arena.exports.dataset import Exported, ExportOptions, export
from arena.storage.store import Store

FOLDER = "exports"
NAME = re.compile(r"[a-z0-9]+-\d{8}-\d{6}-[0-9a-f]{6}")


class ArchiveError(ArenaError):
    """No dataset of that name lies in the home folder."""

    code = "dataset_unknown"


@dataclass(frozen=True)
class DatasetArchive:
    """A dataset in `<home>/exports/<name>`."""

    name: str
    done: Exported

    @property
    def num_rows(self) -> int:
        """Rows of all splits."""
        return sum(self.done.splits.values())


def make_dataset(store: Store, home: Path, options: ExportOptions) -> DatasetArchive:
    """Write the votes as they are now under a name of their own. Raises ArenaError."""
    when = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    name = f"{options.format}-{when}-{secrets.token_hex(3)}"
    return DatasetArchive(name, export(store, home / FOLDER / name, options))


def packed(home: Path, name: str) -> bytes:
    """A dataset that `make_dataset` wrote, as a zip archive; no link in it is followed.

    Raises ArchiveError.
    """
    folder = home / FOLDER / name
    if not NAME.fullmatch(name) or folder.is_symlink() or not folder.is_dir():
        raise ArchiveError(f"dataset {name!r} is unknown; make it first")
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and not path.is_symlink():
                archive.write(path, path.relative_to(folder.parent))
    return sink.getvalue()
