"""An answer that is being written as HTML: whole blocks are drawn once, only the last one anew.

What a page is told of each step is small: the blocks that were finished by it, and how the HTML
of the last block goes on. Knows how steps fit together; who draws them is not its business.
"""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Step:
    """What is to be drawn next: `rest` is the text from the last block that was told on.

    `end`: how much of it is whole lines not searched for blocks yet; 0 for none. `is_start`: the
    answer begins here.
    """

    rest: str
    end: int
    is_start: bool


class IncrementalHtml:
    """What one reader has been told of one answer that is being written."""

    def __init__(self) -> None:
        self._settled = 0  # characters of blocks that are told for good
        self._looked = 0  # characters of the whole lines that were searched for blocks
        self._text: str | None = None
        self._tail = ""
        self._is_plain = False  # one step could not be drawn: from there on words only

    def next(self, text: str) -> Step | None:
        """What to draw for this text, which begins with all texts before; None for nothing."""
        if self._is_plain or text == self._text:
            return None
        end = text.rfind("\n") + 1
        is_new = end > self._looked
        return Step(text[self._settled :], end - self._settled if is_new else 0, not self._settled)

    def told(self, text: str, drawn: tuple[str, int, str] | None) -> dict[str, Any]:
        """The step to this text; {} if nothing changed.

        Args:
            text: as of `next`.
            drawn: HTML of finished blocks, the length of their text, HTML of what follows them;
                None where `next` asked for nothing, or it could not be drawn.

        Returns:
            `add`: HTML of finished blocks, to stand before the last one, which then begins anew.
            `tail`: how the last block's HTML goes on after its first `at` UTF-16 units.
        """
        step: dict[str, Any] = {}
        if text == self._text:
            return step
        self._is_plain |= drawn is None
        self._text, self._looked = text, max(self._looked, text.rfind("\n") + 1)
        added, length, tail = drawn or ("", 0, "")
        if self._is_plain:
            tail = f'<div class="plain" dir="auto">{html.escape(text[self._settled :])}</div>'
        if length:
            self._settled += length
            self._tail = ""
            step["add"] = added
        if tail != self._tail:
            same = _num_same(self._tail, tail)
            step["at"] = len(tail[:same].encode("utf-16-le", "surrogatepass")) // 2
            step["tail"] = tail[same:]
            self._tail = tail
        return step


def _num_same(one: str, other: str) -> int:
    """Length of the longest common beginning."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
