"""No press is lost in silence, in Chromium: over a network that holds, and a stopped server.

The browser's clock is put forward where the page waits; the page and its server are real.
"""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from fault_server import FaultServer, Script
from page_server import PageServer
from pages import CAN_VOTE, battle_of
from running import arena_ui
from store_fixtures import votes_of

from arena.i18n import languages, words
from arena.page.theme import head
from arena.storage.store import Store
from arena.values.vote import Winner

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Request, Route

pytestmark = [pytest.mark.browser, pytest.mark.slow]

SAY = words("en")
STARTING = "#send, #new-battle, #next-in-set, #examples button, #votes button"
BAD = ".status-line.bad:has-text('{}')"


class Held:
    """A network that keeps the first requests for an address until it is told to go on."""

    def __init__(self, page: Page, pattern: str, most: int = 1000) -> None:
        self._left = most
        self.routes: list[Route] = []
        page.route(pattern, self._hold)

    def _hold(self, route: Route) -> None:
        if self._left > 0:
            self._left -= 1
            self.routes.append(route)
        else:
            route.continue_()

    def go_on(self) -> None:
        """Let all of it through."""
        self._left = 0
        for route in self.routes:
            route.continue_()


def later(page: Page) -> None:
    """The page has waited longer than it does without a word."""
    page.clock.fast_forward(9_000)


def test_page_can_be_pressed_once_it_is_heard(browser: Browser, tmp_path: Path) -> None:
    context = browser.new_context(locale="zh-TW")
    page = context.new_page()
    page.set_default_timeout(90_000)
    page.clock.install()
    say = words("zh-Hant")
    with (
        FaultServer({"one": Script(), "two": Script()}) as server,
        PageServer(tmp_path, server.url) as arena,
    ):
        network = Held(page, "**/gradio_api/queue/**")
        page.goto(arena.url)
        page.wait_for_selector("#send")
        assert page.locator(STARTING).count() > 3
        assert page.locator(f":is({STARTING}):not([disabled])").count() == 0
        page.fill("#prompt textarea", "Name a fruit.")
        page.keyboard.press("Enter")
        later(page)
        page.wait_for_selector(f".place-note:has-text('{say('status.unheard')}')")
        network.go_on()
        page.wait_for_selector("#send:not([disabled])")
        page.wait_for_selector(".place-note", state="detached")
        assert page.locator(".pane").count() == 0, "what was told to be in vain does not come late"
        assert page.locator(":is(#examples button):visible:not([disabled])").count() >= 3
        page.click("#send")
        page.wait_for_selector(CAN_VOTE)
        assert page.inner_text("#vote-a") == say("vote.a")
        page.reload()
        page.wait_for_selector(CAN_VOTE)
        assert page.inner_text("#vote-a") == say("vote.a"), "also where a battle is restored"
    context.close()


def test_page_without_an_answer_says_so_in_each_language() -> None:
    made = head("", 1)
    for language in languages():
        assert words(language)("status.unheard") in made
    assert len({words(language)("status.unheard") for language in languages()}) == len(languages())


def test_each_act_without_an_answer_says_so_and_can_be_repeated(page: Page, tmp_path: Path) -> None:
    page.clock.install()
    with (
        FaultServer({"one": Script(), "two": Script()}) as server,
        PageServer(tmp_path, server.url) as arena,
    ):
        page.goto(arena.url)
        page.wait_for_selector(".status-line:has-text('ready')")
        no_answer = BAD.format(SAY("status.no_answer"))

        def twice(act: str, button: str) -> Held:
            """Press in vain, hear of it, press again."""
            network = Held(page, f"**/live/{act}", most=1)
            with page.expect_request(f"**/live/{act}"):
                page.click(button)
            assert page.locator(no_answer).count() == 0
            later(page)
            page.wait_for_selector(no_answer)
            page.click(button)
            return network

        page.fill("#prompt textarea", "Name a fruit.")
        sent = twice("send", "#send")
        page.wait_for_selector(CAN_VOTE)
        first = battle_of(page)
        sent.go_on()  # what was asked first comes too late to be shown
        voted = twice("vote", "#vote-b")
        page.wait_for_selector("#reveal .reveal-card")
        with page.expect_response("**/live/vote"):
            voted.go_on()
        assert battle_of(page) == first
        (vote,) = votes_of(arena.store, first)
        assert vote.judgement.winner is Winner.MODEL_B
        twice("undo", "#undo").go_on()
        page.wait_for_selector(CAN_VOTE)
        twice("leave", "#new-battle").go_on()
        page.wait_for_selector("#empty h2")
        assert votes_of(arena.store, first) == []


