"""Loads and saves the tokenizer of a model folder; knows no template and no text."""

from __future__ import annotations

import json
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


def within_rows(tokenizer: Any, num_rows: int) -> Any:
    """The tokenizer without tokens that the embeddings, `num_rows` of them, have no row for.

    transformers' classes add their own special tokens to what a GGUF file lists; a text that held
    one would end the request that brings it.
    """
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    if max(tokenizer.get_vocab().values(), default=0) < num_rows:
        return tokenizer
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    content["added_tokens"] = [one for one in content["added_tokens"] if one["id"] < num_rows]
    kept = {one["content"] for one in content["added_tokens"]} | set(content["model"]["vocab"])
    special = {
        name: token
        for name in ("bos_token", "eos_token", "unk_token", "pad_token")
        if (token := getattr(tokenizer, name)) in kept
    }
    made = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(content)), **special
    )
    made.chat_template = tokenizer.chat_template
    return made
