"""Virtual tokens as ready keys and values: what prefix and prompt tuning put before a prompt.

A prefix is stored as keys and values; a prompt's embeddings are run through the base once, which
gives the same, since nothing after them can change what they compute. Rows then start behind
them. Knows PEFT's layout of a prefix; does not know requests.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from serving.adapters.peft_reader import Adapter
from serving.attention.packed import AttentionState, Chunk, PackedLayout
from serving.attention.pool import KVPool, LayerShape
from serving.errors import ModelLoadError


@dataclass(frozen=True)
class KVPrefix:
    """Keys and values per layer, each [tokens, heads * size]."""

    num_tokens: int
    layers: list[tuple[torch.Tensor, torch.Tensor]]


def prefix_layers(
    adapter: Adapter, shapes: tuple[LayerShape, ...], dtype: torch.dtype, device: torch.device
) -> KVPrefix:
    """Split PEFT's flat prefix [tokens, layers * 2 * heads * size] into layers, key then value."""
    table = adapter.prefix
    assert table is not None
    sizes = [size for s in shapes for size in (s.num_kv_heads * s.key_size,
                                               s.num_kv_heads * s.value_size)]  # fmt: skip
    if table.shape[1] != sum(sizes):
        raise ModelLoadError(
            f"{adapter.label}: a prefix of width {table.shape[1]} does not fit a base that needs "
            f"{sum(sizes)}; it was tuned from another base"
        )
    parts = torch.split(table.to(device=device, dtype=dtype), sizes, dim=1)
    pairs = [(parts[i].contiguous(), parts[i + 1].contiguous()) for i in range(0, len(parts), 2)]
    return _finite(adapter, KVPrefix(table.shape[0], pairs))


def prompt_layers(
    adapter: Adapter, model: PreTrainedModel, state: AttentionState, pool: KVPool
) -> KVPrefix:
    """Run prompt embeddings [tokens, hidden] through the bare base and keep what they leave."""
    table = adapter.prompt
    assert table is not None
    embeddings = model.get_input_embeddings().weight
    if table.shape[1] != embeddings.shape[1]:
        raise ModelLoadError(
            f"{adapter.label}: prompt embeddings of width {table.shape[1]} do not fit a base of "
            f"width {embeddings.shape[1]}; it was tuned from another base"
        )
    count = table.shape[0]
    scratch = KVPool(pool.shapes, dtype=pool.dtype, device=pool.device, max_tokens=2 * count + 256)
    scratch.reserve(1, count)
    places = torch.arange(count, device=pool.device)
    own_pool, own_layout = state.pool, state.layout
    state.pool = scratch
    state.layout = PackedLayout([], [], [Chunk(0, count, 0, 0)], places)
    try:
        with torch.inference_mode():
            model(
                inputs_embeds=table.to(embeddings)[None],
                position_ids=places[None],
                use_cache=False,
                logits_to_keep=1,
            )
    finally:
        state.pool, state.layout = own_pool, own_layout
    return _finite(adapter, KVPrefix(count, scratch.read(0, count)))


def _finite(adapter: Adapter, prefix: KVPrefix) -> KVPrefix:
    if not all(bool(part.isfinite().all()) for pair in prefix.layers for part in pair):
        raise ModelLoadError(
            f"{adapter.label}: its keys and values are not finite in "
            f"{prefix.layers[0][0].dtype}; tune again"
        )
    return prefix
