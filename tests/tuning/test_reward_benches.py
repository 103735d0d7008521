"""RewardBench 2 and RM-Bench: their files, and their rules against their own code as loops."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tuning_fixtures import write_rows

from tuning.errors import TuningError
from tuning.preference.reward_benches import load_bench, style_matrix, styled


def bench_row(name: str, subset: str, right: int, wrong: int) -> dict[str, Any]:
    """A row of RewardBench 2."""
    return {
        "id": name,
        "prompt": "Which?",
        "chosen": [f"right {at}" for at in range(right)],
        "rejected": [f"wrong {at}" for at in range(wrong)],
        "num_correct": right,
        "num_incorrect": wrong,
        "total_completions": right + wrong,
        "models": ["m"] * (right + wrong),
        "subset": subset,
        "additional_metadata": {},
    }


def test_reward_bench_two_is_scored_by_its_rules(tmp_path: Path) -> None:
    rows = [
        bench_row("1", "Math", 1, 3),
        bench_row("2", "Math", 1, 3),
        bench_row("3", "Focus", 1, 3),
        bench_row("ref:0", "Ties", 1, 2),
        bench_row("tied:0", "Ties", 2, 2),
    ]
    bench = load_bench(write_rows(tmp_path / "bench.jsonl", rows))
    assert [len(item.answers) for item in bench.items] == [4, 4, 4, 3, 4]
    scores = [[3, 1, 2, 0], [1, 2, 0, 0], [2, 2, 0, 1], [4, 1, 2], [5, 4, 1, 2]]
    found = bench.score(scores)
    # Ties: both accurate, so .3 + .3; the gaps 2 (tied) and 2 (reference) exceed the spread 1, so
    # .2 + .2; and .01 tanh(2 / 1 - 1).
    ties = 1.0 + 0.01 * np.tanh(1)
    assert found["subsets"] == {"Focus": 0.5, "Math": 0.5, "Ties": pytest.approx(ties)}
    assert found["score"] == pytest.approx((0.5 + 0.5 + ties) / 3)
    wrong = bench.score([[0, 1, 1, 1]] * 3 + [[0, 1, 1], [2, 0, 1, 1]])
    # Neither is accurate, the gap is below the spread, and the bonus is tanh(-1 / 2 - 1).
    assert wrong["subsets"]["Ties"] == pytest.approx(0.01 * np.tanh(-1.5))
    assert bench.score([[1] * len(item.answers) for item in bench.items])["subsets"]["Math"] == 0.25


def test_rm_bench_has_the_matrix_of_its_readme(tmp_path: Path) -> None:
    rows = [
        {"id": at, "prompt": "?", "chosen": ["a"] * 3, "rejected": ["b"] * 3, "domain": domain}
        for at, domain in enumerate(["chat", "chat", "math"])
    ]
    bench = load_bench(write_rows(tmp_path / "bench.jsonl", rows))
    scores = np.random.default_rng(0).normal(size=(3, 6)).tolist()
    matrix = np.zeros((3, 3))
    for row in scores:
        for i in range(3):
            for j in range(3):
                matrix[i][j] += row[i] > row[3 + j]
    matrix /= 3
    found = bench.score(scores)
    assert found["matrix"] == pytest.approx(matrix)
    assert found["hard"] == pytest.approx(np.sum(np.triu(matrix, 1)) / 3)
    assert found["normal"] == pytest.approx(np.mean(np.diag(matrix)))
    assert found["easy"] == pytest.approx(np.sum(np.tril(matrix, -1)) / 3)
    assert found["domains"]["math"]["num_prompts"] == 1


def test_a_reward_for_markup_shows_in_the_hard_corner() -> None:
    fancy = [[0, 1, 2, 0, 1, 2]] * 4  # knows style alone
    found = style_matrix(fancy)
    assert (found["hard"], found["normal"], found["easy"]) == (0.0, 0.0, 1.0)
    terse, wordy, marked = styled("Red.\nBlue.")
    assert terse == "Red.\nBlue."
    assert len(wordy) > len(terse)
    assert "- **Red.**\n- **Blue.**" in marked


def test_rows_of_another_form_are_named(tmp_path: Path) -> None:
    good = {"prompt": "?", "chosen": ["a"] * 3, "rejected": ["b"] * 3}
    for change, words in (
        ({"chosen": ["a"]}, ":1: chosen: RM-Bench has 3 styles"),
        ({"rejected": 7}, ":1: rejected: is no list of texts"),
        ({"prompt": ""}, ":1: prompt: nothing in it is asked"),
    ):
        path = write_rows(tmp_path / "bad.jsonl", [good | change])
        with pytest.raises(TuningError, match=words):
            load_bench(path)
    mixed = [good, bench_row("1", "Math", 1, 3)]
    with pytest.raises(TuningError, match="rows of both benches"):
        load_bench(write_rows(tmp_path / "mixed.jsonl", mixed))
    odd = load_bench(write_rows(tmp_path / "odd.jsonl", [bench_row("one", "Ties", 2, 2)]))
    with pytest.raises(TuningError, match=r"id 'one' of the subset Ties is not ref:N or tied:N"):
        odd.score([[1, 1, 0, 0]])
