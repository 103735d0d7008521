"""A store that fails: what is told, what is freed, and that all goes on once it works again."""

from __future__ import annotations

import asyncio
import logging
import resource
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path

import httpx2
import pytest
from fault_server import FaultServer, Script
from page_server import PageServer

from arena.backends.http import install_http_client
from arena.backends.pool import BackendPool
from arena.battles.service import BattleService
from arena.battles.view import BattleAccess
from arena.config.page_config import PageConfig
from arena.storage.database import DatabaseConfig, StoreError
from arena.storage.store import Store
from arena.values.vote import Judgement, Winner

A_WINS = Judgement(winner=Winner.MODEL_A)
LIMIT = 2 << 20
Fault = Callable[[Path], AbstractContextManager[None]]


@contextmanager
def disk_takes_no_more(path: Path) -> Iterator[None]:
    """Every write behind 2 MB of a file fails; a reader keeps the journal from its beginning."""
    with closing(sqlite3.connect(path)) as filler, closing(sqlite3.connect(path)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM voters").fetchone()
        filler.execute("CREATE TABLE filling (x)")
        filler.execute("INSERT INTO filling VALUES (zeroblob(?))", [2 * LIMIT])
        filler.commit()
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            reader.rollback()
        filler.execute("DROP TABLE filling")
        filler.commit()


@contextmanager
def another_program_writes(path: Path) -> Iterator[None]:
    """Somebody holds the lock for longer than a write waits."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


@contextmanager
def table_is_gone(path: Path) -> Iterator[None]:
    """A table that every battle needs has another name for a while."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA legacy_alter_table = ON")
        other.execute("ALTER TABLE participants RENAME TO elsewhere")
        other.execute("ALTER TABLE answers RENAME TO nowhere")
        try:
            yield
        finally:
            other.execute("ALTER TABLE nowhere RENAME TO answers")
            other.execute("ALTER TABLE elsewhere RENAME TO participants")


@contextmanager
def database_is_full(path: Path) -> Iterator[None]:
    """The file may not grow; SQLite says so as it does for a full disk."""
    connect = sqlite3.connect

    def connected(*args: object, **options: object) -> sqlite3.Connection:
        connection = connect(*args, **options)  # type: ignore[call-overload]
        connection.execute("PRAGMA max_page_count = 1")
        made: sqlite3.Connection = connection
        return made

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("arena.storage.database.sqlite3.connect", connected)
        yield


FAULTS: dict[str, Fault] = {
    "disk": disk_takes_no_more,
    "lock": another_program_writes,
    "table": table_is_gone,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FAULTS)
