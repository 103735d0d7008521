"""The JSON API over HTTP: the page's acts with the page's checks."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fault_server import FaultServer, Script
from page_server import PageServer
from store_fixtures import votes_of

from arena.battles.set_judging import SetJudging
from arena.web.api import api_router
from arena.web.authentication import Authenticator

PROMPT = {"prompt": "What is the capital of France?"}


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageServer]:
    scripts = {"hidden-one": Script(), "hidden-two": Script(delay=0.05)}
    home = tmp_path_factory.mktemp("home")
    with FaultServer(scripts) as server, PageServer(home, server.url) as running:
        yield running


@pytest.fixture
def client(page: PageServer) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=page.url, trust_env=False, timeout=60) as made:
        yield made


def events(client: httpx2.Client, battle: str, token: str) -> list[tuple[str, dict[str, Any]]]:
    """All events of a battle until its end."""
    found = []
    headers = {"x-battle-token": token}
    with client.stream("GET", f"/api/battles/{battle}/events", headers=headers) as reply:
        assert reply.status_code == 200
        name = ""
        for line in reply.iter_lines():
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            elif line.startswith("data: "):
                found.append((name, json.loads(line.removeprefix("data: "))))
    return found


def test_every_act_of_programs_is_in_the_docs(page: PageServer) -> None:
    """Each route of the JSON API and each endpoint of `gradio_client` stands in docs/arena.md."""
    text = (Path(__file__).parents[2] / "docs" / "arena.md").read_text(encoding="utf-8")
    shown = set(re.findall(r"`(GET|POST|DELETE) (/api/[^`? ]+)", text))
    routes = {
        (method, re.sub(r"\{(?:battle_)?(\w+)\}", r"<\1>", route.path))
        for route in api_router(
            page.service, SetJudging(page.service, page.config.home), page.config.home
        ).routes
        for method in route.methods  # type: ignore[attr-defined]
    }
    assert len(routes) > 15
    assert routes == shown
    told = httpx2.get(f"{page.url}/gradio_api/info", trust_env=False).json()["named_endpoints"]
    assert len(told) > 9
    assert [name for name in told if f"`{name}`" not in text] == []


def test_every_field_of_every_reply_is_in_the_docs(page: PageServer) -> None:
    text = (Path(__file__).parents[2] / "docs" / "arena.md").read_text(encoding="utf-8")
    key = {"authorization": f"Bearer {Authenticator(page.config.home).key}"}
    seen: set[str] = set()

    def note(value: Any, skip: tuple[str, ...] = ("votes", "rows", "left_out", "sampling")) -> None:
        """Names of fields; the keys below `skip` are models, days, splits and parameters."""
        for name, inner in value.items() if isinstance(value, dict) else ():
            seen.add(name)
            for item in inner if isinstance(inner, list) else [inner]:
                if name not in (*skip, "reasons"):
                    note(item)

    with httpx2.Client(base_url=page.url, trust_env=False, headers=key, timeout=60) as admin:
        opened = admin.post("/api/battles", json=PROMPT).json()
        note(opened)
        path, token = f"/api/battles/{opened['battle']}", {"x-battle-token": opened["token"]}
        events(admin, opened["battle"], opened["token"])
        body = {"winner": "model_a", "reasons": ["correct"]}
        judged = admin.post(f"{path}/votes", json=body, headers=token).json()
        assert judged["sides"][0]["sampling"]["max_new_tokens"] == 160
        (vote,) = votes_of(page.store, opened["battle"])
        page.store.flag_vote(vote.id, "odd")
        for reply in (
            judged,
            admin.get(f"{path}/tokens/a", headers=token).json(),
            admin.get("/api/battles").json(),
            admin.get("/api/sets").json(),
            admin.post("/api/exports", json={"format": "raw"}).json(),
            admin.get("/api/admin/state").json(),
            admin.post("/api/admin/participants", json={"off": []}).json(),
        ):
            note(reply)
    assert len(seen) > 40
    assert [name for name in sorted(seen) if f"`{name}`" not in text] == []


def test_blind_battle_from_start_to_vote(client: httpx2.Client, page: PageServer) -> None:
    opened = client.post("/api/battles", json=PROMPT)
    assert opened.status_code == 201
    battle, token = opened.json()["battle"], opened.json()["token"]
    told = events(client, battle, token)
    assert told[-1] == ("end", {})
    last = told[-2][1]
    assert [side["state"] for side in last["sides"]] == ["done", "done"]
    assert last["votable"]
    assert "hidden-" not in json.dumps([opened.json(), told])
    vote = client.post(
        f"/api/battles/{battle}/votes",
        json={"winner": "model_b", "strength": "much", "reasons": ["correct"]},
        headers={"x-battle-token": token},
    )
    assert vote.status_code == 201
    assert {side["model"] for side in vote.json()["sides"]} == {"hidden-one", "hidden-two"}
    assert vote.json()["vote"]["winner"] == "model_b"
    (stored,) = votes_of(page.store, battle)
    assert stored.judgement.reasons == ("correct",)
    undone = client.delete(f"/api/battles/{battle}/votes", headers={"x-battle-token": token})
    assert undone.json()["vote"] is None


def test_wrong_calls_have_their_status_and_say_why(client: httpx2.Client) -> None:
    assert client.post("/api/battles", json={"prompt": " "}).status_code == 422
    assert client.post("/api/battles", json={"prompt": "x", "model": "y"}).status_code == 422
    missing = {**PROMPT, "models": ["hidden-one", "gone"]}
    reply = client.post("/api/battles", json=missing)
    assert (reply.status_code, "gone" in reply.json()["error"]) == (422, True)
    assert client.get("/api/battles/0123456789abcdef").status_code == 404
    half = '{"prompt": "half \\ud83d"}'
    json_body = {"content-type": "application/json"}
    assert client.post("/api/battles", content=half, headers=json_body).status_code == 422
    battle = client.post("/api/battles", json=PROMPT).json()
    path = f"/api/battles/{battle['battle']}"
    early = client.post(
        f"{path}/votes", json={"winner": "tie"}, headers={"x-battle-token": battle["token"]}
    )
    assert early.status_code in (409, 201)
    odd = client.post(
        f"{path}/votes", json={"winner": "nobody"}, headers={"x-battle-token": battle["token"]}
    )
    assert odd.status_code == 422


def test_one_side_is_stopped_and_asked_again_and_the_turn_passed(tmp_path: Path) -> None:
    slow = Script(words=("w ",) * 2000, delay=0.05)
    base = replace(slow, kind="base", chat_template=False)  # tells the tokens' probabilities
    with (
        FaultServer({"hidden-one": base, "hidden-two": slow}) as server,
        PageServer(tmp_path, server.url) as page,
        httpx2.Client(base_url=page.url, trust_env=False, timeout=60) as client,
    ):
        battle = client.post("/api/battles", json=PROMPT).json()
        client.headers["x-battle-token"] = battle["token"]
        path = f"/api/battles/{battle['battle']}"
        wait_for(client, path, ["streaming", "streaming"])
        client.post(f"{path}/stop", json={"side": "b"})
        wait_for(client, path, ["streaming", "stopped"])
        assert client.post(f"{path}/again", json={"side": "b"}).status_code == 409
        assert client.get(f"{path}/tokens/a").status_code == 409, "the names are not shown yet"
        client.post(f"{path}/stop")
        wait_for(client, path, ["stopped", "stopped"])
        assert client.post(f"{path}/again", json={"side": "b"}).status_code == 201
        wait_for(client, path, ["stopped", "streaming"])
        assert client.post(f"{path}/again", json={"side": "z"}).status_code == 422
        passed = client.post(f"{path}/skip")
        assert passed.status_code == 201
        sides = {side["model"]: side["side"] for side in passed.json()["sides"]}
        assert set(sides) == {"hidden-one", "hidden-two"}
        server.wait_for_streams(0)
        told = client.get(f"{path}/tokens/{sides['hidden-one']}").json()["tokens"]
        assert told[0] == {"text": "w ", "logprob": -0.5}
        (past,) = client.get("/api/battles", params={"search": "FRANCE"}).json()["battles"]
        assert (past["battle"], past["state"]) == (battle["battle"], "skipped")
        assert client.get("/api/battles", params={"search": "Spain"}).json() == {"battles": []}
        turn = page.store.load_battle(battle["battle"], token=battle["token"]).battle.turns[-1]
        assert [(a.side, a.superseded) for a in turn.attempts] == [
            (0, False),
            (1, True),
            (1, False),
        ]
        assert page.store.counts()["skips"] == 1


def wait_for(client: httpx2.Client, path: str, states: list[str]) -> None:
    """Look at the battle until its sides are in these states."""
    import time

    limit = time.monotonic() + 60
    while [side["state"] for side in client.get(path).json()["sides"]] != states:
        assert time.monotonic() < limit
        time.sleep(0.02)


def test_strangers_are_refused(client: httpx2.Client, page: PageServer) -> None:
    client.get("/")  # a browser with a cookie of its own
    battle = client.post("/api/battles", json=PROMPT).json()
    with httpx2.Client(base_url=page.url, trust_env=False) as other:
        other.get("/")
        path = f"/api/battles/{battle['battle']}"
        for call in (
            other.get(path),
            other.get(f"{path}/events"),
            other.post(f"{path}/stop"),
            other.post(f"{path}/again"),
            other.post(f"{path}/skip"),
            other.get(f"{path}/tokens/a"),
            other.post(f"{path}/votes", json={"winner": "tie"}),
            other.post(f"{path}/turns", json=PROMPT),
        ):
            assert call.status_code == 403
            assert "not yours" in call.json()["error"]


def test_named_battle_goes_on_and_stops(client: httpx2.Client) -> None:
    named = {**PROMPT, "models": ["hidden-two", "hidden-one"]}
    battle = client.post("/api/battles", json=named).json()
    token = {"x-battle-token": battle["token"]}
    path = f"/api/battles/{battle['battle']}"
    stopped = client.post(f"{path}/stop", headers=token).json()
    assert not stopped["running"]
    assert [side["model"] for side in stopped["sides"]] == ["hidden-two", "hidden-one"]
    again = client.post("/api/battles", json=named).json()
    events(client, again["battle"], again["token"])
    token = {"x-battle-token": again["token"]}
    path = f"/api/battles/{again['battle']}"
    body = {"prompt": "And of Spain?", "continue_from": "a"}
    assert client.post(f"{path}/turns", json=body, headers=token).status_code == 201
    told = events(client, again["battle"], again["token"])
    assert told[-2][1]["turns"] == [PROMPT["prompt"], "And of Spain?"]


def test_leaving_the_stream_stops_the_answers(tmp_path: Path) -> None:
    import time

    hang = Script(fault="hang")
    with (
        FaultServer({"one": hang, "two": hang}) as server,
        PageServer(tmp_path, server.url) as page,
        httpx2.Client(base_url=page.url, trust_env=False) as client,
    ):
        battle = client.post("/api/battles", json=PROMPT).json()
        headers = {"x-battle-token": battle["token"]}
        with client.stream(
            "GET", f"/api/battles/{battle['battle']}/events", headers=headers
        ) as reply:
            lines = reply.iter_lines()  # held: the stream closes when its iterator goes
            next(lines)
            limit = time.monotonic() + 60  # a slow machine may still be at the first event
            while server.open_streams < 2:
                assert time.monotonic() < limit
                time.sleep(0.05)
        left = time.monotonic()
        while server.open_streams:
            assert time.monotonic() - left < 5
            time.sleep(0.01)
