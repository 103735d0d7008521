"""Sources of `arena tune --data` that the arena reads itself, as files of rows that tuning reads.

`votes` are those of the home's store, `synthetic-votes` those of judges that are programs. Knows
rows and stores; knows no training.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from arena.commands.export import existing_store
from arena.exports.dataset import MANIFEST, ExportOptions, export, file_sha256
from arena.storage.selection import Selection
from arena.storage.store import Store
from arena.values.battle import SYNTHETIC

VOTES = "votes"


def as_files(sources: tuple[str, ...], home: Path) -> tuple[str, ...]:
    """The sources, with folders below `<home>/data` in place of the votes."""
    chosen = {VOTES: Selection(), f"synthetic-{VOTES}": Selection(sources=(SYNTHETIC,))}
    return tuple(
        str(votes_folder(existing_store(home), home, source, chosen[source]))
        if source in chosen
        else source
        for source in sources
    )


def votes_folder(store: Store, home: Path, name: str, selection: Selection) -> Path:
    """Some votes of a store as `<home>/data/<name>-<hash>`: the same votes are the same folder.

    So a run that was killed goes on with the votes it had, and can be reproduced after others
    have come. Raises ExportError where there is no vote.
    """
    below = home / "data"
    options = ExportOptions(format="votes", selection=selection)
    below.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{name}.", dir=below) as temporary:
        made = export(store, Path(temporary) / "out", options).folder
        out = below / f"{name}-{file_sha256(made / 'train.jsonl')[:12]}"
        if (out / MANIFEST).is_file():
            return out
        shutil.rmtree(out, ignore_errors=True)  # what is there is no whole export
        os.rename(made, out)
    return out
