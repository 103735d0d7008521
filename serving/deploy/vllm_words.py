"""The command line of `vllm serve` for a base and its LoRA variants; knows no process.

`vllm serve --help` and vLLM's table of ranks say what there is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""The values of --max-lora-rank."""


def rank_for(rank: int) -> int:
    """The smallest value of --max-lora-rank that has room for `rank`."""
    return next(known for known in RANKS if known >= rank)


def lora_options(folders: Mapping[str, str], rank: int, spare: int = 0) -> list[str]:
    """The options that load the adapters in `folders`, by name; none without adapters.

    A step may have rows of all of them, and all stay in memory; there is room for `spare` more.
    """
    room = len(folders) + spare
    if not room:
        return []
    modules = [json.dumps({"name": name, "path": path}) for name, path in folders.items()]
    return [
        *("--enable-lora", "--max-lora-rank", str(rank_for(rank))),
        *("--max-loras", str(room), "--max-cpu-loras", str(room)),
        *(("--lora-modules", *modules) if modules else ()),
    ]
