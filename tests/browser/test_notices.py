"""What a visitor is told when something is not as usual, and who meets whom; in Chromium.

An answer that names its model, a deadline, too many battles, a store in use, answers that were
given in advance, an arena.toml that says who meets whom.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from fault_server import FaultServer, Script
from page_server import PageServer
from pages import CAN_VOTE, ENDED, battle_of, link_of, wait_for_names
from running import run_arena
from store_fixtures import votes_of

from arena.config.page_config import Deadlines, PageLimits

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def ask(page: Page, arena: PageServer, query: str = "") -> None:
    """Open the page and send a prompt."""
    page.goto(f"{arena.url}/{query}")
    if query:
        wait_for_names(page)
    else:
        page.wait_for_selector(".status-line:has-text('ready')")
    page.fill("#prompt textarea", "Who are you?")
    page.click("#send")


def test_answer_that_names_its_model_is_marked_after_the_vote(page: Page, tmp_path: Path) -> None:
    scripts = {"tell-tale": Script(words=("I am Tell-Tale.",)), "plain-one": Script()}
    with FaultServer(scripts) as server, PageServer(tmp_path, server.url) as arena:
        ask(page, arena)
        page.wait_for_selector(CAN_VOTE)
        assert page.locator(".problem").count() == 0, "what marks it would tell as well"
        page.click("#vote-tie")
        page.wait_for_selector("#reveal .problem:has-text('names its model')")
        assert page.locator("#reveal .problem").count() == 1
        (vote,) = votes_of(arena.store, battle_of(page))
        assert (vote.blind, vote.flags) == (True, ("identity_leak",))


def test_each_deadline_is_told_and_the_other_side_is_whole(page: Page, tmp_path: Path) -> None:
    scripts = {
        "silent": Script(fault="hang", after=0),
        "stuck": Script(fault="hang"),
        "endless": Script(words=("w ",) * 2000, delay=0.2),
        "good": Script(),
    }
    deadlines = Deadlines(first_token=4, idle=3, total=8)
    with (
        FaultServer(scripts) as server,
        PageServer(tmp_path, server.url, deadlines=deadlines) as arena,
    ):
        ask(page, arena, "?models=silent,stuck,endless,good")
        for side, text in (
            ("a", "The answer took too long to begin."),
            ("b", "The answer stopped coming."),
        ):
            page.wait_for_selector(f"#answer-{side} .is-failed .problem:has-text('{text}')")
        page.wait_for_selector("#answer-c :is(.is-failed, .is-stopped)")
        page.wait_for_selector(ENDED)
        assert page.inner_text("#answer-b .answer").startswith("The capital of")
        assert page.inner_text("#answer-c .answer").startswith("w w")
        assert page.inner_text("#answer-d .answer") == "The capital of France is Paris."
        server.wait_for_streams(0)
        assert arena.service.num_running == 0


def test_who_asks_too_often_is_told_to_wait(page: Page, tmp_path: Path) -> None:
    limits = PageLimits(battles_per_minute=1)
    with (
        FaultServer({"one": Script(), "two": Script()}) as server,
        PageServer(tmp_path, server.url, limits=limits) as arena,
    ):
        ask(page, arena)
        page.wait_for_selector(CAN_VOTE)
        first = battle_of(page)
        page.fill("#prompt textarea", "And now?")
        page.click("#send")
        page.wait_for_selector(".status-line.bad:has-text('You sent very many prompts')")
        assert battle_of(page) == first
        assert page.input_value("#prompt textarea") == "And now?", "what was written is not lost"


def test_vote_that_cannot_be_stored_is_told_and_given_again(page: Page, tmp_path: Path) -> None:
    with (
        FaultServer({"one": Script(), "two": Script()}) as server,
        PageServer(tmp_path, server.url) as arena,
    ):
        ask(page, arena)
        page.wait_for_selector(CAN_VOTE)
        with closing(sqlite3.connect(arena.store.path)) as blocker:
            blocker.execute("BEGIN IMMEDIATE")
            page.click("#vote-b")
            page.wait_for_selector(".status-line.bad:has-text('Not saved, try again')")
            blocker.rollback()
        assert page.locator("#reveal .reveal-card").count() == 0, "no name before the vote is kept"
        page.click("#vote-b")
        page.wait_for_selector("#reveal .reveal-card")
        assert len(votes_of(arena.store, battle_of(page))) == 1


def test_arena_toml_says_who_meets_whom(page: Page, tmp_path: Path) -> None:
    """A participant of another server, of the OpenAI API alone, is drawn as the file requires."""
    with (
        FaultServer({"one": Script(), "two": Script()}) as own,
        FaultServer({"their-model": Script(words=("Paris, sir.",))}, is_tgi=False) as foreign,
    ):
        (tmp_path / "arena.toml").write_text(
            f'[[participant]]\nname = "House"\nurl = "{foreign.url}"\n'
            'system_prompt = "Be polite."\n'
            '[drawing]\nrequired = [["one", "House"]]\nrequired_share = 0.9\n',
            encoding="utf-8",
        )
        with PageServer(tmp_path, own.url) as arena:
            for _ in range(20):  # one draw in ten may be of another pair
                ask(page, arena)
                page.wait_for_selector(CAN_VOTE)
                if foreign.requests:
                    break
            page.click("#vote-a")
            page.wait_for_selector("#reveal .reveal-card")
            assert "House" in page.locator("#reveal h3").all_inner_texts()
            assert foreign.requests[0]["messages"][0] == {
                "role": "system",
                "content": "Be polite.",
            }
            battle_id, token = link_of(page)
            battle = arena.store.load_battle(battle_id, token=token).battle
            is_required = {person.name for person in battle.participants} == {"one", "House"}
            assert battle.propensity == pytest.approx(0.1 / 3 + 0.9 * is_required)


def test_set_answered_in_advance_waits_for_nobody(page: Page, tmp_path: Path) -> None:
    (tmp_path / "sets").mkdir()
    (tmp_path / "sets" / "fruit.txt").write_text("Name a fruit.\n")
    scripts = {"plain-one": Script(words=("A pear.",)), "plain-two": Script(words=("A plum.",))}
    with FaultServer(scripts) as server:
        command = ("sets", "answer", "fruit", "--backend", server.url, "--home", tmp_path)
        done = run_arena(*command, cwd=tmp_path)
        assert done.status == 0, done.stderr
        gone = server.url
    with PageServer(tmp_path, gone) as arena:
        page.goto(f"{arena.url}/?set=fruit")
        page.wait_for_selector("#set-progress progress[max='1']")
        page.click("#next-in-set")
        page.wait_for_selector(CAN_VOTE)
        texts = {page.inner_text(f"#answer-{side} .answer") for side in "ab"}
        assert texts == {"A pear.", "A plum."}
        assert "plain-" not in page.content()
        page.keyboard.press("1")
        page.wait_for_selector("#reveal .reveal-card")
        page.wait_for_selector("#set-progress progress[value='1']")
        (vote,) = votes_of(arena.store, battle_of(page))
        assert vote.blind
