"""The routes of the page's own script over HTTP: acts, the stream of the answers, refusals."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fault_server import FaultServer, Script
from page_server import PageServer

TEXT = ("One.", "\n\n", "Two ", "is ", "*more*", " & <b>less</b>", ".")
LINK = re.compile(r"battle=([0-9a-f]{16})&t=([\w-]{32})")
SLOW = Script(words=("w ",) * 600, delay=0.05)


@pytest.fixture(scope="module")
def server() -> Iterator[FaultServer]:
    scripts = {"hidden-one": Script(TEXT, delay=0.15), "hidden-two": Script(("🙂",))}
    with FaultServer(scripts) as running:
        yield running


@pytest.fixture(scope="module")
def arena(server: FaultServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageServer]:
    with PageServer(tmp_path_factory.mktemp("home"), server.url) as running:
        yield running


@pytest.fixture
def client(arena: PageServer) -> Iterator[httpx2.Client]:
    with visitor(arena, "a-visitor-of-this-test") as made:
        yield made


def visitor(arena: PageServer, cookie: str) -> httpx2.Client:
    """A browser with its own cookie."""
    cookies = {"arena_voter": cookie}
    return httpx2.Client(base_url=arena.url, trust_env=False, timeout=60, cookies=cookies)


def send(client: httpx2.Client, **question: Any) -> tuple[str, str]:
    """Ask; the id and the token of the battle, as the page's hidden elements get them."""
    reply = client.post("/live/send", json={"prompt": "Say it.", "mode": "blind", **question})
    assert reply.status_code == 200
    values = [value for value in reply.json()["changes"].values() if isinstance(value, str)]
    (found,) = [found for value in values if (found := LINK.fullmatch(value))]
    return found[1], found[2]


def messages(client: httpx2.Client, battle: str, token: str = "") -> list[dict[str, Any]]:
    """All that the stream of a battle says, to its end."""
    with client.stream("GET", f"/live/{battle}", params={"t": token}) as reply:
        assert reply.headers["content-type"].startswith("text/event-stream")
        lines = list(reply.iter_lines())
    return [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]


def test_answers_come_as_steps_and_the_end_as_the_whole_page(client: httpx2.Client) -> None:
    battle, token = send(client)
    told = messages(client, battle, token)
    *news, last = told
    assert last["end"] is True
    assert len({message["run"] for message in news}) == 1
    steps = [side for message in news for side in message.get("sides", {}).values()]
    frames = [step["frame"] for step in steps if "frame" in step]
    assert 2 <= len(frames) <= 6, "a pane is told whole only when its state changes"
    assert any(step.get("add") == '<p dir="auto">One.</p>\n' for step in steps)
    panes = [str(value) for value in last["changes"].values() if "is-done" in str(value)]
    assert len(panes) == 2
    assert sum("<em>more</em> &amp; &lt;b&gt;less&lt;/b&gt;" in pane for pane in panes) == 1
    assert sum("🙂" in pane for pane in panes) == 1
    assert "hidden-" not in json.dumps(told)


@pytest.mark.slow
def test_reply_to_the_pages_script_goes_on_as_the_stream(client: httpx2.Client) -> None:
    """One request asks and tells the answers; what cannot be asked is told as JSON."""
    headers = {"accept": "text/event-stream, application/json"}
    body = {"prompt": "Say it.", "mode": "blind"}
    with client.stream("POST", "/live/send", json=body, headers=headers) as reply:
        assert reply.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in reply.iter_lines() if line.startswith("data: ")]
    first, *news, last = [json.loads(line.removeprefix("data: ")) for line in lines]
    assert {first["link"], first["run"]} <= set(map(str, _values(first)))
    assert news
    assert {message["run"] for message in news} == {first["run"]}
    assert last["end"] is True
    assert sum("is-done" in str(value) for value in last["changes"].values()) == 2
    assert "hidden-" not in "".join(lines)
    again = client.post("/live/again", json={**first, "side": 0}, headers=headers)
    assert again.text.startswith('data: {"changes"')
    assert again.text.rstrip().rpartition("\n")[2].startswith('data: {"end":true')
    refused = client.post("/live/send", json={**body, "prompt": " "}, headers=headers)
    assert "empty" in json.dumps(refused.json()["changes"])


def _values(message: dict[str, Any]) -> list[Any]:
    return list(message["changes"].values())


def test_who_comes_later_is_told_all_of_it(client: httpx2.Client, arena: PageServer) -> None:
    battle, token = send(client)
    assert messages(client, battle)[-1]["end"], "the owner needs no token"
    with visitor(arena, "another-browser-altogether") as other:
        assert other.get(f"/live/{battle}").status_code == 403
        (only,) = messages(other, battle, token)
        assert only["end"]


