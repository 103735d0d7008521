"""The leaderboard's tab in Chromium: which votes count, who beats whom, and over time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from axe_playwright_python.sync_playwright import Axe
from fault_server import FaultServer, Script
from page_server import PageServer
from store_fixtures import BASE, LORA, Hand, votes_of

from arena.values.vote import Judgement, Winner

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture(scope="module")
def arena(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageServer]:
    with (
        FaultServer({"one": Script(), "two": Script()}) as server,
        PageServer(tmp_path_factory.mktemp("home"), server.url) as running,
    ):
        yield running


def test_the_tab_counts_the_votes_asked_for(browser: Browser, arena: PageServer) -> None:
    hand = Hand(arena.store)
    for i in range(12):
        hand.vote(Winner.MODEL_B if i % 3 else Winner.MODEL_A, prompt=f"p{i}", tags=["sums"])
    judgement = Judgement(Winner.MODEL_B, reasons=("correct",))
    praised = hand.vote(participants=[BASE, LORA], judgement=judgement)
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.set_default_timeout(90_000)
    page.goto(arena.url)
    page.wait_for_selector("#prompt textarea")
    page.get_by_role("tab").nth(1).click()
    page.wait_for_selector("#leaderboard .notes li:has-text('Votes: 13.')")
    cell = page.locator("#leaderboard .matrix td.won")
    assert cell.inner_text() == "9 : 4 69 %"
    assert "rgb" in cell.evaluate("cell => getComputedStyle(cell).backgroundColor")
    hand.vote(Winner.TIE, prompt="later")
    page.click("#refresh")
    page.wait_for_selector("#leaderboard .notes li:has-text('Votes: 14.')")
    page.fill("#board-tag :is(input, textarea)", "sums")
    page.press("#board-tag :is(input, textarea)", "Enter")
    page.wait_for_selector("#leaderboard .notes li:has-text('Votes: 12.')")
    page.click("#draw-over-time")
    page.wait_for_selector("#over-time figure[aria-label] svg")
    found = Axe().run(page, options={"runOnly": ["wcag2a", "wcag2aa"]}).response["violations"]
    assert [item["id"] for item in found if item["impact"] in ("serious", "critical")] == []
    page.fill("#board-tag :is(input, textarea)", "")
    page.click("#board-reason input")
    page.get_by_role("option", name="correct", exact=True).click()
    page.wait_for_selector("#leaderboard .notes li:has-text('Votes: 1.')")
    page.fill("#board-since :is(input, textarea)", "soon")
    page.press("#board-since :is(input, textarea)", "Enter")
    page.wait_for_selector("#leaderboard :text('“soon” is not a date')")
    page.fill("#board-since :is(input, textarea)", "2999-01-01")
    page.press("#board-since :is(input, textarea)", "Enter")
    page.wait_for_selector("#leaderboard .nothing")
    page.fill("#board-since :is(input, textarea)", "2020-01-01")
    page.check("#board-style input")
    page.wait_for_selector("#leaderboard th:has-text('Without style control')")
    page.wait_for_selector("#leaderboard .notes li:has-text('Length: ')")
    page.uncheck("#board-style input")
    page.fill("#board-since :is(input, textarea)", "")
    hand.store.flag_vote(votes_of(hand.store, praised)[0].id, "rate", "too many")
    page.click("#refresh")
    page.wait_for_selector("#leaderboard .notes li:has-text('Not counted: 1 judged pairs in q')")
    page.uncheck("#board-without-flagged input")
    page.wait_for_selector("#leaderboard .notes li:text-matches('^Counted: 1 judged')")
    context.close()
