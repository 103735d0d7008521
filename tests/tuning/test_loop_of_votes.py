"""`arena loop` on tiny models: all of its steps, going on after a kill, what it leaves out."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from forked import Forked
from preference_fixtures import pairs, write_pairs
from tuning_fixtures import make_base, rows, write_rows

from tuning import TuningError, tune
from tuning.config_files import load_config
from tuning.data.preferences.load import read_preferences
from tuning.data.preferences.pairs import text_of
from tuning.data.preferences.split import split_by_prompt
from tuning.loop.document import Heading, PageBlock, PageTable, Paragraph, as_html, as_markdown
from tuning.loop.folder import LoopFolder
from tuning.loop.run import run_loop, tasks_of
from tuning.loop.settings import LoopSettings, check_skipped
from tuning.loop.verdict import compared, verdict
from tuning.loop.votes import export_votes, prompt_of, split_votes, vote_file
from tuning.variant.folder import list_variants, read_variant, weights_sha256

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Position ids are not supported:UserWarning"),
]
E_CHECK = {"kind": "letter_count", "letter": "e", "count": 1, "relation": "at least"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a tuned full and a tuned LoRA variant, votes, and a suite."""
    place = tmp_path_factory.mktemp("loop")
    make_base(place / "base")
    write_pairs(place / "pairs.jsonl")
    write_rows(place / "rows.jsonl", rows(16))
    lines = [
        json.dumps({"id": n, "family": "ab"[n % 2], "prompt": f"Say {n}.", "check": E_CHECK})
        for n in range(12)
    ]
    (place / "suite.jsonl").write_text("\n".join(lines) + "\n")
    for method in ("full", "lora"):
        given = {"data": str(place / "rows.jsonl"), "name": f"start-{method}", "method": method}
        few = {"max_steps": 4, "samples": 0, "heldout": 0, "base": str(place / "base")}
        tune(load_config(None, {**given, **few, "home": str(place)}))
    return place


def settings_of(place: Path, method: str, **change: Any) -> LoopSettings:
    """A loop in a few steps of every run."""
    given = {
        "base": f"start-{method}",
        "data": (str(place / "pairs.jsonl"),),
        "name": f"of-{method}",
        "home": place,
        "suite": str(place / "suite.jsonl"),
        "samples": 2,
        "sampled_prompts": 3,
        "max_new_tokens": 6,
        "assignments": (
            "reward.batch_size=8",
            "policy.max_steps=2",
            "policy.batch_size=8",
            "policy.answer_tokens=6",
            "policy.learning_rate=1e-2",
        ),
    }
    return LoopSettings(**{**given, **change})


def run(settings: LoopSettings, *skip: str) -> dict[str, Any]:
    """The loop on the files it names."""
    return run_loop(settings, lambda: settings.data, skip=check_skipped(skip))


def weights(home: Path) -> dict[str, str]:
    """Fingerprints of the models under a home, by name."""
    return {path.name: read_variant(path).weights_sha256 for path in list_variants(home)}


@pytest.fixture(scope="module")
def whole(place: Path) -> tuple[LoopSettings, dict[str, Any]]:
    """A loop with all of its steps, and its report."""
    settings = settings_of(place, "lora", policies=("dpo", "rl"))
    return settings, run(settings)


@pytest.mark.slow
def test_every_step_of_a_loop_and_its_report(
    place: Path, whole: tuple[LoopSettings, dict[str, Any]]
) -> None:
    settings, report = whole
    assert report["left_out"] == {}
    assert {"of-lora-reward", "of-lora-dpo", "of-lora-rl"} <= weights(place).keys()
    assert "shuffled-dpo" in weights(settings.folder)
    assert not {name for name in weights(place) if name.startswith(("shuffled", "inverted"))}
    assert read_variant(place / "models" / "of-lora-dpo").run["config"]["objective"] == "dpo"
    assert [point["num_votes"] for point in report["curve"]["votes"]["points"]] == [11, 21, 41]
    assert report["curve"]["votes"]["next"]["num_votes"] == 82
    dpo, rl = report["policies"]
    assert dpo["measured"].keys() == {"start", "true", "shuffled", "inverted"}
    assert rl["measured"]["true"]["distance"]["num_prompts"] == 3
    assert dpo["measured"]["start"] == rl["measured"]["start"]
    assert report["verdict"] == dpo["verdict"]["verdict"]
    told = [point["what"] for point in report["over_optimisation"]]
    assert told == ["best of 1", "best of 2", "dpo", "rl"]
    for name in ("report.json", "report.md", "report.html", "plots/accuracy.png"):
        assert (settings.folder / name).stat().st_size > 1000
    page = (settings.folder / "report.html").read_text()
    assert 'src="data:image/png' in page
    assert "http" not in page, "it needs no other file"


