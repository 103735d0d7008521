"""Key/value memory of one engine: a slot per row, tokens of a slot in consecutive lines.

Slots are compact (rows 0..n-1), so that a batch of decoding rows reads its keys as a view
without copying. Knows shapes and bytes; does not know which request a slot belongs to.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

SLOT_STEP = 4
TOKEN_STEP = 64


@dataclass(frozen=True)
class LayerShape:
    """Width of one attention layer's keys and values: heads times head size of each."""

    num_kv_heads: int
    key_size: int
    value_size: int


class KVPool:
    """All layers' keys and values: per layer two tensors [slots * capacity, heads * size].

    Grows by copying when a row needs more, never beyond `max_tokens` lines in all
    (`fits` says whether a shape would be allowed).
    """

    def __init__(
        self,
        shapes: tuple[LayerShape, ...],
        *,
        dtype: torch.dtype,
        device: torch.device,
        max_tokens: int,
    ) -> None:
        self.shapes = shapes
        self.max_tokens = max_tokens
        self.num_slots = 0
        self.capacity = 0
        self.dtype = dtype
        self.device = device
        self.keys: list[torch.Tensor] = []
        self.values: list[torch.Tensor] = []
        self._allocate(0, 0)

    @property
    def bytes_per_token(self) -> int:
        """Bytes that one token's keys and values take over all layers."""
        width = sum(s.num_kv_heads * (s.key_size + s.value_size) for s in self.shapes)
        return width * torch.empty((), dtype=self.dtype).element_size()

    @property
    def num_bytes(self) -> int:
        """Bytes that are allocated now."""
        return self.bytes_per_token * self.num_slots * self.capacity

    def fits(self, num_slots: int, capacity: int) -> bool:
        """Whether `num_slots` rows of `capacity` tokens stay within the budget."""
        return num_slots * round_up(capacity, TOKEN_STEP) <= self.max_tokens

    def reserve(self, num_slots: int, capacity: int) -> None:
        """Make room for `num_slots` rows of `capacity` tokens each; old content is kept."""
        slots, tokens = max(num_slots, self.num_slots), max(capacity, self.capacity)
        if slots == self.num_slots and tokens == self.capacity:
            return
        wanted_slots = slots if slots == self.num_slots else round_up(slots, SLOT_STEP)
        wanted_tokens = round_up(tokens, TOKEN_STEP)
        if not self.fits(wanted_slots, wanted_tokens):
            # Tight: give exactly what is asked, shrinking whatever earlier rows left behind.
            wanted_slots, wanted_tokens = num_slots, round_up(capacity, TOKEN_STEP)
        self._allocate(wanted_slots, wanted_tokens)

    def move(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` tokens of slot `source` into slot `target`."""
        for tensor in (*self.keys, *self.values):
            lines = tensor.view(self.num_slots, self.capacity, -1)
            lines[target, :length] = lines[source, :length]

    def write_prefix(
        self, slot: int, layers: list[tuple[torch.Tensor, torch.Tensor]], start: int = 0
    ) -> None:
        """Store ready keys and values ([tokens, heads * size] per layer) at `start` of a slot."""
        for (key, value), keys, values in zip(layers, self.keys, self.values, strict=True):
            line = slot * self.capacity + start
            keys[line : line + key.shape[0]] = key
            values[line : line + value.shape[0]] = value

    def read(self, slot: int, length: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """A copy of the first `length` tokens of a slot, as `write_prefix` takes them."""
        line = slot * self.capacity
        return [
            (keys[line : line + length].clone(), values[line : line + length].clone())
            for keys, values in zip(self.keys, self.values, strict=True)
        ]

    def _allocate(self, num_slots: int, capacity: int) -> None:
        keep_slots, keep_tokens = min(num_slots, self.num_slots), min(capacity, self.capacity)
        keys = [self._grown(i, s.key_size, num_slots, capacity) for i, s in enumerate(self.shapes)]
        values = [
            self._grown(i, s.value_size, num_slots, capacity) for i, s in enumerate(self.shapes)
        ]
        if keep_slots and keep_tokens:
            for old, new in zip((*self.keys, *self.values), (*keys, *values), strict=True):
                source = old.view(self.num_slots, self.capacity, -1)
                target = new.view(num_slots, capacity, -1)
                target[:keep_slots, :keep_tokens] = source[:keep_slots, :keep_tokens]
        self.keys, self.values = keys, values
        self.num_slots, self.capacity = num_slots, capacity

    def _grown(self, layer: int, size: int, num_slots: int, capacity: int) -> torch.Tensor:
        # Zeros, not empty: a masked line still takes part as 0 * value, and 0 * NaN is NaN.
        width = self.shapes[layer].num_kv_heads * size
        return torch.zeros(num_slots * capacity, width, dtype=self.dtype, device=self.device)


def round_up(value: int, step: int) -> int:
    """The least multiple of `step` that is not below `value`."""
    return -(-value // step) * step
