"""Best of n: the estimate equals the mean over every way to choose n samples."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuning.preference.best_of_n import (
    BestOfError,
    Samples,
    curve,
    draw_curve,
    expected_best,
    kl_bound,
    sizes_up_to,
    win_rate_bound,
)

samples = st.lists(
    st.tuples(st.integers(-2, 2).map(float), st.floats(0, 1)), min_size=1, max_size=7
)


@given(samples, st.data())
def test_estimate_is_the_mean_over_all_choices(
    drawn: list[tuple[float, float]], data: st.DataObject
) -> None:
    """Of equal rewards each is picked as often as the others."""
    n = data.draw(st.integers(1, len(drawn)))
    found = []
    for chosen in itertools.combinations(drawn, n):
        best = max(reward for reward, _ in chosen)
        winners = [value for reward, value in chosen if reward == best]
        found.append(sum(winners) / len(winners))
    rewards, values = zip(*drawn, strict=True)
    assert expected_best(rewards, values, n) == pytest.approx(sum(found) / len(found))


def test_bounds_are_the_published_ones() -> None:
    """Of 2, 4, 8, 16, 32 and 64 answers."""
    sizes = [2, 4, 8, 16, 32, 64]
    assert [round(kl_bound(n), 2) for n in sizes] == [0.19, 0.64, 1.20, 1.84, 2.50, 3.17]
    assert kl_bound(1) == 0
    assert [round(win_rate_bound(n), 3) for n in sizes] == [0.667, 0.8, 0.889, 0.941, 0.97, 0.985]


def test_a_perfect_reward_reaches_what_is_there_and_a_blind_one_nothing() -> None:
    passed = (True, False, False, False)
    perfect = Samples((1.0, 0.0, 0.0, 0.0), passed, (3, 4, 5, 6))
    blind = Samples((0.0, 0.0, 0.0, 0.0), passed, (3, 4, 5, 6))
    for n in (1, 2, 4):
        (point,) = curve([perfect], [n])
        assert point.gold == pytest.approx(point.most) == pytest.approx(n / 4)
        (point,) = curve([blind], [n])
        assert point.gold == pytest.approx(0.25)
        assert point.length == pytest.approx(4.5)


def test_interval_is_over_prompts() -> None:
    """Of 100 prompts of which 36 are passed: 0.36 ± 1.96 · √(0.36·0.64/99)."""
    prompts = [Samples((0.0,), (at < 36,), (1,)) for at in range(100)]
    (point,) = curve(prompts, [1])
    half = 1.959964 * math.sqrt(0.36 * 0.64 / 99)
    assert (point.lower, point.upper) == pytest.approx((0.36 - half, 0.36 + half))


def test_sizes_double_and_end_with_all() -> None:
    assert sizes_up_to(1) == [1]
    assert sizes_up_to(8) == [1, 2, 4, 8]
    assert sizes_up_to(12) == [1, 2, 4, 8, 12]


def test_more_than_was_drawn_is_refused() -> None:
    with pytest.raises(BestOfError, match="there are 2 samples"):
        expected_best([0.0, 1.0], [0.0, 1.0], 3)
    with pytest.raises(BestOfError, match="no prompt"):
        curve([], [1])


def test_plot_is_a_picture(tmp_path: Path) -> None:
    points = curve([Samples((1.0, 0.0), (True, False), (1, 2))], [1, 2])
    draw_curve(points, tmp_path / "curve.png", "best of n")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
