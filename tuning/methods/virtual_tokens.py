"""Start values of prefix and prompt tuning, taken from real training rows; knows no run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from tuning.config import PrefixOptions, TuningConfig
from tuning.data.encode import TokenRow
from tuning.methods.requirements import MethodError

INIT_CANDIDATES = 8


INIT_ROWS = 64


@torch.no_grad()
def cache_sizes(model: Any, options: PrefixOptions) -> dict[str, int]:
    """PEFT's settings of a prefix for this model, read from the keys and values that it caches.

    None where the layers' differ in size, which PEFT looks into itself. MethodError where some
    layer has no keys and values of one size, so that no prefix can stand there, or looks back over
    a window that a prefix would fill.
    """
    was_training = model.training
    ids = torch.full((1, 2), 1, device=model.device)
    try:
        layers = _cache_layers(model.eval(), ids)
        pairs = [(layer.keys.shape, layer.values.shape) for layer in layers]
    except (AttributeError, TypeError):  # a state, or a cache of its own
        pairs = []
    finally:
        model.train(was_training)
    if not pairs or any(len(keys) != 4 or keys != values for keys, values in pairs):
        raise MethodError(
            f"method prefix: {type(model).__name__} does not keep keys and values of one size in "
            "every layer, before which a prefix could stand; use --method lora"
        )
    windows = [size for layer in layers if (size := getattr(layer, "sliding_window", None))]
    if windows and options.virtual_tokens >= min(windows):
        raise MethodError(
            f"prefix.virtual_tokens: {options.virtual_tokens} fill the attention window of "
            f"{min(windows)} tokens in {type(model).__name__}, so that no row could see them all; "
            f"give at most {min(windows) - 1}, or use --method lora"
        )
    if len(set(pairs)) > 1:
        if options.init == "data":
            raise MethodError(
                "prefix.init: data cannot start a prefix where the layers' keys and values differ "
                f"in size, as in {type(model).__name__}; set prefix.init to random"
            )
        return {}
    (_, heads, _, size), _ = pairs[0]
    return {"num_layers": len(pairs), "num_attention_heads": heads, "token_dim": heads * size}


def start_from_data(model: Any, rows: Sequence[TokenRow], config: TuningConfig) -> float:
    """Set the virtual tokens to what the base makes of real training rows; returns their loss.

    Several stretches of training rows, each ending with a whole row, are tried on other rows and
    the one with the lowest loss is taken: virtual tokens that begin as a worked example start
    where in-context learning already is (Li and Liang 2021 initialise from real words). The model
    is asked as it answers, not as it trains: some keep nothing in their cache while they train.
    """
    was_training = model.training
    model.eval()
    generator = np.random.default_rng([config.seed, 7])
    count = config.prefix.virtual_tokens
    sample = [rows[i] for i in generator.permutation(len(rows))[:INIT_ROWS]]
    best: tuple[float, torch.Tensor] | None = None
    try:
        for _ in range(INIT_CANDIDATES):
            context = _context(rows, count, generator)
            _set_virtual_tokens(model, context, config.method)
            loss = _loss(model, sample, config.method, count)
            if best is None or loss < best[0]:
                best = (loss, context)
        assert best is not None
        _set_virtual_tokens(model, best[1], config.method)
    finally:
        model.train(was_training)
    return best[0]


def _context(rows: Sequence[TokenRow], count: int, generator: np.random.Generator) -> torch.Tensor:
    """Ids of shape (1, count): the last `count` ids of random rows joined."""
    ids: list[int] = []
    while len(ids) < count:
        row = rows[int(generator.integers(len(rows)))]
        ids = [*row.ids.tolist(), *ids]
    return torch.tensor([ids[-count:]])


@torch.no_grad()
def _set_virtual_tokens(model: Any, context: torch.Tensor, method: str) -> None:
    base = model.get_base_model()
    context = context.to(base.device)
    weight = model.prompt_encoder[model.active_adapter].embedding.weight
    if method == "prompt":
        weight.copy_(base.get_input_embeddings()(context)[0])
        return
    # PEFT's layout: (tokens, layers x 2, heads, head size), keys of a layer before its values.
    parts = [part[0].transpose(0, 1) for pair in _cached(base, context) for part in pair]
    weight.copy_(torch.stack(parts, dim=1).reshape(context.shape[1], -1))


def _cached(model: Any, ids: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Keys and values of each layer, of shape (batch, heads, tokens, head size)."""
    return [(layer.keys, layer.values) for layer in _cache_layers(model, ids)]


def _cache_layers(model: Any, ids: torch.Tensor) -> list[Any]:
    cache = model(input_ids=ids, use_cache=True).past_key_values
    cache = getattr(cache, "self_attention_cache", cache)  # of decoders that can cross-attend
    return list(cache.layers)


@torch.no_grad()
def _loss(model: Any, rows: Sequence[TokenRow], method: str, count: int) -> float:
    from tuning.data.batching import Collator
    from tuning.fused.loss import label_loss

    batch = Collator(pad_id=0)([[row] for row in rows])
    batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
    total, items = label_loss(model, batch, virtual_tokens=count if method == "prompt" else 0)
    return float(total / items)
