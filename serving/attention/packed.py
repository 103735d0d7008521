"""Attention over packed rows: every request of a step lies in one sequence of tokens.

Registered with transformers as an attention implementation. New keys and values go into the
pool, decoding rows attend in one batched call, prompt chunks one by one. A token's place in its
slot is its position. Knows slots and lengths; does not know requests, adapters or sampling.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel

from serving.attention.pool import KVPool, LayerShape
from serving.errors import ModelLoadError

IMPLEMENTATION = "serving_packed"
STATE = "serving_attention_state"
# About what one more call costs.
KEYS_IN_VAIN = 256
# Arguments of other attention functions that change the result and that this one lacks.
UNSUPPORTED = ("s_aux", "position_bias", "cache")


@dataclass(frozen=True)
class Chunk:
    """Consecutive new tokens of one row: packed places [start, stop), after `past` old ones."""

    start: int
    stop: int
    slot: int
    past: int


@dataclass
class PackedLayout:
    """Where the tokens of one step come from and go to.

    Packed order: one token for each of `decode_slots` (ascending), then the chunks.
    `decode_lengths` count keys including the new one; `lines` are pool lines to write, per token.
    """

    decode_slots: list[int]
    decode_lengths: list[int]
    chunks: list[Chunk]
    lines: torch.Tensor
    _masks: dict[tuple[str, int | None, int], torch.Tensor | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.groups = group_by_length(self.decode_lengths)

    @property
    def num_decode(self) -> int:
        """Number of rows that decode one token in this step."""
        return len(self.decode_slots)

    def decode_mask(
        self, group: slice, window: int | None, like: torch.Tensor
    ) -> torch.Tensor | None:
        """What to add to the scores of a group, [rows, 1, 1, longest]; None when every row sees
        every key. Of `like`'s device and number format, made once for all layers.
        """
        key = ("decode", window, group.start)
        if key not in self._masks:
            lengths = self.decode_lengths[group]
            if window is None and min(lengths) == max(lengths):
                self._masks[key] = None
                return None
            ends = torch.tensor(lengths, device=like.device)[:, None]
            places = torch.arange(max(lengths), device=like.device)
            hidden = places >= ends
            if window is not None:
                hidden |= places < ends - window
            self._masks[key] = additive(hidden, like)[:, None, None]
        return self._masks[key]

    def chunk_mask(self, index: int, window: int | None, like: torch.Tensor) -> torch.Tensor:
        """What to add to the scores of a chunk, [queries, keys]: causal, lower right, within the
        window if there is one.
        """
        key = ("chunk", window, index)
        mask = self._masks.get(key)
        if mask is None:
            chunk = self.chunks[index]
            length = chunk.past + chunk.stop - chunk.start
            queries = torch.arange(chunk.past, length, device=like.device)[:, None]
            places = torch.arange(length, device=like.device)[None]
            hidden = places > queries
            if window is not None:
                hidden |= places <= queries - window
            mask = self._masks[key] = additive(hidden, like)
        return mask


class AttentionState:
    """What the attention modules of one model share: the pool and the layout of the step.

    Without a pool it records layers' shapes and windows: so an engine learns its model's geometry.
    """

    def __init__(self) -> None:
        self.pool: KVPool | None = None
        self.layout: PackedLayout | None = None
        self.recorded: dict[int, LayerShape] = {}
        self.windows: dict[int, int | None] = {}

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scaling: float,
        window: int | None,
        softcap: float | None,
    ) -> torch.Tensor:
        """Attention output [1, tokens, heads, size] of query [1, heads, tokens, size]."""
        if self.pool is None:
            assert layer not in self.recorded, f"layer {layer} attends twice in one forward"
            self.recorded[layer] = LayerShape(key.shape[1], key.shape[3], value.shape[3])
            self.windows[layer] = window
            # One token attends to itself: its output is its value.
            repeated = value.repeat_interleave(query.shape[1] // value.shape[1], dim=1)
            return repeated.transpose(1, 2)
        assert self.layout is not None
        pool, layout = self.pool, self.layout
        keys, values = pool.keys[layer], pool.values[layer]
        keys.index_copy_(0, layout.lines, key[0].transpose(0, 1).reshape(-1, keys.shape[1]))
        values.index_copy_(0, layout.lines, value[0].transpose(0, 1).reshape(-1, values.shape[1]))
        heads = key.shape[1]
        view = (pool.num_slots, pool.capacity, heads, -1)
        keys, values = keys.view(view), values.view(view)
        parts: list[torch.Tensor] = []
        for group in layout.groups:
            parts.append(_decode(layout, group, query[0, :, group], keys, values,
                                 scaling, window, softcap))  # fmt: skip
        for index, chunk in enumerate(layout.chunks):
            length = chunk.past + chunk.stop - chunk.start
            visible = None if window is None or window >= length else window
            mask = layout.chunk_mask(index, visible, query)
            out = attend_masked(
                query[:, :, chunk.start : chunk.stop],
                keys[chunk.slot, None, :length].transpose(1, 2),
                values[chunk.slot, None, :length].transpose(1, 2),
                mask,
                scaling,
                softcap,
            )
            parts.append(out[0].transpose(0, 1))
        return (parts[0] if len(parts) == 1 else torch.cat(parts))[None]


def additive(hidden: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Minus infinity where a key is hidden, 0 elsewhere: attention would make it of a boolean
    mask in each layer anew.
    """
    zeros = torch.zeros(hidden.shape, dtype=like.dtype, device=like.device)
    return zeros.masked_fill_(hidden, float("-inf"))


