"""Fills the tab Tune when an admin opens it; its script then speaks to the JSON API."""

from __future__ import annotations

import gradio as gr

from arena.page.actions.battles import say_for, visitor_by
from arena.page.html.tune import tune_html


async def open_tune(request: gr.Request) -> str:
    """The tab in the reader's language; nothing for who is no admin."""
    return tune_html(say_for(request)) if visitor_by(request).is_admin else ""
