"""The report of a reward model: its statistics against published figures, loops and simulation."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tuning.data.preferences.messages import assistant, user
from tuning.data.preferences.pairs import Origin, Pair, Tie
from tuning.errors import TuningError
from tuning.preference.calibration import (
    brier,
    calibration,
    expected_calibration_error,
    learning_curve,
    length_analysis,
    log_loss,
    reliability,
    spearman,
    temperature,
)
from tuning.preference.report import ReportError, ScoredPairs, reward_report
from tuning.preference.report_text import report_markdown, write_report
from tuning.preference.vote_share import (
    VoteShare,
    author_strengths,
    logistic,
    vote_share,
)


def pair(
    prompt: str,
    models: tuple[str | None, str | None] = (None, None),
    voter: str | None = None,
    answers: tuple[str, str] = ("yes", "no"),
    line: int = 1,
) -> Pair:
    """A vote for the first of two answers."""
    first, second = answers
    origin = Origin("data", line, None, voter)
    return Pair((user(prompt),), (assistant(first),), (assistant(second),), origin, models=models)


def test_agreement_has_wilsons_interval_and_halves_what_is_equal() -> None:
    found = vote_share([1.0] * 8 + [-1.0] * 2)
    assert found is not None
    assert found.share == 0.8
    # Wilson's interval for 8 of 10, as tables of it have it.
    assert (found.lower, found.upper) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert vote_share([1.0, 0.0, 0.0, -1.0]).share == 0.5  # type: ignore[union-attr]
    assert vote_share([]) is None
    sure = vote_share([1.0] * 50)
    assert sure is not None
    assert sure.upper == 1.0
    assert sure.lower < 0.95, "an interval never has width zero"


def test_votes_on_one_prompt_do_not_narrow_the_interval() -> None:
    margins = [1.0, 1.0, 1.0, -1.0, 1.0, -1.0]
    once = vote_share(margins)
    often = vote_share(margins * 20, [*range(6)] * 20)
    apart = vote_share(margins * 20)
    assert once is not None
    assert often is not None
    assert apart is not None
    assert (often.lower, often.upper) == pytest.approx((once.lower, once.upper))
    assert apart.upper - apart.lower < 0.4 * (once.upper - once.lower)


def test_the_interval_covers_what_is_true() -> None:
    random = np.random.default_rng(5)
    covered = 0
    for _ in range(400):
        # Votes of one prompt agree or do not as one, half of the time.
        prompts = np.repeat(np.arange(40), 3)
        shared = np.repeat(random.random(40) < 0.7, 3)
        own = random.random(120) < 0.7
        right = np.where(np.repeat(random.random(40) < 0.5, 3), shared, own)
        found = vote_share(np.where(right, 1.0, -1.0), prompts.tolist())
        assert found is not None
        covered += found.lower <= 0.7 <= found.upper
    assert 0.92 <= covered / 400 <= 0.985


def test_repeated_votes_give_back_the_noise_they_were_made_with() -> None:
    random = np.random.default_rng(0)
    votes: list[Pair | Tie] = []
    for item in range(600):
        for voter in range(3):
            answers = ("yes", "no") if random.random() < 0.9 else ("no", "yes")
            votes.append(pair(f"{item}?", voter=f"v{voter}", answers=answers))
    held = ScoredPairs([pair("a?")], np.array([[1.0, 0.0]]), np.array([[1.0, 1.0]]))
    found = reward_report(held, [], votes=votes, name="n", start="s")["ceiling"]
    assert found["compared"] == 1800
    assert found["ceiling"] == pytest.approx(0.9, abs=0.02)
    assert found["ceiling_lower"] < 0.9 < found["ceiling_upper"]
    opposed = [pair("a?", voter="x"), pair("a?", voter="y", answers=("no", "yes"))]
    tie = Tie((user("a?"),), (assistant("yes"),), (assistant("no"),), Origin("data", 1))
    report = reward_report(held, [], votes=[*opposed, tie], name="n", start="s")
    assert (report["ceiling"]["ceiling"], report["ceiling"]["num_ties"]) == (None, 1)
    assert "agree less often than coins do" in report_markdown(report)


def test_strengths_of_authors_are_those_of_a_published_example() -> None:
    # 22 games of four players, strengths as published: 0.640, 1.043, 0.660, 2.270.
    games = {"AB": (2, 3), "AD": (1, 4), "BC": (5, 3), "CD": (1, 3)}
    rows: list[tuple[str, str]] = []
    for (a, b), (won, lost) in games.items():
        rows += [(a, b)] * won + [(b, a)] * lost
    design = np.zeros((len(rows), 4))
    for at, (winner, loser) in enumerate(rows):
        design[at, "ABCD".index(winner)], design[at, "ABCD".index(loser)] = 1, -1
    ones = np.ones(len(rows))
    free = logistic(design, ones, ones, 1e-9)[0]
    assert np.exp(free - free.mean()) == pytest.approx([0.640, 1.043, 0.660, 2.270], abs=6e-4)
    votes = [pair("?", models) for models in rows]
    strengths = author_strengths([*votes, pair("?", ("A", "A")), pair("?")])
    assert sorted(strengths, key=lambda name: strengths[name]) == ["A", "C", "B", "D"]
    assert author_strengths([pair("?")]) == {}
    never_lost = author_strengths([pair("?", ("X", "Y"))] * 5)
    assert 0 < never_lost["X"] < 10


def test_calibration_is_what_a_loop_counts() -> None:
    random = np.random.default_rng(1)
    margins = random.normal(0.5, 2, 237)
    sure = [1 / (1 + math.exp(-abs(m))) for m in margins]
    order = sorted(range(237), key=lambda at: sure[at])
    gaps, start = 0.0, 0
    for size in [24] * 7 + [23] * 3:  # ten bins of equally many
        part = order[start : start + size]
        start += size
        right = sum(margins[at] > 0 for at in part) / size
        gaps += size * abs(sum(sure[at] for at in part) / size - right)
    assert expected_calibration_error(margins) == pytest.approx(gaps / 237)
    assert sum(part["num_pairs"] for part in reliability(margins)) == 237
    p = 1 / (1 + np.exp(-margins))
    assert brier(margins) == pytest.approx(float(((1 - p) ** 2).mean()))
    assert log_loss(margins) == pytest.approx(float(-np.log(p).mean()))
    assert (brier(np.zeros(3)), log_loss(np.zeros(3))) == pytest.approx((0.25, math.log(2)))


def test_the_temperature_undoes_a_scale_and_a_grid_finds_none_better() -> None:
    random = np.random.default_rng(2)
    truth = np.abs(random.normal(0, 2, 4000))
    votes = np.where(random.random(4000) < 1 / (1 + np.exp(-truth)), truth, -truth)
    found = temperature(3 * votes)
    assert found == pytest.approx(3, rel=0.12)
    grid = np.exp(np.linspace(-3, 4, 2000))
    best = min(grid, key=lambda t: log_loss(3 * votes / t))
    assert found == pytest.approx(best, rel=0.01)
    whole = calibration(3 * votes, [*range(4000)])
    assert whole["with_temperature"]["ece"] < 0.25 * whole["ece"]
    assert whole["with_temperature"]["log_loss"] < whole["log_loss"]
    assert temperature(np.array([-1.0, -2.0, 0.5])) is None
    parted = temperature(np.array([1.0, 2.0]))
    assert parted is not None
    assert parted < 0.1, "scores that never fail cannot be too sure"
    assert calibration(np.array([1.0]), ["p"])["with_temperature"]["log_loss"] == math.log(2)


def test_rank_correlation_shares_ranks() -> None:
    # 1, 2.5, 2.5, 4 against 1, 2, 3, 4: 4.5 / sqrt(4.5 * 5).
    found = spearman(np.array([3.0, 5, 5, 9]), np.array([1.0, 2, 3, 4]))
    assert found == pytest.approx(4.5 / math.sqrt(4.5 * 5))
    assert spearman(np.array([1.0, 1]), np.array([1.0, 2])) is None


def test_a_judge_of_length_is_exposed() -> None:
    random = np.random.default_rng(3)
    lengths = random.integers(5, 60, (400, 2)).astype(float)
    quality = random.normal(0, 1, (400, 2))
    biased, fair = lengths, quality
    for kind, value in (("biased", biased), ("fair", fair)):
        swap = value[:, 0] < value[:, 1]
        seen = np.where(swap[:, None], lengths[:, ::-1], lengths)
        good = np.where(swap[:, None], quality[:, ::-1], quality)
        noise = random.normal(0, 1, 400)
        found = length_analysis(good[:, 0] - good[:, 1] + noise, seen, [*range(400)])
        parts = found["regression"]
        strong, weak = ("length", "score") if kind == "biased" else ("score", "length")
        assert parts[strong]["coefficient"] > 5 * parts[strong]["error"]
        assert abs(parts[weak]["coefficient"]) < 3 * parts[weak]["error"]
        groups = found["agreement"]
        if kind == "biased":
            assert groups["shorter_won"] is None
        else:
            assert groups["shorter_won"]["share"] == pytest.approx(
                groups["longer_won"]["share"], abs=0.12
            )


def test_the_curve_is_a_line_over_doublings() -> None:
    def at(share: float) -> VoteShare:
        return VoteShare(share, share - 0.05, share + 0.05, 100)

    points = [(500, at(0.70)), (1000, at(0.73)), (2000, at(0.76))]
    found = learning_curve(points)
    assert found["per_doubling"] == pytest.approx(0.03)
    assert found["next"] == {"num_votes": 4000, "agreement": pytest.approx(0.79)}
    assert learning_curve(points, 0.77)["next"]["agreement"] == 0.77
    assert learning_curve(points[:1])["next"] is None
    assert learning_curve([])["points"] == []


def scored(kinds: bool = True) -> tuple[ScoredPairs, list[Pair | Tie]]:
    """Scores that know form and not sums, of votes between and within models."""
    random = np.random.default_rng(4)
    pairs, scores, told = [], [], []
    for at in range(120):
        kind = ("form", "wrong sum")[at % 2]
        models = ("good", "good") if at % 3 == 0 else ("good", "poor")
        pairs.append(pair(f"{at // 2}?", models, f"v{at % 2}"))
        shift = 2.0 if kind == "form" else 0.0
        scores.append([shift + random.normal(), random.normal()])
        told.append(kind)
    lengths = np.tile([4.0, 7.0], (120, 1))
    start = np.tile([-3.0, -2.0], (120, 1))
    held = ScoredPairs(pairs, np.array(scores), lengths, start, None, told if kinds else None)
    trained: list[Pair | Tie] = [pair("t?", ("good", "poor"), line=at) for at in range(20)]
    return held, trained


def test_the_report_says_what_was_learned_and_what_was_not(tmp_path: Path) -> None:
    held, trained = scored()
    curve = [(50, VoteShare(0.6, 0.5, 0.7, 120)), (100, VoteShare(0.65, 0.56, 0.73, 120))]
    clean = VoteShare(0.9, 0.85, 0.94, 120)
    report = reward_report(
        held,
        trained,
        name="judge",
        start="starter-full",
        curve=curve,
        beside={"against votes without noise": clean},
    )
    assert report["kinds"]["form"]["verdict"] == "learned"
    assert report["kinds"]["wrong sum"]["verdict"] == "at chance"
    shares = {name: found["share"] for name, found in report["voters"].items()}
    kinds = [report["kinds"][kind]["share"] for kind in ("form", "wrong sum")]
    assert shares == dict(zip(("v0", "v1"), kinds, strict=True)), "each saw one kind"
    assert report["ceiling"]["ceiling"] == 1.0
    lines = report["baselines"]
    assert lines["longer"]["agreement"]["share"] == 0.0
    assert lines["longer"]["reward_is"] == "better"
    assert lines["likelihood"]["agreement"]["share"] == 0.0
    assert lines["author"]["agreement"]["share"] == pytest.approx(80 / 120 + 20 / 120)
    assert lines["author"]["same_model"]["share"] == 0.5
    assert "untuned" not in lines
    assert report["same_model"]["num_pairs"] == 40
    write_report(tmp_path, report)
    assert json.loads((tmp_path / "reward_report.json").read_text()) == report
    text = (tmp_path / "reward_report.md").read_text()
    assert text == report_markdown(report)
    assert "wrong sum was not learned" in text
    assert f"| v0 | {shares['v0']:.1%} (" in text
    assert "of a possible 100.0%" in text
    assert (tmp_path / "reward_report.png").read_bytes().startswith(b"\x89PNG")


def test_a_report_of_little_is_still_one() -> None:
    one = ScoredPairs([pair("a?")], np.array([[1.0, 0.0]]), np.array([[1.0, 1.0]]))
    report = reward_report(one, [], name="tiny", start="base")
    assert report["voters"] == {}, "one voter alone is no split"
    text = report_markdown(report)
    assert "no two votes are on the same two answers" in text
    assert "no such pair" in text
    with pytest.raises(ReportError, match="no pair is held out"):
        reward_report(ScoredPairs([], np.zeros((0, 2)), np.zeros((0, 2))), [], name="", start="")
    with pytest.raises(TuningError, match="scores: holds a value that is no number"):
        ScoredPairs([pair("a?")], np.array([[np.nan, 0.0]]), np.array([[1.0, 1.0]]))


def json_of(value: Any) -> Any:
    """As a reader of the file sees it."""
    return json.loads(json.dumps(value, allow_nan=False))


def test_everything_in_the_report_is_json() -> None:
    held, trained = scored(kinds=False)
    report = reward_report(held, trained, name="n", start="s")
    assert json_of(report) == report
