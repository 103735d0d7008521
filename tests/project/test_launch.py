"""Tuning in several processes: `--launch`, and that each recipe is one that its program takes.

What several processes train is held to one process's in tests/tuning/test_distributed.py.
"""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import launch_command_parser
from cli_reference import commands, options
from running import clean_environment

from arena.commands.launch import LaunchError, launched, without_launch

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "docs" / "launch"
PAGE = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")


def shell_lines(text: str) -> list[list[str]]:
    lines = text.replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines if not line.startswith("#")]


def check_tune(words: list[str]) -> None:
    """Our own part of a command: every option is one of `arena tune`."""
    known = options(dict(commands())[("tune",)])
    assert {word for word in words if word.startswith("--")} <= known


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_accelerate_reads_each_recipe(path: Path) -> None:
    """Its own reader refuses keys that it does not know; the page names the file."""
    content = yaml.safe_load(path.read_text())
    config = load_config_from_file(str(path))
    assert config.distributed_type.value == content["distributed_type"]
    assert f"launch/{path.name}" in PAGE


def test_the_commands_of_the_page_are_ones_their_programs_take() -> None:
    blocks = "\n".join(re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))
    lines = [words for words in shell_lines(blocks) if words]
    found = [words for words in lines if words[:2] == ["accelerate", "launch"]]
    script = shell_lines((RECIPES / "slurm.sh").read_text())
    (srun,) = [words for words in script if words[:1] == ["srun"]]
    found.append(shlex.split(srun[-1].replace("$", "")))
    assert len(found) >= 2
    for words in found:
        numbered = ["1" if word in ("SLURM_NNODES", "NUM_PROCESSES", "SLURM_NODEID") else word
                    for word in words[2:]]  # fmt: skip
        args = launch_command_parser().parse_args(numbered)
        assert args.module
        assert args.training_script == "arena.cli"
        assert args.training_script_args[0] == "tune"
        assert (ROOT / args.config_file).is_file()
        check_tune(args.training_script_args[1:])
    (job,) = [words for words in lines if words[:4] == ["hf", "jobs", "uv", "run"]]
    check_tune(job[job.index("docs/launch/hf_job.py") + 1 :])
    hf_takes(job[1:])


HF_PARSER = """
import sys
from huggingface_hub.cli.hf import app
command, words = app, sys.argv[1:]
while hasattr(command, "get_command"):
    command = command.get_command(command.context_class(command), words.pop(0))
print(command.make_context("run", words).params["script"])
"""


def hf_takes(words: list[str]) -> None:
    """The hub's own command line parses the words; nothing is sent. It looks its host up offline
    too, so that another process does it.
    """
    done = subprocess.run(
        [sys.executable, "-c", HF_PARSER, *words],
        capture_output=True, text=True, check=True, env=clean_environment(HF_HUB_OFFLINE="1"),
    )  # fmt: skip
    assert done.stdout.strip() == "docs/launch/hf_job.py"


def test_scripts_are_whole() -> None:
    subprocess.run(["bash", "-n", str(RECIPES / "slurm.sh")], check=True)
    source = (RECIPES / "hf_job.py").read_text()
    ast.parse(source)
    assert re.search(r"^# /// script\n(# .*\n)+# ///$", source, re.MULTILINE)


def test_launch_is_the_same_command_in_accelerate(tmp_path: Path) -> None:
    words = ["--base", "b", "--launch", "x.yaml", "--set", "lora.rank=8", "--launch=y"]
    assert without_launch(words) == ["--base", "b", "--set", "lora.rank=8"]
    with pytest.raises(LaunchError, match="no such file"):
        launched(tmp_path / "x.yaml", words)
    (tmp_path / "x.yaml").touch()
    command = launched(tmp_path / "x.yaml", words)
    assert command[-7:] == ["-m", "arena.cli", "tune", "--base", "b", "--set", "lora.rank=8"]
