"""The script that makes Ollama's models of folders with a Modelfile; knows no GGUF, starts nothing.

Ollama's names are lower case; its adapters have no swapping, so each model is a file of its own.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping

from serving.deploy.bundle import Bundle, DeployedModel
from serving.errors import ServingError
from tuning.variant import Variant

SCRIPT = "create.sh"
URL = "http://127.0.0.1:11434"


def ollama_name(name: str) -> str:
    """A model's name as Ollama takes it; ServingError for one that it has no like of."""
    found = name.lower()
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,79}", found):
        raise ServingError(
            f"model name {name!r}: Ollama takes letters, digits, '.', '_' and '-'; rename its "
            "folder"
        )
    return found


def ollama_bundle(models: Mapping[str, Variant]) -> Bundle:
    """`create.sh` for models that each lie in a folder of their name beside it."""
    creates = [
        f"ollama create {ollama_name(name)} -f {shlex.quote(f'./{name}/Modelfile')}"
        for name in models
    ]
    missing = "missing: Ollama, see https://ollama.com/download"
    script = "\n".join(
        [
            "#!/usr/bin/env bash",
            "# Makes a model of Ollama for each folder beside this file.",
            "set -euo pipefail",
            'cd "$(dirname "$0")"',
            f"command -v ollama >/dev/null || {{ echo {shlex.quote(missing)} >&2; exit 1; }}",
            *creates,
        ]
    )
    answered = tuple(
        DeployedModel(
            name, URL, f"{ollama_name(name)}:latest", variant.weights_sha256,
            completes=variant.template is None and not variant.is_adapter,
        )
        for name, variant in models.items()
    )  # fmt: skip
    return Bundle(
        {SCRIPT: f"{script}\n"},
        f"bash {SCRIPT}",
        answered,
        "Needs Ollama there, running.",
        frozenset({SCRIPT}),
    )
