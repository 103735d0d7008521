"""Makes a loaded model train in fewer passes over memory, with the same loss and gradients.

LoRA layers, RMS norms, attention, the last MLP and the output head get a forward of their own,
each only where it is known to compute the same; a model that gives another loss with them goes
on without. Knows modules by their shape; knows neither data nor runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from tuning.lean_functions import CausalAttention, LabelLoss, LoraLinear, RmsNorm, apply

# Attention whose forward is: project, rotate, attend, project; nothing in between.
PLAIN_ATTENTION = frozenset({"LlamaAttention", "MistralAttention", "Qwen2Attention"})
TOLERANCE = 1e-5


class Lean:
    """The changed modules of one model, and what of the present batch is scored."""

    def __init__(self) -> None:
        self.changed: list[Any] = []
        self.targets: Tensor | None = None
        self.index: Tensor | None = None

    def change(self, module: Any, forward: Callable[..., Any]) -> None:
        """Give `module` another forward, which is called with the module and its own forward."""
        module.forward = partial(forward, module, module.forward)
        self.changed.append(module)

    def undo(self) -> None:
        """Give every module its own forward back."""
        for module in self.changed:
            del module.forward
        self.changed.clear()

    @contextmanager
    def scoring(self, keep: Tensor, targets: Tensor) -> Iterator[None]:
        """Within, the model's `logits` are the sum of cross entropies of `targets`.

        `keep` of shape (batch, length) marks the scored positions, `targets` of shape (marked,).
        """
        self.index, self.targets = keep.flatten().nonzero()[:, 0], targets
        try:
            yield
        finally:
            self.index = self.targets = None


def make_lean(model: Any, loss: Callable[[Lean | None], Tensor]) -> Lean | None:
    """Change the layers of `model`; None, and nothing changed, where its loss is then another.

    `loss` computes the loss of a few rows, with or without the changes.
    """
    lean = Lean()
    with torch.no_grad():
        before = float(loss(None))
        for module in list(model.modules()):
            _change_layer(lean, module)
        _change_ends(lean, model)
        if abs(float(loss(lean)) - before) <= TOLERANCE * abs(before):
            return lean
    lean.undo()
    return None


def _change_layer(lean: Lean, module: Any) -> None:
    name = type(module).__name__
    if name == "Linear" and type(module).__module__ == "peft.tuners.lora.layer":
        if _is_plain_lora(module):
            lean.change(module, _lora_forward)
    elif name in PLAIN_ATTENTION and not module.config.attention_dropout:
        if getattr(module, "sliding_window", None) is None:
            lean.change(module, _attention_forward)
    elif name.endswith("RMSNorm") and hasattr(module, "variance_epsilon"):
        probe = torch.linspace(-2, 3, 2 * module.weight.numel()).view(2, -1)
        ours = apply(RmsNorm, probe, module.weight, module.variance_epsilon)
        if ours.dtype == torch.float32 and torch.allclose(module(probe), ours, 1e-5, 1e-5):
            lean.change(module, _norm_forward)


def _is_plain_lora(layer: Any) -> bool:
    """One adapter without dropout or variant, on a linear layer that is frozen."""
    (name, *others) = layer.lora_A
    return (
        not others
        and type(layer.base_layer) is nn.Linear
        and not layer.base_layer.weight.requires_grad
        and isinstance(layer.lora_dropout[name], nn.Identity)
        and not layer.lora_variant
        and not layer.lora_bias[name]
    )


def _change_ends(lean: Lean, model: Any) -> None:
    """The output head, and the MLP of the last decoder layer."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    head = base.get_output_embeddings()
    if type(head) is nn.Linear and head.bias is None:
        lean.change(head, partial(_head_forward, lean))
    stacks = [part for part in base.modules() if isinstance(part, nn.ModuleList) and len(part)]
    last = getattr(stacks[0][-1], "mlp", None) if stacks else None
    if last is not None:
        lean.change(last, partial(_last_mlp_forward, lean))


