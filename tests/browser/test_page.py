"""The page in a real Chromium, over the real model server: ask, watch, vote, reveal, reload."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import httpx2
import pytest
from fault_server import FaultServer, Script
from page_server import PageServer
from pages import CAN_VOTE, battle_of, link_of, wait_for_names
from recording_proxy import RecordingProxy
from serving_models import TEMPLATE, save_adapter, save_checkpoint, save_tokenizer
from store_fixtures import votes_of

from arena.values.examples import OPEN_EXAMPLES
from arena.values.vote import Winner
from serving.config import ServeConfig
from serving.http.server import ServerThread

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

pytestmark = pytest.mark.browser

NAMES = ("opal-base", "opal-lora", "opal-prefix")
PROMPT = "the river sings under"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerThread]:
    """The model server with a tiny base, a LoRA and a prefix variant."""
    place = tmp_path_factory.mktemp("models")
    base = save_checkpoint("llama", place / "opal-base")
    variants = []
    for kind in ("lora", "prefix"):
        folder = save_adapter("llama", base, place / f"opal-{kind}", kind)
        save_tokenizer(folder, TEMPLATE)
        variants.append((f"opal-{kind}", folder))
    config = ServeConfig(base=base, base_name="opal-base", models=tuple(variants), port=0)
    with ServerThread(config) as running:
        yield running


@pytest.fixture(scope="module")
def arena(server: ServerThread, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageServer]:
    with PageServer(tmp_path_factory.mktemp("home"), server.url) as running:
        yield running


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A fresh visitor; a script error or a request to elsewhere fails the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 860})
    opened = context.new_page()
    faults: list[str] = []
    opened.on("pageerror", lambda error: faults.append(str(error)))
    opened.on("dialog", lambda dialog: faults.append(f"dialog {dialog.message}"))
    opened.on(
        "request",
        lambda r: (
            None
            if re.match(r"(http://127\.0\.0\.1:|data:|blob:)", r.url)
            else faults.append(f"asked {r.url}")
        ),
    )
    opened.set_default_timeout(90_000)
    yield opened
    context.close()
    assert faults == []


def send(page: Page, prompt: str) -> None:
    page.fill("#prompt textarea", prompt)
    page.click("#send")


def test_battle_vote_names_and_reload(page: Page, arena: PageServer) -> None:
    page.goto(arena.url)
    page.wait_for_selector("#empty h2")
    send(page, PROMPT)
    page.wait_for_selector(CAN_VOTE)
    answers = [page.inner_text(f"#answer-{side} .answer").strip() for side in "ab"]
    assert all(answers)
    assert "opal" not in page.content()
    link_of(page)
    address = page.url
    assert re.search(r"\?battle=[0-9a-f]{16}&t=[\w-]{32}$", address)
    page.click("#vote-a")
    page.wait_for_selector("#reveal .reveal-card")
    shown = page.inner_text("#reveal .reveal")
    (vote,) = votes_of(arena.store, re.search(r"battle=(\w+)", address)[1])
    assert vote.judgement.winner is Winner.MODEL_A
    assert vote.blind
    names = page.locator("#reveal h3").all_inner_texts()
    assert len(set(names)) == 2
    assert set(names) <= set(NAMES)
    page.wait_for_selector("#vote-a[disabled]")
    kept = page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}])")
    assert PROMPT not in kept, "no history of runs lies in the browser"
    page.reload()
    page.wait_for_selector("#reveal .reveal-card")
    assert page.inner_text("#reveal .reveal") == shown
    assert [page.inner_text(f"#answer-{side} .answer").strip() for side in "ab"] == answers


def test_what_is_typed_before_the_page_has_loaded_stays(page: Page, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes the call and never answers
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with PageServer(tmp_path, url) as arena:
            page.goto(arena.url)
            page.fill("#prompt textarea", PROMPT)
            page.wait_for_selector(".status-line.bad:has-text('No model can be reached')")
            assert page.input_value("#prompt textarea") == PROMPT


def test_no_byte_before_the_vote_names_a_model(
    browser: Browser, arena: PageServer, server: ServerThread
) -> None:
    """All bytes of all connections: page, config, scripts, stream, headers."""
    served = httpx2.get(f"{server.url}/v1/models").json()["data"]
    hashes = {model["weights_sha256"] for model in served}
    secrets = [name.encode() for name in NAMES] + [value[:12].encode() for value in hashes]
    assert len(secrets) == 6
    with RecordingProxy(arena.url) as proxy:
        context = browser.new_context()
        context.set_default_timeout(90_000)
        page = context.new_page()
        page.goto(proxy.url)
        page.wait_for_selector("#prompt textarea")
        send(page, PROMPT)
        page.wait_for_selector(CAN_VOTE)
        link_of(page)
        page.reload()
        page.wait_for_selector(CAN_VOTE)
        before = bytes(proxy.received)
        page.click("#vote-b")
        page.wait_for_selector("#reveal .reveal-card")
        after = bytes(proxy.received)[len(before) :]
        context.close()
    assert b"is-done" in before, "the answers themselves were seen in clear"
    assert [secret for secret in secrets if secret in before] == []
    assert any(secret in after for secret in secrets), "the search would have found them"


def test_chosen_models_are_named_from_the_start(page: Page, arena: PageServer) -> None:
    page.goto(arena.url)
    page.get_by_label("By name").check()
    wait_for_names(page)
    send(page, PROMPT)
    page.wait_for_selector(CAN_VOTE)
    assert page.inner_text("#answer-a .pane-name") == "opal-base"
    assert page.inner_text("#answer-b .pane-name") == "opal-lora"
    page.click("#vote-tie")
    page.wait_for_selector(".status-line.good")
    (vote,) = votes_of(arena.store, battle_of(page))
    assert (vote.judgement.winner, vote.blind) == (Winner.TIE, False)
    page.reload()
    page.wait_for_selector("#reveal .reveal-card")
    wait_for_names(page)


def test_example_stop_and_new_battle(page: Page, arena: PageServer) -> None:
    page.goto(arena.url)
    page.wait_for_selector(f"text={OPEN_EXAMPLES[0]}")  # not all models are the starter's
    page.click("text=Name three fruits.")
    page.wait_for_selector("#answer-a .pane")
    assert page.inner_text("#asked .asked-text") == "Name three fruits."
    page.wait_for_selector(f"{CAN_VOTE}, .is-failed")
    battle, token = link_of(page)
    assert arena.store.load_battle(battle, token=token).battle.sampler == "base-and-variant/1"
    page.click("#new-battle")
    page.wait_for_selector("#empty h2")
    page.wait_for_function("!location.search.includes('battle=')")


def test_prompts_that_cannot_be_asked_leave_the_page_alive(page: Page, arena: PageServer) -> None:
    page.goto(arena.url)
    page.wait_for_selector("#prompt textarea")
    for prompt, told in (("", "empty"), ("   ", "empty"), ("x" * 9000, "9000 characters")):
        page.wait_for_timeout(300)
        send(page, prompt)
        page.wait_for_selector(f".status-line.bad:has-text('{told}')")
    page.evaluate(
        """() => {
            const box = document.querySelector('#prompt textarea');
            box.value = 'half \\ud83d';
            box.dispatchEvent(new Event('input', {bubbles: true}));
        }"""
    )
    page.wait_for_timeout(300)
    page.click("#send")
    page.wait_for_selector(".status-line.bad:has-text('cannot be sent, at position')")
    send(page, PROMPT)
    page.wait_for_selector(CAN_VOTE)


def test_keys_vote_but_not_while_typing(page: Page, arena: PageServer) -> None:
    page.goto(arena.url)
    page.wait_for_selector("#prompt textarea")
    page.keyboard.press("Escape")
    page.keyboard.press("/")
    page.keyboard.type(PROMPT + " 1 2 3")
    page.keyboard.press("Enter")
    page.wait_for_selector(CAN_VOTE)
    page.keyboard.type("12")
    assert page.input_value("#prompt textarea") == "12"
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    page.wait_for_selector("dialog#help[open]")
    page.keyboard.press("4")
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog#help[open]", state="detached")
    assert page.is_enabled("#vote-a"), "the help swallowed the key"
    page.keyboard.press("4")
    page.wait_for_selector("#reveal .reveal-card")
    (vote,) = votes_of(arena.store, battle_of(page))
    assert vote.judgement.winner is Winner.BOTH_BAD


def test_failed_side_cannot_be_judged(page: Page, server: ServerThread, tmp_path: Path) -> None:
    bad = {"broken-one": Script(fault="error"), "broken-two": Script(fault="cut")}
    with FaultServer(bad) as faulty, PageServer(tmp_path, faulty.url) as arena:
        page.goto(arena.url)
        send(page, PROMPT)
        page.wait_for_selector("#answer-a .is-failed")
        page.wait_for_selector(".status-line.bad:has-text('cannot be judged')")
        assert "This answer failed" in page.inner_text("#answer-b")
        for button in ("a", "b", "tie", "both-bad"):
            page.wait_for_selector(f"#vote-{button}[disabled]")
        assert "broken" not in page.content()


def test_slow_side_does_not_hold_the_fast_one(page: Page, tmp_path: Path) -> None:
    scripts = {"quick": Script(), "slow": Script(words=("w ",) * 2000, delay=0.2)}
    with FaultServer(scripts) as server, PageServer(tmp_path, server.url) as arena:
        page.goto(arena.url)
        send(page, PROMPT)
        page.wait_for_selector(".pane.is-done")
        page.wait_for_selector(".pane.is-streaming")
        letter = page.inner_text(".pane.is-done .letter")
        page.wait_for_selector(f"[role=status]:has-text('Answer {letter} is finished')")
        page.click("#stop")
        page.wait_for_selector(CAN_VOTE)
        page.wait_for_selector(".pane.is-stopped")
        server.wait_for_streams(0)


def test_vote_before_the_end_stops_the_answers_and_is_marked(page: Page, tmp_path: Path) -> None:
    slow = Script(words=("w ",) * 2000, delay=0.2)
    with (
        FaultServer({"hidden-one": slow, "hidden-two": slow}) as server,
        PageServer(tmp_path, server.url) as arena,
    ):
        page.goto(arena.url)
        send(page, PROMPT)
        for side in "ab":
            page.wait_for_selector(f"#answer-{side} .answer:has-text('w w')")
        page.click("#vote-b:not([disabled])")
        page.wait_for_selector(".status-line.good:has-text('before the answers were finished')")
        page.wait_for_selector("#reveal .reveal-card")
        server.wait_for_streams(0)
        (vote,) = votes_of(arena.store, battle_of(page))
        assert (vote.judgement.winner, vote.partial, vote.blind) == (Winner.MODEL_B, True, True)
        for side in "ab":
            page.wait_for_selector(f"#answer-{side} .is-stopped")
            assert page.inner_text(f"#answer-{side} .answer").startswith("w w")
        page.wait_for_selector("#vote-a[disabled]")


def test_closing_the_tab_ends_the_streams(browser: Browser, tmp_path: Path) -> None:
    """Within half a second; a busy machine may need more than one try to show it."""
    hang = Script(fault="hang")
    with (
        FaultServer({"one": hang, "two": hang}) as server,
        PageServer(tmp_path, server.url) as arena,
    ):
        context = browser.new_context()
        context.set_default_timeout(90_000)
        other = context.new_page()
        waits = [seconds_to_close(context, other, server, arena) for _ in range(2)]
        while min(waits) > 0.5 and len(waits) < 20:
            waits.append(seconds_to_close(context, other, server, arena))
        context.close()
    assert min(waits) <= 0.5, waits


def seconds_to_close(
    context: BrowserContext, other: Page, server: FaultServer, arena: PageServer
) -> float:
    """How long the streams and the battle's slot live after their reader has closed the tab."""
    page = context.new_page()
    page.goto(arena.url)
    send(page, PROMPT)
    page.wait_for_selector(".pane.is-streaming")
    server.wait_for_streams(2)
    page.close()
    closed = time.monotonic()
    while (server.open_streams or arena.service.num_running) and time.monotonic() < closed + 30:
        other.wait_for_timeout(10)
    assert (server.open_streams, arena.service.num_running) == (0, 0)
    return time.monotonic() - closed


def test_phone_has_no_sideways_scroll(browser: Browser, arena: PageServer) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 844}, color_scheme="dark")
    context.set_default_timeout(90_000)
    page = context.new_page()
    page.goto(arena.url)
    page.wait_for_selector("#prompt textarea")
    width = "[document.documentElement.scrollWidth, window.innerWidth]"
    assert page.evaluate(width) == [390, 390]
    send(page, PROMPT)
    page.wait_for_selector(CAN_VOTE)
    page.click("#vote-tie")
    page.wait_for_selector("#reveal .reveal-card")
    assert page.evaluate(width) == [390, 390]
    context.close()
