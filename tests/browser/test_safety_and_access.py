"""Hostile answers, access for all, and the acts after the vote, in Chromium."""

from __future__ import annotations

import time
import zipfile
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
from fault_server import FaultServer, Script
from page_server import PageServer
from pages import CAN_VOTE, link_of, wait_for_names
from store_fixtures import votes_of

from arena.web.authentication import Authenticator

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.browser, pytest.mark.slow]

REASONS = [
    *("helpful", "correct", "follows the instruction", "right format", "good style"),
    *("incorrect", "ignores the instruction", "harmful", "repetitive", "cut off"),
]
HOSTILE = "\n\n".join(
    (
        "<script>window.pwned = 1</script>",
        "<img src=x onerror='window.pwned = 1'>",
        "<svg onload='window.pwned = 1'></svg>",
        "<iframe srcdoc='<script>parent.pwned = 1</script>'></iframe>",
        "<div style='position:fixed;inset:0;z-index:99999;background:red'>cover</div>",
        "<form action='http://192.0.2.1/'><button>Vote</button></form>",
        "<style>#votes{display:none}</style>",
        "<details open ontoggle='window.pwned = 1'>x</details>",
        "<input autofocus onfocus='window.pwned = 1'>",
        "[link](javascript:window.pwned=1) ![beacon](http://192.0.2.1/b.png)",
        "```html\n</code></pre><script>window.pwned = 1</script>\n```",
        '![x" onerror="window.pwned=1](http://192.0.2.1/a)',
        "x" * 400,
        "‮ right to left",
    )
)


@pytest.fixture(scope="module")
def arena(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageServer]:
    scripts = {
        "plain-one": Script(words=(HOSTILE, " end")),
        "plain-two": Script(words=(HOSTILE, " finis")),  # equal answers make no preference
        "plain-three": Script(),
    }
    with (
        FaultServer(scripts) as server,
        PageServer(tmp_path_factory.mktemp("home"), server.url) as running,
    ):
        yield running


@pytest.fixture
def visit(browser: Browser, arena: PageServer) -> Iterator[Any]:
    """Opens the page for a new visitor; contexts are closed at the end."""
    opened = []

    def visit(**options: Any) -> Page:
        context = browser.new_context(viewport={"width": 1280, "height": 900}, **options)
        opened.append(context)
        page = context.new_page()
        page.set_default_timeout(90_000)
        page.goto(arena.url)
        page.wait_for_selector("#prompt textarea")
        page.wait_for_selector(".status-line:has-text('3')")
        return page

    yield visit
    for context in opened:
        context.close()


def compare(page: Page, *names: str) -> None:
    """Ask the participants of these names."""
    page.get_by_role("radio").nth(1).check()
    wait_for_names(page)
    for name in names[2:]:
        page.click("#models input")
        page.get_by_role("option", name=name).click()
        page.keyboard.press("Escape")
    page.fill("#prompt textarea", "Say something.")
    page.click("#send")
    page.wait_for_selector(CAN_VOTE)


def wait_until(page: Page, is_so: Callable[[], bool], seconds: float = 60) -> None:
    """Let the page work until something holds outside of it."""
    limit = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < limit, "it did not come true"
        page.wait_for_timeout(50)


def num_finished(arena: PageServer, battle: str, token: str) -> int:
    """Attempts of the battle's last turn that have ended."""
    attempts = arena.store.load_battle(battle, token=token).battle.turns[-1].attempts
    return sum(attempt.is_finished for attempt in attempts)


