"""Writes a tokenizer into a GGUF file, in llama.cpp's words.

Knows `tokenizer.json` and what llama.cpp can do of it; what it cannot is refused by name. The
names of pre-tokenizers are llama.cpp's own (`llama-vocab.cpp`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from gguf import GGUFWriter, TokenType

from tuning.models.export.errors import ModelExportError

QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA3_SPLIT = QWEN2_SPLIT.replace(r"\p{N}| ?", r"\p{N}{1,3}| ?")
SPLITS = {QWEN2_SPLIT: "qwen2", LLAMA3_SPLIT: "llama-bpe"}


def write_vocabulary(writer: GGUFWriter, tokenizer: Any, size: int) -> None:
    """Write tokens, merges, special tokens and chat template; `size` is that of the embeddings.

    ModelExportError for a tokenizer whose splitting llama.cpp does not know.
    """
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    model = content["model"]
    if model["type"] != "BPE":
        raise ModelExportError(
            f"tokenizer model {model['type']!r}: only BPE can be written as GGUF; "
            "export with --to folder"
        )
    tokens, types = _tokens(content, size)
    if model.get("byte_fallback"):
        writer.add_tokenizer_model("llama")
        writer.add_tokenizer_pre("default")
        # Its merges are the order of its tokens; llama.cpp joins the pair of the highest score.
        writer.add_token_scores([float(-index) for index in range(size)])
        writer.add_add_space_prefix(_adds_space(content))
    else:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(_pre_tokenizer(content["pre_tokenizer"]))
        merges = model["merges"]
        writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in merges])
        writer.add_add_space_prefix(False)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    _write_special(writer, tokenizer)


def _tokens(content: Mapping[str, Any], size: int) -> tuple[list[str], list[int]]:
    """The text and the type of each row of the embeddings; rows without a token are unused."""
    vocabulary = {index: token for token, index in content["model"]["vocab"].items()}
    added = {token["id"]: token for token in content["added_tokens"]}
    largest = max([*vocabulary, *added])
    if largest >= size:
        raise ModelExportError(
            f"token {largest} has no row in the embeddings, which have {size}; resize them first"
        )
    tokens, types = [], []
    for index in range(size):
        tokens.append(added[index]["content"] if index in added else vocabulary.get(index, ""))
        types.append(_type(index, vocabulary, added, content["model"].get("unk_token")))
        if types[-1] == TokenType.UNUSED:
            tokens[-1] = f"[PAD{index}]"
    return tokens, types


def _type(
    index: int, vocabulary: Mapping[int, str], added: Mapping[int, Any], unknown: str | None
) -> int:
    if index in added:
        return int(TokenType.CONTROL if added[index]["special"] else TokenType.USER_DEFINED)
    token = vocabulary.get(index)
    if token is None:
        return int(TokenType.UNUSED)
    if token == unknown:
        return int(TokenType.UNKNOWN)
    is_byte = len(token) == len("<0x00>") and token.startswith("<0x") and token.endswith(">")
    return int(TokenType.BYTE if is_byte else TokenType.NORMAL)


def _pre_tokenizer(found: Mapping[str, Any] | None) -> str:
    """llama.cpp's name of the splitting; ModelExportError where it has none."""
    parts = found["pretokenizers"] if found and found["type"] == "Sequence" else [found]
    match [_shape(part) for part in parts]:
        case [("bytes", True)]:
            return "gpt-2"
        case [("digits", True), ("bytes", True)]:
            return "smollm"
        case [("split", regex), ("bytes", False)] if regex in SPLITS:
            return SPLITS[regex]
    raise ModelExportError(
        "pre-tokenizer: GPT-2's, SmolLM's, Qwen2's and Llama 3's are written as GGUF, and "
        f"this one is {json.dumps(found)[:200]}; export with --to folder"
    )


def _shape(part: Mapping[str, Any] | None) -> tuple[str, Any]:
    kind = part["type"] if part else ""
    if kind == "ByteLevel" and part is not None and not part["add_prefix_space"]:
        return ("bytes", part.get("use_regex", True))
    if kind == "Digits" and part is not None:
        return ("digits", part["individual_digits"])
    if kind == "Split" and part is not None:
        is_plain = part["behavior"] == "Isolated" and not part["invert"]
        return ("split", part["pattern"].get("Regex") if is_plain else None)
    return (kind, None)


def _adds_space(content: Mapping[str, Any]) -> bool:
    """Whether a space is put before the text: by a normalizer, or by the splitting."""
    normalizer, splitting = content["normalizer"] or {}, content["pre_tokenizer"] or {}
    steps = normalizer.get("normalizers", [normalizer])
    return any(step.get("type") == "Prepend" for step in steps) or (
        splitting.get("type") == "Metaspace" and splitting.get("prepend_scheme") != "never"
    )


def _write_special(writer: GGUFWriter, tokenizer: Any) -> None:
    for kind, add in {
        "bos": writer.add_bos_token_id,
        "eos": writer.add_eos_token_id,
        "pad": writer.add_pad_token_id,
        "unk": writer.add_unk_token_id,
    }.items():
        index = getattr(tokenizer, f"{kind}_token_id")
        if index is not None:
            add(index)
    ids = tokenizer("a").input_ids
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    writer.add_add_bos_token(bos is not None and ids[0] == bos)
    writer.add_add_eos_token(len(ids) > 1 and eos is not None and ids[-1] == eos)
    if tokenizer.chat_template:
        writer.add_chat_template(tokenizer.chat_template)
