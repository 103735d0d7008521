"""The page in the four languages beside English, in Chromium: all that it says is in them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from fault_server import FaultServer, Script
from page_server import PageServer
from pages import CAN_VOTE, ENDED, wait_for_names, wait_for_prompt
from store_fixtures import BASE, LORA, Hand

from arena.i18n import Words, languages, words
from arena.storage.quarantine import evidence
from arena.values.examples import EXAMPLES
from arena.values.vote import Winner
from arena.web.authentication import Authenticator

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.browser, pytest.mark.slow]

DOWN = "http://127.0.0.1:9"
# Each text of the page that can be seen, and what is said of its elements to who cannot.
TEXTS = """() => {
  const found = [];
  const walk = document.createTreeWalker(document.querySelector('#arena'), NodeFilter.SHOW_TEXT);
  for (let node = walk.nextNode(); node; node = walk.nextNode()) {
    const holder = node.parentElement;
    if (holder.checkVisibility({visibilityProperty: true})
        && !holder.closest('script, style, svg, .answer, .asked-text, kbd, pre, code')) {
      found.push(node.textContent);
    }
  }
  for (const node of document.querySelectorAll('#arena [aria-label], #arena [placeholder]')) {
    if (node.checkVisibility()) {
      found.push(node.getAttribute('aria-label') || '', node.getAttribute('placeholder') || '');
    }
  }
  return found.map((text) => text.trim()).filter(Boolean);
}"""
ENGLISH = re.compile(r"\b(the|is|are|your|with|from|of|to|this|that|there|and|by|no|not)\b")
# Spanish says "no"; what a model, a server or a person wrote is shown as it was written.
ALSO = {"es": {"no"}}
FOREIGN = (*EXAMPLES, "Name a fruit.", "Say more.", "hidden-", DOWN, "starter", "lora")
FOREIGN += ("secret reason of ",)  # words of the server itself

MARKS: dict[str, dict[str, object]] = {
    "rate": {"count": 70},
    "same_side": {"count": 20, "side": "left"},
    "same_prompt": {"count": 31},
    "identity_leak": {"side": "a"},
    "failed_side": {},
}


@pytest.fixture(scope="module")
def arena(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageServer]:
    home = tmp_path_factory.mktemp("home")
    (home / "sets").mkdir()
    (home / "sets" / "one.txt").write_text("Name a fruit.\n")
    good = Script(words=("Paris", "!"), kind="base", chat_template=False)
    scripts = {"hidden-one": good, "hidden-two": Script(), "hidden-bad": Script(fault="503")}
    with FaultServer(scripts) as server, PageServer(home, server.url, DOWN) as running:
        hand = Hand(running.store)
        for i in range(8):
            hand.vote(Winner.MODEL_B if i % 3 else Winner.MODEL_A, prompt=f"p{i}")
        hand.vote(participants=[replace(BASE, name="starter-x"), replace(LORA, name="lora-x")])
        for reason, values in MARKS.items():
            running.store.flag_vote(1, reason, evidence(reason, **values))
        running.store.flag_vote(2, "rate", evidence("by_hand"))
        yield running


def left_in_english(page: Page, say: Words) -> list[str]:
    """Texts on the page that the catalogue has another one for, or that read as English."""
    english = words("en").texts
    pieces = {
        piece.strip()
        for key, text in english.items()
        for piece in re.split(r"\{\w+\}", text)
        if len(piece.strip()) > 2 and piece.strip() not in say.texts[key]
    }
    also = ALSO.get(say.language, set())
    found = []
    for text in page.evaluate(TEXTS):
        if any(part in text for part in FOREIGN):
            text = re.sub("|".join(map(re.escape, FOREIGN)), "", text)
        whole = text in pieces or any(len(p) > 11 and p in text for p in pieces)
        if whole or set(ENGLISH.findall(text)) - also:
            found.append(text)
    return found


@pytest.mark.parametrize("language", sorted(set(languages()) - {"en"}))
def test_whatever_the_page_says_is_in_the_visitors_language(
    browser: Browser, arena: PageServer, language: str
) -> None:
    say = words(language)
    context = browser.new_context(locale=language, viewport={"width": 1280, "height": 900})
    context.set_default_timeout(90_000)
    page = context.new_page()
    seen: dict[str, list[str]] = {}

    def look(state: str) -> None:
        page.wait_for_timeout(200)
        seen[state] = left_in_english(page, say)

    page.goto(f"{arena.url}/enter?key={Authenticator(arena.config.home).key}")
    page.wait_for_function(f"document.documentElement.lang === '{language}'")
    page.wait_for_selector(f".status-line:has-text('{DOWN}')")
    look("empty")
    page.click("#send")
    page.wait_for_selector(f".status-line.bad:has-text('{say('error.prompt_empty')}')")
    look("refused")
    page.get_by_label(say("mode.set")).check()
    page.wait_for_selector("#set-progress progress")
    look("set")
    page.get_by_label(say("mode.named")).check()
    wait_for_names(page)
    look("by name")

    page.goto(f"{arena.url}/?models=hidden-one,hidden-bad&prompt=Name+a+fruit.")
    wait_for_names(page)
    wait_for_prompt(page, "Name a fruit.")
    page.click("#send")
    page.wait_for_selector(f"{ENDED} #answer-b .is-failed")
    page.wait_for_selector(".status-line.bad")
    look("failed")
    page.goto(f"{arena.url}/?models=hidden-one,hidden-two&prompt=Name+a+fruit.")
    wait_for_names(page)
    wait_for_prompt(page, "Name a fruit.")
    page.click("#send")
    page.wait_for_selector(CAN_VOTE)
    look("answered")
    page.click("#vote-a")
    page.wait_for_selector("#reveal .reveal-card")
    page.click("#details button")
    page.wait_for_selector("#edited textarea")
    page.click("#reveal .side-a [data-act=tokens]")
    page.wait_for_selector("#tokens .token")
    look("judged")
    page.click(".help-button")
    page.wait_for_selector("dialog#help[open]")
    look("help")
    page.keyboard.press("Escape")
    for tab, filled in (
        ("leaderboard", "#leaderboard table"),
        ("history", "#history li"),
        ("admin", "#admin-live table"),
    ):
        page.get_by_role("tab", name=say(f"page.tab_{tab}"), exact=True).click()
        page.wait_for_selector(filled)
        if tab == "leaderboard":
            page.check("#board-style input")
            page.wait_for_selector(f"#leaderboard th:has-text('{say('leaderboard.plain')}')")
            page.click("#draw-over-time")
            page.wait_for_selector("#over-time figure svg")
        if tab == "admin":
            page.wait_for_selector("#flagged td:has-text('70')")
            assert page.locator("#flagged tbody tr").count() == len(MARKS) + 1
        look(filled)
    context.close()
    assert {state: texts for state, texts in seen.items() if texts} == {}
