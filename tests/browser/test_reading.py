"""Reading and writing on the page: room for answers, copies, keys, drafts, Back; in Chromium."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from fault_server import FaultServer, Script
from nginx import documented, nginx
from page_server import PageServer
from pages import CAN_VOTE, battle_of
from running import free_port
from store_fixtures import votes_of

from arena.config.page_config import PublicAddress
from arena.values.vote import Winner

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.browser, pytest.mark.slow]

ANSWER = """So $x^2$ & **注意：**请看

| Country | Capital city | Population estimate | Official languages | Area | Currency | Continent |
|---|---|---|---|---|---|---|
| Switzerland<br>CH | Bern | 8,900,000 inhabitants | Romansh | 41,285 | franc | Europe |

- مرحبا

```python
def f(x):
    return x
```
"""
LONG = "word " * 4000
DOCS = Path(__file__).parents[2] / "docs" / "proxy.md"


@pytest.fixture(scope="module")
def arena(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageServer]:
    scripts = {"one": Script(words=(ANSWER,)), "two": Script(words=(LONG,))}
    with (
        FaultServer(scripts) as server,
        PageServer(tmp_path_factory.mktemp("home"), server.url) as running,
    ):
        yield running


def ask(page: Page, text: str = "Say something.") -> str:
    """Ask, wait for the end, and give the battle's id."""
    before = battle_in(page)
    page.fill("#prompt textarea", text)
    page.click("#send")
    battle = battle_of(page, before)
    page.wait_for_selector(CAN_VOTE)
    page.wait_for_selector(f".asked-text:text-is('{text}')")
    return battle


def battle_in(page: Page) -> str:
    found = page.evaluate("new URLSearchParams(location.search).get('battle') || ''")
    assert isinstance(found, str)
    return found


def test_in_a_low_window_answers_have_room_and_votes_are_seen(
    page: Page, arena: PageServer
) -> None:
    page.set_viewport_size({"width": 1366, "height": 650})
    page.goto(arena.url)
    ask(page)
    boxes = page.evaluate(
        """() => Object.fromEntries(["#answer-a .pane-body", "#vote-a", "#vote-skip", "#composer",
          "#views button"].map((one) =>
          [one, document.querySelector(one).getBoundingClientRect()]))"""
    )
    assert boxes["#answer-a .pane-body"]["height"] > 260, "180 before"
    assert boxes["#vote-a"]["top"] > boxes["#answer-a .pane-body"]["bottom"]
    for seen in ("#vote-a", "#vote-skip", "#views button"):
        assert boxes[seen]["bottom"] <= boxes["#composer"]["top"]
    assert page.evaluate("window.scrollY") == 0
    table = page.evaluate(
        """() => {
          const box = document.querySelector(".table-box");
          return {scrolls: box.scrollWidth > box.clientWidth, body: document.body.scrollWidth,
            list: getComputedStyle(document.querySelector(".answer li")).direction,
            code: getComputedStyle(document.querySelector(".answer pre")).direction};
        }"""
    )
    assert table["scrolls"], "words are whole"
    assert table["body"] <= 1366
    assert (table["list"], table["code"]) == ("rtl", "ltr")


