"""The layout of the page: which element stands where, under which elem_id. No behaviour.

Knows Gradio and words; knows no store, no server and no model name.
"""

from __future__ import annotations

import html
from dataclasses import dataclass, field

import gradio as gr

from arena.battle import SIDES
from arena.panes import empty_html
from arena.wording import Words

EXAMPLES = (
    "What is the capital of France?",
    "Name three fruits.",
    "What is the opposite of hot?",
    "Write a short story with the words dog, river and cake.",
    "Which of these is an animal: chair, horse, spoon?",
)


@dataclass
class Page:
    """The elements that handlers read or change, by what they are for."""

    mode: gr.Radio
    models: gr.Dropdown
    empty: gr.Column
    examples: list[gr.Button]
    asked: gr.HTML
    panes_row: gr.Row
    panes: list[gr.HTML]
    vote_bar: gr.Column
    votes: dict[str, gr.Button]
    reveal: gr.HTML
    status: gr.HTML
    prompt: gr.Textbox
    send: gr.Button
    stop: gr.Button
    new: gr.Button
    battle: gr.Textbox
    token: gr.Textbox
    board: dict[str, gr.components.Component] = field(default_factory=dict)

    @property
    def battle_outputs(self) -> list[gr.blocks.Block]:
        """Everything that an act on a battle may change."""
        return [
            self.empty,
            self.asked,
            self.panes_row,
            *self.panes,
            self.vote_bar,
            *self.votes.values(),
            self.reveal,
            self.status,
            self.prompt,
            self.send,
            self.stop,
            self.battle,
            self.token,
        ]


def build_page(say: Words) -> Page:
    """Lay the page out inside the current `gr.Blocks`."""
    with gr.Column(elem_id="arena"):
        _html(_header(say), elem_id="masthead")
        with gr.Tabs(elem_id="tabs"):
            with gr.Tab(say("page.tab_battle"), elem_id="tab-battle"):
                page = _battle_tab(say)
            with gr.Tab(say("page.tab_leaderboard"), elem_id="tab-leaderboard") as board_tab:
                board = _leaderboard_tab(say)
        page.board = {"tab": board_tab, **board}
        _html(_help_dialog(say), elem_id="help-holder")
    return page


def _battle_tab(say: Words) -> Page:
    with gr.Row(elem_id="mode-row"):
        mode = gr.Radio(
            [(say("mode.blind"), "blind"), (say("mode.named"), "named")],
            value="blind",
            label=say("mode.label"),
            elem_id="mode",
            scale=0,
            min_width=300,
        )
        models = gr.Dropdown(
            [],
            multiselect=True,
            max_choices=len(SIDES),
            allow_custom_value=True,  # the choices come late; the server checks every name
            label=say("mode.models"),
            elem_id="models",
            visible=False,
        )
    with gr.Column(elem_id="empty", visible=True) as empty:
        _html(empty_html(say))
        with gr.Row(elem_id="examples"):
            examples = [
                gr.Button(text, size="sm", elem_classes="example", min_width=0) for text in EXAMPLES
            ]
    asked = _html("", elem_id="asked")
    with gr.Row(elem_id="panes", visible=False, equal_height=True) as panes_row:
        panes = [
            _html("", elem_id=f"answer-{letter}", visible=i < 2, elem_classes="pane-holder")
            for i, letter in enumerate(SIDES)
        ]
    with gr.Column(elem_id="vote-bar", visible=False) as vote_bar:
        _html(f'<p class="vote-label">{html.escape(say("vote.label"))}</p>')
        with gr.Row(elem_id="votes"):
            votes = {
                key: gr.Button(
                    say(f"vote.{key}"),
                    elem_id=f"vote-{key.replace('_', '-')}",
                    interactive=False,
                    min_width=90,
                    elem_classes="vote",
                )
                for key in ("a", "tie", "both_bad", "b", "skip")
            }
    reveal = _html("", elem_id="reveal")
    with gr.Column(elem_id="composer"):
        status = _html("", elem_id="status")
        with gr.Row(elem_id="composer-row"):
            prompt = gr.Textbox(
                label=say("prompt.label"),
                placeholder=say("prompt.placeholder"),
                lines=1,
                max_lines=6,
                elem_id="prompt",
                scale=5,
                autofocus=True,
            )
            with gr.Row(elem_id="composer-buttons", scale=0):
                send = gr.Button(
                    say("prompt.send"), variant="primary", elem_id="send", min_width=90
                )
                stop = gr.Button(
                    say("prompt.stop"), elem_id="stop", interactive=False, min_width=80
                )
                new = gr.Button(say("prompt.new"), elem_id="new-battle", min_width=110)
    battle = gr.Textbox(visible="hidden", elem_id="battle-id", label="battle")
    token = gr.Textbox(visible="hidden", elem_id="battle-token", label="token")
    return Page(
        mode,
        models,
        empty,
        examples,
        asked,
        panes_row,
        panes,
        vote_bar,
        votes,
        reveal,
        status,
        prompt,
        send,
        stop,
        new,
        battle,
        token,
    )


def _leaderboard_tab(say: Words) -> dict[str, gr.components.Component]:
    table = _html("", elem_id="leaderboard")
    with gr.Row(elem_id="board-buttons"):
        refresh = gr.Button(say("leaderboard.refresh"), elem_id="refresh", scale=0, min_width=120)
        export = gr.Button(say("export.button"), elem_id="export", scale=0, min_width=160)
    _html(f'<p class="muted">{html.escape(say("export.body"))}</p>')
    outcome = _html("", elem_id="export-outcome")
    return {"table": table, "refresh": refresh, "export": export, "outcome": outcome}


def _html(value: str, *, elem_id: str | None = None, **options: object) -> gr.HTML:
    """A piece of markup that listens to nothing."""
    return gr.HTML(value, elem_id=elem_id, js_on_load=None, apply_default_css=False, **options)


def _header(say: Words) -> str:
    return (
        f'<a class="skip-link" href="#panes">{html.escape(say("page.skip_link"))}</a>'
        '<div class="masthead"><span class="mark" aria-hidden="true"><i></i><i></i></span>'
        f"<div><h1>{html.escape(say('page.title'))}</h1>"
        f"<p>{html.escape(say('page.tagline'))}</p></div>"
        '<button type="button" class="help-button" data-help aria-haspopup="dialog">'
        f"{html.escape(say('help.button'))} <kbd>?</kbd></button></div>"
    )


KEYS = (
    ("/", "focus"),
    ("Enter", "send"),
    ("1", "a"),
    ("2", "b"),
    ("3", "tie"),
    ("4", "both_bad"),
    ("s", "skip"),
    ("n", "new"),
    ("Esc", "stop"),
    ("?", "help"),
)


def _help_dialog(say: Words) -> str:
    rows = "".join(
        f"<div><dt><kbd>{html.escape(key)}</kbd></dt><dd>{html.escape(say(f'help.{name}'))}</dd></div>"
        for key, name in KEYS
    )
    return (
        f'<dialog id="help" aria-labelledby="help-title"><h2 id="help-title">'
        f"{html.escape(say('help.title'))}</h2><dl>{rows}</dl>"
        f'<button type="button" data-close>{html.escape(say("help.close"))}</button></dialog>'
    )
