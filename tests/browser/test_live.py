"""Answers while they are written, in Chromium: a reload keeps them, a late press spares them."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from fault_server import FaultServer, Script
from page_server import PageServer
from pages import CAN_VOTE, battle_of, link_of, wait_for_names

from arena.battles.running import GRACE_SECONDS

if TYPE_CHECKING:
    from playwright.sync_api import Page, Route

pytestmark = [pytest.mark.browser, pytest.mark.slow]

WORDS = tuple(f"word{i} " for i in range(80))
# Presses a button where it stands at that moment, then holds the mouse until the pane has changed.
HELD = """() => {
    const button = document.querySelector('#answer-a [data-act=stop]');
    const box = button.getBoundingClientRect();
    return [box.x + box.width / 2, box.y + box.height / 2];
}"""


def ask(page: Page, arena: PageServer) -> None:
    """Send a prompt to two models by name."""
    page.goto(f"{arena.url}/?models=one,two")
    wait_for_names(page)
    page.fill("#prompt textarea", "Count.")
    page.click("#send")


def held(hold: threading.Event) -> Script:
    """Writes its first ten words, and the others when it may."""
    return Script(words=WORDS, delay=0.02, after=10, hold=hold)


def test_reload_while_they_write_keeps_the_answers(page: Page, tmp_path: Path) -> None:
    may_end = threading.Event()
    with (
        FaultServer({"one": held(may_end), "two": held(may_end)}) as server,
        PageServer(tmp_path, server.url) as arena,
    ):
        ask(page, arena)
        page.wait_for_selector("#answer-b .answer:has-text('word3 ')")
        link_of(page)
        page.route("**/live/*", arrive_late)
        page.reload()
        page.wait_for_selector("#answer-a .is-streaming .answer:has-text('word9 ')")
        assert server.open_streams == 2
        may_end.set()
        page.wait_for_selector(CAN_VOTE)
        assert page.locator(".pane.is-done").count() == 2
        whole = "".join(WORDS).strip()
        assert [page.inner_text(f"#answer-{x} .answer").strip() for x in "ab"] == [whole] * 2
        assert len(server.requests) == 2, "nothing was asked twice"
        assert arena.service.num_running == 0


def arrive_late(route: Route) -> None:
    """What the page asks for comes after longer than a closed page is waited for."""
    time.sleep(3 * GRACE_SECONDS)
    route.continue_()


def test_what_is_selected_stays_selected_while_more_is_written(page: Page, tmp_path: Path) -> None:
    words = ("First paragraph.\n\n", *WORDS)
    script = Script(words=words, delay=0.1)
    with (
        FaultServer({"one": script, "two": script}) as server,
        PageServer(tmp_path, server.url) as arena,
    ):
        ask(page, arena)
        page.wait_for_selector("#answer-a .answer p >> nth=1")
        page.locator("#answer-a .answer p >> nth=0").select_text()
        page.wait_for_selector("#answer-a .answer:has-text('word30 ')")
        assert page.evaluate("getSelection().toString()").strip() == "First paragraph."
        page.keyboard.press("Escape")
        page.wait_for_selector(CAN_VOTE)


def test_press_on_stop_as_the_answer_ends_does_not_ask_again(page: Page, tmp_path: Path) -> None:
    may_end = threading.Event()
    with (
        FaultServer({"one": held(may_end), "two": Script()}) as server,
        PageServer(tmp_path, server.url) as arena,
    ):
        ask(page, arena)
        page.wait_for_selector("#answer-a .is-streaming")
        page.mouse.move(*page.evaluate(HELD))
        page.mouse.down()
        may_end.set()
        page.wait_for_selector("#answer-a .is-done")
        page.wait_for_selector("#answer-a [data-act=again]")
        page.mouse.up()
        page.mouse.down()  # and once more, at once
        page.mouse.up()
        page.wait_for_selector(CAN_VOTE)
        page.wait_for_selector("#answer-a [data-act=again]:not([disabled])")
        assert len(server.requests) == 2
        may_end.clear()
        page.click("#answer-a [data-act=again]")
        page.wait_for_selector("#answer-a .is-streaming")
        may_end.set()
        page.wait_for_selector(CAN_VOTE)
        assert len(server.requests) == 3


def test_skip_while_they_write_ends_the_answers(page: Page, tmp_path: Path) -> None:
    never = threading.Event()
    with (
        FaultServer({"one": held(never), "two": held(never)}) as server,
        PageServer(tmp_path, server.url) as arena,
    ):
        page.goto(arena.url)
        page.wait_for_selector(".status-line:has-text('ready')")
        page.fill("#prompt textarea", "Count.")
        page.click("#send")
        page.click("#vote-skip:not([disabled])")
        page.wait_for_selector(".status-line:has-text('Skipped.')")
        page.wait_for_selector("#reveal .reveal-card")
        server.wait_for_streams(0)
        assert battle_of(page)
        assert arena.store.counts()["skips"] == 1
        page.wait_for_timeout(500)
        assert "Skipped." in page.inner_text(".status-line >> nth=0")
