"""Ties the page's elements to what happens when they are used; decides nothing itself.

Event payloads come from the browser: each handler checks them against the store.
"""

from __future__ import annotations

import json
from typing import Any

import gradio as gr

from arena.page.actions.admin import AdminActions
from arena.page.actions.battles import BattleActions
from arena.page.actions.prompt_sets import PromptSetActions
from arena.page.actions.results import ResultActions
from arena.page.actions.tune import open_tune
from arena.page.layout import Page
from arena.values.examples import EXAMPLES

# `api_visibility` is tidiness, not protection; `once` spares a second press while one runs.
QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
ONCE: dict[str, Any] = {**QUIET, "trigger_mode": "once"}
# Functions of `live.js`: each posts its act and returns what changes, by place of the element.
LINK_JS = "(link, run) => window.arena.show(link, run)"
SEND_JS = """(prompt, mode, models, following, link) =>
  window.arena.act('send', {prompt, mode, models, following, link})"""
EXAMPLE_JS = """(mode, models) =>
  window.arena.act('send', {prompt: PROMPT, mode, models, following: 'new', example: true})"""
AGAIN_JS = "(link) => window.arena.act('again', {link})"
STOP_JS = "(link) => window.arena.act('stop', {link})"
NEXT_JS = "(set, link) => window.arena.act('next', {set, link})"
VOTE_JS = """(link, marked, mode, set) =>
  window.arena.act('vote', {choice: CHOICE, link, marked, set: mode === 'set' ? set : ''})"""
RANK_JS = """(link, marked, mode, set, ...ranks) =>
  window.arena.act('rank', {ranks, link, marked, set: mode === 'set' ? set : ''})"""
UNDO_JS = "(link, marked) => window.arena.act('undo', {link, marked})"
DETAILS_JS = """(strength, reasons, comment, edited, link) =>
  window.arena.act('details', {strength, reasons, comment, edited, link})"""
NEW_JS = "(link) => window.arena.act('leave', {link})"
APPLY_JS = "() => window.arena.changes()"


def wire(
    demo: gr.Blocks,
    page: Page,
    battle_actions: BattleActions,
    set_actions: PromptSetActions,
    results: ResultActions,
    admin_actions: AdminActions,
) -> None:
    """All events of the page."""
    at_first = [*page.battle_outputs, *fixed_texts(page), *page.examples]
    loaded = demo.load(battle_actions.on_load, None, at_first, **QUIET)
    # An element that stands only after loading has changed it tells of no change.
    loaded.then(None, [page.link, page.run], None, js=LINK_JS, **QUIET)
    _asking(page)
    _judging(page)
    _sets(page, set_actions, loaded)
    shown = [page.differences, page.link]
    page.differences.change(battle_actions.on_view, shown, page.panes, **QUIET)
    _tabs(page, results)
    _admin(page, admin_actions)
    page.tab_tune.select(open_tune, None, page.tune, **QUIET)


def _asking(page: Page) -> None:
    """What starts and ends answers: plain requests of the page's script, no events of Gradio."""
    link, outputs = page.link, page.live_outputs
    composed = [page.prompt, page.mode, page.models, page.next, link]
    gr.on([page.send.click, page.prompt.submit], None, composed, outputs, js=SEND_JS, **QUIET)
    for button, text in zip(page.examples, EXAMPLES, strict=True):
        js = EXAMPLE_JS.replace("PROMPT", json.dumps(text))
        button.click(None, [page.mode, page.models], outputs, js=js, **QUIET)
    page.again.click(None, link, outputs, js=AGAIN_JS, **QUIET)
    page.stop.click(None, link, outputs, js=STOP_JS, **QUIET)
    page.next_in_set.click(None, [page.sets, link], outputs, js=NEXT_JS, **QUIET)
    page.apply.click(None, None, outputs, js=APPLY_JS, **QUIET)
    for part in (link, page.run):
        part.change(None, [link, page.run], None, js=LINK_JS, **QUIET)


