"""Battles outlive the page: another device, a restart, a new battle begun; and the history."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from fault_server import FaultServer, Script
from page_server import PageServer
from pages import CAN_VOTE, battle_of
from store_fixtures import votes_of

from arena.values.vote import Winner

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.browser, pytest.mark.slow]

SLOW = Script(words=("w ",) * 40, delay=0.1)


def send(page: Page, prompt: str) -> None:
    page.wait_for_selector(".status-line:has-text('ready')")
    page.fill("#prompt textarea", prompt)
    page.click("#send")


def test_battle_is_judged_on_another_device_after_a_restart(
    page: Page, browser: Browser, tmp_path: Path
) -> None:
    with FaultServer({"plain-one": Script(), "plain-two": Script()}) as server:
        with PageServer(tmp_path, server.url) as arena:
            page.goto(arena.url)
            send(page, "Name a fruit.")
            page.wait_for_selector(CAN_VOTE)
            answer = page.inner_text("#answer-a .answer")
            battle_of(page)  # the address has it
            link = page.url.removeprefix(arena.url)
        with PageServer(tmp_path, server.url) as arena:
            context = browser.new_context()
            device = context.new_page()
            device.set_default_timeout(90_000)
            device.goto(arena.url + link.removeprefix("/"))
            device.wait_for_selector(CAN_VOTE)
            assert device.inner_text("#answer-a .answer") == answer
            device.click("#vote-b")
            device.wait_for_selector("#reveal .reveal-card")
            (vote,) = votes_of(arena.store, battle_of(device))
            assert (vote.judgement.winner, vote.blind) == (Winner.MODEL_B, True)
            device.goto(arena.url + re.sub(r"&t=.*", "", link).removeprefix("/"))
            device.wait_for_selector(".status-line.bad:has-text('not yours')")
            context.close()


@pytest.mark.parametrize(("first", "second"), [("a", "b"), ("b", "tie"), ("a", "skip")])
def test_stale_tab_shows_the_vote_of_the_other_and_the_way_back(
    browser: Browser, tmp_path: Path, first: str, second: str
) -> None:
    with (
        FaultServer({"plain-one": Script(), "plain-two": Script()}) as server,
        PageServer(tmp_path, server.url) as arena,
    ):
        context = browser.new_context()
        one, two = context.new_page(), context.new_page()
        for tab in (one, two):
            tab.set_default_timeout(90_000)
        one.goto(arena.url)
        send(one, "Name a fruit.")
        one.wait_for_selector(CAN_VOTE)
        battle = battle_of(one)
        two.goto(one.url)
        two.wait_for_selector(CAN_VOTE)
        one.click(f"#vote-{first}")
        one.wait_for_selector("#reveal .reveal-card")
        two.click(f"#vote-{second}")
        two.wait_for_selector("#reveal .reveal-card")
        two.wait_for_selector("#undo:visible")
        (vote,) = votes_of(arena.store, battle)
        assert vote.judgement.winner == {"a": Winner.MODEL_A, "b": Winner.MODEL_B}[first]
        two.click("#undo")
        two.wait_for_selector(CAN_VOTE)
        assert votes_of(arena.store, battle) == []
        context.close()


def test_page_that_is_open_while_the_program_restarts_still_votes(
    page: Page, tmp_path: Path
) -> None:
    with FaultServer({"plain-one": Script(), "plain-two": Script()}) as server:
        with PageServer(tmp_path, server.url) as arena:
            page.goto(arena.url)
            send(page, "Name a fruit.")
            page.wait_for_selector(CAN_VOTE)
        with PageServer(tmp_path, server.url, port=arena.config.port) as arena:
            page.click("#vote-a")
            page.wait_for_selector("#reveal .reveal-card")
            (vote,) = votes_of(arena.store, battle_of(page))
            assert (vote.judgement.winner, vote.blind) == (Winner.MODEL_A, True)
            page.goto("about:blank")  # its open requests would hold the server's end


def test_new_battle_lets_the_unfinished_one_be_written_to_its_end(
    page: Page, tmp_path: Path
) -> None:
    with (
        FaultServer({"plain-one": SLOW, "plain-two": SLOW}) as server,
        PageServer(tmp_path, server.url) as arena,
    ):
        page.goto(arena.url)
        send(page, "Count on.")
        page.wait_for_selector(".pane.is-streaming")
        left = battle_of(page)
        page.click("#new-battle")
        page.wait_for_selector(".status-line:has-text('saved under My battles')")
        page.wait_for_selector("#empty h2")
        page.wait_for_function("!location.search.includes('battle=')")
        page.wait_for_timeout(5_000)
        assert page.locator("#empty h2").count() == 1, (
            "the old answers do not come back by themselves"
        )
        page.get_by_role("tab", name="My battles").click()
        page.click(f"#history a[href*='{left}']")
        page.wait_for_selector(CAN_VOTE)
        assert page.locator(".pane.is-done").count() == 2, "nothing was cut off"
        send_again = page.locator("#prompt textarea")
        send_again.fill("Another one.")
        page.click("#send")
        page.wait_for_selector(".status-line:has-text('saved under My battles')")
        assert battle_of(page, left) != left


def test_history_is_searched_by_words(page: Page, tmp_path: Path) -> None:
    with (
        FaultServer({"hidden-one": Script(), "hidden-two": Script()}) as server,
        PageServer(tmp_path, server.url) as arena,
    ):
        page.goto(arena.url)
        send(page, "Where is the Eiffel tower?")
        page.wait_for_selector(CAN_VOTE)
        first = battle_of(page)
        page.fill("#prompt textarea", "Name a fruit.")
        page.click("#send")
        page.wait_for_selector(".asked-text:has-text('fruit')")
        page.wait_for_selector(CAN_VOTE)
        page.click("#vote-tie")
        page.wait_for_selector("#reveal .reveal-card")
        page.get_by_role("tab", name="My battles").click()
        page.wait_for_selector("#history li >> nth=1")
        assert "hidden-" in page.inner_text("#history li >> nth=0")
        assert "hidden-" not in page.inner_text("#history li >> nth=1")
        page.fill("#search input, #search textarea", "eiffel paris")
        page.wait_for_function("document.querySelectorAll('#history li').length === 1")
        assert first in (page.get_attribute("#history a", "href") or "")
        page.fill("#search input, #search textarea", '"OR')
        page.wait_for_selector("#history .nothing")
        assert arena.service.num_running == 0
