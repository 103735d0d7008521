"""Style is counted as a reader sees it, and scaled so that sides may be swapped."""

from __future__ import annotations

import numpy as np
import pytest

from arena.ratings.style import measure_style, style_differences


def test_markup_outside_code_is_counted() -> None:
    text = (
        "# One\n## Two\n####### no\n#no\n- a\n  * b\n1. c\n2) d\n-no\n"
        "**bold** and __bold__ but 2 ** 3\n```\n# not\n- not **not**\n```\n"
    )
    style = measure_style(text)
    assert style.headers == (1, 1, 0, 0, 0, 0)
    assert (style.unordered, style.ordered) == (2, 2)
    assert (style.bold_stars, style.bold_lines) == (1, 1)
    assert style.counts == (len(text.split()), 2, 4, 2)


def test_an_open_code_block_hides_the_rest() -> None:
    assert measure_style("```py\n# comment\n").counts[1:] == (0, 0, 0)


def test_differences_flip_with_the_sides_and_have_unit_spread() -> None:
    left = np.array([[10.0, 0.0], [30.0, 0.0], [5.0, 0.0]])
    right = np.array([[30.0, 0.0], [10.0, 0.0], [5.0, 0.0]])
    found = style_differences(left, right)
    assert found == pytest.approx(-style_differences(right, left))
    assert found[:, 0].std() == pytest.approx(1)
    assert found[2, 0] == 0
    assert found[:, 1].tolist() == [0, 0, 0]
