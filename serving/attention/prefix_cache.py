"""Remembers keys and values of prompts, so that a shared beginning is computed once.

Keyed by adapter and tokens: what one variant computed never serves another. Bounded in tokens,
the least recently used goes first. Knows tensors and tokens; does not know requests.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import torch

Layers = list[tuple[torch.Tensor, torch.Tensor]]
# Copying costs time too: shorter beginnings are computed again.
LEAST_TOKENS = 16


@dataclass
class Entry:
    """One remembered prompt: its tokens and, per layer, their keys and values."""

    tokens: tuple[int, ...]
    layers: Layers


class PrefixCache:
    """Finds the longest remembered beginning of a prompt. `max_tokens` 0 turns it off."""

    def __init__(self, max_tokens: int) -> None:
        self.max_tokens = max_tokens
        self.num_tokens = 0
        self.num_reused = 0
        self._entries: OrderedDict[tuple[str | None, tuple[int, ...]], Entry] = OrderedDict()

    def find(self, adapter: str | None, prompt: Sequence[int]) -> tuple[int, Layers]:
        """(number of tokens, their keys and values); at least one token of the prompt stays.

        (0, []) when nothing worth the copy is known.
        """
        best, found = 0, None
        for key, entry in self._entries.items():
            if key[0] == adapter:
                common = common_prefix(entry.tokens, prompt)
                if common > best:
                    best, found = common, key
        best = min(best, len(prompt) - 1)
        if found is None or best < LEAST_TOKENS:
            return 0, []
        self._entries.move_to_end(found)
        self.num_reused += best
        layers = self._entries[found].layers
        return best, [(key[:best], value[:best]) for key, value in layers]

    def wants(self, adapter: str | None, tokens: Sequence[int]) -> bool:
        """Whether remembering `tokens` would add something."""
        if not LEAST_TOKENS < len(tokens) <= self.max_tokens:
            return False
        return not any(
            key[0] == adapter and common_prefix(entry.tokens, tokens) >= len(tokens) - LEAST_TOKENS
            for key, entry in self._entries.items()
        )

    def store(self, adapter: str | None, tokens: Sequence[int], layers: Layers) -> None:
        """Remember; entries that are a beginning of this one are replaced by it."""
        kept = tuple(tokens)
        for key, entry in list(self._entries.items()):
            if key[0] == adapter and common_prefix(entry.tokens, kept) == len(entry.tokens):
                self._drop(key)
        self._entries[adapter, kept] = Entry(kept, layers)
        self.num_tokens += len(kept)
        while self.num_tokens > self.max_tokens:
            self._drop(next(iter(self._entries)))

    def forget(self, adapters: set[str | None]) -> None:
        """Drop what adapters computed that are not among `adapters` any more."""
        for key in [key for key in self._entries if key[0] not in adapters]:
            self._drop(key)

    def _drop(self, key: tuple[str | None, tuple[int, ...]]) -> None:
        self.num_tokens -= len(self._entries.pop(key).tokens)


def common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    """Number of equal tokens at the beginning."""
    count = 0
    for a, b in zip(left, right, strict=False):
        if a != b:
            break
        count += 1
    return count