def test_answer_that_cannot_be_recorded_fails_and_frees_its_slot(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hold = threading.Event()
    scripts = {side: Script(("Some ", "words ", "more."), after=1, hold=hold) for side in "ab"}
    path = tmp_path / "arena.db"

    async def main(url: str) -> None:
        install_http_client()
        config = PageConfig((url,), tmp_path)
        store = Store(path, DatabaseConfig(wait_s=0.3, busy_s=0.1))
        service = BattleService(store, BackendPool((url,), config.sampling))
        voter = await service.voter("one")
        access = await service.open_blind(voter, "Where?")
        with FAULTS[name](path):
            hold.set()
            async with asyncio.timeout(20):
                last = [view async for view in service.follow(access)][-1:]
            assert service.num_running == 0, "its place is free"
            assert [side.error_kind for side in last[0].sides] == ["not-saved"] * 2
            if name != "table":  # then even reading fails, by its own words
                again = await service.view(BattleAccess(voter, access.battle_id))
                assert not again.is_running
                assert [side.state for side in again.sides] == ["failed", "failed"]
                assert again.sides[0].error == "The answer could not be saved."
                assert again.sides[0].text == "Some words more."
            await service.stop(access) if name != "table" else None
            with pytest.raises(StoreError):
                await service.regenerate(access)
            assert len(service.unsaved) == 2
        async with asyncio.timeout(20):
            while len(service.unsaved):
                await asyncio.sleep(0.05)
        stored = store.load_battle(access.battle_id, voter=voter).battle
        assert [one.status for one in stored.turns[0].attempts] == ["failed", "failed"]
        await service.regenerate(access)
        async for _ in service.follow(access):
            pass
        assert (await service.vote(access, A_WINS)).vote is not None
        await service.close()

    with FaultServer(scripts) as server, caplog.at_level(logging.WARNING):
        try:
            asyncio.run(main(server.url))
        except StoreError as error:
            raise AssertionError(str(error)) from error
    assert "an answer is not saved, and is tried again" in caplog.text
    assert str(path) in caplog.text, "the log names the file"


def test_what_is_unsaved_at_the_end_is_tried_once_more(tmp_path: Path) -> None:
    async def main(url: str) -> None:
        install_http_client()
        store = Store(tmp_path / "arena.db", DatabaseConfig(wait_s=0.2, busy_s=0.1))
        config = PageConfig((url,), tmp_path)
        service = BattleService(store, BackendPool((url,), config.sampling))
        voter = await service.voter("one")
        hold.clear()
        access = await service.open_blind(voter, "Where?")
        with another_program_writes(store.path):
            hold.set()
            async for _ in service.follow(access):
                pass
        await service.close()
        assert store.close_orphans() == 0, "nothing is left for the next start to close"

    hold = threading.Event()
    scripts = {side: Script(("Some ", "words."), after=1, hold=hold) for side in "ab"}
    with FaultServer(scripts) as server:
        asyncio.run(main(server.url))


def overwritten(path: Path) -> None:
    """Pages in the middle of the file become garbage."""
    with closing(sqlite3.connect(path)) as one:
        one.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xde\xad" * ((size - 4096) // 2))


def dropped(path: Path) -> None:
    """A table is gone for good."""
    with closing(sqlite3.connect(path)) as one:
        one.execute("DROP TABLE votes")
        one.commit()


def removed(path: Path) -> None:
    """The whole home folder is gone."""
    shutil.rmtree(path.parent)


def emptied(path: Path) -> None:
    """The file has no byte left."""
    path.with_name("arena.db-wal").unlink(missing_ok=True)
    path.write_bytes(b"")


@pytest.mark.slow
@pytest.mark.parametrize("harm", [overwritten, dropped, removed, emptied])
def test_harmed_store_is_told_by_healthz_and_shows_no_path(
    harm: Callable[[Path], None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    home = tmp_path / "some-home"
    with (
        FaultServer({"one": Script(), "two": Script()}) as server,
        PageServer(home, server.url) as page,
        httpx2.Client(base_url=page.url, trust_env=False, timeout=60) as client,
        caplog.at_level(logging.WARNING),
    ):
        assert client.get("/healthz").json()["status"] == "ok"
        harm(home / "arena.db")
        time.sleep(1.1)  # a look is good for a second
        health = client.get("/healthz")
        assert health.status_code == 503
        assert health.json()["status"] == "the store fails; the log says why"
        replies = [
            client.post("/api/battles", json={"prompt": "Where?"}),
            client.get("/api/battles"),
            client.get("/api/battles/none"),
            client.post("/live/send", json={"prompt": "Where?", "mode": "blind"}),
        ]
        for reply in [health, *replies]:
            assert "some-home" not in reply.text
            assert "Traceback" not in reply.text
            assert reply.status_code != 500, reply.text
        assert client.get("/").status_code == 200, "the page itself stands"
    assert "the store fails" in caplog.text
    assert any(way in caplog.text for way in ("restore a backup", "free some space"))


@pytest.mark.slow
def test_full_database_is_told_and_recovers_without_a_restart(tmp_path: Path) -> None:
    with (
        FaultServer({"one": Script(), "two": Script()}) as server,
        PageServer(tmp_path, server.url) as page,
        httpx2.Client(base_url=page.url, trust_env=False, timeout=60) as client,
    ):
        with database_is_full(page.store.path):
            refused = [client.post("/api/battles", json={"prompt": "x" * 7000}) for _ in range(6)]
            assert refused[-1].status_code == 503
            assert "disk is full" in refused[-1].json()["error"]
            time.sleep(1.1)
            assert client.get("/healthz").status_code == 503
        assert client.post("/api/battles", json={"prompt": "Where?"}).status_code == 201
        time.sleep(1.1)
        assert client.get("/healthz").status_code == 200


def test_clock_that_jumps_back_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main(url: str) -> None:
        install_http_client()
        config = PageConfig((url,), tmp_path)
        store = Store(tmp_path / "arena.db")
        service = BattleService(store, BackendPool((url,), config.sampling))
        voter = await service.voter("one")
        access = await service.open_blind(voter, "Where?")
        now = time.time_ns()
        monkeypatch.setattr(time, "time_ns", lambda: now - 400 * 86_400 * 10**9)
        async for _ in service.follow(access):
            pass
        assert (await service.vote(access, A_WINS)).vote is not None
        other = Judgement(winner=Winner.TIE)
        changed = await service.vote(access, other, change=True)
        assert changed.vote is not None
        assert changed.vote.judgement.winner is Winner.TIE
        await service.undo(access)
        await service.vote(access, A_WINS)
        assert [past.battle_id for past in await service.history(voter)] == [access.battle_id]
        assert store.counts()["votes"] == 1
        await service.close()

    with FaultServer({"one": Script(), "two": Script()}) as server:
        asyncio.run(main(server.url))
