"""Sources of `arena tune --data` that the arena reads itself, as files of rows that tuning reads.

`votes` are those of the home's store. Knows rows and stores; knows no training.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from arena.commands.export import existing_store
from arena.exports.dataset import MANIFEST, ExportOptions, export, file_sha256
from arena.storage.store import Store

VOTES = "votes"


def as_files(sources: tuple[str, ...], home: Path) -> tuple[str, ...]:
    """The sources, with a folder below `<home>/data` in place of `votes`."""
    return tuple(
        str(votes_folder(existing_store(home), home)) if source == VOTES else source
        for source in sources
    )


def votes_folder(store: Store, home: Path, name: str = VOTES) -> Path:
    """The votes of a store as `<home>/data/<name>-<hash>`: the same votes are the same folder.

    So a run that was killed goes on with the votes it had, and can be reproduced after others
    have come. Raises ExportError where there is no vote.
    """
    below = home / "data"
    below.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{name}.", dir=below) as temporary:
        made = export(store, Path(temporary) / "out", ExportOptions(format="votes")).folder
        out = below / f"{name}-{file_sha256(made / 'train.jsonl')[:12]}"
        if (out / MANIFEST).is_file():
            return out
        shutil.rmtree(out, ignore_errors=True)  # what is there is no whole export
        os.rename(made, out)
    return out
