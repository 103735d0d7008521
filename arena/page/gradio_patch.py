"""Spares Gradio two large wastes: to build anew what a step leaves alone, and to look for work.

Gradio makes a new component for every output of an event at each step of a stream, also for those
that the step says nothing about. With forty outputs that is most of its work. And its queue looks
a thousand times a second for a new event, and a hundred times for progress, also when nobody is
there. Knows these inner parts of Gradio, whose version is pinned; tests hold that what is sent
stays the same and that an event is begun in time.
"""

from __future__ import annotations

import copy
from typing import Any

import gradio as gr

# A press waits half of it on average, which nobody feels; the looking costs no measurable time.
LOOKS_SECONDS = 0.02
# For `gr.Progress`, which the page does not use.
PROGRESS_SECONDS = 0.5


def look_less_often(demo: gr.Blocks) -> None:
    """Let the queue of these blocks sleep longer between two looks; call it after `queue()`."""
    queue = demo._queue
    assert hasattr(queue, "sleep_when_free"), "Gradio's queue names its pause otherwise now"
    assert hasattr(queue, "progress_update_sleep_when_free"), "likewise"
    queue.sleep_when_free = LOOKS_SECONDS
    queue.progress_update_sleep_when_free = PROGRESS_SECONDS


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
