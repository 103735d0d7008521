"""The shortcut in Gradio's events sends what Gradio itself would send, with less work."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import gradio as gr

from arena.page.gradio_patch import LOOKS_SECONDS, look_less_often, send_only_changes


def sent(handler: Any, *, patched: bool) -> tuple[list[Any], list[str]]:
    """What an event of three outputs sends, and which components Gradio made for it."""
    return asyncio.run(_sent(handler, patched=patched))


async def _sent(handler: Any, *, patched: bool) -> tuple[list[Any], list[str]]:
    with gr.Blocks(analytics_enabled=False) as demo:
        box = gr.Textbox("old", label="a")
        button = gr.Button("b")
        page = gr.HTML("<p>old</p>")
        button.click(lambda: handler(box, button, page), None, [box, button, page])
    if patched:
        send_only_changes(demo)
    made: list[str] = []

    class Recorder(dict[int, Any]):
        def __setitem__(self, key: int, value: Any) -> None:
            made.append(type(value).__name__)
            super().__setitem__(key, value)

    from gradio.state_holder import SessionState

    state = SessionState(demo)
    state.blocks_config.blocks = Recorder(state.blocks_config.blocks)
    found = await demo.process_api(demo.fns[0], [], state=state)
    return found["data"], made


def test_the_same_is_sent() -> None:
    for handler in (
        lambda box, button, page: {box: "new"},
        lambda box, button, page: {page: "<b>new</b>", button: gr.update(interactive=False)},
        lambda box, button, page: {button: gr.update(value="x", visible=False), box: "", page: ""},
        lambda box, button, page: ["one", gr.update(visible=True), "<i>two</i>"],
        lambda box, button, page: {box: gr.update(value="new", label="c")},
    ):
        slow, fast = sent(handler, patched=False)[0], sent(handler, patched=True)[0]
        for before, after in zip(slow, fast, strict=True):
            if isinstance(before, dict):
                before = {key: value for key, value in before.items() if key != "props"}
            assert after == before


def test_what_is_left_alone_is_not_made_anew() -> None:
    def change(box: Any, button: Any, page: Any) -> Any:
        return {button: gr.update(interactive=False)}

    assert len(sent(change, patched=True)[1]) < len(sent(change, patched=False)[1])


async def _looks(seconds: float) -> tuple[int, float]:
    """How often an idle queue looks for an event, and in which time."""
    with gr.Blocks(analytics_enabled=False) as demo:
        gr.Button("b").click(lambda: None)
    demo.queue()
    look_less_often(demo)
    seen = 0

    class Watched(type(demo._queue)):  # type: ignore[misc]
        def __len__(self) -> int:
            nonlocal seen
            seen += 1
            return 0

    demo._queue.__class__ = Watched
    began = time.monotonic()
    looking = asyncio.create_task(demo._queue.start_processing())
    await asyncio.sleep(seconds)
    looking.cancel()
    await asyncio.gather(looking, return_exceptions=True)
    return seen, time.monotonic() - began


def test_an_idle_queue_looks_rarely() -> None:
    """A pause is never shorter than was asked for, however fast or slow the machine is."""
    seen, took = asyncio.run(_looks(0.3))
    assert 1 <= seen <= took / LOOKS_SECONDS + 2
