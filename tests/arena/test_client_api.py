"""The page's acts through a real gradio_client: the same battle, the same refusals."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fault_server import FaultServer, Script
from gradio_client import Client
from gradio_client.exceptions import AppError, AuthenticationError
from page_server import PageServer
from store_fixtures import votes_of

from arena.web.authentication import Authenticator
from arena.web.users import FILE, make_user, write_users

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageServer]:
    home = tmp_path_factory.mktemp("home")
    (home / "sets").mkdir()
    (home / "sets" / "one.txt").write_text("Name a fruit.\n")
    scripts = {"hidden-one": Script(), "hidden-two": Script(delay=0.05)}
    with FaultServer(scripts) as server, PageServer(home, server.url) as running:
        yield running


@pytest.fixture
def connect() -> Iterator[Any]:
    """Makes clients and ends them."""
    made: list[Client] = []

    def connect(url: str, **options: Any) -> Client:
        patient = {"timeout": 120}
        made.append(
            Client(url, verbose=False, analytics_enabled=False, httpx_kwargs=patient, **options)
        )
        return made[-1]

    yield connect
    for client in made:
        client.close()


def test_battle_from_start_to_dataset(page: PageServer, connect: Any) -> None:
    client = connect(page.url)
    opened = client.predict("What is the capital of France?", api_name="/start_battle")
    where = (opened["battle"], opened["token"])
    told = list(client.submit(*where, api_name="/watch_battle"))
    assert told[-1]["votable"]
    assert len(told[0]["sides"][0]["text"]) <= len(told[-1]["sides"][0]["text"])
    assert [side["text"] for side in told[-1]["sides"]] == ["The capital of France is Paris."] * 2
    assert "hidden-" not in str(told)
    voted = client.predict(
        *where, "model_a", strength="much", reasons=["correct"], api_name="/vote"
    )
    assert {side["model"] for side in voted["sides"]} == {"hidden-one", "hidden-two"}
    (vote,) = votes_of(page.store, opened["battle"])
    assert (vote.judgement.strength, vote.judgement.reasons) == ("much", ("correct",))
    with pytest.raises(AppError, match="only admins"):
        client.predict("raw", api_name="/make_dataset")
    key = Authenticator(page.config.home).key
    admin = connect(page.url, headers={"authorization": f"Bearer {key}"})
    made = admin.predict("raw", api_name="/make_dataset")
    assert (page.config.home / "exports" / made["name"] / "README.md").exists()
    assert client.predict(*where, api_name="/undo_vote")["vote"] is None


def test_answers_are_asked_on_again_and_stopped(connect: Any, tmp_path: Path) -> None:
    scripts = {"one": Script(words=("One.",)), "two": Script(words=("w ",) * 2000, delay=0.05)}
    with FaultServer(scripts) as server, PageServer(tmp_path, server.url) as page:
        client = connect(page.url)
        opened = client.predict("Hi.", models=["one", "two"], api_name="/start_battle")
        where = (opened["battle"], opened["token"])
        running = page.service.running_battles.get(opened["battle"])
        assert running is not None
        while not all(side.text for side in running.streams.sides):
            time.sleep(0.02)
        early = client.predict(*where, "model_a", partial=True, api_name="/vote")
        assert [side["state"] for side in early["sides"]] == ["done", "stopped"]
        changed = client.predict(
            *where, "both_bad", edited_answer="Hello.", change=True, api_name="/vote"
        )
        assert changed["vote"]["winner"] == "both_bad"
        (vote,) = votes_of(page.store, opened["battle"])
        assert (vote.partial, vote.judgement.edited_answer) == (True, "Hello.")
        client.predict(*where, "And now?", "a", api_name="/next_turn")
        client.predict(*where, "b", api_name="/stop")
        while page.service.num_running:
            time.sleep(0.02)
        client.predict(*where, "a", api_name="/ask_again")
        list(client.submit(*where, api_name="/watch_battle"))
        passed = client.predict(*where, api_name="/skip")
        assert passed["turns"] == ["Hi.", "And now?"]
        turns = page.store.load_battle(opened["battle"], token=opened["token"]).battle.turns
        assert turns[1].shared_side == 0
        assert [(a.side, a.superseded) for a in turns[1].attempts] == [
            (0, True),
            (0, False),
            (1, False),
        ]
        with pytest.raises(AppError, match="no side"):
            client.predict(*where, "x", api_name="/stop")


def test_set_and_named_participants(page: PageServer, connect: Any) -> None:
    client = connect(page.url)
    task = client.predict("one", api_name="/next_of_set")
    assert (task["done"], task["total"]) == (0, 1)
    names = ["hidden-two", "hidden-one"]
    opened = client.predict("Hi.", models=names, api_name="/start_battle")
    last = list(client.submit(opened["battle"], opened["token"], api_name="/watch_battle"))[-1]
    assert [side["model"] for side in last["sides"]] == names


def test_refusals_reach_the_caller_by_their_words(page: PageServer, connect: Any) -> None:
    client, stranger = connect(page.url), connect(page.url)
    opened = client.predict("Hi.", api_name="/start_battle")
    for caller, arguments, name, told in (
        (client, (" ",), "/start_battle", "prompt is empty"),
        (client, ("Hi.", ["gone", "hidden-one"]), "/start_battle", "gone"),
        (client, (opened["battle"], opened["token"], "nobody"), "/vote", "no winner"),
        (stranger, (opened["battle"], "", "tie"), "/vote", "not yours"),
        (client, ("gone",), "/next_of_set", "unknown"),
        (client, ("xml",), "/make_dataset", "only admins"),
    ):
        with pytest.raises(AppError, match=told):
            caller.predict(*arguments, api_name=name)


def test_program_signs_in_with_its_password(tmp_path: Path, connect: Any) -> None:
    import base64

    write_users(tmp_path / FILE, {"ann": make_user("ann", "voter", "ann's secret")})
    claim = base64.b64encode(b"ann:ann's secret").decode()
    with (
        FaultServer({"one": Script(), "two": Script()}) as server,
        PageServer(tmp_path, server.url) as page,
    ):
        with pytest.raises(AuthenticationError):
            connect(page.url)
        client = connect(page.url, headers={"authorization": f"Basic {claim}"})
        opened = client.predict("Hi.", api_name="/start_battle")
        assert page.store.load_battle(opened["battle"], token=opened["token"]).battle
        with pytest.raises(AppError, match="only admins"):
            client.predict(api_name="/make_dataset")
