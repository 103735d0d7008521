"""Which tokens end an answer, read from the folder: one rule for tuning and for serving.

Knows `generation_config.json`, `config.json` and the tokenizer's EOS; knows no template and no
model in memory.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tuning.variant.folder import VariantError, load_json

GENERATION_FILE = "generation_config.json"


def stop_ids(tokenizer: Any, *folders: Path) -> tuple[int, ...]:
    """Ids that end an answer, in ascending order.

    They are the `eos_token_id` of the first of `folders` that names any, in its
    `generation_config.json` or else its `config.json` (as transformers takes them), and the
    tokenizer's EOS. An adapter is asked before its base. VariantError for what is no id.
    """
    own = {tokenizer.eos_token_id} - {None}
    for folder in folders:
        for name in (GENERATION_FILE, "config.json"):
            if found := _named(folder / name):
                return tuple(sorted(own | found))
    return tuple(sorted(own))


def _named(path: Path) -> set[int]:
    """The end ids in one file; none where there is no file, or it names none."""
    if not path.is_file():
        return set()
    content = load_json(path)
    value = content.get("eos_token_id") if isinstance(content, dict) else None
    if value is None and isinstance(content, dict) and isinstance(content.get("text_config"), dict):
        value = content["text_config"].get("eos_token_id")
    values = value if isinstance(value, list) else [] if value is None else [value]
    for item in values:
        if not isinstance(item, int) or isinstance(item, bool):
            raise VariantError(
                f"{path}: eos_token_id {item!r} is no token id; give a whole number or a list"
            )
    return {item for item in values if item >= 0}  # some write -1 for none
