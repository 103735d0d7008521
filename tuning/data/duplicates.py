"""Finds texts nearly like an earlier one, by MinHash over word triples with banding.

Candidates share a band of hashes and are then compared exactly, so a text is called a near
duplicate only when its Jaccard similarity truly reaches the threshold; with 16 bands of 4 a pair
at similarity 0.8 is found with probability 0.9998 and one at 0.5 with 0.64.
"""

from __future__ import annotations

import hashlib

import numpy as np

NUM_HASHES = 64
BAND = 4
PRIME = (1 << 31) - 1


class NearDuplicates:
    """Remembers texts; `seen_before` answers whether one like it came earlier."""

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        generator = np.random.default_rng(0)
        self._factors = generator.integers(1, PRIME, NUM_HASHES, dtype=np.uint64)
        self._offsets = generator.integers(0, PRIME, NUM_HASHES, dtype=np.uint64)
        self._bands: dict[tuple[int, bytes], list[int]] = {}
        self._shingles: list[frozenset[int]] = []

    def seen_before(self, words: str) -> bool:
        """Whether `words` (space-separated) is similar to an earlier text; remembers it if not."""
        shingles = _shingles(words)
        values = np.fromiter(shingles, dtype=np.uint64)
        hashes = (values[:, None] * self._factors + self._offsets) % np.uint64(PRIME)
        signature = hashes.min(axis=0)
        keys = [
            (start, signature[start : start + BAND].tobytes())
            for start in range(0, NUM_HASHES, BAND)
        ]
        candidates = {index for key in keys for index in self._bands.get(key, ())}
        if any(self._similar(shingles, self._shingles[index]) for index in candidates):
            return True
        for key in keys:
            self._bands.setdefault(key, []).append(len(self._shingles))
        self._shingles.append(shingles)
        return False

    def _similar(self, left: frozenset[int], right: frozenset[int]) -> bool:
        return len(left & right) >= self.threshold * len(left | right)


def _shingles(words: str) -> frozenset[int]:
    tokens = words.split() or [""]
    triples = {" ".join(tokens[i : i + 3]) for i in range(max(1, len(tokens) - 2))}
    return frozenset(
        int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big") % PRIME
        for text in triples
    )