def test_hostile_answers_are_shown_and_obeyed_by_nobody(visit: Any) -> None:
    asked: list[str] = []
    page = visit()
    page.on("request", lambda request: asked.append(request.url))
    compare(page, "plain-one", "plain-two")
    assert page.evaluate("window.pwned") is None
    assert [url for url in asked if "127.0.0.1" not in url] == []
    answer = "#answer-a .answer"
    assert "window.pwned" in page.inner_text(answer)
    foreign = ("script", "img", "svg", "iframe", "form", "input", "style", "details")
    for tag in (*foreign, "button:not(.copy)"):  # the page's own copies code
        assert page.locator(f"{answer} {tag}").count() == 0, tag
    on_top = """() => {
        const box = document.querySelector('#vote-tie').getBoundingClientRect();
        const found = document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2);
        return !!found.closest('#vote-tie');
    }"""
    page.locator("#vote-tie").scroll_into_view_if_needed()
    page.evaluate("window.scrollBy(0, 250)")
    assert page.evaluate(on_top)
    width = "document.documentElement.scrollWidth <= window.innerWidth"
    assert page.evaluate(width), "a long word widens the page"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(visit: Any, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    page = visit(color_scheme=scheme, reduced_motion="reduce")

    def serious() -> list[str]:
        found = axe.Axe().run(page).response["violations"]
        return [
            f"{violation['id']}: {node['html'][:160]}"
            for violation in found
            if violation["impact"] in ("serious", "critical")
            for node in violation["nodes"]
        ]

    assert serious() == []
    compare(page, "plain-one", "plain-two")
    page.click("#vote-tie")
    page.wait_for_selector("#reveal .reveal-card")
    assert serious() == []


def test_status_is_one_polite_region_and_answers_are_silent(visit: Any) -> None:
    page = visit()
    # Gradio has an empty one of its own outside; the answers must not be read piece by piece.
    live = page.locator("#arena :is([aria-live]:visible, [role=log], [role=alert])")
    assert live.count() == 1
    assert live.get_attribute("role") == "status"


def test_after_the_vote_more_may_be_said_and_taken_back(visit: Any, arena: PageServer) -> None:
    page = visit()
    compare(page, "plain-one", "plain-two")
    battle, token = link_of(page)
    page.click("#answer-b [data-act=again]")
    wait_until(page, lambda: num_finished(arena, battle, token) == 3)  # one of them superseded
    page.wait_for_selector("#answer-b .is-done")
    page.wait_for_selector(CAN_VOTE)
    page.click("#vote-a")
    page.wait_for_selector("#details")
    page.click("#details button")
    page.wait_for_selector("#reasons label")
    assert page.locator("#reasons label").all_inner_texts() == REASONS
    page.get_by_label("much").check()
    page.get_by_label("incorrect").check()
    page.fill("#comment textarea", "B is wrong.")
    page.click("#save-details")
    page.wait_for_selector(".status-line:has-text('Saved.')")
    (vote,) = votes_of(arena.store, battle)
    assert (vote.judgement.strength, vote.judgement.reasons) == ("much", ("incorrect",))
    assert vote.judgement.comment == "B is wrong."
    page.click("#undo")
    page.wait_for_selector("#vote-b:not([disabled])")
    assert votes_of(arena.store, battle) == []
    page.click("#vote-b")
    page.wait_for_selector("#undo:visible")
    page.get_by_role("tab").nth(2).click()
    page.wait_for_selector(f"#history a[href*='{battle}']")
    page.get_by_role("tab").nth(1).click()
    page.wait_for_selector("#leaderboard :is(table, .nothing)")
    assert page.locator("#export").count() == 0, "a dataset is for admins"
    page.goto(f"{arena.url}/enter?key={Authenticator(arena.config.home).key}")
    page.get_by_role("tab").nth(1).click()
    page.wait_for_selector("#leaderboard :is(table, .nothing)")
    page.click("#export")
    page.wait_for_selector("#export-outcome .status-line.good")
    with page.expect_download() as download:
        page.click("#export-outcome a.download")
    with zipfile.ZipFile(download.value.path()) as archive:
        assert any(name.endswith("/README.md") for name in archive.namelist())
    (folder,) = (arena.config.home / "exports").iterdir()
    assert download.value.suggested_filename == f"{folder.name}.zip"


def test_three_answers_are_ranked_and_gone_on_from(visit: Any, arena: PageServer) -> None:
    page = visit()
    compare(page, "plain-one", "plain-two", "plain-three")
    page.wait_for_selector("#vote-a", state="detached")
    for letter, rank in (("a", "2"), ("b", "3"), ("c", "1")):
        page.click(f"#rank-{letter} input")
        page.get_by_role("option", name=rank, exact=True).click()
        page.wait_for_selector("[role=option]", state="detached")  # the list fades out
    page.click("#save-ranking")
    page.wait_for_selector(".status-line.good")
    battle, token = link_of(page)
    (vote,) = votes_of(arena.store, battle)
    assert vote.judgement.ranking == (2, 3, 1)
    page.get_by_label("continues from answer C").check()
    page.fill("#prompt textarea", "Go on.")
    page.click("#send")
    page.wait_for_selector("#answer-a .said")
    page.wait_for_selector(CAN_VOTE)
    turns = arena.store.load_battle(battle, token=token).battle.turns
    assert [turn.prompt for turn in turns] == ["Say something.", "Go on."]
    assert turns[1].shared_side == 2


@pytest.mark.parametrize(
    ("locale", "send", "what"),
    [
        ("de-DE", "Senden", "Zwei Modelle antworten"),
        ("fr-FR", "Envoyer", "Deux modèles"),
        ("es-ES", "Enviar", "Dos modelos"),
        ("zh-CN", "发送", "两个模型"),
    ],
)
def test_page_speaks_the_browsers_language(visit: Any, locale: str, send: str, what: str) -> None:
    page = visit(locale=locale)
    page.wait_for_selector(f"#send:has-text('{send}')")
    page.wait_for_function(f"document.documentElement.lang === '{locale[:2]}'")
    assert what in page.inner_text("#empty")
