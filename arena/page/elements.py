"""How pieces of HTML become elements of the page; knows Gradio, no words and no battle."""

from __future__ import annotations

from typing import Any

import gradio as gr


def markup(value: str, **options: Any) -> gr.HTML:
    """A piece of HTML; it listens to nothing unless told."""
    return gr.HTML(value, **{"js_on_load": None, "apply_default_css": False, **options})
