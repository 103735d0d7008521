"""The rules of a training: rates, targets, schedules, clipping, precision, flags, what is shown."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console
from tuning_fixtures import make_model
from typer.testing import CliRunner

from arena.cli import app
from tuning import TuningConfig, tune
from tuning.config import CheckOptions, DataOptions, LoraOptions, TrainingOptions
from tuning.config_files import load_config
from tuning.hardware import pick_precision
from tuning.training.clock import schedule_factor
from tuning.variant.plots import read_history
from tuning.variant.verify import read_tensors

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")


def config_for(base: Path, data: Path, home: Path, **training: object) -> TuningConfig:
    """Four steps of LoRA in fp32 unless told otherwise."""
    options = {"max_steps": 4, "batch_size": 8, "epochs": 100.0, "precision": "fp32", **training}
    return TuningConfig(
        base=str(base),
        data=(str(data),),
        name="v",
        home=home,
        training=TrainingOptions(**options),  # type: ignore[arg-type]
        data_options=DataOptions(heldout=0.1),
    )


@pytest.mark.slow
def test_lora_takes_all_linear_layers_ten_times_the_rate_and_twice_the_rank(
    tiny_base: Path, tiny_data: Path, tmp_path: Path
) -> None:
    config = replace(config_for(tiny_base, tiny_data, tmp_path), lora=LoraOptions(rank=6))
    low = tune(config)
    whole = tune(replace(config, name="w", method="full"))
    assert low.run["learning_rate"] == pytest.approx(10 * whole.run["learning_rate"])
    settings = json.loads((low.folder / "adapter_config.json").read_text())
    assert (settings["r"], settings["lora_alpha"]) == (6, 12)
    linear = {
        name
        for name, module in make_model("llama", 400).named_modules()
        if isinstance(module, torch.nn.Linear) and name != "lm_head"
    }
    assert len(linear) == 2 * 7
    adapted = [key for key in read_tensors(low.folder) if "lora_A" in key]
    assert len(adapted) == len(linear)
    assert all(any(name in key for key in adapted) for name in linear)


@pytest.mark.slow
def test_lora_takes_the_scale_and_the_layers_it_is_given(
    tiny_base: Path, tiny_data: Path, tmp_path: Path
) -> None:
    lora = LoraOptions(rank=4, alpha=3, target_modules=("q_proj", "down_proj"))
    made = tune(replace(config_for(tiny_base, tiny_data, tmp_path, max_steps=1), lora=lora))
    settings = json.loads((made.folder / "adapter_config.json").read_text())
    assert (settings["r"], settings["lora_alpha"]) == (4, 3)
    adapted = {key.split(".")[-3] for key in read_tensors(made.folder)}
    assert adapted == {"q_proj", "down_proj"}


@pytest.mark.parametrize(
    ("schedule", "at", "share"),
    [
        ("cosine", 0.05, 0.5),  # half of the warm-up
        ("cosine", 0.1, 1.0),
        ("cosine", 0.55, 0.5),
        ("cosine", 0.325, 0.853553),  # (1 + cos 45°) / 2
        ("cosine", 1.0, 0.0),
        ("linear", 0.325, 0.75),
        ("linear", 1.0, 0.0),
        ("constant", 0.9, 1.0),
    ],
)
def test_schedules(schedule: str, at: float, share: float) -> None:
    assert schedule_factor(at, schedule, 0.1) == pytest.approx(share, abs=1e-6)


@pytest.mark.slow
def test_the_steps_follow_the_schedule_asked_for(
    tiny_base: Path, tiny_data: Path, tmp_path: Path
) -> None:
    config = config_for(
        tiny_base, tiny_data, tmp_path, learning_rate=1e-2, schedule="linear", warmup=0.0
    )
    rates = [item["learning_rate"] for item in read_history(tune(config).folder) if "loss" in item]
    assert rates == pytest.approx([1e-2, 7.5e-3, 5e-3, 2.5e-3])


@pytest.mark.slow
def test_a_clipped_gradient_moves_less(tiny_base: Path, tiny_data: Path, tmp_path: Path) -> None:
    """AdamW divides by the gradient's size, unless that is far below its epsilon of 1e-8."""
    moved = []
    for name, clip in (("off", 0.0), ("tight", 1e-12)):
        config = config_for(tiny_base, tiny_data, tmp_path, learning_rate=1e-2, clip=clip)
        tensors = read_tensors(tune(replace(config, name=name)).folder)
        moved.append(sum(float(part.abs().sum()) for key, part in tensors.items() if "_B" in key))
    assert moved[1] < moved[0] / 100


