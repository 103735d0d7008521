"""The page behind the real nginx and Caddy: under a path, by another Host, with its headers."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from caddy import caddy
from fault_server import FaultServer, Script
from nginx import documented, nginx
from page_server import PageServer
from running import free_port

from arena.config.page_config import PublicAddress, SettingsError
from arena.web.authentication import SESSION_COOKIE
from arena.web.users import FILE, make_user, write_users

DOCS = Path(__file__).parents[2] / "docs" / "proxy.md"
REWRITTEN = "server { listen 80; location / { proxy_pass http://127.0.0.1:7860; } }"
PROMPT = {"prompt": "What is the capital of France?"}


@contextmanager
def behind(
    tmp_path: Path, block: str, front: Any = nginx, **settings: Any
) -> Iterator[tuple[str, PageServer]]:
    """The address of nginx or another, and the page behind it."""
    hold = threading.Event()
    scripts = {"one": Script(hold=hold), "two": Script(hold=hold)}
    port = free_port()
    settings = {
        key: value(f"http://127.0.0.1:{port}") if callable(value) else value
        for key, value in settings.items()
    }
    with (
        FaultServer(scripts) as server,
        PageServer(tmp_path / "home", server.url, **settings) as page,
        front(tmp_path / "front", block.replace("7860", str(page.config.port)), port) as url,
    ):
        page.hold = hold  # type: ignore[attr-defined]
        try:
            yield url, page
        finally:
            hold.set()


def client_of(url: str, **options: Any) -> httpx2.Client:
    return httpx2.Client(base_url=url, trust_env=False, timeout=60, **options)


@pytest.mark.parametrize("front", [nginx, caddy])
def test_under_a_path_answers_stream_and_votes_and_sign_in_arrive(
    tmp_path: Path, front: Any
) -> None:
    """The block of docs/proxy.md as it stands there."""
    home = tmp_path / "home"
    home.mkdir()
    write_users(home / FILE, {"ann": make_user("ann", "voter", "ann's secret")})
    public = PublicAddress("/arena", ("127.0.0.1",))
    block = documented(DOCS, front.__name__)
    with (
        behind(tmp_path, block, front, public=public) as (url, page),
        client_of(url) as client,
    ):
        assert client.get("/arena").headers["location"].endswith("/arena/")
        first = client.get("/arena/").headers
        assert first["location"] == "/arena/signin"
        assert "Path=/arena/" in first["set-cookie"]
        form = client.get("/arena/signin").text
        assert 'action="signin"' in form
        browser = {"origin": url, "sec-fetch-site": "same-origin"}
        who = {"name": "ann", "password": "ann's secret"}
        reply = client.post("/arena/signin", data=who, headers=browser)
        assert (reply.status_code, reply.headers["location"]) == (303, "/arena/")
        assert f"{SESSION_COOKIE}=" in reply.headers["set-cookie"]
        assert "Path=/arena/" in reply.headers["set-cookie"]
        assert client.get("/arena/config").json()["root"] == f"{url}/arena"
        assert client.get("/arena/theme.css").status_code == 200
        where = client.post("/arena/api/battles", json=PROMPT, headers=browser).json()
        with client.stream("GET", f"/arena/api/battles/{where['battle']}/events") as reply:
            lines = reply.iter_lines()
            for line in lines:  # comes while the models are held: nothing waits for the end
                if line.startswith("data: ") and "capital" in line:
                    break
            page.hold.set()  # type: ignore[attr-defined]
            assert any(line == "event: end" for line in lines)
        address = f"/arena/api/battles/{where['battle']}/votes"
        vote = client.post(address, json={"winner": "model_a"}, headers=browser)
        assert vote.status_code == 201
        assert client.post("/arena/signout", headers=browser).headers["location"] == "/arena/signin"


def test_a_proxy_that_asks_by_another_name_needs_the_setting_and_has_it_said(
    tmp_path: Path,
) -> None:
    with behind(tmp_path, REWRITTEN) as (url, _), client_of(url) as client:
        browser = {"origin": url.replace("127.0.0.1", "localhost")}
        refused = client.post("/api/battles", json=PROMPT, headers=browser)
        assert refused.status_code == 403
        assert "error" in refused.json()
    public = lambda url: PublicAddress(origins=(url.replace("127.0.0.1", "localhost"),))  # noqa: E731
    with behind(tmp_path / "two", REWRITTEN, public=public) as (url, _), client_of(url) as client:
        browser = {"origin": url.replace("127.0.0.1", "localhost")}
        assert client.post("/api/battles", json=PROMPT, headers=browser).status_code == 201
        assert client.get("/config").json()["root"] == browser["origin"]
        foreign = {"origin": "https://evil.example"}
        assert client.post("/api/battles", json=PROMPT, headers=foreign).status_code == 403


@pytest.fixture(scope="module")
def direct(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageServer]:
    """A page without a proxy, that believes one of another machine."""
    public = PublicAddress("/arena", ("10.0.0.0/8",))
    home = tmp_path_factory.mktemp("home")
    with (
        FaultServer({"one": Script(), "two": Script()}) as server,
        PageServer(home, server.url, public=public) as page,
    ):
        yield page


@pytest.mark.parametrize(
    "header", ["x-forwarded-host", "x-gradio-server", "forwarded", "x-forwarded-for"]
)
def test_forwarded_headers_of_strangers_say_nothing(direct: PageServer, header: str) -> None:
    values = {"x-gradio-server": "http://evil.example", "forwarded": "host=evil.example"}
    with client_of(direct.url) as client:
        reply = client.get("/config", headers={header: values.get(header, "evil.example")})
        assert reply.json()["root"] == f"{direct.url}/arena"
        assert "evil" not in reply.text
        assert (
            "Secure"
            not in client.get("/", headers={"x-forwarded-proto": "https"}).headers["set-cookie"]
        )


def test_a_path_may_be_stripped_or_not(direct: PageServer) -> None:
    with client_of(direct.url) as client:
        for path in ("/arena/healthz", "/healthz"):
            assert client.get(path).status_code == 200
        for path in ("/arenahealthz", "/arena/arena/healthz", "/arena/../arena.db"):
            assert client.get(path).status_code == 404


@pytest.mark.parametrize(
    "host", ["evil.example", "", "127.0.0.1.evil.example", "[", "a\x7fb:1", "[::2]"]
)
def test_an_unknown_name_is_refused_with_what_lets_it_in(direct: PageServer, host: str) -> None:
    with client_of(direct.url) as client:
        reply = client.get("/", headers={"host": host})
        assert reply.status_code == 400
        if host != "[":  # the server itself may refuse what is no host
            assert "--allowed-host" in reply.json()["error"]


def test_whatever_is_not_understood_is_told_as_one_error(direct: PageServer) -> None:
    with client_of(direct.url) as client:
        for body in (
            {"prompt": 5},
            {"prompt": "x", "more": 1},
            [],
            {"models": ["a"], "prompt": ""},
        ):
            reply = client.post("/api/battles", json=body)
            assert (reply.status_code, list(reply.json())) == (422, ["error"])
        assert "prompt" in client.post("/api/battles", json={"prompt": 5}).json()["error"]
        for path in ("/gradio_api/queue/join", "/gradio_api/call/start_battle", "/live/vote"):
            reply = client.post(path, json=[5])
            assert (reply.status_code, list(reply.json())) == (422, ["error"]), path
        reply = client.post("/api/battles", content=b"{broken")
        assert (reply.status_code, list(reply.json())) == (422, ["error"])
        reply = client.delete("/api/battles")
        assert (reply.status_code, list(reply.json())) == (404, ["error"])
        for origin in ("http://[", "null", "\\", "http://127.0.0.1:1:2"):
            reply = client.post("/api/battles", json=PROMPT, headers={"origin": origin})
            assert (reply.status_code, list(reply.json())) == (403, ["error"])


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"root_path": "arena"}, "root path 'arena'"),
        ({"root_path": "/arena/"}, "root path '/arena/'"),
        ({"root_path": "/a b"}, "root path '/a b'"),
        ({"proxies": ("proxy.local",)}, "proxy 'proxy.local'"),
        ({"origins": ("https://example.org/arena",)}, "without a path"),
        ({"origins": ("*",)}, "origin '*'"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: Any, told: str) -> None:
    with pytest.raises(SettingsError) as refused:
        PublicAddress(**settings)
    assert told in str(refused.value)
    assert json.dumps(str(refused.value))
