"""The elements of the tab of the person who runs the page; what they show is in `html.admin`.

Every right is checked where it acts. A voter's page has the elements but never what they show.
"""

from __future__ import annotations

import gradio as gr

from arena.exports.dataset import RAW
from arena.exports.formats import FORMATS
from arena.i18n import Words
from arena.page.elements import markup
from arena.page.html.frame import note_html
from arena.page.html.panes import status_html

LIVE_SECONDS = 5.0
# A press of a button in the table of flagged votes becomes an event with the vote and the reason.
FORWARD_VOTE = """element.addEventListener('click', (event) => {
  const button = event.target.closest('button[data-vote]');
  if (button) trigger('click', {vote: button.dataset.vote, reason: button.dataset.reason});
});"""


class AdminTab:
    """All elements of the tab, made inside it."""

    def __init__(self, say: Words) -> None:
        self.timer = gr.Timer(LIVE_SECONDS, active=False)
        self.live = markup("", elem_id="admin-live")
        self.outcome = markup(status_html("", say), elem_id="admin-outcome")
        self.switches = gr.CheckboxGroup(
            [], label=say("admin.switches"), info=say("admin.switches_info"), elem_id="switches"
        )
        self.save = gr.Button(say("vote.save"), elem_id="save-switches", scale=0)
        self.votes = markup("", elem_id="admin-votes")
        self.reward = markup("", elem_id="admin-reward")
        self.flagged = markup("", elem_id="flagged", js_on_load=FORWARD_VOTE)
        self.export_title = markup(note_html(say("export.body"), "muted"))
        with gr.Row(elem_id="admin-export"):
            self.format = gr.Dropdown(
                [*FORMATS, RAW], value="trl", label=say("admin.format"), elem_id="export-format"
            )
            self.redact = gr.Checkbox(
                label=say("admin.redact"), elem_id="export-redact", container=False
            )
            self.make = gr.Button(say("export.button"), elem_id="make-dataset", scale=0)

    @property
    def shown(self) -> list[gr.components.Component]:
        """What opening the tab fills."""
        return [self.live, self.switches, self.votes, self.reward, self.flagged, self.timer]
