"""The script that brings a deployment up by `vllm serve` or SGLang's server, on one machine.

One process has the base and all adapters, and each whole checkpoint one of its own, on the ports
that follow. Knows the engines' options, as their `--help` says them; starts nothing.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence

from serving.deploy.bundle import Bundle, DeployedModel, paths
from serving.deploy.placement import PlacedModel, Placement
from serving.deploy.vllm_words import lora_options

SCRIPT = "serve.sh"
FIRST_PORT = 8000
MEMORY_SHARE = 0.9


def vllm_bundle(placement: Placement) -> Bundle:
    """`serve.sh` for vLLM. Sampling is what a request says, not the base's wishes."""
    places = paths(placement)
    adapters = {one.name: f"./{places[one.name]}" for one in placement.adapters}
    lines = []
    for number, model in enumerate((placement.base, *placement.checkpoints)):
        words = ["vllm", "serve", f"./{places[model.name]}"]
        words += ["--served-model-name", model.name, "--generation-config", "vllm"]
        words += lora_options(adapters, placement.max_rank) if model is placement.base else []
        if placement.checkpoints:
            share = MEMORY_SHARE / (1 + len(placement.checkpoints))
            words += ["--gpu-memory-utilization", f"{share:.2f}"]
        lines.append(_line(words, number))
    return _bundle(placement, lines, "vllm", "pip install vllm")


def sglang_bundle(placement: Placement) -> Bundle:
    """`serve.sh` for SGLang, whose name of an adapter in a request is `base:adapter`."""
    places = paths(placement)
    lines = []
    for number, model in enumerate((placement.base, *placement.checkpoints)):
        words = ["python3", "-m", "sglang.launch_server"]
        words += ["--model-path", f"./{places[model.name]}"]
        words += ["--served-model-name", model.name, "--sampling-defaults", "openai"]
        if model is placement.base and placement.adapters:
            count = str(len(placement.adapters) + 1)  # the base itself counts as one
            words += ["--enable-lora", "--max-lora-rank", str(placement.max_rank)]
            words += ["--max-loras-per-batch", count, "--lora-paths"]
            words += [
                json.dumps({"lora_name": one.name, "lora_path": f"./{places[one.name]}"})
                for one in placement.adapters
            ]
        if placement.checkpoints:
            share = MEMORY_SHARE / (1 + len(placement.checkpoints))
            words += ["--mem-fraction-static", f"{share:.2f}"]
        lines.append(_line(words, number))
    install = "pip install 'sglang[all]'"
    return _bundle(placement, lines, "python3", install, module="sglang", joined=True)


def _line(words: Sequence[str], number: int) -> str:
    port = '"$PORT"' if number == 0 else f'"$((PORT + {number}))"'
    return f'{shlex.join(words)} --host "$HOST" --port {port} "$@"'


def _bundle(
    placement: Placement,
    lines: Sequence[str],
    program: str,
    install: str,
    *,
    module: str | None = None,
    joined: bool = False,
) -> Bundle:
    test = f"command -v {program} >/dev/null"
    if module:
        test = f'{program} -c "import {module}" 2>/dev/null'
    if len(lines) == 1:
        run = [f"exec {lines[0]}"]
    else:
        run = ["trap 'kill $(jobs -p) 2>/dev/null || :' EXIT", *(f"{line} &" for line in lines)]
        run.append("wait -n  # when one ends, all end")
    script = "\n".join(
        [
            "#!/usr/bin/env bash",
            "# Serves the models beside this file; more options may follow on the command line.",
            "set -euo pipefail",
            'cd "$(dirname "$0")"',
            f"HOST=${{HOST:-127.0.0.1}}\nPORT=${{PORT:-{FIRST_PORT}}}",
            f"{test} || {{ echo {shlex.quote(f'missing: {install}')} >&2; exit 1; }}",
            *run,
        ]
    )
    return Bundle(
        {SCRIPT: f"{script}\n"},
        f"bash {SCRIPT}",
        tuple(_models(placement, joined)),
        f"Needs {install} there; HOST and PORT say where it listens.",
        frozenset({SCRIPT}),
    )


def _models(placement: Placement, joined: bool) -> list[DeployedModel]:
    """What answers where; `joined` is SGLang's `base:adapter`."""
    first = f"http://127.0.0.1:{FIRST_PORT}"
    found = [deployed(placement.base, first, placement.base.name)]
    for one in placement.adapters:
        model = f"{placement.base.name}:{one.name}" if joined else one.name
        found.append(deployed(one, first, model))
    for number, one in enumerate(placement.checkpoints, start=1):
        found.append(deployed(one, f"http://127.0.0.1:{FIRST_PORT + number}", one.name))
    return found


def deployed(placed: PlacedModel, url: str, model: str) -> DeployedModel:
    """How the page is to ask a placed model at `url` under the engine's name `model`."""
    completes = not placed.variant.is_adapter and placed.template is None
    return DeployedModel(placed.name, url, model, placed.variant.weights_sha256, completes)
