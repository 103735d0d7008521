"""Who may come in, and as what: the user file, sessions, passwords in headers, the admin's key."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fault_server import FaultServer, Script
from forked import Finished, Forked
from page_server import PageServer
from running import clean_environment

from arena.backends.queues import Queue, read_queue
from arena.storage import admin_queries
from arena.web.authentication import SESSION_COOKIE, SESSION_SECONDS, Authenticator
from arena.web.users import FILE, UserError, make_user, matches, read_users, write_users

PROMPT = {"prompt": "What is the capital of France?"}
SCRIPTS = {"hidden-one": Script(), "hidden-two": Script(), "hidden-three": Script()}


def client_of(url: str, **options: Any) -> httpx2.Client:
    return httpx2.Client(base_url=url, trust_env=False, timeout=60, **options)


def enrol(home: Path) -> None:
    users = [
        make_user("ann", "voter", "ann's secret"),
        make_user("bob", "voter", "bob's secret"),
        make_user("root", "admin", "root's secret"),
    ]
    write_users(home / FILE, {user.name: user for user in users})


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageServer]:
    """A page on which one signs in."""
    home = tmp_path_factory.mktemp("home")
    enrol(home)
    with FaultServer(dict(SCRIPTS)) as server, PageServer(home, server.url) as running:
        yield running


@contextmanager
def signed_in(page: PageServer, name: str) -> Iterator[httpx2.Client]:
    with client_of(page.url) as client:
        reply = client.post("/signin", data={"name": name, "password": f"{name}'s secret"})
        assert (reply.status_code, reply.headers["location"]) == (303, "/")
        yield client


def test_strangers_are_led_to_the_sign_in_and_get_nothing_else(page: PageServer) -> None:
    with client_of(page.url) as stranger:
        assert stranger.get("/").headers["location"] == "/signin"
        form = stranger.get("/signin", headers={"accept-language": "de"})
        assert "Anmelden" in form.text
        assert form.headers["x-frame-options"] == "DENY"
        for path in ("/config", "/api/battles/0123456789abcdef", "/gradio_api/info"):
            assert stranger.get(path).status_code == 401, path
        assert stranger.post("/api/battles", json=PROMPT).status_code == 401
        join = {"data": [], "fn_index": 0, "session_hash": "x"}
        assert stranger.post("/gradio_api/queue/join", json=join).status_code == 401
        assert stranger.get("/healthz").status_code == 200
        wrong = stranger.post("/signin", data={"name": "ann", "password": "<b>guess"})
        assert wrong.status_code == 401
        assert "wrong" in wrong.text
        assert "guess" not in wrong.text
        assert SESSION_COOKIE not in stranger.cookies
        assert stranger.get(f"/enter?key={Authenticator(page.config.home).key}").status_code == 401


def test_session_is_a_voter_of_their_own_on_every_device(page: PageServer) -> None:
    with signed_in(page, "ann") as one, signed_in(page, "ann") as other:
        assert one.get("/").status_code == 200
        battle = one.post("/api/battles", json=PROMPT).json()["battle"]
        assert other.get(f"/api/battles/{battle}").status_code == 200, "the same voter"
        with signed_in(page, "root") as root:
            assert root.get(f"/api/battles/{battle}").status_code == 403
        assert one.post("/signout").headers["location"] == "/signin"
        assert one.get("/").headers["location"] == "/signin"


def test_forged_and_old_sessions_are_strangers(page: PageServer) -> None:
    with signed_in(page, "ann") as ann:
        good = ann.cookies[SESSION_COOKIE]
    name, end, signature = good.split(".")
    later = end[:-1] + ("A" if end[-1] != "A" else "B")
    root = base64.urlsafe_b64encode(b"root").decode().rstrip("=")
    admin_key = Authenticator(page.config.home)._signed("")
    for forged in (
        f"{root}.{end}.{signature}",
        f"{name}.{later}.{signature}",
        # The first sign: of the last one, two bits are no part of the signature.
        f"{name}.{end}.{'1' if signature[0] == '0' else '0'}{signature[1:]}",
        f"{name}.1.{signature}",
        "..",
        "x",
        "\u00e9.1.x",
        admin_key,
    ):
        raw = {"cookie": f"{SESSION_COOKIE}={forged}".encode()}
        with client_of(page.url, headers=raw) as client:
            assert client.get("/config").status_code == 401, forged
    spoofed = {"cookie": "arena_voter=user:ann"}
    with client_of(page.url, headers=spoofed) as client:
        assert client.get("/config").status_code == 401


def test_a_session_ends_and_one_signed_otherwise_is_none(tmp_path: Path) -> None:
    enrol(tmp_path)
    authenticator = Authenticator(tmp_path)

    def voter(session: str) -> str | None:
        seen = authenticator.visitor({SESSION_COOKIE: session}, None, "")
        return seen.secret if seen else None

    for age, secret in ((SESSION_SECONDS - 60, "user:ann"), (SESSION_SECONDS + 60, None)):
        signer = authenticator._signer("ann")
        signer.get_timestamp = lambda age=age: int(time.time()) - age  # type: ignore[misc]
        session = signer.sign("YW5u").decode()
        assert voter(session) == secret
    end = str(int(time.time()) + 1000)
    password = (read_users(tmp_path / FILE) or {})["ann"].password
    text = f"ann\n{end}\n{password}".encode()
    signed = hmac.new(authenticator.key.encode(), text, hashlib.sha256).hexdigest()
    assert voter(f"YW5u.{end}.{signed}") is None


def test_program_signs_in_by_header(page: PageServer) -> None:
    with client_of(page.url, auth=("root", "root's secret")) as root:
        assert root.post("/api/battles", json=PROMPT).status_code == 201
    with (
        client_of(page.url, auth=("bob", "wrong secret")) as stranger,
        ThreadPoolExecutor(20) as pool,
    ):
        asked = [pool.submit(stranger.get, "/config") for _ in range(40)]
        codes = [reply.result().status_code for reply in asked]
    assert set(codes) == {401, 429}, "guessing is slow"


def test_new_password_or_removal_ends_sessions(tmp_path: Path) -> None:
    enrol(tmp_path)
    authenticator = Authenticator(tmp_path)
    session = authenticator.sign_in("ann", "ann's secret")
    assert session is not None
    cookies = {SESSION_COOKIE: session}
    seen = authenticator.visitor(cookies, None, "")
    assert seen is not None
    assert (seen.secret, seen.is_admin, seen.may_export) == ("user:ann", False, False)
    users = read_users(tmp_path / FILE) or {}
    write_users(tmp_path / FILE, {**users, "ann": make_user("ann", "voter", "another secret")})
    os.utime(tmp_path / FILE, ns=(1, 1))
    assert authenticator.visitor(cookies, None, "") is None
    assert authenticator.sign_in("ann", "ann's secret") is None
    assert authenticator.sign_in("gone", "ann's secret") is None


def test_key_of_the_home_makes_an_admin_where_nobody_signs_in(tmp_path: Path) -> None:
    with PageServer(tmp_path, "http://127.0.0.1:9") as page, client_of(page.url) as client:
        assert client.get("/signin").headers["location"] == "/"
        assert client.get("/enter?key=guess").status_code == 404
        assert client.post("/api/admin/participants", json={"off": []}).status_code == 403
        key = Authenticator(tmp_path).key
        assert (tmp_path / "admin.key").stat().st_mode & 0o077 == 0
        reply = client.get(f"/enter?key={key}")
        assert (reply.status_code, reply.headers["location"]) == (303, "/")
        assert client.post("/api/admin/participants", json={"off": []}).status_code == 200
        bearer = {"authorization": f"Bearer {key}"}
        with client_of(page.url, headers=bearer) as program:
            assert program.get("/api/admin/state").status_code == 200


@pytest.mark.slow
def test_user_file_that_makes_no_sense_is_told_and_lets_nobody_in(tmp_path: Path) -> None:
    for text, told in (
        ("[users.ann]\nrole = 'boss'\npassword = 'a$b$c'", "boss"),
        ("[users.ann]\nrole = 'voter'", "password"),
        ("[users.ann]\nrole = 'voter'\npassword = 'plain'", "no hash"),
        ("[other]", "[users] only"),
        ("users = 1", "[users] only"),
        ("broken", "TOML"),
    ):
        (tmp_path / FILE).write_text(text)
        with pytest.raises(UserError) as caught:
            read_users(tmp_path / FILE)
        assert told in str(caught.value)
    (tmp_path / FILE).unlink()
    with PageServer(tmp_path, "http://127.0.0.1:9") as page, client_of(page.url) as client:
        assert client.get("/config").status_code == 200
        (tmp_path / FILE).write_text("broken")
        assert client.get("/config").status_code == 503
    assert not matches(None, "")
    for name, role, password in (
        ("a b", "voter", "long enough"),
        ("a", "boss", "long enough"),
        ("a", "voter", "short"),
    ):
        with pytest.raises(UserError):
            make_user(name, role, password)


@pytest.mark.slow
def test_commands_keep_the_user_file(tmp_path: Path) -> None:
    def run(*words: str, typed: str = "") -> Finished:
        command = ["users", *words, "--home", tmp_path]
        return Forked(command, environment=clean_environment(), typed=typed).wait()

    link = run("link", "--url", "http://127.0.0.1:7860/")
    assert link.stdout == f"http://127.0.0.1:7860/enter?key={Authenticator(tmp_path).key}\n"
    assert run("add", "ann", "--role", "admin", typed="a long secret\n").status == 0
    assert "a long secret" not in (tmp_path / FILE).read_text()
    assert (tmp_path / FILE).stat().st_mode & 0o077 == 0
    assert Authenticator(tmp_path).sign_in("ann", "a long secret")
    assert run("list").stdout == "ann: admin\n"
    assert "last user" in run("remove", "ann").stderr
    assert "admins sign in" in run("link").stderr


def test_admin_switches_participants_also_for_later(page: PageServer) -> None:
    with signed_in(page, "ann") as ann, signed_in(page, "root") as root:
        assert ann.post("/api/admin/participants", json={"off": ["hidden-one"]}).status_code == 403
        assert ann.get("/api/admin/state").status_code == 403
        off = {"off": ["hidden-one", "hidden-two"]}
        assert root.post("/api/admin/participants", json=off).json() == off
        assert ann.post("/api/battles", json=PROMPT).status_code == 422, "only one is left"
        named = {**PROMPT, "models": ["hidden-one", "hidden-three"]}
        assert ann.post("/api/battles", json=named).status_code == 422
        assert admin_queries.switched_off(page.store) == set(off["off"])
        state = root.get("/api/admin/state").json()
        assert state["off"] == off["off"]
        assert state["servers"][0]["participants"] == list(SCRIPTS)
        assert (state["servers"][0]["url"], state["servers"][0]["is_up"]) == (
            page.config.backends[0],
            True,
        )
        assert root.post("/api/admin/participants", json={"off": []}).status_code == 200
        assert ann.post("/api/battles", json=named).status_code == 201


def test_only_admins_make_and_fetch_datasets(page: PageServer) -> None:
    with signed_in(page, "ann") as ann, signed_in(page, "root") as root:
        assert ann.post("/api/exports", json={"format": "raw"}).status_code == 403
        made = root.post("/api/exports", json={"format": "raw"})
        assert made.status_code == 201
        name = made.json()["name"]
        assert ann.get(f"/api/exports/{name}").status_code == 403
        packed = root.get(f"/api/exports/{name}")
        assert packed.content.startswith(b"PK")
        assert packed.headers["content-type"] == "application/zip"
        for wrong in ("raw-20260101-000000-abcdef", "..%2fadmin.key", "x"):
            assert root.get(f"/api/exports/{wrong}").status_code == 404
        assert root.post("/api/exports", json={"format": "xml"}).status_code == 422


@pytest.mark.slow
def test_voter_who_asks_too_often_waits(tmp_path: Path) -> None:
    from arena.config.page_config import PageLimits

    limits = PageLimits(battles_per_minute=3)
    with (
        FaultServer(dict(SCRIPTS)) as server,
        PageServer(tmp_path, server.url, limits=limits) as page,
        client_of(page.url) as one,
        client_of(page.url) as other,
    ):
        for client in (one, other):
            client.get("/")
        codes = [one.post("/api/battles", json=PROMPT).status_code for _ in range(5)]
        assert codes == [201, 201, 201, 429, 429]
        assert other.post("/api/battles", json=PROMPT).status_code == 201


@pytest.mark.parametrize(
    ("text", "queue"),
    [
        ("# TYPE x gauge\ntgi_queue_size 3\ntgi_batch_current_size 2\n", Queue(2, 3)),
        (
            'vllm:num_requests_running{model_name="a b"} 1.0\n'
            'vllm:num_requests_running{model_name="c"} 2.0\n'
            'vllm:num_requests_waiting{model_name="c"} 0.0 1700000000\n',
            Queue(3, 0),
        ),
        ("llamacpp:requests_processing 4\ntgi_queue_size_bucket 9\n", Queue(4, None)),
        ("tgi_queue_size broken\n\n", Queue()),
    ],
)
def test_queues_are_read_from_the_servers_metrics(text: str, queue: Queue) -> None:
    assert read_queue(text) == queue