def test_auto_takes_bf16_where_the_processor_has_tiles_for_it() -> None:
    """The kernel's own list of what the processor can do."""
    if torch.cuda.is_available() or not Path("/proc/cpuinfo").is_file():
        pytest.skip("the rule for processors, read from Linux")
    has_tiles = "amx_bf16" in Path("/proc/cpuinfo").read_text().split()
    assert pick_precision("auto") == ("bf16" if has_tiles else "fp32")
    assert pick_precision("bf16") == "bf16"


@pytest.mark.slow
def test_bf16_runs_wherever_it_is_asked_for(
    tiny_base: Path, tiny_data: Path, tmp_path: Path
) -> None:
    config = config_for(tiny_base, tiny_data, tmp_path, learning_rate=1e-2)
    exact = tune(config)
    short = tune(replace(config, name="w", training=replace(config.training, precision="bf16")))
    assert (exact.run["precision"], short.run["precision"]) == ("fp32", "bf16")
    assert short.metrics["eval_loss"] != exact.metrics["eval_loss"]
    assert short.metrics["eval_loss"] == pytest.approx(exact.metrics["eval_loss"], rel=1e-2)


@pytest.mark.slow
def test_losses_speed_and_time_left_are_shown(
    tiny_base: Path, tiny_data: Path, tmp_path: Path
) -> None:
    shown = io.StringIO()
    config = config_for(tiny_base, tiny_data, tmp_path, max_steps=8)
    checks = CheckOptions(eval_every=2, samples=0)
    console = Console(file=shown, width=200, force_terminal=True)
    history = read_history(tune(replace(config, checks=checks), console=console).folder)
    for wanted in ("step 8", " tokens/s", " s left"):
        assert wanted in shown.getvalue()
    losses = [item["loss"] for item in history if "loss" in item][:7]  # before the last step
    heldout = [item["eval_loss"] for item in history if "eval_loss" in item]
    assert f"loss {sum(losses) / len(losses):.3f}" in shown.getvalue()
    assert f"held-out {heldout[-2]:.3f}" in shown.getvalue()


@pytest.mark.slow
def test_the_same_prompts_are_answered_at_each_evaluation(
    tiny_base: Path, tiny_data: Path, tmp_path: Path
) -> None:
    config = config_for(tiny_base, tiny_data, tmp_path)
    checks = CheckOptions(eval_every=1, samples=2)
    records = read_history(tune(replace(config, checks=checks)).folder)
    evaluated = [item["step"] for item in records if "eval_loss" in item]
    sampled = [item for item in records if "samples" in item]
    assert evaluated == [item["step"] for item in sampled] == [1, 2, 3, 4]
    asked = [[sample["prompt"] for sample in item["samples"]] for item in sampled]
    assert len(asked[0]) == 2
    assert asked == [asked[0]] * 4


@pytest.mark.slow
def test_home_may_be_written_in_the_file_or_given(
    tiny_base: Path, tiny_data: Path, tmp_path: Path
) -> None:
    written, given = tmp_path / "written", tmp_path / "given"
    file = tmp_path / "run.yaml"
    file.write_text(
        f"base: {tiny_base}\ndata: {tiny_data}\nname: v\nhome: {written}\nmax_steps: 1\n"
    )
    for words, home in (([], written), (["--home", str(given)], given)):
        done = CliRunner().invoke(app, ["tune", "--config", str(file), *words])
        assert done.exit_code == 0, done.output
        assert (home / "models" / "v" / "variant.json").is_file()


@pytest.mark.slow
def test_flags_and_keys_set_the_same(tiny_base: Path, tiny_data: Path, tmp_path: Path) -> None:
    words = ["tune", "--base", str(tiny_base), "--data", str(tiny_data), "--name", "v"]
    words += ["--epochs", "2", "--max-steps", "1", "--learning-rate", "1e-3", "--batch-size", "4"]
    words += ["--max-length", "64", "--seed", "3", "--packing", "--set", "lora.rank=2"]
    done = CliRunner().invoke(app, [*words, "--home", str(tmp_path), "--json"])
    assert done.exit_code == 0, done.output
    made = json.loads(done.stdout)["run"]["config"]
    keys = {
        "base": str(tiny_base),
        "data": str(tiny_data),
        "name": "v",
        "epochs": "2",
        "max_steps": "1",
        "learning_rate": "1e-3",
        "batch_size": "4",
        "max_length": "64",
        "seed": "3",
        "packing": "true",
        "rank": "2",
    }
    wanted = load_config(None, keys).to_json()
    assert made == json.loads(json.dumps({key: wanted[key] for key in wanted if key != "home"}))
