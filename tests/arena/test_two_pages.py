"""Several programs on one home: a living one's answers are its own, a dead one's are ended."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest
from fault_server import FaultServer, Script
from page_server import PageServer
from running import clean_environment
from store_fixtures import Hand

from arena.storage.answering import AnsweringProgram, is_alive
from arena.storage.store import Store
from arena.values.battle import AnswerStatus

SUPPORT = Path(__file__).parents[1] / "support"
WRITES = """
import sys
from pathlib import Path
sys.path.insert(0, {support!r})
from store_fixtures import Hand
from arena.storage.store import Store
from arena.values.battle import AnswerStatus
hand = Hand(Store.at_home(Path({home!r})))
battle, token = hand.battle(statuses=[AnswerStatus.STREAMING, AnswerStatus.COMPLETE])
print(battle, token, flush=True)
sys.stdin.read()
"""


@contextmanager
def writing_program(home: Path) -> Iterator[tuple[subprocess.Popen[str], str, str]]:
    """A process that is writing an answer of a battle, and that battle with its token."""
    code = WRITES.format(support=str(SUPPORT), home=str(home))
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=clean_environment(),
    ) as process:
        try:
            assert process.stdout is not None
            battle, token = process.stdout.readline().split()
            yield process, battle, token
        finally:
            process.kill()


def state_of(store: Store, battle: str, token: str) -> AnswerStatus:
    answer = store.load_battle(battle, token=token).battle.turns[0].answer(0)
    assert answer is not None
    return answer.status


@pytest.mark.parametrize("also_own", [True, False])
def test_running_answers_of_a_living_program_are_its_own(tmp_path: Path, also_own: bool) -> None:
    store = Store.at_home(tmp_path)
    with writing_program(tmp_path) as (process, battle, token):
        for _ in range(3):
            assert store.close_orphans(also_own=also_own) == 0
        assert state_of(store, battle, token) is AnswerStatus.STREAMING
        process.kill()
        process.wait()
        assert store.close_orphans(also_own=also_own) == 1
        assert state_of(store, battle, token) is AnswerStatus.FAILED
    assert not list((tmp_path / ".arena.db-writers").iterdir())


def test_a_program_ends_its_own_only_at_its_start(hand: Hand) -> None:
    battle, token = hand.battle(statuses=[AnswerStatus.STREAMING, AnswerStatus.COMPLETE])
    assert hand.store.close_orphans(also_own=False) == 0
    assert state_of(hand.store, battle, token) is AnswerStatus.STREAMING
    assert hand.store.close_orphans() == 1


def test_answers_of_a_version_without_names_are_ended(hand: Hand) -> None:
    battle, token = hand.battle(statuses=[AnswerStatus.STREAMING, AnswerStatus.COMPLETE])
    hand.store.write(lambda db: db.execute("UPDATE answers SET writer = NULL"))
    assert hand.store.close_orphans(also_own=False) == 1
    assert state_of(hand.store, battle, token) is AnswerStatus.FAILED


def test_a_name_is_of_the_living_until_they_end(tmp_path: Path) -> None:
    """Taken while others look for the dead all the time: nobody living is taken for dead."""
    folder, done, wrong = tmp_path / "writers", threading.Event(), []

    def look() -> None:
        while not done.is_set():
            for path in folder.glob("*"):
                is_alive(folder, path.name)

    looking = threading.Thread(target=look)
    looking.start()
    try:
        for _ in range(200):
            writer = AnsweringProgram(folder)
            wrong += [] if is_alive(folder, writer.name) else [writer.name]
            writer.close()
            assert not is_alive(folder, writer.name)
    finally:
        done.set()
        looking.join()
    assert wrong == []


@pytest.mark.slow
def test_a_second_page_on_a_home_leaves_the_first_ones_answers_alone(tmp_path: Path) -> None:
    slow = Script(words=("word ",) * 30, delay=0.1)
    with (
        FaultServer({"one": slow, "two": slow}) as server,
        PageServer(tmp_path, server.url) as one,
        httpx2.Client(base_url=one.url, trust_env=False, timeout=60) as client,
    ):
        begun = client.post("/api/battles", json={"prompt": "Count."}).json()
        path, headers = f"/api/battles/{begun['battle']}", {"x-battle-token": begun["token"]}
        with client.stream("GET", f"{path}/events", headers=headers) as events:
            lines = events.iter_lines()
            next(lines)
            with PageServer(tmp_path, server.url) as two:
                seen = httpx2.get(two.url + path, headers=headers, trust_env=False).json()
                assert [side["state"] for side in seen["sides"]] != ["failed", "failed"]
                deadline = time.monotonic() + 60
                while next(lines) != "event: end":
                    assert time.monotonic() < deadline
                url, vote = f"{two.url}{path}/votes", {"winner": "model_a"}
                reply = httpx2.post(url, json=vote, headers=headers, trust_env=False)
                assert reply.status_code == 201
        assert client.get(path, headers=headers).json()["vote"]["winner"] == "model_a"