def _lora_forward(layer: Any, usual: Callable[..., Tensor], x: Tensor, **extra: Any) -> Tensor:
    """A LoRA layer in one product, in autocast's dtype where that is on."""
    if extra or layer.merged or layer.disable_adapters:
        return usual(x, **extra)
    (name,) = layer.lora_A
    dtype = _computing_dtype(x)
    base, bias = layer.base_layer, layer.base_layer.bias
    with torch.autocast(x.device.type, enabled=False):
        return apply(
            LoraLinear,
            x.to(dtype),
            _frozen_as(base, dtype),
            None if bias is None else bias.to(dtype),
            layer.lora_A[name].weight.to(dtype),
            layer.lora_B[name].weight.to(dtype),
            layer.scaling[name],
        )


def _norm_forward(norm: Any, usual: Callable[..., Tensor], x: Tensor) -> Tensor:
    if x.dtype != torch.float32:
        return usual(x)
    with torch.autocast(x.device.type, enabled=False):
        return apply(RmsNorm, x, norm.weight, norm.variance_epsilon)


def _attention_forward(
    layer: Any,
    usual: Callable[..., Any],
    hidden_states: Tensor,
    position_embeddings: tuple[Tensor, Tensor] | None = None,
    attention_mask: Tensor | None = None,
    past_key_values: Any = None,
    **extra: Any,
) -> Any:
    """Attention without a cache and with a mask to add; all else is left to transformers."""
    added = attention_mask is not None and attention_mask.is_floating_point()
    if not added or past_key_values is not None:
        return usual(
            hidden_states,
            position_embeddings=position_embeddings,
            attention_mask=attention_mask,
            past_key_values=past_key_values,
            **extra,
        )
    assert position_embeddings is not None
    shape = (*hidden_states.shape[:-1], -1, layer.head_dim)
    parts = (layer.q_proj, layer.k_proj, layer.v_proj)
    q, k, v = (part(hidden_states).view(shape) for part in parts)
    with torch.autocast(hidden_states.device.type, enabled=False):
        out = apply(CausalAttention, q, k, v, *position_embeddings, attention_mask, layer.scaling)
    return layer.o_proj(out), None


def _last_mlp_forward(lean: Lean, mlp: Any, usual: Callable[..., Any], x: Tensor) -> Any:
    """Only scored positions: what the last MLP makes of the others reaches no loss."""
    if lean.index is None:
        return usual(x)
    flat = x.reshape(-1, x.shape[-1])
    made = usual(flat.index_select(0, lean.index)[None])
    return (
        flat.new_zeros(flat.shape, dtype=made.dtype)
        .index_copy(0, lean.index, made[0])
        .view(x.shape)
    )


def _head_forward(lean: Lean, head: Any, usual: Callable[..., Tensor], hidden: Tensor) -> Tensor:
    """Within `Lean.scoring` the loss itself, else logits."""
    if lean.targets is None:
        return usual(hidden)
    dtype = _computing_dtype(hidden)
    if head.weight.requires_grad:
        weight = head.weight if torch.is_grad_enabled() else head.weight.detach()
        weight = weight.to(dtype)
    else:
        weight = _frozen_as(head, dtype)
    with torch.autocast(hidden.device.type, enabled=False):
        return apply(LabelLoss, hidden.to(dtype), weight, lean.targets)


def _computing_dtype(x: Tensor) -> torch.dtype:
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def _frozen_as(layer: Any, dtype: torch.dtype) -> Tensor:
    """The frozen weight in `dtype`, cast once: autocast would cast it in every step."""
    if layer.weight.dtype == dtype:
        same: Tensor = layer.weight
        return same
    cast: Tensor | None = layer.__dict__.get("frozen_cast")
    if cast is None or cast.dtype != dtype:
        cast = layer.__dict__["frozen_cast"] = layer.weight.detach().to(dtype)
    return cast
