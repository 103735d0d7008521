"""An answer that is being written as HTML: whole blocks are drawn once, only the last one anew.

What a page is told of each step is small: the blocks that were finished by it, and how the HTML
of the last block goes on. Knows Markdown's HTML as `markdown` makes it; knows no battle.
"""

from __future__ import annotations

from typing import Any

from arena.page.html.markdown import answer_html, settled_html


class IncrementalHtml:
    """What one reader has been told of one answer that is being written."""

    def __init__(self) -> None:
        self._settled = 0  # characters of blocks that are told for good
        self._looked = 0  # characters of the whole lines that were searched for blocks
        self._tail = ""

    def more(self, text: str) -> dict[str, Any]:
        """The step to this text, which begins with all texts before; {} if nothing changed.

        `add`: HTML of finished blocks, to stand before the last one, which then begins anew.
        `tail`: how the last block's HTML goes on after its first `at` UTF-16 units.
        """
        step: dict[str, Any] = {}
        end = text.rfind("\n") + 1
        if end > self._looked:
            self._looked = end
            added, length = settled_html(text[self._settled : end])
            if length:
                self._settled += length
                self._tail = ""
                step["add"] = added
        tail = answer_html(text[self._settled :], final=False)
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
