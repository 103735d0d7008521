"""Nothing lost: killed, interrupted, torn and full-disk runs go on to the very same weights."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from forked import run_script
from tuning_fixtures import files_at_most, make_base, rows, write_rows

from tuning import TuningConfig, TuningError, tune
from tuning.config import CheckOptions, DataOptions, LoraOptions, PrefixOptions, TrainingOptions
from tuning.config_files import load_config
from tuning.training.checkpoints import CheckpointError, RunFolder, identity_of, locked_run
from tuning.training.reproduce import ReproduceError, reproduce
from tuning.training.train import InterruptedRunError

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Position ids are not supported:UserWarning"),
]
STEPS = 24
# Runs `tune` on a JSON config; with STOP_AT it is killed, hard, right after that checkpoint (or,
# with DURING, before it is whole), without it when the variant is written but has no name yet.
SCRIPT = """
import json, os, signal, sys
import tuning.training.checkpoints as checkpoint
import tuning.variant.manifest as manifest
from tuning import tune
from tuning.config_files import load_config
stop_at = int(os.environ.get("STOP_AT", "0"))
commit = checkpoint.RunFolder.commit
def commit_and_die(self, written, step, seconds, **others):
    if step == stop_at and os.environ.get("DURING"):
        os.kill(os.getpid(), signal.SIGKILL)
    made = commit(self, written, step, seconds, **others)
    if step == stop_at:
        os.kill(os.getpid(), signal.SIGKILL)
    return made
checkpoint.RunFolder.commit = commit_and_die
if not stop_at:
    manifest.publish = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
