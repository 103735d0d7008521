"""Long answers in Chromium: formulas, code, tables; ways to look at them; tokens after the vote."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from fault_server import FaultServer, Script
from page_server import PageServer
from pages import CAN_VOTE, link_of, wait_for_names, wait_for_prompt
from store_fixtures import votes_of

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.browser, pytest.mark.slow]

RICH = (
    "# A head\n\nInline $x^2$ and\n\n$$\n\\frac{a}{b}\n$$\n\n",
    "```python\ndef f():\n    return 'x'\n```\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n",
    "The sky is blue.",
    *("\n\nOne more line." for _ in range(60)),
)


@pytest.fixture(scope="module")
def arena(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageServer]:
    other = tuple(word.replace("blue", "grey") for word in RICH)
    scripts = {
        "plain-base": Script(words=RICH, kind="base", chat_template=False),
        "plain-tuned": Script(words=other),
    }
    with (
        FaultServer(scripts) as server,
        PageServer(tmp_path_factory.mktemp("home"), server.url) as running,
    ):
        yield running


@pytest.fixture
def page(browser: Browser, arena: PageServer) -> Iterator[Page]:
    """A page on which the two have answered; it asked nobody but its server."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(90_000)
    opened = context.new_page()
    asked: list[str] = []
    opened.on("request", lambda request: asked.append(request.url))
    opened.goto(f"{arena.url}?models=plain-base,plain-tuned&prompt=Say+much.")
    wait_for_names(opened)
    wait_for_prompt(opened, "Say much.")
    opened.click("#send")
    opened.wait_for_selector(CAN_VOTE)
    yield opened
    context.close()
    assert [url for url in asked if not re.match(r"http://127\.0\.0\.1:|data:|blob:", url)] == []


def test_formula_code_and_table_are_drawn(page: Page) -> None:
    answer = page.locator("#answer-a .answer")
    block = answer.locator("p.formula math")
    assert block.get_attribute("display") == "block"
    fraction = block.locator("mfrac").bounding_box()
    line = answer.locator("math[display=inline] mi").bounding_box()
    assert fraction is not None
    assert line is not None
    assert fraction["height"] > 1.5 * line["height"], "the fraction stands on two lines"
    color = "node => getComputedStyle(node).color"
    keyword = answer.locator("pre.code .hl-k").first.evaluate(color)
    assert keyword != answer.locator("pre.code").evaluate(color)
    assert answer.locator("table td").all_inner_texts() == ["1", "2"]
    assert answer.locator("h4").inner_text() == "A head"


def test_scroll_together_mark_differences_and_enlarge(page: Page) -> None:
    left, right = page.locator("#answer-a .pane-body"), page.locator("#answer-b .pane-body")
    scrolled = "node => node.scrollTop"
    left.evaluate("node => { node.scrollTop = 200; }")
    page.wait_for_timeout(300)
    assert right.evaluate(scrolled) == 0
    page.click("[data-sync]")
    left.evaluate("node => { node.scrollTop = 400; }")
    page.wait_for_function("document.querySelector('#answer-b .pane-body').scrollTop > 350")
    page.get_by_label("Highlight differences").check()
    page.wait_for_selector("#answer-a mark")
    page.wait_for_selector("#answer-b mark")
    assert page.locator("#answer-a mark").all_inner_texts() == ["blue."]
    assert page.locator("#answer-b mark").all_inner_texts() == ["grey."]
    page.click("#answer-b [data-focus]")
    assert page.is_hidden("#answer-a .pane")
    assert page.is_visible("#answer-b .pane")
    page.click("#answer-b [data-focus]")
    assert page.is_visible("#answer-a .pane")


def test_all_are_asked_again_by_key_and_tokens_are_shown_after_the_vote(
    page: Page, arena: PageServer
) -> None:
    battle, token = link_of(page)
    page.keyboard.press("Escape")
    page.keyboard.press("r")
    page.wait_for_selector(".status-line:has-text('Press r again')")
    page.keyboard.press("r")

    def attempts() -> list[tuple[int, bool]]:
        found = arena.store.load_battle(battle, token=token).battle.turns[-1].attempts
        return [(a.attempt, a.superseded) for a in found if a.is_finished]

    for _ in range(600):
        if len(attempts()) == 4:
            break
        page.wait_for_timeout(100)
    assert sorted(attempts()) == [(1, True), (1, True), (2, False), (2, False)]
    page.wait_for_selector(CAN_VOTE)
    page.click("#vote-a")
    page.wait_for_selector("#reveal .reveal-card")
    facts = page.inner_text("#reveal .side-a")
    for fact in (
        r"Model\s+plain-base\s",
        r"Weights\s+abababababab\s",
        r"Sampling\s.*temperature 0\.7.*max_new_tokens \d+",
        rf"Tokens\s+{len(RICH) + 1}\s",  # with the one that ends it
        r"First token after\s+\d+\.\d\d s\s",
        r"Speed\s+\d+ tokens/s",
    ):
        assert re.search(fact, facts), (fact, facts)
    page.click("#reveal .side-a summary")
    assert page.inner_text("#reveal .side-a .sent") == "Say much."
    page.click("#reveal .side-b summary")
    assert page.inner_text("#reveal .side-b .sent") == "<user>Say much."
    page.click("#reveal .side-a [data-act=tokens]")
    page.wait_for_selector("#tokens .token")
    assert page.locator("#tokens .token").count() == len(RICH)
    assert page.locator("#tokens .token").first.get_attribute("title") == "61 %"  # e ** -0.5
    page.click("#reveal .side-b [data-act=tokens]")
    page.wait_for_selector("#tokens .tokens-none")
    page.keyboard.press("u")
    page.wait_for_selector("#vote-b:not([disabled])")
    assert votes_of(arena.store, battle) == []
