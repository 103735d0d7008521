"""What the page's server refuses, adds and limits, asked over HTTP as a stranger would."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from fault_server import FaultServer, Script
from page_server import PageServer

from arena.battles.rate_limit import RateLimiter
from arena.config.page_config import PageLimits
from arena.web.access import VOTER_COOKIE
from arena.web.proxy import trusted_hosts


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageServer]:
    home = tmp_path_factory.mktemp("home")
    with (
        FaultServer({"hidden-one": Script(), "hidden-two": Script()}) as server,
        PageServer(home, server.url) as running,
    ):
        yield running


@pytest.fixture
def client(page: PageServer) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=page.url, trust_env=False, timeout=60) as made:
        yield made


def test_page_comes_with_its_headers_and_a_cookie(client: httpx2.Client) -> None:
    reply = client.get("/")
    assert reply.status_code == 200
    policy = reply.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.headers["referrer-policy"] == "no-referrer"
    cookie = reply.headers["set-cookie"]
    assert cookie.startswith(f"{VOTER_COOKIE}=")
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    assert "set-cookie" not in client.get("/").headers, "the browser has it now"


def test_nothing_names_a_model_or_a_file_of_this_machine(
    client: httpx2.Client, page: PageServer
) -> None:
    for path in ("/", "/config", "/gradio_api/info", "/healthz"):
        text = client.get(path).text
        assert "hidden-" not in text, path
        assert str(page.config.home) not in text, path


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/upload",
        "/gradio_api/upload_progress",
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/file/etc/passwd",
        "/gradio_api/proxy=http://127.0.0.1/",
        "/gradio_api/stream/x/y/0/playlist.m3u8",
        "/gradio_api/deep_link",
        "/gradio_api/runs",
        "/gradio_api/component_server",
        "/gradio_api/run/predict",
        "/gradio_api/api/predict",
        "/monitoring",
        "/monitoring/summary",
        "/docs",
        "/redoc",
        "/openapi.json",
        "/login",
        "/file=/etc/passwd",
        "/arena.db",
        "//gradio_api/upload",
        "/gradio_api//upload",
        "/gradio_api/Upload",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_route_that_the_page_does_not_need_is_shut(
    client: httpx2.Client, path: str, method: str
) -> None:
    assert client.request(method, path).status_code == 404


def test_foreign_host_is_refused(client: httpx2.Client) -> None:
    assert client.get("/", headers={"host": "evil.example"}).status_code == 400
    assert client.get("/", headers={"host": "localhost"}).status_code == 200


def test_foreign_origin_gets_no_answer_and_no_cors(client: httpx2.Client) -> None:
    join = {"data": [], "fn_index": 0, "session_hash": "x"}
    foreign = {"origin": "https://evil.example"}
    assert client.post("/gradio_api/queue/join", json=join, headers=foreign).status_code == 403
    crossing = {"sec-fetch-site": "cross-site"}
    assert client.post("/gradio_api/queue/join", json=join, headers=crossing).status_code == 403
    for host in ("127.0.0.1", "localhost"):
        reply = client.get("/config", headers={**foreign, "host": host})
        assert "access-control-allow-origin" not in reply.headers


def test_big_body_is_refused(client: httpx2.Client) -> None:
    huge = {"data": ["x" * 100_000], "fn_index": 0, "session_hash": "x"}
    assert client.post("/gradio_api/queue/join", json=huge).status_code == 413


def test_wrong_calls_are_no_server_errors(client: httpx2.Client) -> None:
    for body in (
        {"data": [], "fn_index": 999, "session_hash": "x"},
        {"data": ["too", "many"], "fn_index": 0, "session_hash": "x"},
        {},
        [],
    ):
        reply = client.post("/gradio_api/queue/join", json=body)
        assert reply.status_code < 500, reply.text


def test_health_tells_of_servers_but_not_of_models(client: httpx2.Client) -> None:
    assert client.get("/healthz").json() == {
        "status": "ok",
        "battles_running": 0,
        "servers_up": 1,
        "servers": 1,
    }


@pytest.mark.slow
def test_too_many_requests_of_one_voter_are_turned_away(tmp_path: Path) -> None:
    limits = PageLimits(requests_per_minute=5)
    with PageServer(tmp_path, "http://127.0.0.1:9", limits=limits) as page:
        with httpx2.Client(base_url=page.url, trust_env=False, timeout=60) as voter:
            voter.get("/")
            join = {"data": [], "fn_index": 0, "session_hash": "abc"}
            replies = [voter.post("/gradio_api/queue/join", json=join) for _ in range(5)]
            assert 429 not in [reply.status_code for reply in replies]
            for _ in range(30):  # a slow machine lets in one more every 12 seconds
                reply = voter.post("/gradio_api/queue/join", json=join)
                if reply.status_code == 429:
                    break
            assert reply.status_code == 429
            assert reply.headers["retry-after"] == "10"
            assert "Too many requests" in json.loads(reply.text)["error"]
            assert voter.get("/config").status_code == 200, "reading is not counted"
        with httpx2.Client(base_url=page.url, trust_env=False, timeout=60) as other:
            other.get("/")
            assert other.post("/gradio_api/queue/join", json=join).status_code != 429


def test_limiter_forgets_the_oldest_and_refills() -> None:
    now = [0.0]
    # A clock of its own: `time.monotonic` is also the clock of the page's event loop.
    limiter = RateLimiter(2, 60.0, max_keys=2, clock=lambda: now[0])
    assert [limiter.allow("a") for _ in range(3)] == [True, True, False]
    now[0] = 30.0
    assert [limiter.allow("a") for _ in range(2)] == [True, False]
    limiter.allow("b")
    limiter.allow("c")
    assert limiter.allow("a"), "a was the oldest of three and has a new bucket"


def test_hosts_are_ours_only_while_only_we_can_reach_it() -> None:
    assert "*" not in trusted_hosts("127.0.0.1", ())
    assert "*" not in trusted_hosts("0.0.0.0", ())
    assert "*" not in trusted_hosts("0.0.0.0", ("arena.example",))
    assert "arena.example" in trusted_hosts("127.0.0.1", ("arena.example",))
