"""Token ids to text as they come: whole characters only, stop strings found anywhere.

Not by tokenizers' `DecodeStream` (0.23), though it costs 0.7 instead of 1.7 µs a token: with byte
fallback it fails where a bad byte makes good ones bad, it keeps to itself what never became a
character, and tokenizers written in Python have none. Knows tokenizers; does not know requests or
HTTP.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from transformers import PreTrainedTokenizerFast

REPLACEMENT = "�"
CONTEXT = 6


class Detokenizer:
    """Streams the text of one completion; what it returns adds up to the whole text.

    The last prompt tokens are the context that decides about a leading space.
    """

    def __init__(self, tokenizer: Any, prompt: Sequence[int]) -> None:
        self._decode = decoder(tokenizer)
        self._special = special_ids(tokenizer)
        self._ids = [token for token in prompt[-CONTEXT:] if token not in self._special]
        self._start = 0
        self._read = len(self._ids)

    def is_special(self, token: int) -> bool:
        """Whether the token is a control token, which is no part of the text."""
        return token in self._special

    def push(self, token: int) -> str:
        """The text that `token` completes: "" while a character is still in pieces."""
        if token in self._special:
            return ""
        self._ids.append(token)
        text = self._pending()
        if not text or text.endswith(REPLACEMENT):  # Some tokenizers leave broken bytes out.
            return ""
        self._start, self._read = self._read, len(self._ids)
        return text

    def flush(self) -> str:
        """The text of pieces that never became a character."""
        text = self._pending() if self._read < len(self._ids) else ""
        self._start, self._read = self._read, len(self._ids)
        return text

    def _pending(self) -> str:
        before = self._decode(self._ids[self._start : self._read])
        return self._decode(self._ids[self._start :])[len(before) :]


def decoder(tokenizer: Any) -> Callable[[list[int]], str]:
    """What turns ids into their text, control tokens included.

    A tokenizer that adds nothing to what the library in Rust does is asked without detour: it
    happens twice a token.
    """
    kind = type(tokenizer)
    if (
        isinstance(tokenizer, PreTrainedTokenizerFast)
        and kind.decode is PreTrainedTokenizerFast.decode
        and kind._decode is PreTrainedTokenizerFast._decode
    ):
        inner = tokenizer.backend_tokenizer
        return lambda ids: inner.decode(ids, skip_special_tokens=False) if ids else ""
    return lambda ids: str(tokenizer.decode(ids, clean_up_tokenization_spaces=False)) if ids else ""


def plain_text(tokenizer: Any, ids: Sequence[int]) -> str:
    """The text of ids without control tokens."""
    special = special_ids(tokenizer)
    return decoder(tokenizer)([token for token in ids if token not in special])


def special_ids(tokenizer: Any) -> frozenset[int]:
    """Ids of control tokens: the named ones and added tokens that are marked special."""
    added = getattr(tokenizer, "added_tokens_decoder", {})
    marked = {token for token, entry in added.items() if getattr(entry, "special", False)}
    return frozenset(marked | set(tokenizer.all_special_ids))


class StopFinder:
    """Looks for stop strings in growing text, and knows what may already be shown."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = [stop for stop in stops if stop]
        self._longest = max(map(len, self._stops), default=0)
        self.text = ""
        self.shown = 0
        self.match: tuple[int, int] | None = None
        self._begin = 0

    def skip(self, piece: str) -> None:
        """Add text in which no stop string counts."""
        self.text += piece
        self._begin = len(self.text)

    def push(self, piece: str) -> bool:
        """Add text; True once a stop string is complete (the earliest to end wins)."""
        begin = max(self._begin, len(self.text) - self._longest + 1)
        self.text += piece
        found = [
            (at + len(stop), at) for stop in self._stops if (at := self.text.find(stop, begin)) >= 0
        ]
        if found and self.match is None:
            end, at = min(found)
            self.match = (at, end)
        return self.match is not None

    def show(self, *, final: bool, keep_stop: bool) -> str:
        """Text not yet shown that no stop string can still claim; all that is left if `final`."""
        if self.match is not None:
            limit = self.match[1] if keep_stop else self.match[0]
        elif final or keep_stop:
            limit = len(self.text)
        else:
            limit = len(self.text) - self._held()
        piece = self.text[self.shown : limit]
        self.shown = max(self.shown, limit)
        return piece

    def _held(self) -> int:
        """Length of the longest tail of the text that begins a stop string."""
        for length in range(min(self._longest - 1, len(self.text) - self._begin), 0, -1):
            if any(stop.startswith(self.text[-length:]) for stop in self._stops):
                return length
        return 0
