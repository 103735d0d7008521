"""`--report-to`: what a tracker gets, which are refused, and that none can spoil a run."""

from __future__ import annotations

import dataclasses
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from transformers import TrainerCallback

from tuning.config import TuningConfig
from tuning.config_files import load_config
from tuning.errors import ConfigError
from tuning.training.trackers import Tracked, TrackerError, check_trackers, tracker_callbacks

STATE = SimpleNamespace(is_world_process_zero=True, is_hyper_param_search=False, global_step=3)
ARGS = SimpleNamespace(to_json_string=lambda: "{}", output_dir="never")


def config(home: Path, *trackers: str) -> TuningConfig:
    given = {"base": "starter", "data": "starter", "name": "mine", "home": home}
    return load_config(None, {**given, "report_to": trackers})


@pytest.mark.skipif(find_spec("wandb") is not None, reason="wandb is installed here")
def test_a_tracker_that_is_not_installed_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"report_to: the library wandb .*pip install wandb"):
        check_trackers(config(tmp_path, "wandb"))


def test_an_unknown_tracker_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="report_to"):
        config(tmp_path, "notebook")


class Faulty(TrainerCallback):
    """Breaks at one event; counts the logs it got before."""

    def __init__(self, at: str) -> None:
        self.at = at
        self.logs: list[Any] = []

    def on_train_begin(self, *given: Any, **kwargs: Any) -> None:
        if self.at == "begin":
            raise RuntimeError("no account")

    def on_log(self, *given: Any, logs: Any, **kwargs: Any) -> None:
        if self.logs:
            raise OSError("no route to host")
        self.logs.append(logs)


def test_one_that_does_not_start_stops_the_run_and_one_that_breaks_later_does_not() -> None:
    said: list[str] = []
    stuck = Tracked("wandb", lambda: Faulty("begin"), said.append)
    with pytest.raises(TrackerError, match=r"wandb does not start \(RuntimeError: no account\)"):
        stuck.on_train_begin(ARGS, STATE, None)
    inner = Faulty("log")
    breaking = Tracked("wandb", lambda: inner, said.append)
    breaking.on_train_begin(ARGS, STATE, None)
    for loss in (2.0, 1.0, 0.5):
        breaking.on_log(ARGS, STATE, None, logs={"loss": loss})
    breaking.on_train_end(ARGS, STATE, None)
    assert inner.logs == [{"loss": 2.0}]
    assert said == ["checks.report_to: wandb is left out from here (OSError: no route to host)"]
    other = SimpleNamespace(**{**vars(STATE), "is_world_process_zero": False})
    silent = Tracked("wandb", lambda: Faulty("begin"), said.append)
    silent.on_train_begin(ARGS, other, None)  # another process of the run tracks nothing
    silent.on_log(ARGS, other, None, logs={"loss": 2.0})


def test_tensorboard_writes_below_home(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    (tracked,) = tracker_callbacks(config(tmp_path, "tensorboard"), print)
    tracked.on_train_begin(ARGS, STATE, None)
    tracked.on_log(ARGS, STATE, None, logs={"loss": 2.0})
    tracked.on_train_end(ARGS, STATE, None)
    assert list((tmp_path / "runs" / "mine").glob("events.*"))


def test_what_is_reported_to_makes_no_other_run(tmp_path: Path) -> None:
    from tuning.training.checkpoints import identity_of

    plain, told = config(tmp_path), config(tmp_path, "trackio")
    assert dataclasses.replace(told, checks=plain.checks) == plain
    identities = [identity_of(one.to_json(), "", "", "", 1) for one in (plain, told)]
    assert identities[0] == identities[1]
