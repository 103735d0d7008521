"""Two processes (gloo, on the CPU) train to the same losses and weights as one."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tuning_fixtures import make_base, rows, write_rows

from tuning.inspection import read_tensors
from tuning.plots import read_history
from tuning.variant import read_variant

SCRIPT = """
import json, sys, warnings
from tuning import tune
from tuning.settings import load_config
tune(load_config(None, json.loads(sys.argv[1])))
"""
# accelerate 1.15 shards on accelerators alone, by one condition on the kind of device. Lifted, all
# that follows is real: FSDP2 of torch over gloo, its gathering, its sharded checkpoints.
SHARDED = """
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
# What `accelerate launch` sets for a config file with FSDP.
FSDP = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_TRANSFORMER_CLS_TO_WRAP": "LlamaDecoderLayer",
    "FSDP_STATE_DICT_TYPE": "SHARDED_STATE_DICT",
}
STEPS = 6


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run(settings: dict[str, Any], processes: int, *, sharded: bool = False) -> None:
    """Run `tune` under the variables that torchrun sets, one child for each rank."""
    port = free_port()
    children = []
    for rank in range(processes):
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        if processes > 1:
            environment |= {
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(processes),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
                "ACCELERATE_USE_CPU": "true",
            }
        if sharded:
            environment |= FSDP
        script = SHARDED + SCRIPT if sharded else SCRIPT
        command = [sys.executable, "-c", script, json.dumps(settings)]
        children.append(
            subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        )
    for child in children:
        _, errors = child.communicate(timeout=400)
        assert child.returncode == 0, errors


@pytest.mark.slow
def test_two_processes_train_as_one(tmp_path: Path) -> None:
    make_base(tmp_path / "base")
    write_rows(tmp_path / "rows.jsonl", rows())
    common: dict[str, Any] = {
        "base": str(tmp_path / "base"),
        "data": [str(tmp_path / "rows.jsonl")],
        "method": "lora",
        "home": str(tmp_path),
        "training.max_steps": STEPS,
        "training.epochs": 100,
        "training.learning_rate": 1e-2,
        "training.precision": "fp32",
        "data_options.heldout": 0.1,
        "checks.save_steps": 3,
    }
    run({**common, "name": "one", "training.batch_size": 8}, 1)
    run({**common, "name": "two", "training.batch_size": 4}, 2)
    one, two = (read_variant(tmp_path / "models" / name) for name in ("one", "two"))
    assert two.run["processes"] == 2
    losses = [
        [(item["step"], item["loss"]) for item in read_history(variant.folder) if "loss" in item]
        for variant in (one, two)
    ]
    assert [step for step, _ in losses[1]] == list(range(1, STEPS + 1))
    for (_, left), (_, right) in zip(*losses, strict=True):
        assert right == pytest.approx(left, rel=1e-4)
    assert two.metrics["eval_loss"] == pytest.approx(one.metrics["eval_loss"], rel=1e-4)
    left, right = read_tensors(one.folder), read_tensors(two.folder)
    assert all((left[name] - right[name]).abs().max() < 1e-4 for name in left)
    assert list((tmp_path / "models").glob(".*")) == []


@pytest.mark.slow
@pytest.mark.parametrize(("method", "rate"), [("lora", 1e-2), ("full", 1e-3)])
def test_sharded_processes_train_as_one(method: str, rate: float, tmp_path: Path) -> None:
    """FSDP: each of two processes holds half of every layer, and the variant is whole."""
    make_base(tmp_path / "base")
    write_rows(tmp_path / "rows.jsonl", rows())
    common: dict[str, Any] = {
        "base": str(tmp_path / "base"),
        "data": [str(tmp_path / "rows.jsonl")],
        "method": method,
        "home": str(tmp_path),
        "training.max_steps": STEPS,
        "training.epochs": 100,
        "training.learning_rate": rate,
        "training.precision": "fp32",
        "data_options.heldout": 0.1,
        "checks.save_steps": 3,
    }
    run({**common, "name": "one", "training.batch_size": 8}, 1)
    run({**common, "name": "two", "training.batch_size": 4}, 2, sharded=True)
    one, two = (read_variant(tmp_path / "models" / name) for name in ("one", "two"))
    assert two.run["processes"] == 2
    assert two.metrics["eval_loss"] == pytest.approx(one.metrics["eval_loss"], rel=1e-4)
    left, right = read_tensors(one.folder), read_tensors(two.folder)
    assert left.keys() == right.keys()
    assert all((left[name] - right[name]).abs().max() < 1e-4 for name in left)
