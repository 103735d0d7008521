"""Judging a prompt set in Chromium: by keys alone, with progress, going on after a reload."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from fault_server import FaultServer, Script
from page_server import PageServer
from pages import CAN_VOTE, battle_of, wait_for_names, wait_for_prompt
from store_fixtures import votes_of

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture(scope="module")
def arena(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageServer]:
    home = tmp_path_factory.mktemp("home")
    (home / "sets").mkdir()
    (home / "sets" / "fruit and tools.txt").write_text("Name a fruit.\nName a tool.\n")
    scripts = {"hidden-one": Script(), "hidden-two": Script()}
    with FaultServer(scripts) as server, PageServer(home, server.url) as running:
        yield running


def test_set_is_judged_by_keys_and_gone_on_with(page: Page, arena: PageServer) -> None:
    page.goto(arena.url)
    page.get_by_label("Judge a set").check()
    page.wait_for_selector("#set-progress progress[max='2']")
    page.wait_for_function(
        "document.querySelector('#prompt-set input').value === 'fruit and tools'"
    )
    page.wait_for_selector("#prompt textarea", state="detached")  # the prompts come from the set
    page.locator("#next-in-set").focus()
    page.keyboard.press("n")
    page.wait_for_selector(".asked-text:has-text('Name a fruit.')")
    page.wait_for_selector(CAN_VOTE)
    assert "hidden-" not in page.content()
    page.keyboard.press("1")
    page.wait_for_selector("#set-progress progress[value='1']")
    page.wait_for_selector("#reveal .reveal-card")
    first = battle_of(page)
    page.keyboard.press("n")
    page.wait_for_selector(".asked-text:has-text('Name a tool.')")
    page.wait_for_selector(CAN_VOTE)
    second = battle_of(page, first)
    assert len(votes_of(arena.store, first)) == 1
    assert votes_of(arena.store, first)[0].blind

    page.goto(f"{arena.url}?set=fruit and tools")
    page.wait_for_selector("#set-progress progress[value='1']")
    page.click("#next-in-set")
    page.wait_for_selector(".asked-text:has-text('Name a tool.')")
    page.wait_for_selector(CAN_VOTE)
    assert battle_of(page) == second, "the battle left open comes back"
    page.keyboard.press("s")
    page.wait_for_selector(".status-line:has-text('Press s again to skip')")
    page.keyboard.press("s")
    page.wait_for_selector("#set-progress :text('(1 skipped)')")
    page.keyboard.press("n")
    page.wait_for_selector(
        ".status-line.good:has-text('You have judged all 2 prompts in this set')"
    )
    page.wait_for_selector("#set-progress progress[value='2'][max='2']")
    page.get_by_label("Blind battle").check()
    page.wait_for_selector("#prompt textarea")
    page.wait_for_selector("#next-in-set", state="detached")


def test_link_presets_participants_and_prompt(page: Page, arena: PageServer) -> None:
    page.goto(f"{arena.url}?models=hidden-two,hidden-one&prompt=What+is+this%3F")
    wait_for_names(page)
    wait_for_prompt(page, "What is this?")
    page.click("#send")
    page.wait_for_selector(CAN_VOTE)
    assert page.inner_text("#answer-a .pane-name") == "hidden-two"
    assert page.inner_text("#answer-b .pane-name") == "hidden-one"
