"""Loads and saves the tokenizer of a model folder; knows no template and no text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from tuning.models.errors import BaseError
from tuning.variant.checkpoint import one_line


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer saved in `folder`."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # tokenizers knows no other kind for a file it cannot read
        raise BaseError(
            f"base {folder}: its tokenizer cannot be loaded ({one_line(error)}); give a folder "
            "with the tokenizer.json that belongs to the model"
        ) from error


# What writing a file raises when the disk is full, by the library that writes it.
WRITE_ERRORS = (OSError, SafetensorError)


def save_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Write the tokenizer's files; OSError when the disk is full."""
    try:
        tokenizer.save_pretrained(folder)
    except Exception as error:  # the library that writes them knows no other kind
        raise OSError(str(error)) from error
