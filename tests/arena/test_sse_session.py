"""A page whose stream of events is closed and opened again receives every result."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import gradio as gr
import httpx2
import pytest
import uvicorn
from fastapi import FastAPI
from starlette.middleware import Middleware

from arena.web.server import bind
from arena.web.sse_session import SseSessionMiddleware


@contextmanager
def slow_page(*middleware: Middleware) -> Iterator[str]:
    """A Gradio page of one event that takes half a second, behind this middleware."""

    async def serve(listener: object) -> None:
        with gr.Blocks(analytics_enabled=False) as demo:
            text = gr.Textbox()

            async def slowly(value: str) -> str:
                await asyncio.sleep(0.5)
                return value.upper()

            text.submit(slowly, text, text)
        demo.queue(default_concurrency_limit=None)
        app = gr.mount_gradio_app(FastAPI(middleware=list(middleware)), demo, path="/")
        config = uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1)
        servers.append(uvicorn.Server(config))
        await servers[0].serve([listener])  # type: ignore[list-item]

    servers: list[uvicorn.Server] = []
    with bind("127.0.0.1", 0) as listener:
        thread = threading.Thread(target=asyncio.run, args=(serve(listener),), daemon=True)
        thread.start()
        limit = time.monotonic() + 30
        while not (servers and servers[0].started):
            assert time.monotonic() < limit
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/gradio_api/queue"
        finally:
            servers[0].should_exit = True
            thread.join(30)
            assert not thread.is_alive()


def join(client: httpx2.Client, url: str, text: str) -> str:
    """Ask for the event; its id."""
    body = {"data": [text], "fn_index": 0, "session_hash": "s", "event_data": None}
    reply = client.post(f"{url}/join", json=body).raise_for_status()
    event: str = reply.json()["event_id"]
    return event


def result(client: httpx2.Client, url: str, event: str, seconds: float) -> str | None:
    """What the session's stream says that the event gave; None if it never says so."""
    limit = time.monotonic() + seconds
    try:
        with client.stream("GET", f"{url}/data", params={"session_hash": "s"}) as reply:
            for line in reply.iter_lines():
                told = json.loads(line.removeprefix("data: ")) if line else {}
                if told.get("event_id") == event and told["msg"] == "process_completed":
                    return str(told["output"]["data"][0])
                if time.monotonic() > limit:
                    break
    except httpx2.ReadTimeout:
        return None
    return None


def come_and_go(client: httpx2.Client, url: str) -> None:
    """Read the stream's first message and close the connection."""
    with client.stream("GET", f"{url}/data", params={"session_hash": "s"}) as reply:
        next(reply.iter_lines())


@pytest.mark.slow
@pytest.mark.parametrize("pause", [0.0, 0.1, 0.7])
def test_result_reaches_the_connection_that_comes_back(pause: float) -> None:
    """Closed while the event runs; opened again before (0.7: after) it ends."""
    with (
        slow_page(Middleware(SseSessionMiddleware)) as url,
        httpx2.Client(trust_env=False, timeout=30) as client,
    ):
        event = join(client, url, "one")
        come_and_go(client, url)
        time.sleep(pause)
        assert result(client, url, event, 30) == "ONE"
        event = join(client, url, "two")
        assert result(client, url, event, 30) == "TWO", "the next stream is a new one"


@pytest.mark.slow
def test_newer_connection_takes_the_stream_over() -> None:
    with (
        slow_page(Middleware(SseSessionMiddleware)) as url,
        httpx2.Client(trust_env=False, timeout=30) as client,
    ):
        event = join(client, url, "one")
        with client.stream("GET", f"{url}/data", params={"session_hash": "s"}) as older:
            lines = older.iter_lines()
            next(lines)
            assert result(client, url, event, 30) == "ONE"
            assert "process_completed" not in "".join(lines), "and the older one ends"


def test_event_of_the_moment_of_closing_is_told_beside_the_one_before() -> None:
    """The page has the first result and closes, while its second event is already there."""
    with (
        slow_page(Middleware(SseSessionMiddleware)) as url,
        httpx2.Client(trust_env=False, timeout=30) as client,
    ):
        first = join(client, url, "one")
        second = ""
        with client.stream("GET", f"{url}/data", params={"session_hash": "s"}) as reply:
            for line in reply.iter_lines():
                if not second:
                    second = join(client, url, "two")
                if first in line and "process_completed" in line:
                    break
        assert result(client, url, second, 30) == "TWO"


@pytest.mark.slow
def test_event_asked_for_as_another_ends_is_told_by_the_same_stream() -> None:
    """A page that has a stream opens no other, so it must not be told to close this one."""
    with (
        slow_page(Middleware(SseSessionMiddleware, linger=30)) as url,
        httpx2.Client(trust_env=False, timeout=60) as client,
    ):
        asked, told = [join(client, url, "one")], []
        with client.stream("GET", f"{url}/data", params={"session_hash": "s"}) as reply:
            for line in reply.iter_lines():
                message = json.loads(line.removeprefix("data: ")) if line else {"msg": ""}
                assert message["msg"] != "close_stream"
                if message["msg"] == "process_completed":
                    told.append(message["output"]["data"][0])
                    if len(asked) == 3:
                        break
                    time.sleep(0.2 * len(asked))  # the application has ended its reply
                    asked.append(join(client, url, "two"))
        assert told == ["ONE", "TWO", "TWO"]


@pytest.mark.slow
def test_who_asks_as_the_stream_is_closed_is_answered_after_it() -> None:
    """Else the page may hear first that its event is under way, and then close its stream."""
    with (
        slow_page(Middleware(SseSessionMiddleware, linger=0.2, settle=3.0)) as url,
        httpx2.Client(trust_env=False, timeout=60) as client,
    ):
        first = join(client, url, "one")
        with client.stream("GET", f"{url}/data", params={"session_hash": "s"}) as reply:
            lines = [line for line in reply.iter_lines() if line]
        assert first in lines[-2]
        assert '"close_stream"' in lines[-1]
        began = time.monotonic()
        second = join(client, url, "two")
        assert time.monotonic() - began > 1
        assert result(client, url, second, 30) == "TWO"


def test_page_that_stays_away_is_forgotten() -> None:
    with (
        slow_page(Middleware(SseSessionMiddleware, grace=0.1)) as url,
        httpx2.Client(trust_env=False, timeout=30) as client,
    ):
        join(client, url, "one")
        come_and_go(client, url)
        time.sleep(0.3)
        with client.stream("GET", f"{url}/data", params={"session_hash": "s"}) as reply:
            assert '"session_not_found":true' in next(reply.iter_lines())