tune(load_config(None, json.loads(sys.argv[1])))
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a base and data."""
    place = tmp_path_factory.mktemp("resume")
    make_base(place / "base")
    write_rows(place / "rows.jsonl", rows())
    return place


def config_for(place: Path, home: Path, method: str = "lora", **changes: Any) -> TuningConfig:
    """A run of 24 steps over several epochs, with dropout, saved every 4 steps."""
    settings: dict[str, Any] = {
        "base": str(place / "base"),
        "data": (str(place / "rows.jsonl"),),
        "name": "v",
        "method": method,
        "home": home,
        "training": TrainingOptions(
            max_steps=STEPS, epochs=100, batch_size=8, learning_rate=1e-2, precision="bf16"
        ),
        "data_options": DataOptions(heldout=0.1),
        "lora": LoraOptions(rank=4, dropout=0.1),
        "prefix": PrefixOptions(virtual_tokens=4),
        "checks": CheckOptions(save_steps=4, samples=1),
    }
    return TuningConfig(**{**settings, **changes})


def settings_of(config: TuningConfig) -> str:
    """The config as flat JSON settings."""
    flat: dict[str, Any] = {}
    for key, value in config.to_json().items():
        if isinstance(value, dict):
            flat.update({f"{key}.{inner}": item for inner, item in value.items()})
        else:
            flat[key] = value
    assert load_config(None, flat) == config
    return json.dumps(flat)


def run_until(config: TuningConfig, step: int, *, during: bool = False) -> None:
    """Run in another process that is killed with SIGKILL at a checkpoint."""
    environment = {**os.environ, "STOP_AT": str(step), "DURING": "1" if during else ""}
    done = run_script(SCRIPT, settings_of(config), environment=environment)
    assert done.status == -signal.SIGKILL, done.stderr


def steps_of(config: TuningConfig) -> list[str]:
    """Checkpoints there are."""
    return sorted(path.name[-2:] for path in (config.home / "models" / ".v.run").glob("step-*"))


@pytest.fixture(scope="module")
def whole(place: Path) -> dict[str, str]:
    """Fingerprints of uninterrupted runs."""
    return {
        method: tune(config_for(place, place / f"whole-{method}", method)).weights_sha256
        for method in ("full", "lora", "prefix")
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "during"), [("full", False), ("lora", False), ("lora", True), ("prefix", False)]
)
def test_a_killed_run_goes_on_to_the_same_weights(
    place: Path, tmp_path: Path, whole: dict[str, str], method: str, during: bool
) -> None:
    config = config_for(place, tmp_path, method)
    run_until(config, 12, during=during)
    assert steps_of(config) == (["04", "08"] if during else ["08", "12"])
    assert not config.folder.exists()
    made = tune(config)
    assert made.run["resumed_at"] == (8 if during else 12)
    assert made.weights_sha256 == whole[method]
    history = [
        json.loads(line) for line in (made.folder / "history.jsonl").read_text().splitlines()
    ]
    assert [item["step"] for item in history if "loss" in item] == list(range(1, STEPS + 1))
    assert list((tmp_path / "models").glob(".*")) == []


@pytest.mark.slow
def test_a_run_killed_after_its_best_evaluation_still_ends_with_those_weights(
    place: Path, tmp_path: Path
) -> None:
    """The checkpoints that are kept are all newer than the best one, which is kept beside them."""
    checks = CheckOptions(eval_every=1, patience=5, save_steps=1, samples=0)
    config = config_for(place, tmp_path, checks=checks)
    training = replace(config.training, max_steps=200, learning_rate=3e-2)
    config = replace(config, training=training)
    whole = tune(replace(config, home=tmp_path / "whole"))
    best = whole.run["weights_of_step"]
    assert (whole.run["stopped_early"], whole.run["steps"]) == (True, best + 5)
    run_until(config, best + 4)
    assert steps_of(config) == [f"{step:02d}" for step in (best, best + 3, best + 4)]
    made = tune(config)
    assert (made.run["resumed_at"], made.run["weights_of_step"]) == (best + 4, best)
    assert made.weights_sha256 == whole.weights_sha256


@pytest.mark.slow
def test_a_run_killed_while_its_variant_is_written_leaves_nothing_behind(
    place: Path, tmp_path: Path, whole: dict[str, str]
) -> None:
    config = config_for(place, tmp_path)
    run_until(config, 0)
    assert not config.folder.exists()
    assert len(list((tmp_path / "models").glob(".v.*.tmp"))) == 1
    made = tune(config)
    assert made.weights_sha256 == whole["lora"]
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["v"]


def test_what_a_kill_left_of_a_finished_run_is_swept_up(tmp_path: Path) -> None:
    """Killed while the checkpoints of a finished run were removed, they have another name."""
    folder = RunFolder(tmp_path / ".v.run", {})
    for _ in range(2):
        with locked_run(folder.folder, "v"):
            folder.begin()
            (folder.folder / "discarded.tmp").mkdir()
            shutil.copy(folder.folder / "run.json", folder.folder / "discarded.tmp")
            folder.discard()
            assert [path.name for path in folder.folder.iterdir()] == ["lock"]
        assert list(tmp_path.iterdir()) == []


@pytest.fixture
def interrupted(place: Path, tmp_path: Path) -> TuningConfig:
    """A run stopped by SIGTERM in its first steps, as Ctrl-C stops it."""
    config = config_for(place, tmp_path)
    stopped = stop_after(config, 6)
    assert "stopped at step" in stopped
    assert "repeat the command to go on" in stopped
    return config


def stop_after(
    config: TuningConfig,
    step: int,
    run: Callable[[TuningConfig], object] = tune,
    error: type[TuningError] = InterruptedRunError,
) -> str:
    """Run here and raise SIGINT when the given step is logged; returns the message."""
    from tuning.training.history import History

    class Stopping(History):
        def add(self, record: dict[str, Any]) -> None:
            super().add(record)
            if record["step"] == step and "loss" in record:
                os.kill(os.getpid(), signal.SIGINT)

    import tuning.training.train as train

    original = train.History
    train.History = Stopping  # type: ignore[misc]
    try:
        with pytest.raises(error) as caught:
            run(config)
    finally:
        train.History = original  # type: ignore[misc]
    return str(caught.value)


@pytest.mark.slow
def test_ctrl_c_saves_and_the_run_goes_on(interrupted: TuningConfig, whole: dict[str, str]) -> None:
    assert steps_of(interrupted) == ["04", "07"]
    assert tune(interrupted).weights_sha256 == whole["lora"]


def test_a_repeated_run_that_is_stopped_promises_nothing(place: Path, tmp_path: Path) -> None:
    """Its scratch folder is gone with it."""
    config = config_for(place, tmp_path)
    tune(config)
    said = stop_after(config, 2, lambda it: reproduce(it.folder, it.home), ReproduceError)
    assert said == (
        "v: stopped before its run was repeated, of which nothing is kept; repeat the command to "
        "begin anew"
    )


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["truncate", "remove", "manifest", "foreign"])
def test_a_torn_checkpoint_falls_back_to_the_one_before(
    interrupted: TuningConfig, whole: dict[str, str], damage: str
) -> None:
    newest = interrupted.home / "models" / ".v.run" / "step-000000007"
    if damage == "truncate":
        for name in ("optimizer.pt",):
            content = (newest / name).read_bytes()
            (newest / name).write_bytes(content[: len(content) // 2])
    elif damage == "remove":
        (newest / "scheduler.pt").unlink()
    elif damage == "manifest":
        (newest / "manifest.json").write_text("{")
    else:
        shutil.rmtree(newest)
        newest.mkdir()
    made = tune(interrupted)
    assert made.run["resumed_at"] == 4
    assert made.weights_sha256 == whole["lora"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, "settings.seed 0, now it is 1"),
        ({"lora": LoraOptions(rank=2)}, "settings.lora.dropout 0.1, now it is 0.0"),
        (
            {"data_options": DataOptions(heldout=0.2)},
            "settings.data_options.heldout 0.1, now it is 0.2",
        ),
    ],
)
def test_another_run_is_refused_naming_the_difference(
    interrupted: TuningConfig, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(CheckpointError) as caught:
        tune(replace(interrupted, **change))
    assert message in str(caught.value)
    assert "--restart" in str(caught.value)
    made = tune(replace(interrupted, **change, restart=True))
    assert made.run["resumed_at"] is None


def test_changed_data_is_refused(interrupted: TuningConfig, tmp_path: Path) -> None:
    other = write_rows(Path(interrupted.data[0]).with_name("other.jsonl"), rows(40))
    moved = tmp_path / "kept.jsonl"
    shutil.copy(interrupted.data[0], moved)
    try:
        shutil.copy(other, interrupted.data[0])
        with pytest.raises(CheckpointError, match="has data '"):
            tune(interrupted)
    finally:
        shutil.copy(moved, interrupted.data[0])


@pytest.mark.slow
def test_changed_heldout_rows_are_refused(place: Path, tmp_path: Path) -> None:
    """They weigh nothing in the weights, but say when a run stops early and what its losses are."""
    own = write_rows(tmp_path / "own.jsonl", rows()[:3])
    options = DataOptions(heldout_file=str(own))
    config = config_for(place, tmp_path, data_options=options)
    assert "stopped at step" in stop_after(config, 2)
    write_rows(own, rows()[:2])
    with pytest.raises(CheckpointError, match="has data '"):  # a leaked row more to train on
        tune(config)
    changed = [
        {"messages": [row["messages"][0], row["messages"][1] | {"content": "x"}]}
        for row in rows()[:3]
    ]
    write_rows(own, changed)
    with pytest.raises(CheckpointError, match="has heldout '"):
        tune(config)


@pytest.mark.slow
@pytest.mark.parametrize("limit", [20_000, 30_000], ids=["weights", "optimizer"])
def test_a_full_disk_keeps_the_last_good_checkpoint(
    place: Path, interrupted: TuningConfig, whole: dict[str, str], limit: int
) -> None:
    newest = interrupted.home / "models" / ".v.run" / "step-000000007"
    sizes = [(newest / name).stat().st_size for name in ("trained.safetensors", "optimizer.pt")]
    assert 20_000 < sizes[0] < 30_000 < sizes[1]
    refused = pytest.raises(CheckpointError, match=r"a checkpoint could not be written")
    with files_at_most(limit), refused as caught:
        tune(interrupted)
    assert "step-000000007; make room and repeat the command to go on" in str(caught.value)
    assert steps_of(interrupted) == ["04", "07"]
    assert not interrupted.folder.exists()
    assert tune(interrupted).weights_sha256 == whole["lora"]


@pytest.mark.slow
def test_a_disk_that_is_full_at_the_end_leaves_no_half_variant(place: Path, tmp_path: Path) -> None:
    """The adapter is written, the tokenizer is not."""
    config = config_for(place, tmp_path, "prompt", checks=CheckOptions(save_every=0, samples=0))
    refused = pytest.raises(CheckpointError, match=r"the variant could not be written .* make room")
    with files_at_most(10_000), refused:
        tune(config)
    assert list((tmp_path / "models").iterdir()) == []


def test_identity_ignores_what_does_not_change_weights(tmp_path: Path) -> None:
    settings = {"seed": 1, "home": "a", "checks": {"save_every": 1, "patience": None}}
    left = identity_of(settings, "d", "b", "t", 1)
    right = identity_of({**settings, "home": "b", "checks": {"save_every": 9}}, "d", "b", "t", 1)
    assert left["settings"] == {"seed": 1, "checks.patience": None}
    folder = RunFolder(tmp_path / "run", left)
    folder.begin()
    assert folder.newest() is None
    with pytest.raises(CheckpointError, match="has processes 1, now it is 2"):
        RunFolder(tmp_path / "run", {**left, "processes": 2}).newest()
    assert right["data"] == "d"