def group_by_length(lengths: list[int]) -> list[slice]:
    """Neighbours that attend in one call: rows are cut apart where too many keys would be read
    in vain, since a call reads as many keys for each of its rows as the longest has.
    """
    groups: list[slice] = []
    start = longest = 0
    for place, length in enumerate(lengths):
        count, most = place - start, max(longest, length)
        if count and count * (most - longest) + most - length > KEYS_IN_VAIN:
            groups.append(slice(start, place))
            start, most = place, length
        longest = most
    if lengths:
        groups.append(slice(start, len(lengths)))
    return groups


def _decode(
    layout: PackedLayout,
    group: slice,
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    scaling: float,
    window: int | None,
    softcap: float | None,
) -> torch.Tensor:
    """One token per row of a group: query [heads, rows, size], out [rows, heads, size].

    Query heads that share a key head become that head's queries, so keys are never repeated.
    """
    num_heads, rows, size = query.shape
    slots, longest = layout.decode_slots[group], max(layout.decode_lengths[group])
    if slots[-1] - slots[0] + 1 == rows:
        part = slice(slots[0], slots[0] + rows)
        keys, values = keys[part, :longest], values[part, :longest]
    else:
        index = torch.tensor(slots, device=query.device)
        keys = keys[:, :longest].index_select(0, index)
        values = values[:, :longest].index_select(0, index)
    kv_heads = keys.shape[2]
    grouped = query.transpose(0, 1).reshape(rows, kv_heads, num_heads // kv_heads, size)
    visible = None if window is None or window >= longest else window
    out = _weigh(
        grouped,
        keys.transpose(1, 2),
        values.transpose(1, 2),
        layout.decode_mask(group, visible, query),
        scaling,
        softcap,
    )
    return out.reshape(rows, num_heads, -1)


def attend_masked(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor,
    scaling: float,
    softcap: float | None,
) -> torch.Tensor:
    """Grouped-query attention of [1, heads, queries, size] over [1, kv_heads, keys, size]."""
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key = key.repeat_interleave(groups, dim=1)
        value = value.repeat_interleave(groups, dim=1)
    return _weigh(query, key, value, mask, scaling, softcap)


def _weigh(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    scaling: float,
    softcap: float | None,
) -> torch.Tensor:
    if softcap is None:
        return scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scaling)
    scores = torch.tanh(query @ key.transpose(-1, -2) * scaling / softcap) * softcap
    if mask is not None:
        scores = scores + mask
    return scores.softmax(dim=-1, dtype=torch.float32).to(value.dtype) @ value


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """The function transformers calls in each attention module; state hangs on the module."""
    for name in UNSUPPORTED:
        if kwargs.get(name) is not None:
            raise ModelLoadError(f"{type(module).__name__}: attention with {name} is not supported")
    if attention_mask is not None:  # transformers makes none for this function: the model did
        raise ModelLoadError(
            f"{type(module).__name__}: attention with a mask of the model's own is not supported"
        )
    state: AttentionState = getattr(module, STATE)
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    layer = int(module.layer_idx)  # type: ignore[arg-type]
    return state.attend(layer, query, key, value, scale, sliding_window, softcap), None


def install(model: PreTrainedModel) -> AttentionState:
    """Make every attention layer of `model` use a new shared state, and return it."""
    AttentionInterface.register(IMPLEMENTATION, packed_attention)
    state = AttentionState()
    for module in model.modules():
        if hasattr(module, "layer_idx"):
            setattr(module, STATE, state)
    model.set_attn_implementation(IMPLEMENTATION)
    return state


def learn_shapes(model: PreTrainedModel, state: AttentionState) -> tuple[LayerShape, ...]:
    """Shapes of a model's attention layers, learnt by running one token while there is no pool.

    ModelLoadError for a model whose attention does not go through `state`.
    """
    one = torch.zeros(1, 1, dtype=torch.long, device=model.device)
    with torch.inference_mode():
        model(input_ids=one, position_ids=one, use_cache=False)
    recorded = state.recorded
    if not recorded or sorted(recorded) != list(range(len(recorded))):
        raise ModelLoadError(
            f"{type(model).__name__}: its attention does not go through transformers' "
            "attention interface; this architecture cannot be served"
        )
    return tuple(recorded[i] for i in range(len(recorded)))
