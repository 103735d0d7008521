"""The bytes a token stands for, also where it is a part of a character only.

Knows how tokenizers write bytes in their vocabularies; does not know requests or HTTP.
"""

from __future__ import annotations

import re
from typing import Any

from transformers.convert_slow_tokenizer import bytes_to_unicode

from serving.completion.detokenize import REPLACEMENT

BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
SPACE = "▁"


class TokenBytes:
    """Bytes and names of the tokens of one tokenizer."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._added = getattr(tokenizer, "added_tokens_decoder", {})
        backend = getattr(tokenizer, "backend_tokenizer", None)
        decoder = getattr(backend, "decoder", None)
        state = bytes(decoder.__getstate__()) if decoder is not None else b""
        self._has_spaces = SPACE.encode() in state or b"Metaspace" in state
        self._has_byte_tokens = b"ByteFallback" in state
        self._alphabet = (
            {character: byte for byte, character in bytes_to_unicode().items()}
            if b"ByteLevel" in state
            else {}
        )

    def of(self, token: int) -> bytes:
        """The bytes of a token by itself; none for an id the vocabulary does not have."""
        if token in self._added:
            return str(self._added[token].content).encode()
        piece = self._tokenizer.convert_ids_to_tokens(token)
        if piece is None:
            return b""
        if self._alphabet and all(character in self._alphabet for character in piece):
            return bytes(self._alphabet[character] for character in piece)
        match = BYTE_TOKEN.fullmatch(piece) if self._has_byte_tokens else None
        if match is not None:
            return bytes([int(match[1], 16)])
        if self._has_spaces:
            return str(piece).replace(SPACE, " ").encode()
        text = self._tokenizer.decode([token], clean_up_tokenization_spaces=False)
        return str(text).encode("utf-8", "replace")

    def written(self, token: int, text: str) -> bytes:
        """The bytes of a token that made `text` of an answer: part of a character, or all of it."""
        raw = self.of(token)
        if not text or REPLACEMENT in text or not _is_text(raw):
            return raw
        return text.encode()

    def name(self, token: int) -> str:
        """The token as OpenAI's completions call it: a text, or `bytes:\\xe6` for parts of one."""
        raw = self.of(token)
        if _is_text(raw):
            return raw.decode()
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)


def _is_text(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True
