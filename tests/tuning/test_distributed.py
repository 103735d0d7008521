"""Two processes (gloo, on the CPU) train to the same losses and weights as one, also sharded."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from forked import Finished, Forked
from tuning_fixtures import make_base, rows, write_rows

from tuning.variant import Variant, read_variant
from tuning.variant.plots import read_history
from tuning.variant.verify import read_tensors

SCRIPT = """
import json, sys, warnings
from tuning import tune
from tuning.config_files import load_config
tune(load_config(None, json.loads(sys.argv[1])))
"""
# The main process dies, hard, right after a checkpoint; the other one loses its peer.
KILLED = """
import os, signal
from tuning.training.checkpoints import RunFolder
commit = RunFolder.commit
def commit_and_die(self, *arguments, **others):
    commit(self, *arguments, **others)
    os.kill(os.getpid(), signal.SIGKILL)
RunFolder.commit = commit_and_die
"""
# One process is told to stop by a signal, the other one is not.
STOPPED = """
import os, signal
from tuning.training.trainer import RunTrainer
usual = RunTrainer.training_step
def step(self, *arguments):
    if self.state.global_step == 3 and os.environ["RANK"] == "1":
        os.kill(os.getpid(), signal.SIGTERM)
    return usual(self, *arguments)
RunTrainer.training_step = step
"""
# accelerate 1.15 has FSDP on accelerators alone, by one condition on the kind of device. Lifted,
# all that follows is real: FSDP2 of torch over gloo, its gathering, its sharded checkpoints.
LIFTED = """
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType
usual = AcceleratorState.__init__
def on_processors_too(self, *args, fsdp_plugin=None, **kwargs):
    usual(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
    if self.distributed_type == DistributedType.MULTI_CPU and fsdp_plugin is not None:
        self.distributed_type, self.fsdp_plugin = DistributedType.FSDP, fsdp_plugin
        PartialState._shared_state["distributed_type"] = DistributedType.FSDP
AcceleratorState.__init__ = on_processors_too
"""
# DeepSpeed would compile its exchange through shared memory first; without it, it takes gloo.
UNCOMPILED = """
import deepspeed.ops
deepspeed.ops.__compatible_ops__ = {}
"""
# `make test` puts it beside the environment: within, accelerate would import it everywhere.
DEEPSPEED = Path(sys.prefix) / "deepspeed"
# What `accelerate launch` sets for a config file with DDP, FSDP, DeepSpeed.
LAUNCHED = {
    "ddp": {"ACCELERATE_USE_CPU": "true"},
    "fsdp": {
        "ACCELERATE_USE_CPU": "true",
        "ACCELERATE_USE_FSDP": "true",
        "FSDP_VERSION": "2",
        "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
        "FSDP_TRANSFORMER_CLS_TO_WRAP": "LlamaDecoderLayer",
        "FSDP_STATE_DICT_TYPE": "SHARDED_STATE_DICT",
    },
    **{
        f"zero{stage}": {
            "ACCELERATE_USE_DEEPSPEED": "true",
            "ACCELERATE_DEEPSPEED_ZERO_STAGE": str(stage),
            "DS_ACCELERATOR": "cpu",
            "PYTHONPATH": os.pathsep.join([str(DEEPSPEED), os.environ.get("PYTHONPATH", "")]),
        }
        for stage in (1, 2, 3)
    },
}
DEEPSPEED_CONFIG = {
    "zero_optimization": {"stage": 2},
    "train_batch_size": "auto",
    "train_micro_batch_size_per_gpu": "auto",
    "gradient_accumulation_steps": "auto",
    "gradient_clipping": "auto",
}
STEPS = 6
RATES = {"lora": 1e-2, "full": 1e-3}


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Started:
    """A new interpreter with the ways of `Forked`: libraries look for DeepSpeed as they load."""

    def __init__(self, command: Sequence[str], environment: dict[str, str] | None = None) -> None:
        self._process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def kill(self) -> None:
        """End it as the kernel would."""
        self._process.kill()

    def wait(self) -> Finished:
        """How it ended."""
        printed, errors = self._process.communicate(timeout=400)
        return Finished(self._process.returncode, printed, errors)


Child = Forked | Started


def start(settings: dict[str, Any], script: str, **variables: str) -> Child:
    """One process that runs `script` on the settings."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    environment |= {"TORCHDYNAMO_DISABLE": "1", **variables}  # nothing here waits for a compiler
    if "ACCELERATE_USE_DEEPSPEED" in variables:
        return Started([sys.executable, "-c", script, json.dumps(settings)], environment)
    return Forked([json.dumps(settings)], script=script, environment=environment)


def start_two(settings: dict[str, Any], way: str, *, before: str = "") -> list[Child]:
    """Two processes under the variables that torchrun sets, one for each rank."""
    assert not way.startswith("zero") or DEEPSPEED.is_dir(), "run `make test`, which installs it"
    common = {**LAUNCHED[way], "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    if way == "zero2":  # by a config file of DeepSpeed's own, zero3 by accelerate's settings
        file = Path(settings["home"]) / "deepspeed.json"
        file.write_text(json.dumps(DEEPSPEED_CONFIG))
        common["ACCELERATE_DEEPSPEED_CONFIG_FILE"] = str(file)
    common["MASTER_PORT"] = str(free_port())
    script = {"fsdp": LIFTED, "ddp": ""}.get(way, UNCOMPILED) + before + SCRIPT
    return [start(settings, script, **common, RANK=rank, LOCAL_RANK=rank) for rank in ("0", "1")]


def torchrun(settings: dict[str, Any]) -> Child:
    """Two processes by the command that the documentation gives."""
    home, file = settings["home"], Path(settings["home"]) / "run.yaml"
    file.write_text(json.dumps({key: settings[key] for key in settings if key != "home"}))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
    command += ["2", "-m", "arena.cli", "tune", "--config", str(file), "--home", home]
    return Started(command)


def finish(*children: Child) -> None:
    """Wait until all are done, well."""
    for child in children:
        done = child.wait()
        assert done.status == 0, done.stderr


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a base and data, which is the home too."""
    place = tmp_path_factory.mktemp("distributed")
    make_base(place / "base")
    write_rows(place / "rows.jsonl", rows())
    return place


def settings_of(place: Path, method: str, name: str, batch: int) -> dict[str, Any]:
    """Six steps, saved after the third."""
    return {
        "base": str(place / "base"),
        "data": [str(place / "rows.jsonl")],
        "method": method,
        "name": name,
        "home": str(place),
        "training.batch_size": batch,
        "training.max_steps": STEPS,
        "training.epochs": 100,
        "training.learning_rate": RATES[method],
        "training.precision": "fp32",
        "data_options.heldout": 0.1,
        "checks.save_steps": 3,
    }


@pytest.fixture(scope="module")
def alone(place: Path) -> Callable[[str], Variant]:
    """What one process makes by a method."""

    def make(method: str) -> Variant:
        folder = place / "models" / f"one-{method}"
        if not folder.is_dir():
            finish(start(settings_of(place, method, folder.name, 8), SCRIPT))
        return read_variant(folder)

    return make


@pytest.fixture(scope="module")
def together(place: Path) -> Callable[[str, str], Variant]:
    """What two processes make by a method when launched in one of the ways."""

    def make(method: str, way: str) -> Variant:
        folder = place / "models" / f"{way}-{method}"
        settings = settings_of(place, method, folder.name, 4)
        if way == "torchrun" and not folder.is_dir():
            finish(torchrun(settings))
        elif not folder.is_dir():
            finish(*start_two(settings, way))
        return read_variant(folder)

    return make


def assert_same(one: Variant, two: Variant) -> None:
    """Equal within the rounding of sums taken in another order."""
    assert two.run["processes"] == 2
    assert two.metrics["eval_loss"] == pytest.approx(one.metrics["eval_loss"], rel=1e-4)
    left, right = read_tensors(one.folder), read_tensors(two.folder)
    assert left.keys() == right.keys()
    assert all((left[name] - right[name]).abs().max() < 1e-4 for name in left)


@pytest.mark.slow
def test_two_processes_train_as_one(
    place: Path, alone: Callable[[str], Variant], together: Callable[[str, str], Variant]
) -> None:
    one, two = alone("lora"), together("lora", "torchrun")
    losses = [
        [(item["step"], item["loss"]) for item in read_history(variant.folder) if "loss" in item]
        for variant in (one, two)
    ]
    assert [step for step, _ in losses[1]] == list(range(1, STEPS + 1))
    for (_, left), (_, right) in zip(*losses, strict=True):
        assert right == pytest.approx(left, rel=1e-4)
    assert_same(one, two)
    assert list((place / "models").glob(".*")) == []


@pytest.mark.slow
def test_a_signal_to_one_process_stops_both_and_the_run_goes_on(
    place: Path, together: Callable[[str, str], Variant]
) -> None:
    settings = settings_of(place, "lora", "stopped", 4)
    for child in start_two(settings, "ddp", before=STOPPED):
        done = child.wait()
        assert done.status == 1
        assert "stopped: stopped at step 4 of 6 and saved" in done.stderr
    finish(*start_two(settings, "ddp"))
    made = read_variant(place / "models" / "stopped")
    assert made.run["resumed_at"] == 4
    assert made.weights_sha256 == together("lora", "torchrun").weights_sha256


@pytest.mark.slow
@pytest.mark.parametrize("way", ["ddp", "fsdp"])
def test_processes_stop_early_together(place: Path, way: str) -> None:
    """With the best evaluation's weights, or the last ones where each process holds a part."""
    settings = settings_of(place, "lora", f"{way}-early", 4)
    settings |= {"training.max_steps": 100, "training.learning_rate": 5e-2}
    settings |= {"checks.eval_every": 1, "checks.patience": 2}
    finish(*start_two(settings, way))
    made = read_variant(place / "models" / f"{way}-early")
    losses = [item["eval_loss"] for item in read_history(made.folder) if "eval_loss" in item]
    best = losses.index(min(losses)) + 1
    assert (made.run["stopped_early"], made.run["steps"]) == (True, best + 2)
    assert made.run["weights_of_step"] == (best if way == "ddp" else best + 2)
    told = losses[made.run["weights_of_step"] - 1]
    assert made.metrics["eval_loss"] == pytest.approx(told, abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("way", "method"), [("fsdp", "lora"), ("fsdp", "full"), ("zero2", "lora"), ("zero3", "full")]
)
def test_sharded_processes_train_as_one(
    alone: Callable[[str], Variant],
    together: Callable[[str, str], Variant],
    way: str,
    method: str,
) -> None:
    """FSDP and DeepSpeed: each of two processes holds a part, and the variant is whole."""
    assert_same(alone(method), together(method, way))


@pytest.mark.slow
@pytest.mark.parametrize(("way", "method"), [("fsdp", "lora"), ("zero3", "full")])
def test_a_killed_sharded_run_goes_on_to_the_same_weights(
    place: Path, together: Callable[[str, str], Variant], way: str, method: str
) -> None:
    settings = settings_of(place, method, f"{way}-{method}-cut", 4)
    first, second = start_two(settings, way, before=KILLED)
    assert first.wait().status == -signal.SIGKILL
    second.kill()
    second.wait()
    finish(*start_two(settings, way))
    made = read_variant(place / "models" / settings["name"])
    assert made.run["resumed_at"] == 3
    assert made.weights_sha256 == together(method, way).weights_sha256
