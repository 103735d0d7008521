"""What one open page is told while answers are being written: only what it does not show yet.

Knows views of battles and the renderer; knows no HTTP and no Gradio event. Before the reveal
nothing here names a model, for nothing in a battle's panes does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from arena.battles.view import BattleView
from arena.i18n import Words
from arena.page.drawing.views import drawn_of, steps_of
from arena.page.html.incremental import IncrementalHtml
from arena.page.html.panes import NOTHING_DRAWN, pane_html
from arena.page.render import Changes, Renderer


class ElementNumbers:
    """The elements of the page by the number that the browser knows them by."""

    def __init__(self, outputs: Sequence[Any]) -> None:
        self._numbers = {element: number for number, element in enumerate(outputs)}

    def __call__(self, changes: Changes) -> dict[int, Any]:
        """Changes as JSON values: a value, or an update as Gradio's page understands it."""
        return {self._numbers[element]: change for element, change in changes.items()}


class PageUpdates:
    """The messages for one reader of one run of answers."""

    def __init__(self, renderer: Renderer, numbers: ElementNumbers, say: Words) -> None:
        self._renderer, self._numbers, self._say = renderer, numbers, say
        self._states: dict[int, str] = {}
        self._texts: dict[int, IncrementalHtml] = {}
        self._told_states: tuple[Any, ...] = ()
        self._shown: Changes = {}

    async def changes(self, view: BattleView) -> dict[str, Any]:
        """What has changed since the last message on a battle that is being written; {} if nothing.

        `sides`: by number, a `frame` (the pane without a text that still grows) where its state
        changed, and the text's next step (see `IncrementalHtml`). `changes`: of the page's
        elements.
        """
        told: dict[str, Any] = {}
        sides = await self._sides(view)
        if sides:
            told["sides"] = sides
        states = tuple((side.state, bool(side.text.strip())) for side in view.sides)
        has_begun = any(side.state != "waiting" for side in view.sides)
        if has_begun and states != self._told_states:
            now = self._renderer.live(view, self._say)
            fresh = {k: v for k, v in now.items() if self._shown.get(k) != v}
            if not self._shown and not any(side.is_finished for side in view.sides):
                del fresh[self._renderer.page.status]  # it was told with more when it was asked
            self._told_states, self._shown = states, now
            if fresh:
                told["changes"] = self._numbers(fresh)
        if told:
            told["run"] = view.run
        return told

    async def _sides(self, view: BattleView) -> dict[int, Mapping[str, Any]]:
        """What has changed of each side; one that waits is as the page was told when it asked."""
        told: dict[int, dict[str, Any]] = {}
        growing: dict[int, tuple[IncrementalHtml, str]] = {}
        drawn = NOTHING_DRAWN
        for i, side in enumerate(view.sides):
            if side.state == "waiting":
                continue
            is_growing = side.state == "streaming" and bool(side.text.strip())
            state = f"{side.state} {is_growing}"
            if state != self._states.get(i):
                self._states[i] = state
                self._texts[i] = IncrementalHtml()
                if drawn is NOTHING_DRAWN:
                    drawn = await drawn_of(self._renderer.drawer, view, self._say, growing=False)
                frame = pane_html(view, i, self._say, drawn, without_text=is_growing)
                told[i] = {"frame": frame}
            if is_growing:
                growing[i] = (self._texts[i], side.text.strip("\n"))
        steps = await steps_of(self._renderer.drawer, growing, self._say)
        return {
            i: changed
            for i in range(len(view.sides))
            if (changed := told.get(i, {}) | steps.get(i, {}))
        }

    async def end(self, view: BattleView) -> dict[str, Any]:
        """The whole page as it is after the last word."""
        changes = await self._renderer.view(view, self._say, fresh=True)
        return {"end": True, "changes": self._numbers(changes)}


def as_event(message: Mapping[str, Any]) -> bytes:
    """A message as one server-sent event; an answer may hold what UTF-8 cannot."""
    text = json.dumps(message, ensure_ascii=False, separators=(",", ":"))
    return b"data: " + text.encode("utf-8", "replace") + b"\n\n"
