"""The adapters of one engine: installed as a set, swapped between two steps, counted while used.

Knows tensors and keys of adapters; does not know requests, steps or names on the wire.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedModel

from serving.adapters.lora import AdapterStacks, PreparedStacks
from serving.adapters.peft_reader import Adapter
from serving.adapters.virtual_tokens import KVPrefix, prefix_layers, prompt_layers
from serving.attention.packed import AttentionState
from serving.attention.pool import KVPool


@dataclass
class LoadedAdapter:
    """An adapter that rows can use: its linear deltas sit in the stacks, its prefix is here."""

    adapter: Adapter
    prefix: KVPrefix | None
    num_running: int = 0

    @property
    def num_virtual(self) -> int:
        """Virtual tokens that stand before every prompt."""
        return self.prefix.num_tokens if self.prefix is not None else 0


class AdapterManager:
    """What is installed. All but `prepare` belongs to the engine's thread."""

    def __init__(self, model: PreTrainedModel, state: AttentionState, pool: KVPool) -> None:
        self.stacks = AdapterStacks(model)
        self._model = model
        self._state = state
        self._pool = pool
        self._loaded: dict[str, LoadedAdapter] = {}

    def __contains__(self, key: str | None) -> bool:
        return key is None or key in self._loaded

    def get(self, key: str | None) -> LoadedAdapter | None:
        """The adapter of a key; None for the base."""
        return None if key is None else self._loaded[key]

    @property
    def adapters(self) -> list[Adapter]:
        """The adapters now installed."""
        return [loaded.adapter for loaded in self._loaded.values()]

    @property
    def running(self) -> set[str]:
        """Keys of the adapters that rows run on."""
        return {key for key, loaded in self._loaded.items() if loaded.num_running}

    def num_virtual(self, key: str | None) -> int:
        """Virtual tokens of an adapter; 0 for the base or a key that is gone."""
        loaded = self._loaded.get(key) if key is not None else None
        return loaded.num_virtual if loaded is not None else 0

    def prepare(self, adapters: Sequence[Adapter]) -> PreparedStacks:
        """Check and stack the adapters to be in use from now on; safe beside running steps."""
        for adapter in adapters:
            self.stacks.check(adapter)
        return self.stacks.prepare([a for a in adapters if a.deltas])

    def install(self, adapters: Sequence[Adapter], prepared: PreparedStacks) -> None:
        """Swap the set of adapters; ones that rows still run on must be among them."""
        loaded: dict[str, LoadedAdapter] = {}
        for adapter in adapters:
            old = self._loaded.get(adapter.name)
            loaded[adapter.name] = old or LoadedAdapter(adapter, self._make_prefix(adapter))
        assert self.running <= loaded.keys(), "a running adapter cannot go"
        self.stacks.install(prepared)
        self._loaded = loaded

    def _make_prefix(self, adapter: Adapter) -> KVPrefix | None:
        if adapter.prefix is not None:
            pool = self._pool
            return prefix_layers(adapter, pool.shapes, pool.dtype, pool.device)
        if adapter.prompt is not None:
            return prompt_layers(adapter, self._model, self._state, self._pool)
        return None