@pytest.mark.slow
def test_a_loop_that_was_killed_goes_on_and_ends_alike(
    place: Path, whole: tuple[LoopSettings, dict[str, Any]]
) -> None:
    """Killed twice; what it finds is what the loop found that nobody killed."""
    killed = replace(whole[0], name="killed")
    code = (
        "import sys, json; from pathlib import Path; from tuning.loop.run import run_loop\n"
        "from tuning.loop.settings import LoopSettings\n"
        "given = json.loads(sys.argv[1]); given['home'] = Path(given['home'])\n"
        "settings = LoopSettings(**given)\n"
        "run_loop(settings, lambda: settings.data, skip=frozenset(['curve', 'inverted']))\n"
    )
    given = json.dumps({**killed.to_json(), "home": str(place)})
    state = killed.folder / "state"
    for count in (2, 6):
        process = Forked([given], script=code)
        while len(list(state.glob("*.json"))) < count and process.status is None:
            time.sleep(0.02)
        process.kill()
        done = process.wait()
        assert done.status == -signal.SIGKILL, f"it ended before it was killed: {done.stderr}"
    report = run(killed, "curve", "inverted")
    assert report["left_out"]["reward-half"] == "curve is skipped"
    tasks = sorted(path.stem for path in state.glob("*.json"))
    assert len(tasks) == 26
    for task in tasks:
        one, other = (found_by(settings, task) for settings in (killed, whole[0]))
        assert one == other, task
    with pytest.raises(TuningError, match=r"begun with heldout 0\.15 \(now 0\.3\)"):
        run(replace(killed, heldout=0.3))
    (killed.folder / "votes" / "true.jsonl").write_text("{}\n")
    with pytest.raises(TuningError, match="not as the loop wrote it"):
        run(killed)


TIMES = ("seconds", "cpu_seconds", "train_seconds", "model", "resumed_at")


def found_by(settings: LoopSettings, task: str) -> dict[str, Any]:
    """What a task found, but for times and names."""
    found = LoopFolder(settings.folder).found(task)
    assert found is not None
    return {key: value for key, value in found.items() if key not in TIMES}


@pytest.mark.slow
def test_without_checks_the_parts_that_need_them_are_left_out(place: Path) -> None:
    settings = settings_of(place, "full", name="bare", suite="auto")
    report = run(settings, "curve", "inverted")
    assert report["verifiers"]["suite"] is None
    assert "none of the starter's" in report["left_out"]["samples"]
    assert report["left_out"]["best-true"] == "it needs samples, which is left out"
    assert report["verdict"] == "cannot be told"
    assert report["why"] == "nothing here verifies answers"
    (policy,) = report["policies"]
    assert "accuracy" not in policy["measured"]["true"]
    assert policy["measured"]["true"]["num_prompts"] == 7
    assert policy["measured"]["true"]["reward"] is not None
    assert "Nothing verifies answers here" in (settings.folder / "report.md").read_text()


def votes_of(place: Path, folder: Path, seed: int = 0) -> dict[str, Any]:
    """The votes of a loop, written below `folder`."""
    settings = settings_of(place, "full", home=folder, seed=seed)
    kept = LoopFolder(folder)
    (folder / "votes").mkdir(parents=True)
    return export_votes(settings, settings.data, kept)


def said(lessons: Sequence[Any]) -> set[tuple[str, str]]:
    """The prompt and the chosen answer of each vote."""
    return {(prompt_of(one), one.chosen[0]["content"]) for one in lessons}


def test_all_files_of_votes_hold_out_the_same_prompts(tmp_path: Path) -> None:
    write_pairs(tmp_path / "pairs.jsonl", pairs(48))
    exported = votes_of(tmp_path, tmp_path / "home")
    folder = LoopFolder(tmp_path / "home")
    sides = {name: split_votes(vote_file(folder, exported, name), 0) for name in exported["files"]}
    whole = read_preferences([str(tmp_path / "pairs.jsonl")])
    train, held = split_by_prompt(whole, 0.15, 0)
    assert (len(train), len(held)) == (41, 7)
    for name, (_, kept) in sides.items():
        assert {prompt_of(one) for one in kept.lessons} == {prompt_of(one) for one in held.lessons}
        if name in ("true", "half", "quarter"):
            assert said(kept.pairs) == said(held.pairs)
    true, shuffled, inverted = (said(sides[n][0].pairs) for n in ("true", "shuffled", "inverted"))
    assert true == said(train.pairs)
    assert not true & inverted
    assert len(true & shuffled) == 21, "half of 41 votes, and the odd one, stand as they were cast"
    shuffled_pairs = sides["shuffled"][0].pairs
    for moons in range(3):  # by which one answer of a pair is longer
        stand = [
            one.chosen[0]["content"].startswith("red")
            for one in shuffled_pairs
            if text_of((*one.chosen, *one.rejected)).count("moon") == moons
        ]
        assert abs(2 * sum(stand) - len(stand)) <= 2, "half of each difference in length is turned"
    quarter, half = (said(sides[name][0].pairs) for name in ("quarter", "half"))
    assert quarter < half < true
    assert (len(quarter), len(half)) == (11, 21)


