"""A vote and its reveal are one transaction on one connection, and so are a skip and an undo.

Counted by SQLite itself: each connection that the store opens tells every statement it runs.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from fault_server import FaultServer, Script
from store_fixtures import Hand, votes_of

from arena.app import build_blocks, create_app
from arena.battles.service import BattleService
from arena.battles.set_judging import SetJudging
from arena.battles.view import BattleAccess
from arena.config.page_config import PageConfig
from arena.i18n import words
from arena.page.actions.judging import Details, JudgingActions
from arena.page.drawing.drawer import Drawer
from arena.storage.database import DatabaseConfig
from arena.storage.store import Store
from arena.values.vote import Strength

ROOT = Path(__file__).parents[2]
SAY = words("en")


class Statements:
    """What each connection opened since the last look was told to do."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.connections: list[list[str]] = []
        really = sqlite3.connect

        def connect(*args: Any, **options: Any) -> sqlite3.Connection:
            conn = really(*args, **options)
            told: list[str] = []
            self.connections.append(told)
            conn.set_trace_callback(told.append)
            return conn

        monkeypatch.setattr(sqlite3, "connect", connect)

    def look(self) -> tuple[int, int]:
        """Connections and commits since the last look."""
        found = [statement for told in self.connections for statement in told]
        seen = len(self.connections), found.count("COMMIT")
        self.connections.clear()
        return seen


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> Statements:
    return Statements(monkeypatch)


@dataclass(frozen=True)
class Scene:
    """A battle whose answers have ended, and the page that shows it."""

    service: BattleService
    actions: JudgingActions
    access: BattleAccess
    app: FastAPI

    async def vote(self, choice: str) -> str:
        """What the reveal shows after a press on one of the buttons."""
        changes = await self.actions.vote(self.access, choice, SAY)
        return str(changes.get(self.actions.page.reveal, ""))


def on_a_page(home: Path, play: Callable[[Scene], Awaitable[None]]) -> None:
    """Run `play` once a blind battle has been answered."""

    async def main(url: str) -> None:
        config = PageConfig((url,), home)
        app = create_app(config, Store(config.database, DatabaseConfig(0.2, 0.05)))
        service = app.state.service
        drawer = Drawer()
        sets = SetJudging(service, home)
        actions = JudgingActions(service, sets, build_blocks(service, sets, config, drawer)[1])
        voter = await service.voter("one")
        access = await service.open_blind(voter, "What is the capital of France?")
        async for _ in service.follow(access):
            pass
        try:
            await play(Scene(service, actions, access, app))
        finally:
            await service.close()
            await drawer.close()

    with FaultServer({"hidden-one": Script(), "hidden-two": Script()}) as server:
        asyncio.run(main(server.url))


def test_a_press_on_the_page_is_one_transaction(tmp_path: Path, statements: Statements) -> None:
    """Vote, undo, skip, and the vote after that; each shows what it stored."""

    async def play(scene: Scene) -> None:
        statements.look()
        shown = await scene.vote("a")
        assert statements.look() == (1, 1)
        assert "hidden-one" in shown
        undone = await scene.actions.undo(scene.access, SAY)
        assert statements.look() == (1, 1)
        assert undone[scene.actions.page.undo]["visible"] is False
        assert "hidden-one" in await scene.vote("skip")
        assert statements.look() == (1, 1)
        await scene.vote("tie")
        assert statements.look() == (1, 1)
        await scene.actions.details(scene.access, Details(Strength.MUCH, ["correct"], "why"), SAY)
        assert statements.look() == (1, 1)
        (vote,) = votes_of(scene.service.store, scene.access.battle_id)
        assert (vote.judgement.winner, vote.judgement.comment) == ("tie", "why")

    on_a_page(tmp_path, play)


def test_a_vote_of_a_program_is_one_transaction(tmp_path: Path, statements: Statements) -> None:
    async def play(scene: Scene) -> None:
        path = f"/api/battles/{scene.access.battle_id}"
        headers = {"x-battle-token": scene.access.token or ""}
        transport = httpx2.ASGITransport(scene.app)
        async with httpx2.AsyncClient(
            transport=transport, base_url="http://127.0.0.1", headers=headers
        ) as client:
            await client.post(f"{path}/stop")  # the store has met this program
            for send, path_end, body in (
                (client.post, "/votes", {"winner": "model_a"}),
                (client.delete, "/votes", None),
                (client.post, "/skip", None),
            ):
                statements.look()
                reply = await send(path + path_end, **({"json": body} if body else {}))
                assert statements.look() == (1, 1)
                assert reply.is_success, reply.text
                assert {side["model"] for side in reply.json()["sides"]} == {
                    "hidden-one",
                    "hidden-two",
                }

    on_a_page(tmp_path, play)


def test_a_vote_that_is_not_stored_shows_no_name(tmp_path: Path) -> None:
    """Another program holds the database: the page says so, and stays blind."""

    async def play(scene: Scene) -> None:
        page, store = scene.actions.page, scene.service.store
        with closing(sqlite3.connect(store.path)) as blocker:
            blocker.execute("BEGIN IMMEDIATE")
            changes = await scene.actions.vote(scene.access, "a", SAY)
        assert list(changes) == [page.status]
        assert "Not saved" in changes[page.status]
        assert not (await scene.service.view(scene.access)).is_revealed
        assert votes_of(store, scene.access.battle_id) == []

    on_a_page(tmp_path, play)


# Dies before the first, the second, the third ... statement of an act, until one lives to its end.
DYING = """
import json, os, signal, sqlite3, sys
from pathlib import Path
from arena.storage.store import Store
from arena.values.vote import Judgement, Winner
path, battle, voter, act = sys.argv[1:]
store, really = Store(Path(path)), sqlite3.connect
left = 0
def note(statement):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
def connect(*args, **options):
    conn = really(*args, **options)
    conn.set_trace_callback(note)
    return conn
found, code = [], 1
while code:
    child = os.fork()
    if child == 0:
        left, sqlite3.connect = len(found), connect
        if act == "vote":
            store.cast_vote(battle, Judgement(Winner.TIE), voter=voter)
        else:
            store.skip_turn(battle, voter=voter)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    counts = store.counts()
    is_revealed = store.load_battle(battle, voter=voter).battle.revealed_ms is not None
    found.append([counts["votes"] + counts["skips"], is_revealed])
print(json.dumps(found))
"""


@pytest.mark.slow
@pytest.mark.parametrize("act", ["vote", "skip"])
def test_killed_anywhere_the_store_has_the_vote_and_the_reveal_or_neither(
    hand: Hand, act: str
) -> None:
    battle, _ = hand.battle()
    done = subprocess.run(
        [sys.executable, "-c", DYING, str(hand.store.path), battle, hand.voter(), act],
        stdout=subprocess.PIPE,
        cwd=ROOT,
        check=True,
    )
    found = json.loads(done.stdout)
    assert len(found) > 15
    assert found == [[0, False]] * (len(found) - 1) + [[1, True]]
