"""Two runs of one name at once: the second is refused at its start, until the first one dies."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from time import monotonic, sleep

import pytest
from forked import Forked
from tuning_fixtures import rows, write_rows

from tuning import TuningConfig, tune
from tuning.config import CheckOptions, TrainingOptions
from tuning.errors import ConfigError
from tuning.training.checkpoints import CheckpointError, locked_run

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
# A run that stays where it is after its checkpoint of step 4, still alive.
SCRIPT = """
import json, sys, time
from tuning.config_files import load_config
from tuning.training.checkpoints import RunFolder
from tuning import tune
commit = RunFolder.commit
def commit_and_stay(self, *args, **others):
    commit(self, *args, **others)
    print("saved", flush=True)
    time.sleep(600)
RunFolder.commit = commit_and_stay
tune(load_config(None, json.loads(sys.argv[1])))
"""


def config_for(base: Path, data: Path, home: Path) -> TuningConfig:
    """Eight steps of LoRA, saved after the fourth and the eighth."""
    return TuningConfig(
        base=str(base),
        data=(str(data),),
        name="v",
        home=home,
        training=TrainingOptions(max_steps=8, epochs=100, batch_size=8),
        checks=CheckOptions(save_steps=4, samples=0),
    )


@contextmanager
def another_run(base: Path, data: Path, home: Path) -> Iterator[Forked]:
    """The same run in a process of its own, with one checkpoint behind it."""
    settings = {
        "base": str(base),
        "data": [str(data)],
        "name": "v",
        "home": str(home),
        "max_steps": 8,
        "epochs": 100,
        "batch_size": 8,
        "save_steps": 4,
        "samples": 0,
    }
    run = Forked([json.dumps(settings)], script=SCRIPT)
    try:
        deadline = monotonic() + 240
        while not run.printed:
            assert run.status is None, run.wait().stderr
            assert monotonic() < deadline
            sleep(0.05)
        yield run
    finally:
        run.kill()
        run.wait()


@pytest.mark.slow
def test_a_second_run_is_refused_until_the_first_is_killed(tiny_base: Path, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "rows.jsonl", rows())
    config = config_for(tiny_base, data, tmp_path)
    with another_run(tiny_base, data, tmp_path) as first:
        for change in ({}, {"overwrite": True}, {"restart": True}, {"method": "ia3"}):
            # Before the data is read, which would show that there is none.
            second = replace(config, data=("nowhere.jsonl",), **change)  # type: ignore[arg-type]
            with pytest.raises(CheckpointError) as caught:
                tune(second)
            assert f"a run of this name is going on (process {first.pid}," in str(caught.value)
            assert "\n" not in str(caught.value)
        command = ["tune", "--home", tmp_path, "--base", tiny_base, "--data", data, "--name", "v"]
        told = Forked(command).wait()
        assert told.status == 1
        assert told.stderr.startswith("arena: name 'v': a run of this name is going on")
        assert told.stderr.count("\n") == 1
        other = tune(replace(config, name="w"))
        assert other.name == "w"
        assert [path.name for path in (tmp_path / "models").glob(".v.run/step-*")] == [
            "step-000000004"
        ]
        os.kill(first.pid, signal.SIGKILL)
        first.join()
        made = tune(config)
    assert made.run["resumed_at"] == 4
    assert made.weights_sha256 == other.weights_sha256
    assert sorted(path.name for path in (tmp_path / "models").iterdir()) == ["v", "w"]


def test_a_run_that_fails_before_its_first_checkpoint_leaves_nothing(
    tiny_base: Path, tmp_path: Path
) -> None:
    config = config_for(tiny_base, tmp_path / "none.jsonl", tmp_path)
    with pytest.raises(ValueError, match=r"none\.jsonl"):
        tune(config)
    assert list((tmp_path / "models").iterdir()) == []


def test_a_variant_made_in_the_meantime_is_seen(tiny_base: Path, tmp_path: Path) -> None:
    config = config_for(tiny_base, tmp_path / "none.jsonl", tmp_path)
    config.folder.parent.mkdir()
    config.folder.symlink_to(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="exists; choose another --name"):
        tune(config)
    assert [path.name for path in config.folder.parent.iterdir()] == ["v"]


def test_the_lock_ends_with_its_holder(tmp_path: Path) -> None:
    folder = tmp_path / ".v.run"
    with locked_run(folder, "v"):
        assert (folder / "lock").read_text() == str(os.getpid())
        with pytest.raises(CheckpointError, match="going on"), locked_run(folder, "v"):
            pass
        (folder / "step-000000004").mkdir()
    assert sorted(path.name for path in folder.iterdir()) == ["lock", "step-000000004"]
    with locked_run(folder, "v"):
        (folder / "step-000000004").rmdir()
    assert not folder.exists()
