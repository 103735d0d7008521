"""Checkpoints that are served while a run goes on: whole variants, and the run none the wiser."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tuning_fixtures import make_base, rows, write_rows

from tuning import TuningConfig, TuningError, tune
from tuning.config import CheckOptions, DataOptions, LoraOptions, TrainingOptions
from tuning.training import challengers
from tuning.training.challengers import MOST, Challengers
from tuning.training.inputs import prepare
from tuning.variant import read_variant
from tuning.variant.verify import verify_variant

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")


def config_for(tmp_path: Path, **checks: object) -> TuningConfig:
    if not (tmp_path / "base").exists():
        make_base(tmp_path / "base")
    return TuningConfig(
        base=str(tmp_path / "base"),
        data=(str(write_rows(tmp_path / "rows.jsonl", rows())),),
        name="v",
        home=tmp_path / "home",
        training=TrainingOptions(max_steps=6, epochs=9, batch_size=8, learning_rate=1e-2),
        data_options=DataOptions(heldout=0.1),
        lora=LoraOptions(rank=4, dropout=0.1),
        checks=CheckOptions(eval_every=2, samples=1, **checks),  # type: ignore[arg-type]
    )


@pytest.mark.slow
def test_every_evaluation_leaves_a_variant_and_the_run_learns_the_same(tmp_path: Path) -> None:
    config = config_for(tmp_path, challengers="kept")
    models = config.folder.parent
    stray = models / ".v@4.abcdefgh.tmp"  # of a run that was killed
    stray.mkdir(parents=True)
    (models / "v@9").mkdir()  # somebody's own
    made = tune(config)
    assert sorted(path.name for path in models.iterdir()) == ["v", "v@2", "v@4", "v@6", "v@9"]
    for step in (2, 4, 6):
        found = verify_variant(models / f"v@{step}", base_folder=tmp_path / "base")
        assert (found.checkpoint_of, found.kind) == ("v", "lora")
        assert found.run["checkpoint"] == {"of": "v", "step": step, "stays": True}
    assert made.checkpoint_of is None
    assert read_variant(models / "v@6").weights_sha256 == made.weights_sha256
    assert read_variant(models / "v@2").weights_sha256 != made.weights_sha256

    until_done = replace(config.checks, challengers="until_done")
    again = tune(replace(config, overwrite=True, checks=until_done))
    assert again.weights_sha256 == made.weights_sha256
    assert sorted(path.name for path in models.iterdir()) == ["v", "v@9"]
    plain = tune(replace(config_for(tmp_path), home=tmp_path / "plain"))
    assert plain.weights_sha256 == made.weights_sha256, "what is watched is not changed by it"


def test_what_cannot_be_a_challenger_is_refused_by_name(tmp_path: Path) -> None:
    config = config_for(tmp_path, challengers="kept")
    for refused, named in (
        (replace(config, method="full"), "method full"),
        (replace(config, objective="reward"), "objective reward"),
    ):
        with pytest.raises(TuningError, match=named):
            tune(refused)


def test_of_too_many_checkpoints_some_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_for(tmp_path, challengers="kept")
    kept = Challengers(config, prepare(config), print)

    def write(config: TuningConfig, prepared: object, model: object, step: int, *rest: Any) -> None:
        folder = config.folder.with_name(f"v@{step}")
        folder.mkdir(parents=True)
        noted = {"run": {"checkpoint": {"of": "v", "step": step}}, "name": folder.name}
        noted |= {"kind": "lora", "files": {"a.safetensors": ""}, "metrics": {}}
        (folder / "variant.json").write_text(json.dumps({**noted, "format_version": 1}))

    monkeypatch.setattr(challengers, "write_step", write)
    for step in range(1, MOST + 2):
        kept.publish(None, step, None, {})  # type: ignore[arg-type]
    left = sorted(int(path.name[2:]) for path in config.folder.parent.iterdir())
    assert (left[0], left[-1], len(left)) == (1, MOST + 1, MOST // 2 + 1)


def test_a_disk_that_takes_no_checkpoint_ends_no_run(tmp_path: Path) -> None:
    config = config_for(tmp_path, challengers="kept")
    (tmp_path / "home").write_text("a file")
    told: list[str] = []
    Challengers(config, prepare(config), told.append).publish(None, 2, None, {})  # type: ignore[arg-type]
    assert len(told) == 1
    assert told[0].startswith("v@2: is not served")
