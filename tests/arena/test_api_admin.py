"""Prompt sets and the clearing of marks over the JSON API, with the page's rights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest
from fault_server import FaultServer, Script
from page_server import PageServer
from store_fixtures import votes_of

from arena.web.authentication import Authenticator

FRUIT = ("Name a fruit.", "Name a red fruit.", "Name a sour fruit.")


@pytest.fixture
def page(tmp_path: Path) -> Iterator[PageServer]:
    sets = tmp_path / "sets"
    sets.mkdir()
    (sets / "fruit.txt").write_text("\n".join(FRUIT), encoding="utf-8")
    (sets / "odd.jsonl").write_text('{"question": "?"}\n', encoding="utf-8")
    scripts = {"hidden-one": Script(), "hidden-two": Script(words=("quite", " other"))}
    with FaultServer(scripts) as server, PageServer(tmp_path, server.url) as running:
        yield running


@contextmanager
def visit(page: PageServer, key: str = "") -> Iterator[httpx2.Client]:
    """A program with cookies of its own; with the key, the admin's."""
    with httpx2.Client(base_url=page.url, trust_env=False, timeout=60) as client:
        client.get("/enter", params={"key": key}) if key else client.get("/")
        yield client


def judge(client: httpx2.Client, battle: str, token: str, winner: str = "model_a") -> int:
    """Wait for the battle's end and vote; the status of the reply."""
    headers = {"x-battle-token": token}
    with client.stream("GET", f"/api/battles/{battle}/events", headers=headers) as reply:
        assert "event: end" in list(reply.iter_lines())
    body = {"winner": winner}
    return client.post(f"/api/battles/{battle}/votes", json=body, headers=headers).status_code


def test_set_is_judged_in_order_and_gone_on_with(page: PageServer) -> None:
    with visit(page) as client:
        assert client.get("/api/sets").json() == {"sets": ["fruit", "odd"]}
        asked = []
        for done in range(len(FRUIT)):
            task = client.post("/api/sets/fruit/next").json()
            assert (task["done"], task["total"], task["index"]) == (done, len(FRUIT), done)
            again = client.post("/api/sets/fruit/next").json()
            assert again["battle"] == task["battle"], "an unjudged prompt is not asked twice"
            assert judge(client, task["battle"], task["token"]) == 201
            (turn,) = page.store.load_battle(task["battle"], token=task["token"]).battle.turns
            asked.append(turn.prompt)
        assert tuple(asked) == FRUIT
        end = client.post("/api/sets/fruit/next").json()
        assert (end["battle"], end["done"], end["total"]) == (None, 3, 3)
    with visit(page) as other:
        assert other.post("/api/sets/fruit/next").json()["done"] == 0, "each voter has their own"


def test_sets_that_cannot_be_judged_say_why(page: PageServer) -> None:
    with visit(page) as client:
        unknown = client.post("/api/sets/nuts/next")
        assert (unknown.status_code, "fruit" in unknown.json()["error"]) == (422, True)
        odd = client.post("/api/sets/odd/next")
        assert odd.status_code == 422
        assert "odd.jsonl" in odd.json()["error"]
        assert "line 1" in odd.json()["error"]


@pytest.mark.slow
def test_voter_clears_no_mark(page: PageServer) -> None:
    with visit(page) as voter:
        refused = voter.post("/api/admin/clear", json={"vote": 1, "reason": "rate"})
        assert refused.status_code == 403


def test_admin_clears_a_mark_once(page: PageServer) -> None:
    with visit(page, Authenticator(page.config.home).key) as admin:
        battle = admin.post("/api/battles", json={"prompt": FRUIT[0]}).json()
        assert judge(admin, battle["battle"], battle["token"]) == 201
        (vote,) = votes_of(page.store, battle["battle"])
        page.store.flag_vote(vote.id, "rate", "70 votes within a minute")
        (shown,) = admin.get("/api/admin/state").json()["flagged"]
        assert shown == {
            "vote": vote.id,
            "battle": battle["battle"],
            "reasons": {"rate": "70 votes within a minute"},
        }
        body = {"vote": vote.id, "reason": "rate"}
        cleared = admin.post("/api/admin/clear", json=body)
        assert (cleared.status_code, cleared.json()) == (200, {"flagged": 0})
        twice = admin.post("/api/admin/clear", json=body)
        assert twice.status_code in (404, 409)
        assert "not in quarantine" in twice.json()["error"]
        assert votes_of(page.store, battle["battle"]) == [vote], "the vote itself stays"
