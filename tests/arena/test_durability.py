"""Nothing acknowledged is lost: not by kill -9, a lock, a killed migration or a bad restore."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from forked import run_script
from sqlite_utils import Database
from store_fixtures import Hand, votes_of

from arena.exports.dataset import ExportOptions, export
from arena.imports.importer import import_file
from arena.storage.backup import BackupError, backup, restore
from arena.storage.database import StoreBusyError
from arena.storage.migrations import step_names, steps
from arena.storage.pair_cache import PairCache
from arena.storage.store import Store
from arena.values.vote import Judgement, Winner

ROOT = Path(__file__).parents[2]

NUM_VOTES = 10_000
# Twenty rounds on battles that are open to all: a voter is forked, tells each battle once its
# vote was acknowledged, and is killed amid its votes; a last voter gives those still missing.
VOTERS = """
import os, random, signal, sys
from pathlib import Path
from arena.values.vote import Judgement, Winner
from arena.storage.quarantine import QuarantineRules
from arena.storage.store import Store
store = Store(Path(sys.argv[1]), rules=QuarantineRules(0, 0, 0))
voter = store.ensure_voter("secret")
draw = random.Random(9)
told = []
for round_number in range(21):
    last = round_number == 20
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        for number in range(len(told), int(sys.argv[2])):
            store.cast_vote(f"battle-{number}", Judgement(Winner.TIE), voter=voter)
            os.write(writing, f"battle-{number}\\n".encode())
        os._exit(0)
    os.close(writing)
    enough = len(told) + draw.randint(300, 640)
    with os.fdopen(reading) as acknowledged:
        for line in acknowledged:
            told.append(line.strip())
            if len(told) == enough and not last:
                os.kill(child, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code == (0 if last else -signal.SIGKILL), code
    print("\\n".join(told) if last else len(told))
"""


def integrity(path: Path) -> str:
    """What SQLite itself says of the file."""
    with closing(sqlite3.connect(path)) as conn:
        found: str = conn.execute("PRAGMA integrity_check").fetchone()[0]
        assert conn.execute("PRAGMA foreign_key_check").fetchall() == []
        return found


@pytest.mark.slow
def test_kill_9_amid_ten_thousand_votes_loses_none(hand: Hand, tmp_path: Path) -> None:
    """Every vote that was acknowledged is there once, whole, whenever its program was killed."""
    path = prepared(hand, tmp_path, NUM_VOTES)
    done = subprocess.run(
        [sys.executable, "-c", VOTERS, str(path), str(NUM_VOTES)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        check=True,
    )
    told = done.stdout.split()[20:]
    assert len(told) == NUM_VOTES
    with closing(sqlite3.connect(path)) as conn:
        kept = [
            row[0]
            for row in conn.execute(
                "SELECT b.public_id FROM votes v JOIN turns t ON t.id = v.turn_id"
                " JOIN battles b ON b.id = t.battle_id"
            )
        ]
        halves = conn.execute(
            "SELECT count(*) FROM votes v WHERE NOT EXISTS"
            " (SELECT 1 FROM comparisons c WHERE c.vote_id = v.id)"
        ).fetchone()[0]
    assert sorted(kept) == sorted(told)
    assert halves == 0
    assert integrity(path) == "ok"
    assert len(PairCache(Store(path)).refresh()) == NUM_VOTES


def prepared(hand: Hand, folder: Path, num_battles: int) -> Path:
    """A store of answered battles that nobody has judged yet and everybody may."""
    hand.battle()
    export(hand.store, folder / "raw", ExportOptions(format="raw"))
    record = json.loads((folder / "raw/battles.jsonl").read_text())
    record["owner"] = None
    lines = (json.dumps(record | {"id": f"battle-{i}"}) + "\n" for i in range(num_battles))
    (folder / "many.jsonl").write_text("".join(lines))
    store = Store(hand.store.path.with_name("many.db"))
    import_file(store, folder / "many.jsonl", "raw")
    return store.path


@pytest.mark.slow
def test_a_lock_of_ten_seconds_is_told_and_the_vote_succeeds_later(hand: Hand) -> None:
    battle, _ = hand.battle()
    voter = hand.voter()
    with closing(sqlite3.connect(hand.store.path)) as blocker:
        blocker.execute("BEGIN IMMEDIATE")
        started = time.monotonic()
        with pytest.raises(StoreBusyError, match="try again"):
            hand.store.cast_vote(battle, Judgement(Winner.TIE), voter=voter)
        assert 8 <= time.monotonic() - started < 30
        blocker.rollback()
    hand.store.cast_vote(battle, Judgement(Winner.TIE), voter=voter)
    assert len(votes_of(hand.store, battle)) == 1


STEPS = ("m001_battles_and_votes", "m002_vote_changes", "m003_answer_tokens")
STEPS += ("m004_search_and_switches", "m005_synthetic_battles", "m006_writers")
STEPS += ("m007_imported_files",)


def test_every_step_of_the_migrations_is_killed_below() -> None:
    assert set(STEPS) == step_names()


@pytest.mark.parametrize("step", STEPS)
def test_a_migration_killed_half_way_runs_again(tmp_path: Path, step: str) -> None:
    """The process dies after the last statement of a step, on a store that those before it made."""
    path = tmp_path / "arena.db"
    if step != STEPS[0]:
        old_store(path, step)
    statements = step[:4].upper()
    script = f"""
import os, sqlite3
from pathlib import Path
from arena.storage import migrations
from arena.storage.store import Store
class Dying(tuple):
    def __iter__(self):
        for statement in tuple.__iter__(self):
            yield statement
        os.kill(os.getpid(), 9)
migrations.{statements} = Dying(migrations.{statements})
Store(Path({str(path)!r}))
"""
    with closing(sqlite3.connect(path)) as conn:
        before = conn.execute("SELECT name FROM sqlite_master ORDER BY name").fetchall()
    assert run_script(script).status == -signal.SIGKILL
    with closing(sqlite3.connect(path)) as conn:
        assert conn.execute("SELECT name FROM sqlite_master ORDER BY name").fetchall() == before
    hand = Hand(Store(path))
    hand.vote()
    assert hand.store.counts()["votes"] == 1
    assert len(PairCache(hand.store).refresh()) == 1


def old_store(path: Path, before: str) -> None:
    """A store as a program left it that did not know this step yet."""
    db = Database(sqlite3.connect(path), execute_plugins=False)
    steps.apply(db, stop_before=before)
    db.conn.commit()
    db.close()


def test_a_backup_of_a_store_in_use_is_whole(hand: Hand, tmp_path: Path) -> None:
    hand.vote()
    with closing(sqlite3.connect(hand.store.path)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM votes").fetchone()
        copy = backup(hand.store, tmp_path / "copies" / "one.db")
    assert [path.name for path in copy.parent.iterdir()] == ["one.db"]
    assert integrity(copy) == "ok"
    hand.vote()
    with pytest.raises(BackupError, match="exists already"):
        backup(hand.store, copy)
    backup(hand.store, copy, overwrite=True)
    assert Store(copy).counts() == hand.store.counts()


def test_restore_puts_the_copy_back_and_keeps_the_old(hand: Hand, tmp_path: Path) -> None:
    hand.vote()
    copy = backup(hand.store, tmp_path / "one.db")
    hand.vote()
    with pytest.raises(BackupError, match="--overwrite replaces it"):
        restore(copy, hand.store.path)
    kept = restore(copy, hand.store.path, overwrite=True)
    assert kept is not None
    assert hand.store.counts()["votes"] == 1
    assert Store(kept).counts()["votes"] == 2
    hand.vote()
    assert restore(copy, tmp_path / "new" / "arena.db") is None
    assert Store(tmp_path / "new" / "arena.db").counts()["votes"] == 1


def test_a_damaged_or_foreign_copy_is_not_restored(hand: Hand, tmp_path: Path) -> None:
    hand.vote()
    copy = backup(hand.store, tmp_path / "one.db")
    content = bytearray(copy.read_bytes())
    content[20_000:60_000] = os.urandom(40_000)
    (tmp_path / "broken.db").write_bytes(content)
    with closing(sqlite3.connect(tmp_path / "other.db")) as conn:
        conn.execute("CREATE TABLE recipes (id INTEGER)")
    (tmp_path / "text.db").write_text("no database " * 100)
    for name, words in (
        ("broken.db", "damaged"),
        ("other.db", "not an arena database"),
        ("text.db", "damaged or no database"),
        ("missing.db", "does not exist"),
    ):
        with pytest.raises(ValueError, match=words):
            restore(tmp_path / name, hand.store.path, overwrite=True)
    assert hand.store.counts()["votes"] == 1
