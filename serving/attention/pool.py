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

    Grows when a row needs more, by half or more at a time and layer by layer, so that old and new
    memory are there twice for one layer only; never beyond `max_tokens` lines in all (`fits`
    says whether a shape would be allowed).
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
        self.clear()

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
        return num_slots * capacity <= self.max_tokens

    def reserve(self, num_slots: int, capacity: int) -> None:
        """Make room for `num_slots` rows of `capacity` tokens each, which `fits` allows.

        Old content is kept. MemoryError or torch's own error when the machine has no more.
        """
        assert self.fits(num_slots, capacity), "callers ask `fits` first"
        if num_slots <= self.num_slots and capacity <= self.capacity:
            return
        slots, tokens = max(num_slots, self.num_slots), max(capacity, self.capacity)
        if slots > self.num_slots:
            slots = round_up(slots, SLOT_STEP)
        if tokens > self.capacity:
            tokens = round_up(max(tokens, self.capacity * 3 // 2), TOKEN_STEP)
        if not self.fits(slots, tokens):
            # Tight: shrink what earlier rows left behind, and share out what the budget has.
            slots = num_slots
            tokens = min(round_up(capacity, TOKEN_STEP), self.max_tokens // num_slots)
        self._allocate(slots, tokens)

    def clear(self) -> None:
        """Give all memory back; no row may be left."""
        nothing = torch.zeros(0, 0, dtype=self.dtype, device=self.device)
        self.keys = [nothing] * len(self.shapes)
        self.values = [nothing] * len(self.shapes)
        self.num_slots = self.capacity = 0

    def move(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` tokens of slot `source` into slot `target`."""
        for tensor in (*self.keys, *self.values):
            lines = tensor.view(self.num_slots, self.capacity, -1)
            lines[target, :length] = lines[source, :length]

    def wipe(self, slot: int, length: int) -> None:
        """Fill the first `length` tokens of a slot, or as many as it has, with zeros."""
        lines = slice(slot * self.capacity, slot * self.capacity + min(length, self.capacity))
        for tensor in (*self.keys, *self.values):
            tensor[lines] = 0

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
        """Change the shape layer by layer; what a failure leaves is the old shape, whole."""
        old = (self.num_slots, self.capacity)
        made = 0
        try:
            for tensors, sizes in self._kinds():
                for layer, size in enumerate(sizes):
                    tensors[layer] = self._reshaped(
                        tensors[layer], size, old, (num_slots, capacity)
                    )
                    made += 1
        except (RuntimeError, MemoryError):
            for tensors, sizes in self._kinds():
                for layer, size in enumerate(sizes[:made]):
                    tensors[layer] = self._reshaped(
                        tensors[layer], size, (num_slots, capacity), old
                    )
                made = max(0, made - len(sizes))
            raise
        self.num_slots, self.capacity = num_slots, capacity

    def _kinds(self) -> tuple[tuple[list[torch.Tensor], list[int]], ...]:
        """Keys and values, each with the width of its layers' lines."""
        return (
            (self.keys, [s.num_kv_heads * s.key_size for s in self.shapes]),
            (self.values, [s.num_kv_heads * s.value_size for s in self.shapes]),
        )

    def _reshaped(
        self, old: torch.Tensor, width: int, was: tuple[int, int], now: tuple[int, int]
    ) -> torch.Tensor:
        # Zeros, not empty: a masked line still takes part as 0 * value, and 0 * NaN is NaN.
        new = torch.zeros(now[0] * now[1], width, dtype=self.dtype, device=self.device)
        slots, tokens = min(was[0], now[0]), min(was[1], now[1])
        if slots and tokens:
            new.view(*now, -1)[:slots, :tokens] = old.view(*was, -1)[:slots, :tokens]
        return new


def round_up(value: int, step: int) -> int:
    """The least multiple of `step` that is not below `value`."""
    return -(-value // step) * step
