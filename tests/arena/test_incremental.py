"""An answer told step by step is, at every step, what drawing it whole gives."""

from __future__ import annotations

import random
import re

import pytest

from arena.page.drawing.jobs import ways
from arena.page.drawing.views import job_of
from arena.page.html.incremental import IncrementalHtml
from arena.page.html.markdown import LABELS, answer_html

RICH = """<think>
A first *thought*.

And one more.
</think>

# A head

Some *words* & <b>tags</b> with 🙂 in one
paragraph of two lines.

- one
- two

  still two

1. first
2. second

```python
def f():

    return "🙂"
```

| a | b |
|---|---|
| 1 | 2 |

$$
\\frac{a}{b}
$$

Text under a formula $x^2$.

> quoted

Last words, long enough to go on and on."""


class Page:
    """What the page's script keeps of one answer; texts by UTF-16 units, as a browser has them."""

    def __init__(self) -> None:
        self.settled = self.tail = ""

    def take(self, step: dict[str, object]) -> None:
        if "add" in step:
            self.settled += str(step["add"])
            self.tail = ""
        if "tail" in step:
            at = step["at"]
            assert isinstance(at, int)
            kept = self.tail.encode("utf-16-le")[: 2 * at].decode("utf-16-le")
            self.tail = kept + str(step["tail"])

    @property
    def html(self) -> str:
        return self.settled + self.tail


def more(incremental: IncrementalHtml, text: str) -> dict[str, object]:
    """One step, drawn here."""
    step = incremental.next(text)
    return incremental.told(text, ways(job_of(step, LABELS))[0]() if step else None)


@pytest.mark.parametrize("seed", range(8))
def test_steps_end_where_the_whole_does(seed: int) -> None:
    cuts = random.Random(seed)
    page, incremental, end = Page(), IncrementalHtml(), 0
    while end < len(RICH):
        end = min(len(RICH), end + cuts.randint(1, 2 + 9 * seed))
        page.take(more(incremental, RICH[:end]))
        assert plain(page.html) == plain(answer_html(RICH[:end]))
    assert page.html == answer_html(RICH)
    assert more(incremental, RICH) == {}


def plain(html: str) -> str:
    """Without line ends and what the last block has not yet: colours of code, buttons to copy."""
    bare = re.sub(r'<button.*?</button>|<span class="hl-[^"]*">|</span>|\n', "", html)
    return bare.replace("&quot;", '"')


def test_a_step_is_as_long_as_what_is_new() -> None:
    incremental = IncrementalHtml()
    more(incremental, "word " * 200)
    assert more(incremental, "word " * 200 + "more & more") == {
        "at": len('<p dir="auto">' + "word " * 199 + "word"),
        "tail": " more &amp; more</p>\n",
    }


def test_blocks_that_are_whole_are_not_told_again() -> None:
    incremental = IncrementalHtml()
    more(incremental, "One.\n\nTw")
    step = more(incremental, "One.\n\nTwo.\n\nThree")
    assert step == {
        "add": '<p dir="auto">Two.</p>\n',
        "at": 0,
        "tail": '<p dir="auto">Three</p>\n',
    }
    more(incremental, "One.\n\nTwo.\n\nThree.\n\n- a\n\n")
    step = more(incremental, "One.\n\nTwo.\n\nThree.\n\n- a\n\n- b")
    assert "add" not in step, "a list goes on after a blank line"


def test_html_in_a_growing_answer_is_shown() -> None:
    page, incremental = Page(), IncrementalHtml()
    attack = "<script>alert(1)</script>\n\n<img src=x onerror=alert(1)>\n\n[x](javascript:alert(1))"
    for end in range(1, len(attack) + 1):
        page.take(more(incremental, attack[:end]))
        assert "<script" not in page.html
        assert "<img" not in page.html
        assert "href" not in page.html


def test_what_could_not_be_drawn_goes_on_as_words() -> None:
    page, incremental = Page(), IncrementalHtml()
    page.take(more(incremental, "One.\n\nTw"))
    text = "One.\n\nTwo *is* <b>long"
    assert incremental.next(text) is not None
    page.take(incremental.told(text, None))
    words = '<div class="plain" dir="auto">Two *is* &lt;b&gt;long'
    assert page.html == f'<p dir="auto">One.</p>\n{words}</div>'
    longer = text + " and\n\nlonger"
    assert incremental.next(longer) is None, "it is not tried again"
    page.take(incremental.told(longer, None))
    assert page.html == f'<p dir="auto">One.</p>\n{words} and\n\nlonger</div>'
