"""Limits by voter and address, who is whose, and passwords that others got wrong."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from fault_server import FaultServer, Script
from page_server import PageServer

from arena.battles.asking_limits import Asker, AskingLimits
from arena.config.page_config import PageLimits
from arena.web.authentication import Authenticator
from arena.web.guesses import Guesses
from arena.web.users import FILE, make_user, write_users

PROMPT = {"prompt": "Name a fruit."}
SCRIPTS = {"one": Script(words=("w",)), "two": Script(words=("w",))}


def now_ms() -> int:
    return int(time.time() * 1000)


def client_of(page: PageServer) -> httpx2.Client:
    return httpx2.Client(base_url=page.url, trust_env=False, timeout=60)


def bare_post(page: PageServer, path: str, **options: object) -> httpx2.Response:
    """Without any cookie, as a simple program."""
    return httpx2.post(page.url + path, trust_env=False, timeout=60, **options)  # type: ignore[arg-type]


@pytest.fixture
def page(tmp_path: Path) -> Iterator[PageServer]:
    with FaultServer(dict(SCRIPTS)) as server, PageServer(tmp_path, server.url) as running:
        yield running


@pytest.mark.slow
def test_fresh_cookies_of_one_address_are_limited(page: PageServer) -> None:
    """150 battles at once, a cookie for each: about as many as one address may bring voters."""
    started = time.monotonic()
    codes = []
    for _ in range(150):
        with client_of(page) as client:
            codes.append(client.post("/api/battles", json=PROMPT).status_code)
    minutes = (time.monotonic() - started) / 60
    allowed = PageLimits().new_voters_per_minute * (1 + minutes) + 1
    assert set(codes) == {201, 429}
    assert codes.count(201) <= allowed
    with client_of(page) as client:
        told = client.post("/api/battles", json=PROMPT)
        assert told.status_code in (201, 429)


@pytest.mark.parametrize("address", ["", "10.0.0.1"])
def test_new_voters_start_slowly_and_known_ones_do_not(address: str) -> None:
    limits, now = PageLimits(address_battles_per_minute=1_000), now_ms()
    for since, is_known, most in (
        (now, False, limits.new_voter_battles),
        (now - 601_000, False, limits.battles_per_minute),
        (now, True, limits.battles_per_minute),
    ):
        asking = AskingLimits(limits)
        asker = Asker("somebody", since, address, is_known=is_known)
        assert sum(asking.allow(asker) for _ in range(100)) == most


def test_an_address_has_its_own_limit_for_voters_and_battles() -> None:
    limits = PageLimits(new_voters_per_minute=5, address_battles_per_minute=20)
    asking, now = AskingLimits(limits), now_ms()
    new = [Asker(f"new {i}", now, "10.0.0.1") for i in range(50)]
    assert sum(asking.allow(asker) for asker in new) == 5
    assert asking.allow(new[0])  # who has come in stays in
    assert not asking.allow(new[-1])
    assert asking.allow(Asker("other", now, "10.0.0.2"))
    old = [Asker(f"old {i}", now - 10**9, "10.0.0.3") for i in range(50)]
    assert sum(asking.allow(asker) for asker in old) == 20


def test_callers_without_a_cookie_have_nothing_in_common(page: PageServer) -> None:
    one, other = (bare_post(page, "/api/battles", json=PROMPT).json() for _ in range(2))
    assert httpx2.get(f"{page.url}/api/battles", trust_env=False).json() == {"battles": []}
    path = f"/api/battles/{one['battle']}"
    assert httpx2.get(page.url + path, trust_env=False).status_code == 403
    foreign = {"x-battle-token": other["token"]}
    assert httpx2.get(page.url + path, headers=foreign, trust_env=False).status_code == 403
    assert bare_post(page, f"{path}/votes", json={"winner": "tie"}).status_code == 403
    own = {"x-battle-token": one["token"]}
    deadline = time.monotonic() + 30
    while httpx2.get(page.url + path, headers=own, trust_env=False).json()["running"]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    voted = bare_post(page, f"{path}/votes", json={"winner": "tie"}, headers=own)
    assert voted.status_code == 201, voted.text
    change = {"winner": "model_a", "change": True}
    assert bare_post(page, f"{path}/votes", json=change, headers=own).status_code == 201
    undone = httpx2.delete(f"{page.url}{path}/votes", headers=own, trust_env=False)
    assert undone.json()["vote"] is None


def test_caller_that_keeps_cookies_is_one_voter(page: PageServer) -> None:
    with client_of(page) as client:
        battles = [client.post("/api/battles", json=PROMPT).json()["battle"] for _ in range(2)]
        listed = client.get("/api/battles").json()["battles"]
        assert {one["battle"] for one in listed} == set(battles)
        assert client.get(f"/api/battles/{battles[0]}").status_code == 200


def test_caller_that_brings_a_battles_secret_stays_the_same_voter(page: PageServer) -> None:
    """With or without a cookie jar: what was voted can be taken back."""
    begun = bare_post(page, "/api/battles", json=PROMPT).json()
    path, headers = f"/api/battles/{begun['battle']}", {"x-battle-token": begun["token"]}
    with client_of(page) as client:
        deadline = time.monotonic() + 30
        while client.get(path, headers=headers).json()["running"]:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        voted = client.post(f"{path}/votes", json={"winner": "tie"}, headers=headers)
        assert voted.status_code == 201
        assert client.delete(f"{path}/votes", headers=headers).json()["vote"] is None


def test_looking_makes_no_voter(page: PageServer) -> None:
    for i in range(5):
        cookies = {"arena_voter": f"somebody-who-looks-{i}"}
        for path in ("/", "/api/battles", "/api/battles/0123456789abcdef"):
            httpx2.get(page.url + path, cookies=cookies, trust_env=False)
    assert page.store.counts()["voters"] == 0


def test_wrong_passwords_for_one_name_leave_the_others_in(tmp_path: Path) -> None:
    """All come from one address, as behind a proxy."""
    users = [make_user(name, "voter", f"{name}'s secret") for name in ("ann", "bob", "eve")]
    write_users(tmp_path / FILE, {user.name: user for user in users})
    with FaultServer(dict(SCRIPTS)) as server, PageServer(tmp_path, server.url) as page:

        def sign_in(name: str, password: str) -> int:
            return bare_post(page, "/signin", data={"name": name, "password": password}).status_code

        assert [sign_in("ann", "wrong") for _ in range(12)] == [401] * 10 + [429] * 2
        assert sign_in("bob", "bob's secret") == 303
        url = f"{page.url}/api/battles"
        wrong = [
            httpx2.get(url, auth=("eve", f"guess {i}"), trust_env=False).status_code
            for i in range(12)
        ]
        assert wrong == [401] * 10 + [429] * 2
        right = [
            httpx2.get(url, auth=("bob", "bob's secret"), trust_env=False).status_code
            for _ in range(15)
        ]
        assert right == [200] * 15


def test_right_guesses_cost_nothing_and_an_address_has_a_bound() -> None:
    guesses = Guesses(of_name=3, of_address=10)
    for _ in range(50):
        assert guesses.allow("proxy", "ann")
        guesses.was_right("proxy", "ann")
    wrong = [guesses.allow("proxy", f"name {i}") for i in range(20)]
    assert wrong == [True] * 10 + [False] * 10
    assert guesses.allow("elsewhere", "ann")


def test_the_admins_key_in_a_header_is_no_guess_each_time(page: PageServer) -> None:
    key = Authenticator(page.config.home).key
    url, headers = f"{page.url}/api/admin/state", {"authorization": f"Bearer {key}"}
    codes = [httpx2.get(url, headers=headers, trust_env=False).status_code for _ in range(25)]
    assert codes == [200] * 25
