"""The admin's tab and the sign-in in Chromium."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from fault_server import FaultServer, Script
from page_server import PageServer
from pages import CAN_VOTE, battle_of
from store_fixtures import votes_of

from arena.values.vote import Judgement, Winner
from arena.web.authentication import Authenticator
from arena.web.users import FILE, make_user, write_users

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture(scope="module")
def servers() -> Iterator[FaultServer]:
    scripts = {f"hidden-{name}": Script(words=("It is ", name)) for name in ("one", "two", "three")}
    with FaultServer(scripts) as server:
        yield server


def flagged_battle(page: Page, arena: PageServer) -> int:
    """One vote by way of the page, put in quarantine; its number."""
    page.fill("#prompt textarea", "Name a fruit.")
    page.click("#send")
    page.wait_for_selector(CAN_VOTE)
    page.click("#vote-a")
    page.wait_for_selector("#reveal .reveal-card")
    (vote,) = votes_of(arena.store, battle_of(page))
    arena.store.flag_vote(vote.id, "rate", "70 votes <b>within a minute</b>")
    return vote.id


def test_admin_sees_switches_clears_and_exports(
    page: Page, servers: FaultServer, tmp_path: Any
) -> None:
    down = "http://127.0.0.1:9"
    servers.refused = {"half": "lacks its <b>config</b>", "odd": 5}
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    with PageServer(tmp_path, servers.url, down) as arena:
        page.goto(arena.url)
        page.wait_for_selector(".status-line:has-text('is down')")
        assert page.get_by_role("tab").count() == 3, "no voter is shown the admin's tab"
        page.goto(f"{arena.url}/enter?key={Authenticator(tmp_path).key}")
        page.wait_for_selector("#prompt textarea")
        flagged_battle(page, arena)
        page.get_by_role("tab", name="Admin").click()
        page.wait_for_selector("#admin-live table")
        live = page.inner_text("#admin-live")
        for fact in (servers.url, "TGI", "hidden-one (chat)", down, "down: no answer"):
            assert fact in live
        assert "half\tlacks its <b>config</b>" in live
        assert "odd" not in live, "its reason is no text"
        assert "0 of 200 battles are running. Voters in the last 24 hours: 1." in live
        votes = page.inner_text("#admin-votes table")
        assert "hidden-" in votes
        assert re.search(r"20\d\d-\d\d-\d\d", votes), "by day"
        assert "70 votes <b>within a minute</b>" in page.inner_text("#flagged")
        found = axe.Axe().run(page).response["violations"]
        assert [v["id"] for v in found if v["impact"] in ("serious", "critical")] == []

        page.get_by_label("hidden-one").uncheck()
        page.get_by_label("hidden-two").uncheck()
        page.click("#save-switches")
        page.wait_for_selector("#admin-outcome .good:has-text('Saved.')")
        assert arena.service.pool.off == {"hidden-one", "hidden-two"}
        page.get_by_label("hidden-one").check()
        page.click("#save-switches")
        page.wait_for_function("document.querySelectorAll('#switches input:checked').length === 2")
        page.click("#flagged button[data-vote]")
        page.wait_for_selector("#flagged .nothing")
        assert arena.store.flagged_votes() == []
        page.click("#make-dataset")
        page.wait_for_selector("#admin-outcome a.download")
        (folder,) = (path for path in (tmp_path / "exports").iterdir() if path.is_dir())
        assert (folder / "MANIFEST.json").exists()
        page.set_viewport_size({"width": 390, "height": 844})
        assert page.evaluate("document.documentElement.scrollWidth") == 390


def test_voters_sign_in_and_see_no_admin(
    page: Page, browser: Browser, servers: FaultServer, tmp_path: Any
) -> None:
    users = [make_user("ann", "voter", "ann's secret"), make_user("root", "admin", "root's secret")]
    write_users(tmp_path / FILE, {user.name: user for user in users})
    with PageServer(tmp_path, servers.url) as arena:
        page.goto(arena.url)
        page.get_by_label("Name").fill("ann")
        page.get_by_label("Password").fill("a guess")
        page.keyboard.press("Enter")
        page.wait_for_selector(".bad:has-text('wrong')")
        page.get_by_label("Password").fill("ann's secret")
        page.keyboard.press("Enter")
        page.wait_for_selector(".account:has-text('Signed in as ann')")
        assert page.get_by_role("tab").count() == 3
        page.fill("#prompt textarea", "Name a fruit.")
        page.click("#send")
        page.wait_for_selector(CAN_VOTE)
        battle = battle_of(page)
        voter = arena.store.ensure_voter("user:ann")
        arena.store.cast_vote(battle, Judgement(Winner.TIE), voter=voter)
        page.get_by_role("tab", name="Leaderboard").click()
        page.wait_for_selector("#leaderboard table")
        assert page.locator("#export").count() == 0
        page.click(".account button")
        page.get_by_label("Name").wait_for()
        page.get_by_label("Name").fill("root")
        page.get_by_label("Password").fill("root's secret")
        page.keyboard.press("Enter")
        page.get_by_role("tab", name="Admin").wait_for()