def test_a_loop_begun_anew_forgets_what_it_made_and_nothing_else(tmp_path: Path) -> None:
    base = make_base(tmp_path / "models" / "n-reward")
    settings = LoopSettings(base="b", data=("d",), name="n", home=tmp_path)
    folder = LoopFolder(settings.folder)
    unfinished = tmp_path / "models" / ".n-dpo.run"
    mine = {"model": "n-reward", "in_home": True, "weights_sha256": weights_sha256(base)}
    for weights, is_kept in (("another", True), (mine["weights_sha256"], False)):
        unfinished.mkdir()
        with folder.opened(settings, restart=False):
            folder.keep("reward-true", {**mine, "weights_sha256": weights})
        with folder.opened(settings, restart=True):
            assert folder.found("reward-true") is None
        assert base.exists() == is_kept
        assert not unfinished.exists()


def test_a_loop_whose_settings_are_gone_is_told_so(tmp_path: Path) -> None:
    settings = LoopSettings(base="b", data=("d",), name="n", home=tmp_path)
    folder = LoopFolder(settings.folder)
    with folder.opened(settings, restart=False):
        folder.keep("export", {})
    for torn in ('{"format_version": 1}', '{"format_version": 1, "settings": 3}', "[]"):
        (settings.folder / "loop.json").write_text(torn)
        with (
            pytest.raises(TuningError, match=r"loop\.json: cannot be read .*--restart"),
            folder.opened(settings, restart=False),
        ):
            pass


def test_the_verdict_is_by_the_rule() -> None:
    half = [True, False] * 50
    gained = [True] * 12 + half[12:]
    found = compared(half, gained)
    # Six that only the second passes, none that only the first does: 2 x 0.5^6.
    assert (found["gained"], found["lost"], found["p"]) == (6, 0, pytest.approx(2 / 64))
    same, lost = compared(half, half), compared(gained, half)
    words = {
        (None, None, None): "cannot be told",
        ("gain", "gain", 0.0): "better",
        ("gain", "gain", 0.06): "cannot be told",
        ("gain", "gain", None): "cannot be told",
        ("gain", None, 0.0): "cannot be told",
        ("gain", "same", 0.0): "cannot be told",
        ("same", "same", 0.0): "cannot be told",
        ("same", "same", 0.06): "worse",
        ("lost", "gain", 0.0): "worse",
    }
    by_name = {"gain": found, "same": same, "lost": lost, None: None}
    for (start, control, forgot), word in words.items():
        told = verdict(by_name[start], by_name[control], forgot)
        assert told["verdict"] == word, (start, control, forgot, told)


def test_a_page_shows_what_models_wrote_as_it_is() -> None:
    text = "<script>alert(1)</script> | *a*\nb"
    blocks: list[PageBlock] = [
        Heading("One <b>", 1),
        Paragraph("**so** & so"),
        PageTable(("x", "y"), [(text, "1")]),
    ]
    page = as_html("t", blocks)
    assert "<script>" not in page
    assert "<strong>so</strong> &amp; so" in page
    assert as_markdown(blocks).splitlines()[-1] == (
        r"| \<script\>alert(1)\</script\> \| *a* ⏎ b | 1 |"
    )


@pytest.mark.slow
def test_settings_that_make_no_sense_are_refused(place: Path) -> None:
    bad: list[tuple[dict[str, Any], str]] = [
        ({"assignments": ("beta=1",)}, "write reward.beta=1"),
        ({"assignments": ("policy.seed=1",)}, "said by the loop"),
        ({"assignments": ("reward.nothing=1",)}, "nothing"),
        ({"policies": ("dpo", "dpo")}, "twice"),
        ({"policies": ("sft",)}, "unknown value 'sft'"),
        ({"heldout": 0}, "heldout"),
        ({"name": "../x"}, "cannot be a folder name"),
    ]
    for change, why in bad:
        with pytest.raises(TuningError, match=why):
            settings_of(place, "full", **change)
    with pytest.raises(TuningError, match=r"unknown value 'curves'; did you mean 'curve'"):
        check_skipped(("curves",))
    worse: list[tuple[dict[str, Any], str]] = [
        ({"base": "nobody"}, "no variant under"),
        ({"base": str(place / "base")}, "has no chat template"),
        ({"heldout": 0.001}, "leaves 0 votes to hold out"),
    ]
    for change, why in worse:
        with pytest.raises(TuningError, match=why):
            run(settings_of(place, "full", name="refused", **change))
    assert not (place / "loops" / "refused").exists(), "nothing is left of it"
    (place / "models" / "refused-dpo").mkdir()
    with pytest.raises(TuningError, match="is another model"):
        run(settings_of(place, "full", name="refused"))


def test_each_task_needs_only_what_comes_before() -> None:
    settings = LoopSettings(base="b", data=("d",), name="n", policies=("dpo", "kto", "rl"))
    before: set[str] = set()
    for task in tasks_of(settings):
        assert set(task.needs) <= before, task.name
        assert task.name not in before
        before.add(task.name)