@pytest.mark.parametrize(
    ("body", "name"),
    [
        (b"[1]", "send"),
        (b"{", "send"),
        (b'{"prompt": 1}', "send"),
        (b'{"prompt": "x", "mode": "named", "models": "hidden-one"}', "send"),
        (b'{"prompt": "x", "following": "zzz"}', "send"),
        (b'{"link": "battle=0123456789abcdef", "side": 8}', "again"),
        (b'{"link": "battle=0123456789abcdef", "side": "a"}', "stop"),
        (b'{"link": "battle=0123456789abcdef", "choice": "c"}', "vote"),
        (b'{"link": "battle=0123456789abcdef"}', "vote"),
        (b'{"link": "battle=0123456789abcdef", "ranks": "12"}', "rank"),
        (b'{"link": "battle=0123456789abcdef", "ranks": [true, 1.5]}', "rank"),
        (b'{"link": "battle=0123456789abcdef", "reasons": [1]}', "details"),
        (b'{"link": "battle=0123456789abcdef", "strength": "huge"}', "details"),
        (b'{"link": "battle=0123456789abcdef"}', "tokens"),
    ],
)
def test_a_body_that_no_page_sends_is_refused(
    client: httpx2.Client, body: bytes, name: str
) -> None:
    reply = client.post(f"/live/{name}", content=body)
    assert (reply.status_code, "error" in reply.json()) == (422, True)


def test_acts_on_a_battle_of_somebody_else_change_nothing(
    client: httpx2.Client, arena: PageServer
) -> None:
    battle, token = send(client)
    with visitor(arena, "another-browser-altogether") as other:
        acts = {"stop": {}, "again": {}, "undo": {}, "details": {}, "tokens": {"side": 0}}
        acts |= {"vote": {"choice": "a"}, "rank": {"ranks": [1, 2]}}
        for name, body in acts.items():
            body = body | {"link": f"battle={battle}"}
            told = other.post(f"/live/{name}", json=body).json()["changes"]
            assert "not yours" in json.dumps(told)
        assert other.post("/live/marked", json={"link": f"battle={battle}"}).status_code == 403
        after = other.post("/live/after", json={"link": f"battle={battle}"})
        assert "hidden-" not in after.text
        other.post("/live/leave", json={"link": f"battle={battle}"})
    assert arena.service.num_running == 1
    messages(client, battle, token)


@pytest.mark.slow
def test_page_that_is_asked_for_again_finds_its_answers_however_late_its_script_runs(
    tmp_path: Path,
) -> None:
    with (
        FaultServer({"one": SLOW, "two": SLOW}) as server,
        PageServer(tmp_path, server.url) as arena,
        visitor(arena, "a-visitor-of-this-test") as client,
        visitor(arena, "another-browser-altogether") as other,
    ):
        battle, token = send(client)

        def look() -> None:
            with client.stream("GET", f"/live/{battle}?t={token}") as reply:
                next(reply.iter_raw())
                server.wait_for_streams(2)

        look()
        assert client.get("/", params={"battle": battle, "t": token}).status_code == 200
        time.sleep(1.5)
        assert (server.open_streams, arena.service.num_running) == (2, 1), "a reload is slow"
        look()
        other.get("/", params={"battle": battle})
        server.wait_for_streams(0, seconds=8)  # a stranger's look keeps nothing


@pytest.mark.slow
def test_leaving_ends_the_streams_and_a_second_reader_keeps_them(tmp_path: Path) -> None:
    with (
        FaultServer({"one": SLOW, "two": SLOW}) as server,
        PageServer(tmp_path, server.url) as arena,
        visitor(arena, "a-visitor-of-this-test") as client,
    ):
        battle, token = send(client)
        address = f"/live/{battle}?t={token}"
        with client.stream("GET", address) as first:
            reading = first.iter_raw()  # whoever drops it drops the connection
            next(reading)
            with client.stream("GET", address) as second:
                next(second.iter_raw())
            time.sleep(0.8)
            assert server.open_streams == 2, "somebody still reads"
        left = time.monotonic()
        while (server.open_streams or arena.service.num_running) and time.monotonic() < left + 30:
            time.sleep(0.01)
        assert (server.open_streams, arena.service.num_running) == (0, 0)
        reading.close()
        turn = arena.store.load_battle(battle, token=token).battle.turns[-1]
        assert [turn.answer(side).status for side in (0, 1)] == ["stopped"] * 2
