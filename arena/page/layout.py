"""The layout of the page: which element stands where, under which elem_id. No behaviour.

Knows Gradio and words; knows no store, no server and no model name.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from arena.i18n import Words
from arena.page.admin_tab import AdminTab
from arena.page.elements import markup
from arena.page.html.frame import empty_html, header_html, help_html, note_html, views_html
from arena.page.html.panes import status_html
from arena.values.battle import SIDES
from arena.values.examples import EXAMPLES, OPEN_EXAMPLES, STARTER_EXAMPLES
from arena.values.vote import REASONS

VOTES = ("a", "tie", "both_bad", "b", "skip")


class Page:
    """All elements, made inside the current `gr.Blocks`; handlers read and change them."""

    def __init__(self, say: Words) -> None:
        with gr.Column(elem_id="arena"):
            self.header = markup(header_html(say), elem_id="masthead")
            self.account = markup("", elem_id="account")
            with gr.Tabs(elem_id="tabs"):
                with gr.Tab(say("page.tab_battle"), elem_id="tab-battle") as self.tab_battle:
                    self._battle(say)
                with gr.Tab(say("page.tab_leaderboard"), elem_id="tab-board") as self.tab_board:
                    self._board(say)
                with gr.Tab(say("page.tab_history"), elem_id="tab-history") as self.tab_history:
                    self._history(say)
                with gr.Tab(
                    say("page.tab_tune"), elem_id="tab-tune", visible=False
                ) as self.tab_tune:
                    self.tune = markup("", elem_id="tune")
                with gr.Tab(
                    say("page.tab_admin"), elem_id="tab-admin", visible=False
                ) as self.tab_admin:
                    self.admin = AdminTab(say)
            self.help = markup(help_html(say), elem_id="help-holder")

    @property
    def battle_outputs(self) -> list[Any]:
        """Everything that an act on a battle may change."""
        return [
            self.empty,
            self.asked,
            self.panes_row,
            *self.panes,
            self.views,
            self.again,
            self.vote_bar,
            self.votes_row,
            self.ranks_row,
            *self.ranks,
            self.save_ranking,
            self.differences,
            *self.votes.values(),
            self.undo,
            self.details,
            self.strength,
            self.reasons,
            self.comment,
            self.edited,
            self.reveal,
            self.scores,
            self.tokens,
            self.status,
            self.next,
            self.prompt,
            self.send,
            self.stop,
            self.link,
            self.run,
        ]

    @property
    def waiting(self) -> list[Any]:
        """What starts something: pressed only once the page is heard, after it was loaded."""
        return [self.send, self.new, self.next_in_set, *self.examples]

    @property
    def open_examples(self) -> list[Any]:
        """The examples for models beside the starter: shown where there are such."""
        return self.examples[-len(OPEN_EXAMPLES) :]

    @property
    def live_outputs(self) -> list[Any]:
        """What the page's own script may change, in the order in which it knows the elements."""
        return [*self.battle_outputs, self.set_progress]

    def _battle(self, say: Words) -> None:
        with gr.Row(elem_id="mode-row"):
            self.mode = gr.Radio(
                mode_choices(say),
                value="blind",
                label=say("mode.label"),
                elem_id="mode",
                scale=0,
                min_width=460,
            )
            self.models = gr.Dropdown(
                [],
                multiselect=True,
                max_choices=len(SIDES),
                allow_custom_value=True,  # the choices come late; the server checks every name
                label=say("mode.models"),
                info=say("mode.models_info"),
                elem_id="models",
                visible=False,
            )
        self._set(say)
        with gr.Column(elem_id="empty") as self.empty:
            self.hero = markup(empty_html(say))
            with gr.Row(elem_id="examples") as self.examples_row:
                self.examples = [
                    gr.Button(
                        text,
                        size="sm",
                        elem_classes="example",
                        min_width=0,
                        visible=text in STARTER_EXAMPLES,
                        interactive=False,
                    )
                    for text in EXAMPLES
                ]
        self.asked = markup("", elem_id="asked")
        with gr.Row(elem_id="panes", visible=False, equal_height=True) as self.panes_row:
            self.panes = [
                markup(
                    "",
                    elem_id=f"answer-{letter}",
                    visible=i < 2,
                    elem_classes="pane-holder",
                )
                for i, letter in enumerate(SIDES)
            ]
        with gr.Row(elem_id="views", visible=False) as self.views:
            self.again = gr.Button(
                say("view.again_all"), elem_id="again", size="sm", interactive=False, scale=0
            )
            self.view_buttons = markup(views_html(say), elem_id="view-buttons")
            self.differences = gr.Checkbox(
                label=say("view.differences"), elem_id="differences", container=False, scale=0
            )
        self._voting(say)
        self.reveal = markup("", elem_id="reveal")
        self.scores = markup("", elem_id="scores")
        self.tokens = markup("", elem_id="tokens")
        self._composer(say)

    def _set(self, say: Words) -> None:
        with gr.Row(elem_id="set-row", visible=False) as self.set_row:
            self.sets = gr.Dropdown(
                [],
                allow_custom_value=True,  # the choices come late; the server checks the name
                label=say("set.label"),
                elem_id="prompt-set",
                scale=0,
                min_width=220,
            )
            self.set_progress = markup("", elem_id="set-progress")
            self.next_in_set = gr.Button(
                say("set.next"),
                variant="primary",
                elem_id="next-in-set",
                min_width=170,
                scale=0,
                interactive=False,
            )

    def _voting(self, say: Words) -> None:
        with gr.Column(elem_id="vote-bar", visible=False) as self.vote_bar:
            self.vote_label = markup(note_html(say("vote.label"), "vote-label"))
            with gr.Row(elem_id="ranks", visible=False) as self.ranks_row:
                self.ranks = [
                    gr.Dropdown(
                        list(range(1, len(SIDES) + 1)),
                        value=None,
                        label=say("vote.rank", side=letter.upper()),
                        elem_id=f"rank-{letter}",
                        min_width=110,
                        visible=False,
                    )
                    for letter in SIDES
                ]
                self.save_ranking = gr.Button(
                    say("vote.save_ranking"), elem_id="save-ranking", min_width=150
                )
            with gr.Row(elem_id="votes") as self.votes_row:
                self.votes = {
                    key: gr.Button(
                        say(f"vote.{key}"),
                        elem_id=f"vote-{key.replace('_', '-')}",
                        interactive=False,
                        min_width=90,
                        elem_classes="vote",
                    )
                    for key in VOTES
                }
            self.undo = gr.Button(
                say("vote.undo"), elem_id="undo", visible=False, size="sm", variant="secondary"
            )
            with gr.Accordion(
                say("vote.more"), elem_id="details", open=False, visible=False
            ) as self.details:
                self._details(say)

    def _details(self, say: Words) -> None:
        self.strength = gr.Radio(
            [(say("vote.slightly"), "slightly"), (say("vote.much"), "much")],
            label=say("vote.strength"),
            elem_id="strength",
        )
        self.reasons = gr.CheckboxGroup(
            [(say(f"reason.{reason}"), reason) for reason in REASONS],
            label=say("vote.reasons"),
            elem_id="reasons",
        )
        self.comment = gr.Textbox(
            label=say("vote.comment"), lines=2, max_lines=6, elem_id="comment", max_length=4000
        )
        self.edited = gr.Textbox(
            label=say("vote.edited"), lines=2, max_lines=12, elem_id="edited", max_length=20_000
        )
        self.save_details = gr.Button(say("vote.save"), elem_id="save-details", scale=0)

    def _composer(self, say: Words) -> None:
        with gr.Column(elem_id="composer"):
            self.status = markup(status_html("", say), elem_id="status")
            self.next = gr.Radio(
                [(say("next.new"), "new")],
                value="new",
                label=say("next.label"),
                elem_id="next",
                visible=False,
            )
            with gr.Row(elem_id="composer-row"):
                self.prompt = gr.Textbox(
                    label=say("prompt.label"),
                    placeholder=say("prompt.placeholder"),
                    lines=1,
                    max_lines=6,
                    elem_id="prompt",
                    scale=5,
                    autofocus=True,
                )
                with gr.Row(elem_id="composer-buttons", scale=0):
                    self.send = gr.Button(
                        say("prompt.send"),
                        variant="primary",
                        elem_id="send",
                        min_width=90,
                        interactive=False,
                    )
                    self.stop = gr.Button(
                        say("prompt.stop"), elem_id="stop", interactive=False, min_width=80
                    )
                    self.new = gr.Button(
                        say("prompt.new"), elem_id="new-battle", min_width=110, interactive=False
                    )
        # Which battle this browser shows, as the address bar has it too (live.js): one element, for
        # Gradio's page takes up element by element, and a battle without its secret is no link.
        self.link = gr.Textbox(visible="hidden", elem_id="battle-link", label="link")
        # The run of answers that is being written, and what applies what has changed (live.js).
        self.run = gr.Textbox(visible="hidden", elem_id="battle-run", label="run")
        self.apply = gr.Button(visible="hidden", elem_id="apply-changes")

    def _board(self, say: Words) -> None:
        with gr.Row(elem_id="board-filters"):
            self.board_reason = gr.Dropdown(
                reason_choices(say),
                value="",
                label=say("leaderboard.reason"),
                elem_id="board-reason",
                min_width=200,
            )
            self.board_tag = gr.Textbox(
                label=say("leaderboard.tag"), elem_id="board-tag", max_lines=1, min_width=200
            )
            self.board_since, self.board_until = (
                gr.Textbox(
                    label=say(f"leaderboard.{end}"),
                    placeholder="2026-01-31",
                    elem_id=f"board-{end}",
                    max_lines=1,
                    min_width=120,
                )
                for end in ("since", "until")
            )
            self.board_style = gr.Checkbox(
                label=say("leaderboard.style"), elem_id="board-style", min_width=200
            )
            self.board_without_flagged = gr.Checkbox(
                True,
                label=say("leaderboard.without_flagged"),
                elem_id="board-without-flagged",
                min_width=200,
            )
        self.board = markup("", elem_id="leaderboard")
        self.over_time = markup("", elem_id="over-time")
        with gr.Row(elem_id="board-buttons"):
            self.draw_over_time = gr.Button(
                say("leaderboard.over_time"), elem_id="draw-over-time", scale=0, min_width=160
            )
            self.refresh = gr.Button(
                say("leaderboard.refresh"), elem_id="refresh", scale=0, min_width=120
            )
            self.export = gr.Button(say("export.button"), elem_id="export", scale=0, min_width=160)
        self.export_note = markup(note_html(say("export.body"), "muted"))
        self.export_outcome = markup(status_html("", say), elem_id="export-outcome")

    def _history(self, say: Words) -> None:
        self.search = gr.Textbox(label=say("history.search"), elem_id="search", max_lines=1)
        self.past = markup("", elem_id="history")


def mode_choices(say: Words) -> list[tuple[str, str]]:
    """The three ways to talk, with what each is called."""
    return [(say("mode.blind"), "blind"), (say("mode.named"), "named"), (say("mode.set"), "set")]


def reason_choices(say: Words) -> list[tuple[str, str]]:
    """Which votes the leaderboard counts: all, or those with a reason."""
    every = [(say("leaderboard.every_reason"), "")]
    return every + [(say(f"reason.{reason}"), reason) for reason in REASONS]