def _judging(page: Page) -> None:
    """Votes, and what follows from one: requests of the page's script as well."""
    outputs = page.live_outputs
    view = [page.link, page.differences]
    judged = [*view, page.mode, page.sets]
    for choice, button in page.votes.items():
        js = VOTE_JS.replace("CHOICE", json.dumps(choice))
        button.click(None, judged, outputs, js=js, **QUIET)
    page.save_ranking.click(None, [*judged, *page.ranks], outputs, js=RANK_JS, **QUIET)
    page.undo.click(None, view, outputs, js=UNDO_JS, **QUIET)
    told = [page.strength, page.reasons, page.comment, page.edited]
    page.save_details.click(None, [*told, page.link], outputs, js=DETAILS_JS, **QUIET)
    page.new.click(None, page.link, outputs, js=NEW_JS, **QUIET)


def _sets(page: Page, actions: PromptSetActions, loaded: Any) -> None:
    """How to compare, by a link or by hand, and how far a prompt set is."""
    for event in (loaded.then, page.mode.input):
        event(actions.on_mode, [page.mode, page.models, page.sets], actions.outputs, **QUIET)
    where = [page.mode, page.sets]
    page.sets.input(actions.on_progress, where, page.set_progress, **QUIET)


def _tabs(page: Page, results: ResultActions) -> None:
    """Filled when they are opened: a page that stays blind receives no name from them."""
    chosen = [
        *(page.board_reason, page.board_tag, page.board_since, page.board_until),
        *(page.board_style, page.board_without_flagged),
    ]
    for event in (
        *(page.tab_board.select, page.refresh.click),
        *(page.board_reason.change, page.board_tag.submit, page.board_style.change),
        *(page.board_since.submit, page.board_until.submit, page.board_without_flagged.change),
    ):
        event(results.on_open, chosen, page.board, **QUIET)
    page.draw_over_time.click(results.on_over_time, chosen, page.over_time, **ONCE)
    page.export.click(results.on_export, None, page.export_outcome, **ONCE)
    for event in (page.tab_history.select, page.search.submit, page.search.change):
        event(results.on_history, page.search, page.past, **QUIET)


def _admin(page: Page, actions: AdminActions) -> None:
    """The tab of the person who runs the page; it asks the servers only while it is open."""
    tab = page.admin
    page.tab_admin.select(actions.on_open, None, tab.shown, **QUIET)
    for other in (page.tab_battle, page.tab_board, page.tab_history, page.tab_tune):
        other.select(actions.on_leave, None, tab.timer, **QUIET)
    tab.timer.tick(actions.on_tick, None, tab.live, **QUIET)
    tab.save.click(actions.on_switch, tab.switches, tab.outcome, **ONCE)
    tab.flagged.click(actions.on_clear, None, [tab.outcome, tab.flagged], **QUIET)
    tab.make.click(actions.on_export, [tab.format, tab.redact], tab.outcome, **ONCE)


def fixed_texts(page: Page) -> list[Any]:
    """Elements whose words change with the language only, and that no act on a battle changes."""
    return [
        page.header,
        page.hero,
        page.help,
        page.view_buttons,
        page.vote_label,
        page.export_note,
        page.tab_battle,
        page.tab_board,
        page.tab_history,
        page.mode,
        page.models,
        page.sets,
        page.next_in_set,
        page.search,
        page.new,
        page.save_details,
        page.board_reason,
        page.board_tag,
        page.board_since,
        page.board_until,
        page.board_style,
        page.board_without_flagged,
        page.draw_over_time,
        page.refresh,
        page.export,
        page.account,
        page.tab_admin,
        page.tab_tune,
        page.admin.switches,
        page.admin.save,
        page.admin.export_title,
        page.admin.format,
        page.admin.redact,
        page.admin.make,
    ]