def test_late_answer_is_taken_where_nothing_was_asked_since(page: Page, tmp_path: Path) -> None:
    """A vote and a prompt whose answer comes after it was said that there is none."""
    page.clock.install()
    with (
        FaultServer({"one": Script(), "two": Script()}) as server,
        PageServer(tmp_path, server.url) as arena,
    ):
        page.goto(arena.url)
        page.wait_for_selector(".status-line:has-text('ready')")
        page.fill("#prompt textarea", "Name a fruit.")
        for act, button, seen in (
            ("send", "#send", CAN_VOTE),
            ("vote", "#vote-tie", "#reveal .reveal-card"),
        ):
            network = Held(page, f"**/live/{act}")
            with page.expect_request(f"**/live/{act}"):
                page.click(button)
            page.click("#new-battle")
            page.wait_for_selector(BAD.format(SAY("status.one_by_one")))
            later(page)
            page.wait_for_selector(BAD.format(SAY("status.no_answer")))
            network.go_on()
            page.wait_for_selector(seen)
        assert len(votes_of(arena.store, battle_of(page))) == 1


def test_lost_network_is_told_at_once(page: Page, tmp_path: Path) -> None:
    with (
        FaultServer({"one": Script(), "two": Script()}) as server,
        PageServer(tmp_path, server.url) as arena,
    ):
        page.goto(arena.url)
        page.wait_for_selector(".status-line:has-text('ready')")
        page.fill("#prompt textarea", "Name a fruit.")
        page.context.set_offline(True)
        page.click("#send")
        page.wait_for_selector(BAD.format(SAY("status.lost")))
        page.context.set_offline(False)
        page.click("#send")
        page.wait_for_selector(CAN_VOTE)
        page.context.set_offline(True)
        page.click("#vote-a")
        page.wait_for_selector(BAD.format(SAY("status.lost")))
        page.context.set_offline(False)
        page.click("#vote-a")
        page.wait_for_selector("#reveal .reveal-card")


def test_tab_whose_press_is_not_heard_says_so(page: Page, tmp_path: Path) -> None:
    """What goes through Gradio's queue: the line is gone with the answer."""
    page.clock.install()
    with FaultServer({"one": Script()}) as server, PageServer(tmp_path, server.url) as arena:
        page.goto(arena.url)
        page.wait_for_selector("#send:not([disabled])")
        network = Held(page, "**/gradio_api/queue/join*")
        with page.expect_request("**/gradio_api/queue/join*"):
            page.get_by_role("tab", name="Leaderboard").click()
        later(page)
        page.wait_for_selector(f".place-note:has-text('{SAY('status.no_answer')}')")
        network.go_on()
        page.wait_for_selector("#leaderboard :visible")
        page.wait_for_selector(".place-note", state="detached")


def test_stopped_server_hears_the_repeated_vote_once(page: Page, tmp_path: Path) -> None:
    page.clock.install()
    asked: list[Request] = []
    with (
        FaultServer({"one": Script(), "two": Script()}) as server,
        arena_ui(tmp_path, server.url) as (url, _, _, process),
    ):
        page.goto(url)
        page.wait_for_selector(".status-line:has-text('ready')")
        page.fill("#prompt textarea", "Name a fruit.")
        page.click("#send")
        page.wait_for_selector(CAN_VOTE)
        process.send_signal(signal.SIGSTOP)
        goes_on = threading.Timer(6, process.send_signal, [signal.SIGCONT])
        try:
            page.on("request", lambda one: asked.append(one) if "/live/vote" in one.url else None)
            for count in (1, 2):
                page.click("#vote-a")
                later(page)
                page.wait_for_selector(BAD.format(SAY("status.no_answer")))
                assert len(asked) == count
            goes_on.start()
            page.click("#vote-a")
            page.wait_for_selector("#reveal .reveal-card")
        finally:
            goes_on.cancel()
            process.send_signal(signal.SIGCONT)
        (vote,) = votes_of(Store(tmp_path / "home" / "arena.db"), battle_of(page))
        assert vote.judgement.winner is Winner.MODEL_A
        page.goto("about:blank")  # its open requests would hold the server's end
