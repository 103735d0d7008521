"""Everything by the keyboard, in reading order; and as many sides as there can be; in Chromium."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from fault_server import FaultServer, Script
from page_server import PageServer
from pages import CAN_VOTE, battle_of, wait_for_names
from store_fixtures import votes_of

from arena.values.vote import Winner

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.browser, pytest.mark.slow]

EIGHT = tuple(f"model-{letter}" for letter in "abcdefgh")
# Scripts of other people press these; they keep their names.
IDS = (
    *("prompt", "send", "stop", "vote-a", "vote-b", "vote-tie", "vote-both-bad", "vote-skip"),
    *("reveal", "new-battle", "status", *(f"answer-{letter}" for letter in "abcdefgh")),
)
# Notes every element that gets the focus, from the first of the page on.
LISTEN = """() => {
  window.reached = [];
  document.addEventListener('focusin', (event) => window.reached.push(event.target));
  document.querySelector('.skip-link').focus();
}"""
# What can be used but was not reached, and which steps went backwards.
JUDGE = """() => {
  const told = (node) => `${node.tagName} ${node.id || node.closest('[id]').id} ${node.innerText}`;
  const wanted = 'button, input, textarea, select, summary, a[href], [tabindex="0"]';
  const usable = [...document.querySelectorAll('#arena :is(' + wanted + ')')].filter(
    (node) => node.checkVisibility({visibilityProperty: true}) && !node.disabled
      && node.tabIndex >= 0 && !node.closest('dialog:not([open])'));
  const reached = window.reached.filter((node) => node.closest('#arena'));
  const back = reached.filter((node, i) => i > 0
    && reached[i - 1].compareDocumentPosition(node) & Node.DOCUMENT_POSITION_PRECEDING);
  const missed = usable.filter((node) => !reached.includes(node)
    && !reached.some((one) => one.type === 'radio' && one.name && one.name === node.name));
  return {missed: missed.map(told), back: back.map(told), count: reached.length};
}"""

# Where the panes stand, and how many pairs of them cover each other.
PLACES = """(() => {
  const panes = [...document.querySelectorAll("#panes .pane")];
  const boxes = panes.map((node) => node.getBoundingClientRect());
  const covers = (a, b) => a !== b && a.left < b.right && b.left < a.right
    && a.top < b.bottom && b.top < a.bottom;
  return {
    columns: new Set(boxes.map((box) => Math.round(box.left))).size,
    rows: new Set(boxes.map((box) => Math.round(box.top))).size,
    overlaps: boxes.filter((a) => boxes.some((b) => covers(a, b))).length,
  };
})()"""


@pytest.fixture(scope="module")
def arena(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageServer]:
    scripts = {name: Script() for name in EIGHT}
    scripts |= {f"slow-{letter}": Script(("w ",) * 2000, delay=0.1) for letter in "ab"}
    with (
        FaultServer(scripts) as server,
        PageServer(tmp_path_factory.mktemp("home"), server.url) as running,
    ):
        yield running


@pytest.fixture
def visit(browser: Browser, arena: PageServer) -> Iterator[Any]:
    """Opens the page on participants by name; contexts are closed at the end."""
    opened = []

    def visit(*names: str, **options: Any) -> Page:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        opened.append(context)
        page = context.new_page()
        page.set_default_timeout(90_000)
        page.goto(f"{arena.url}/?models={','.join(names)}")
        wait_for_names(page, len(names))
        return page

    yield visit
    for context in opened:
        context.close()


def test_a_battle_is_begun_stopped_judged_and_judged_anew_by_keys(
    visit: Any, arena: PageServer
) -> None:
    page: Page = visit("slow-a", "slow-b")
    page.keyboard.press("Escape")
    page.keyboard.press("/")
    page.keyboard.type("Count.")
    page.keyboard.press("Enter")
    for side in "ab":
        page.wait_for_selector(f"#answer-{side} .is-streaming .answer:has-text('w w')")
    page.keyboard.press("Escape")  # leaves the prompt
    assert page.locator(".pane.is-streaming").count() == 2
    page.keyboard.press("Escape")
    page.wait_for_selector(CAN_VOTE)
    assert page.locator(".pane.is-stopped").count() == 2
    page.keyboard.press("?")
    shown = page.locator("dialog#help[open] kbd").all_inner_texts()
    assert shown == ["/", "Enter", "1", "2", "3", "4", "s", "u", "r", "n", "Esc", "?"]
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog#help[open]", state="detached")
    page.keyboard.press("3")
    page.wait_for_selector("#reveal .reveal-card")
    page.wait_for_selector("#vote-tie[disabled]")
    battle = battle_of(page)
    (tie,) = votes_of(arena.store, battle)
    page.keyboard.press("u")
    page.wait_for_selector(CAN_VOTE)
    assert votes_of(arena.store, battle) == []
    page.keyboard.press("2")
    page.wait_for_selector(".status-line.good")
    (won,) = votes_of(arena.store, battle)
    assert (tie.judgement.winner, won.judgement.winner) == (Winner.TIE, Winner.MODEL_B)
    page.keyboard.press("n")
    page.wait_for_selector("#empty h2")


def test_tab_reaches_everything_in_reading_order(visit: Any) -> None:
    page: Page = visit("model-a", "model-b")
    page.fill("#prompt textarea", "Say something.")
    page.click("#send")
    page.wait_for_selector(CAN_VOTE)
    for side in "ab":  # for a moment after the end it takes no press
        page.wait_for_selector(f"#answer-{side} [data-act=again]:not([disabled])")
    reached_all(page, at_least=20)
    page.keyboard.press("Escape")
    page.keyboard.press("1")
    page.wait_for_selector("#reveal .reveal-card")
    page.focus("#details button")
    page.keyboard.press("Enter")
    page.wait_for_selector("#edited textarea")
    reached_all(page, at_least=35)


def reached_all(page: Page, at_least: int) -> None:
    """Step through the page by Tab: nothing usable is left out, nothing comes out of its place."""
    page.evaluate(LISTEN)
    for _ in range(100):
        page.keyboard.press("Tab")
        if not page.evaluate("document.activeElement.closest('#arena')"):
            break
    else:
        raise AssertionError("the focus never leaves the page's middle")
    found = page.evaluate(JUDGE)
    assert (found["missed"], found["back"]) == ([], [])
    assert found["count"] >= at_least


def test_eight_models_answer_and_are_ranked_on_a_phone_and_beside_each_other(
    visit: Any, arena: PageServer
) -> None:
    page: Page = visit(*EIGHT, viewport={"width": 390, "height": 844})
    page.fill("#prompt textarea", "Say something.")
    page.click("#send")
    page.wait_for_selector(CAN_VOTE)
    assert page.locator(".pane.is-done").count() == 8
    names = [page.inner_text(f"#answer-{letter} .pane-name") for letter in "abcdefgh"]
    assert tuple(names) == EIGHT
    # Two answers have buttons of their own; more are ranked, and theirs are taken out.
    page.wait_for_selector("#vote-b", state="detached")
    missing = [name for name in IDS if page.locator(f"#{name}").count() != 1]
    assert missing == ["vote-a", "vote-b"]
    ranks = (1, 2, 2, 3, 4, 5, 6, 7)
    for letter, rank in zip("abcdefgh", ranks, strict=True):
        page.click(f"#rank-{letter} input")
        page.get_by_role("option", name=str(rank), exact=True).click()
        page.wait_for_selector("[role=option]", state="detached")  # the list fades out
    page.click("#save-ranking")
    page.wait_for_selector(".status-line.good")
    (vote,) = votes_of(arena.store, battle_of(page))
    assert vote.judgement.ranking == ranks
    width = "[document.documentElement.scrollWidth, window.innerWidth]"
    assert page.evaluate(width) == [390, 390]
    for tab, filled in ((1, "#leaderboard :is(table, .nothing)"), (2, "#history li")):
        page.get_by_role("tab").nth(tab).click()
        page.wait_for_selector(filled)
        assert page.evaluate(width) == [390, 390]
    # Datasets hold what everybody wrote: only admins are given the button.
    assert [page.locator(f"#{name}").count() for name in ("leaderboard", "export")] == [1, 0]
    page.get_by_role("tab").nth(0).click()
    page.set_viewport_size({"width": 1440, "height": 900})
    page.wait_for_function(f"{PLACES}.columns === 3")
    assert page.evaluate(PLACES) == {"columns": 3, "rows": 3, "overlaps": 0}
    assert page.evaluate(width) == [1440, 1440]
