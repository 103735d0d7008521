"""Loads tokenizers, and shares one among folders that differ in the chat template alone.

Tuning leaves tokens as they are, and reading a vocabulary holds up every other thread. Knows
transformers' files; does not know models or requests.
"""

from __future__ import annotations

import copy
import hashlib
import json
import warnings
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from transformers import AutoTokenizer

from serving.errors import ModelLoadError

CONFIG_FILE = "tokenizer_config.json"
TEMPLATE_FILE = "chat_template.jinja"
MORE_TEMPLATES = "additional_chat_templates"
TOKEN_FILES = (
    "tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "merges.txt",
    "added_tokens.json", "special_tokens_map.json",
)  # fmt: skip
# What transformers notes in the config about how a tokenizer was loaded.
LOADING_NOTES = ("is_local", "local_files_only", "name_or_path")


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer in `folder`; ModelLoadError when there is none that loads."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # A tokenizer's wishes about its own files.
            return AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
    except (OSError, ValueError, KeyError, ImportError) as error:
        line = " ".join(str(error).split())[:300]
        raise ModelLoadError(f"{folder}: no usable tokenizer: {line}") from error


class TokenizerCache:
    """The tokenizers in use, by what their files say but for the template."""

    def __init__(self) -> None:
        self._known: WeakValueDictionary[str, Any] = WeakValueDictionary()

    def load(self, folder: Path) -> Any:
        """The tokenizer in `folder`; ModelLoadError when there is none that loads."""
        digest = _digest(folder)
        if digest is None:
            return load_tokenizer(folder)
        alike = self._known.get(digest)
        if alike is None:
            tokenizer = self._known[digest] = load_tokenizer(folder)
            return tokenizer
        twin, template = copy.copy(alike), folder / TEMPLATE_FILE
        twin.chat_template = template.read_text("utf-8") if template.is_file() else None
        return twin


def _digest(folder: Path) -> str | None:
    """Hash of all that makes a tokenizer but its template; None where that is elsewhere too."""
    try:
        config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        if "chat_template" in config or (folder / MORE_TEMPLATES).exists():
            return None
        kept = {key: value for key, value in config.items() if key not in LOADING_NOTES}
        parts = [json.dumps(kept, sort_keys=True).encode()]
        for name in TOKEN_FILES:
            path = folder / name
            parts += [name.encode(), path.read_bytes()] if path.is_file() else []
    except (OSError, ValueError):
        return None
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8))
        digest.update(part)
    return digest.hexdigest()