def test_answers_and_code_are_copied_as_they_were_written(
    browser: Browser, arena: PageServer
) -> None:
    context = browser.new_context(permissions=["clipboard-read", "clipboard-write"])
    page = context.new_page()
    page.set_default_timeout(90_000)
    page.goto(arena.url)
    ask(page)
    read = "navigator.clipboard.readText()"
    side = "a" if page.locator("#answer-a .table-box").count() else "b"
    page.click(f"#answer-{side} .act[data-copy]")
    page.wait_for_selector(f"#answer-{side} .act.is-copied:has-text('Copied')")
    assert page.evaluate(read) == ANSWER
    page.click(".code-box .copy")
    page.wait_for_selector(".code-box .is-copied")
    assert page.evaluate(read) == "def f(x):\n    return x\n"
    # Without TLS there is no such clipboard.
    page.evaluate("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
    page.wait_for_selector(".act[data-copy]:not(.is-copied) >> nth=1")
    page.click(f"#answer-{'ab'.replace(side, '')} .act[data-copy]")
    page.wait_for_selector(".act.is-copied")
    page.focus("#prompt textarea")
    page.keyboard.press("Control+V")
    assert page.input_value("#prompt textarea") == LONG
    page.wait_for_selector(".status-line.bad:has-text('20000 characters')")
    context.close()


def test_typing_into_an_answer_presses_nothing_and_keys_can_be_switched_off(
    page: Page, arena: PageServer
) -> None:
    page.goto(arena.url)
    battle = ask(page)
    page.click("#answer-a .pane-body")
    page.keyboard.type("so why, 3 of them")
    page.wait_for_timeout(500)
    assert votes_of(arena.store, battle) == []
    assert page.locator("#reveal .reveal-card").count() == 0
    page.keyboard.press("Escape")
    page.keyboard.press("s")
    page.wait_for_selector(".status-line:has-text('Press s again to skip')")
    page.click("[data-help]")
    page.click("#help [data-keys]")
    assert page.get_attribute("#help [data-keys]", "aria-pressed") == "false"
    page.click("#help [data-close]")
    page.keyboard.press("1")
    page.wait_for_timeout(500)
    assert votes_of(arena.store, battle) == []
    page.reload()
    page.wait_for_selector(CAN_VOTE)
    page.keyboard.press("1")
    page.wait_for_timeout(500)
    assert votes_of(arena.store, battle) == [], "the browser keeps the choice"
    page.click("[data-help]")
    page.click("#help [data-keys]")
    page.click("#help [data-close]")
    page.keyboard.press("1")
    page.wait_for_selector(".status-line.good")
    (vote,) = votes_of(arena.store, battle)
    assert vote.judgement.winner is Winner.MODEL_A


LATE_FRAMES = """(() => {
  const request = window.requestAnimationFrame.bind(window);
  window.requestAnimationFrame = (draw) => setTimeout(() => request(draw), 400);
})()"""


def test_drafts_outlive_a_reload_and_back_goes_to_the_battle_before(
    page: Page, arena: PageServer
) -> None:
    """Also where frames come late: Gradio empties what it unfolds a frame after it stands."""
    page.add_init_script(LATE_FRAMES)
    page.goto(arena.url)
    page.fill("#prompt textarea", "half a thou")
    page.reload()
    page.wait_for_function("document.querySelector('#prompt textarea')?.value === 'half a thou'")
    first = ask(page, "One.")
    assert page.input_value("#prompt textarea") == ""
    page.click("#vote-a")
    page.wait_for_selector(".status-line.good")
    page.click("#details > button")
    page.fill("#comment textarea", "because it is so")
    # No `check`, which wants to see it checked at once: a late frame may take it away for a moment.
    page.click("#strength input >> nth=1")
    page.click("#reasons input >> nth=2")
    page.fill("#prompt textarea", "next")
    page.reload()
    holds_draft = "document.querySelector('#comment textarea')?.value === 'because it is so'"
    page.wait_for_function(holds_draft)
    assert page.is_checked("#strength input >> nth=1")
    assert page.is_checked("#reasons input >> nth=2")
    page.wait_for_function("document.querySelector('#prompt textarea').value === 'next'")
    page.evaluate("document.querySelector('#comment textarea').value = ''")
    page.wait_for_function(holds_draft)
    page.click("#save-details")
    page.wait_for_selector(".status-line.good:text-is('Saved.')")
    kept = "Object.keys(sessionStorage).filter((key) => key.startsWith('arena.details'))"
    page.wait_for_function(f"{kept}.length === 0")
    (vote,) = votes_of(arena.store, first)
    assert vote.judgement.comment == "because it is so"
    second = ask(page, "Two.")
    page.go_back()
    page.wait_for_selector(".asked-text:text-is('One.')")
    assert battle_of(page, second) == first
    assert page.input_value("#prompt textarea") == "", "what was sent is no draft"
    page.go_forward()
    page.wait_for_selector(".asked-text:text-is('Two.')")
    assert battle_of(page, first) == second


def test_enter_while_they_write_says_why_nothing_happens(page: Page, tmp_path: Path) -> None:
    hold = threading.Event()
    scripts = {name: Script(hold=hold) for name in ("one", "two")}
    with FaultServer(scripts) as server, PageServer(tmp_path, server.url) as arena:
        page.goto(arena.url)
        page.fill("#prompt textarea", "One.")
        page.click("#send")
        page.wait_for_selector(".pane.is-streaming")
        page.fill("#prompt textarea", "Two.")
        page.keyboard.press("Enter")
        page.wait_for_selector(".status-line.bad:has-text('The models are still writing')")
        assert page.input_value("#prompt textarea") == "Two."
        hold.set()
        page.wait_for_selector(CAN_VOTE)


PASTE = """length => {
    const held = new DataTransfer();
    held.setData("text", "x".repeat(length));
    const paste = new ClipboardEvent("paste", {clipboardData: held, bubbles: true});
    document.querySelector("#prompt textarea").dispatchEvent(paste);
}"""


def test_a_paste_over_the_limit_says_so(page: Page, tmp_path: Path) -> None:
    scripts = {name: Script() for name in ("one", "two")}
    with FaultServer(scripts) as server, PageServer(tmp_path, server.url) as arena:
        page.goto(arena.url)
        page.wait_for_selector("#prompt textarea:not([disabled])")
        limit = page.evaluate("window.arena.limit()")
        page.fill("#prompt textarea", "ab")
        page.evaluate(PASTE, limit - 2)
        assert page.locator(".status-line.bad").count() == 0
        page.evaluate(PASTE, limit - 1)
        told = f"{limit + 1} characters, and at most {limit}"
        page.wait_for_selector(f".status-line.bad:has-text('{told}')")


@pytest.mark.parametrize("root_path", ["/arena", ""])
def test_behind_nginx_under_a_path_votes_arrive_or_the_page_says_what_is_missing(
    page: Page, tmp_path: Path, root_path: str
) -> None:
    public = PublicAddress(root_path, ("127.0.0.1",))
    port = free_port()
    scripts = {name: Script() for name in ("one", "two")}
    with (
        FaultServer(scripts) as server,
        PageServer(tmp_path / "home", server.url, public=public) as arena,
        nginx(
            tmp_path / "nginx", documented(DOCS).replace("7860", str(arena.config.port)), port
        ) as url,
    ):
        page.goto(f"{url}/arena/")
        if not root_path:
            page.wait_for_selector(".place-note:has-text('--root-path /arena')")
            return
        battle = ask(page)
        page.click("#vote-b")
        page.wait_for_selector(".status-line.good")
        assert len(votes_of(arena.store, battle)) == 1
        assert page.locator(".place-note").count() == 0


def test_a_rewritten_host_is_said_at_load_with_the_option_that_mends_it(
    page: Page, tmp_path: Path
) -> None:
    port = free_port()
    block = "server { listen 80; location / { proxy_pass http://127.0.0.1:7860; } }"
    with (
        FaultServer({name: Script() for name in ("one", "two")}) as server,
        PageServer(tmp_path / "home", server.url) as arena,
        nginx(tmp_path / "nginx", block.replace("7860", str(arena.config.port)), port) as url,
    ):
        page.goto(url)
        page.wait_for_selector(f".place-note:has-text('--allowed-origin {url}')")
    public = PublicAddress(origins=(url,))
    with (
        FaultServer({name: Script() for name in ("one", "two")}) as server,
        PageServer(tmp_path / "home", server.url, public=public) as arena,
        nginx(tmp_path / "nginx", block.replace("7860", str(arena.config.port)), port) as url,
    ):
        page.goto(url)
        battle = ask(page)
        page.click("#vote-a")
        page.wait_for_selector(".status-line.good")
        assert len(votes_of(arena.store, battle)) == 1
