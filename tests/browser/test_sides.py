"""What each side of a battle has of its own: its end, its history, a better answer; in Chromium."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fault_server import FaultServer, Script
from page_server import PageServer
from pages import CAN_VOTE, battle_of, link_of, wait_for_names
from store_fixtures import votes_of

from arena.exports.dataset import ExportOptions, export
from arena.values.battle import AnswerStatus

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def ask(page: Page, arena: PageServer, prompt: str = "Say something.") -> None:
    """Open the page on two models by name and send them a prompt."""
    page.goto(f"{arena.url}/?models=one,two")
    wait_for_names(page)
    page.fill("#prompt textarea", prompt)
    page.click("#send")


def until(page: Page, is_so: Callable[[], bool], seconds: float = 60) -> None:
    """Let the page work until something holds outside of it."""
    limit = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < limit, "it did not come true"
        page.wait_for_timeout(50)


def test_one_side_is_stopped_and_the_other_writes_on(page: Page, tmp_path: Path) -> None:
    may_end = threading.Event()
    slow = Script(words=("slow ",) * 60, delay=0.02, after=10, hold=may_end)
    with (
        FaultServer({"one": slow, "two": slow}) as server,
        PageServer(tmp_path, server.url) as arena,
    ):
        ask(page, arena)
        page.wait_for_selector("#answer-a .is-streaming .answer")
        page.wait_for_selector("#answer-b .is-streaming .answer")
        page.click("#answer-a [data-act=stop]")
        page.wait_for_selector("#answer-a .is-stopped")
        server.wait_for_streams(1, seconds=10)
        may_end.set()
        page.wait_for_selector("#answer-b .is-done")
        page.wait_for_selector(CAN_VOTE)
        battle, token = link_of(page)
        turn = arena.store.load_battle(battle, token=token).battle.turns[-1]
        stopped, whole = turn.answer(0), turn.answer(1)
        assert stopped is not None
        assert whole is not None
        assert (stopped.status, whole.status) == (AnswerStatus.STOPPED, AnswerStatus.COMPLETE)
        assert whole.text == "".join(slow.words)
        assert 0 < len(stopped.text) < len(whole.text)
        assert whole.text.startswith(stopped.text), "what was written before the stop is kept"


def test_each_side_goes_on_with_its_own_answers(page: Page, tmp_path: Path) -> None:
    said = {"one": "I am red.", "two": "I am blue."}
    scripts = {name: Script(words=(text,)) for name, text in said.items()}
    with FaultServer(scripts) as server, PageServer(tmp_path, server.url) as arena:
        ask(page, arena, "Which color?")
        page.wait_for_selector(CAN_VOTE)
        page.click("#vote-a")
        page.wait_for_selector("#reveal .reveal-card")
        page.get_by_label("continues, each model from its own answers").check()
        page.fill("#prompt textarea", "Why?")
        page.click("#send")
        until(page, lambda: len(server.requests) == 4)
        page.wait_for_selector(CAN_VOTE)
        for request in server.requests[2:]:
            assert request["messages"] == [
                {"role": "user", "content": "Which color?"},
                {"role": "assistant", "content": said[request["model"]]},
                {"role": "user", "content": "Why?"},
            ]
        page.click("#vote-b")
        page.wait_for_selector(".status-line.good")
        battle, token = link_of(page)
        found = arena.store.load_battle(battle, token=token).battle
        assert [found.is_diverged(turn) for turn in (0, 1)] == [False, True]
        assert [vote.turn for vote in votes_of(arena.store, battle)] == [0, 1]
        done = export(arena.store, tmp_path / "out", ExportOptions(format="trl"))
        assert done.left_out["diverged"] == 1


def test_better_answer_is_written_and_exported(page: Page, tmp_path: Path) -> None:
    scripts = {"one": Script(words=("Lyons.",)), "two": Script(words=("Nice.",))}
    with FaultServer(scripts) as server, PageServer(tmp_path, server.url) as arena:
        ask(page, arena, "Capital of France?")
        page.wait_for_selector(CAN_VOTE)
        page.click("#vote-both-bad")
        page.wait_for_selector("#details")
        page.click("#details button")
        page.fill("#edited textarea", "Paris.")
        page.click("#save-details")
        page.wait_for_selector(".status-line:has-text('Saved.')")
        battle = battle_of(page)
        (vote,) = votes_of(arena.store, battle)
        assert vote.judgement.edited_answer == "Paris."
        export(arena.store, tmp_path / "out", ExportOptions(format="trl"))
        rows = [
            (row["chosen"][0]["content"], row["rejected"][0]["content"])
            for row in lines_of(tmp_path / "out")
        ]
        assert sorted(rows) == [("Paris.", "Lyons."), ("Paris.", "Nice.")]


def lines_of(folder: Path) -> list[dict[str, Any]]:
    """Rows of the JSONL mirror of a dataset."""
    import json

    (mirror,) = folder.rglob("*.jsonl")
    return [json.loads(line) for line in mirror.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize(("wish", "moves"), [("no-preference", True), ("reduce", False)])
def test_nothing_moves_for_who_wants_no_motion(
    browser: Browser, tmp_path: Path, wish: Any, moves: bool
) -> None:
    """While a side has written nothing its pane shimmers, unless the visitor's system says no."""
    quiet = Script(fault="hang", after=0)
    with (
        FaultServer({"one": quiet, "two": quiet}) as server,
        PageServer(tmp_path, server.url) as arena,
        browser.new_context(reduced_motion=wish) as context,
    ):
        page = context.new_page()
        page.set_default_timeout(90_000)
        ask(page, arena)
        page.wait_for_selector("#answer-a .is-waiting .shimmer")
        running = (
            "document.getAnimations().filter(one => one.playState === 'running'"
            " && document.querySelector('#arena').contains(one.effect.target)).length"
        )
        assert (page.evaluate(running) > 0) is moves
        page.click("#stop")
        page.wait_for_selector("#answer-a :is(.is-stopped, .is-failed)")


def test_models_of_a_link_are_shown_once_their_server_answers(page: Page, tmp_path: Path) -> None:
    scripts = {"one": Script(), "two": Script()}
    with (
        FaultServer(scripts, listing=500) as server,
        PageServer(tmp_path, server.url) as arena,
    ):
        page.goto(f"{arena.url}/?models=one,two")
        page.wait_for_selector("#prompt textarea")
        server.listing = 200
        wait_for_names(page)
