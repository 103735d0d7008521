"""Answers made to hold the page: it goes on answering others, and shows each as it was written."""

from __future__ import annotations

import html
import re
import threading
import time
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fault_server import FaultServer, Script
from page_server import PageServer

pytestmark = pytest.mark.slow

HOSTILE = {
    "a string that never ends": '```chapel\n"' + "\\" * 260 + "\n```",
    "images that never end": "![" * 15_000,
    "words that all differ": " ".join(f"w{i}" for i in range(1_500)),
}
MOST_SECONDS = 10.0
"""Of one look at the page; held by the first of these texts it was deaf for more than 60."""


@pytest.mark.parametrize("kind", HOSTILE)
def test_page_hears_others_while_a_hostile_answer_is_drawn(tmp_path: Path, kind: str) -> None:
    text = HOSTILE[kind]
    other = text if kind != "words that all differ" else text.replace("w", "v")
    scripts = {"one": Script(words=(text,)), "two": Script(words=(other,))}
    with FaultServer(scripts) as server, PageServer(tmp_path, server.url) as page:
        slowest, over = [0.0], threading.Event()
        watcher = threading.Thread(target=_watch, args=(page.url, over, slowest))
        watcher.start()
        with httpx2.Client(base_url=page.url, trust_env=False, timeout=120) as client:
            headers = {"accept": "text/event-stream"}
            body = {"prompt": "Say it.", "mode": "blind"}
            with client.stream("POST", "/live/send", json=body, headers=headers) as reply:
                told = "".join(reply.iter_lines())
            link = re.search(r'"link":"([^"]*)"', told)
            assert link is not None
            marked = client.post("/live/marked", json={"link": link[1]}).json()
        over.set()
        watcher.join()
    assert slowest[0] < MOST_SECONDS
    for shown in _panes(marked["changes"]):
        words = html.unescape(re.sub(r"<[^>]*>", "", shown))
        assert text[:200] in words or other[:200] in words
        source = re.search(r'data-text="([^"]*)"', shown)
        assert source is not None
        assert html.unescape(source[1]) in (text, other), "the copy is right"


def _panes(changes: dict[str, Any]) -> list[str]:
    found = [str(c["value"]) for c in changes.values() if isinstance(c, dict) and "value" in c]
    panes = [value for value in found if "pane-body" in value]
    assert len(panes) == 2
    return panes


def _watch(url: str, over: threading.Event, slowest: list[float]) -> None:
    """Ask for the page's health until it is over; keep the longest wait in seconds."""
    with httpx2.Client(base_url=url, trust_env=False, timeout=120) as client:
        while not over.wait(0.05):
            began = time.monotonic()
            assert client.get("/healthz").status_code == 200
            slowest[0] = max(slowest[0], time.monotonic() - began)
