"""Spares Gradio its largest waste: what a step of an event leaves alone is not built anew.

Gradio makes a new component for every output of an event at each step of a stream, also for those
that the step says nothing about. With forty outputs that is most of its work. Knows one inner
step of Gradio, whose version is pinned; a test holds that what is sent stays the same.
"""

from __future__ import annotations

import copy
from typing import Any

import gradio as gr


def send_only_changes(demo: gr.Blocks) -> None:
    """Let the events of these blocks cost what they change."""
    whole = demo.postprocess_data

    async def postprocess_data(block_fn: Any, predictions: Any, state: Any) -> Any:
        outputs = list(block_fn.outputs)
        places = {block._id: i for i, block in enumerate(outputs)}
        if not _is_changes(predictions) or any(key._id not in places for key in predictions):
            return await whole(block_fn, predictions, state)
        narrow = copy.copy(block_fn)
        narrow.outputs = list(predictions)
        values = list(predictions.values())
        done = await whole(narrow, values if len(values) > 1 else values[0], state)
        sent = [gr.skip() for _ in outputs]
        for block, value in zip(predictions, done, strict=True):
            sent[places[block._id]] = value
        return sent

    demo.postprocess_data = postprocess_data


def _is_changes(predictions: Any) -> bool:
    """What a handler of ours returns: some elements, each with its change."""
    return (
        isinstance(predictions, dict)
        and bool(predictions)
        and all(isinstance(key, gr.blocks.Block) for key in predictions)
    )
