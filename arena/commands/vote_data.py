"""Sources of `arena tune --data` that the arena reads itself, as files of rows that tuning reads.

`votes` are those of the home's store, `synthetic-votes` those of judges that are programs. For
instruction tuning they are the answers that people wrote or preferred. Knows rows and stores; knows
no training.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path

from arena.commands.export import existing_store
from arena.exports.dataset import MANIFEST, ExportError, ExportOptions, export, file_sha256
from arena.exports.trl import unpaired_rows
from arena.exports.writers import DatasetRow
from arena.imports.importer import import_file
from arena.imports.readers import ImportRefusedError, rows_of_file
from arena.storage import database
from arena.storage.private_files import write_private
from arena.storage.selection import ExportCounts, JudgedPair, Selection, select_pairs
from arena.storage.store import Store
from arena.values.battle import SYNTHETIC
from arena.values.vote import Winner

VOTES = "votes"


def as_files(sources: tuple[str, ...], home: Path, objective: str = "reward") -> tuple[str, ...]:
    """The sources, with files below `<home>/data` in place of the votes.

    For the objective `sft` these are single answers, else pairs with their winner.
    """
    chosen = {VOTES: Selection(), f"synthetic-{VOTES}": Selection(sources=(SYNTHETIC,))}
    if objective == "sft":
        return tuple(
            str(answers_file(existing_store(home), home, source, chosen[source]))
            if source in chosen
            else source
            for source in sources
        )
    made = []
    for source in sources:
        if source in chosen:
            made.append(str(_chosen(home, source, chosen[source])))
        elif (kind := battle_format(Path(source).expanduser())) is not None:
            made.append(str(_imported(Path(source).expanduser(), kind, home)))
        else:
            made.append(source)
    return tuple(made)


def _chosen(home: Path, source: str, selection: Selection) -> Path:
    try:
        return votes_folder(existing_store(home), home, source, selection)
    except ExportError as error:
        if source == VOTES and SYNTHETIC in str(error):
            hint = f"the votes of 'arena judge' are --data {SYNTHETIC}-{VOTES}"
            raise ExportError(f"{error}; {hint}") from error
        raise


def battle_format(path: Path) -> str | None:
    """The format of a file of battles that the arena's own readers read; None for another."""
    if not path.is_file():
        return None
    try:
        _, row = next(rows_of_file(path), (0, None))
    except ImportRefusedError:
        return None
    columns = row.keys() if isinstance(row, dict) else set()
    if {"snapshot", "meta", "data"} <= columns:
        return "openwebui"
    if {"conversation_a", "conversation_b", "model_a", "winner"} <= columns:
        return "140k" if "evaluation_session_id" in columns else "lmsys"
    return None


def _imported(path: Path, kind: str, home: Path) -> Path:
    """A file of battles as a folder of votes; one with a bad row is refused, as by an import."""
    with tempfile.TemporaryDirectory() as temporary:
        store = Store.at_home(Path(temporary))
        import_file(store, path, kind)
        return votes_folder(store, home, path.stem, Selection())


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


def answers_file(store: Store, home: Path, name: str, selection: Selection) -> Path:
    """The answers that voters wrote or preferred, as `<home>/data/<name>-answers-<hash>.jsonl`.

    The same answers are the same file. Raises ExportError where there is none.
    """
    with database.reading(store.path, store.config) as db:
        pairs = select_pairs(db, selection, ExportCounts())
        lines = [
            json.dumps(row, ensure_ascii=False) for pair in pairs for row in best_answers(pair)
        ]
    lines = list(dict.fromkeys(lines))  # the same answer to the same prompt teaches once
    if not lines:
        raise ExportError(
            f"{name}: no vote prefers an answer or has a better one; vote first, or give other rows"
        )
    content = "\n".join(lines) + "\n"
    digest = hashlib.sha256(content.encode()).hexdigest()[:12]
    path = home / "data" / f"{name}-answers-{digest}.jsonl"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_private(path, content)
    return path


def best_answers(pair: JudgedPair) -> list[DatasetRow]:
    """Conversations that end with the answer that the voter wrote, else with the preferred ones.

    Both sides of a tie are as good as each other, which does not say that they are good.
    """
    if pair.winner == Winner.TIE and pair.ranking is None and not pair.edited_answer.strip():
        return []
    rows = unpaired_rows(pair)
    good = [row for row in rows if isinstance(row, dict) and row["label"]] if rows else []
    if pair.edited_answer.strip():
        good = [row for row in good if row["completion"][0]["content"] == pair.edited_answer]
    return [{"messages": [*row["prompt"], *row["completion"]]} for row in good]
