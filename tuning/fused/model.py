"""Makes a loaded model train in fewer passes over memory, with the same loss and gradients.

LoRA layers, decoder layers, norms, attention, MLPs and the output head get a forward of their
own, each only where it is known to compute the same; a model that gives another loss with them
goes on without. Knows modules by their shape; knows neither data nor runs.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from tuning.fused.attention import CausalAttention
from tuning.fused.branches import Branches
from tuning.fused.functions import LabelLogProbs, LabelLoss, RmsNorm, SwiGlu, apply, apply_all
from tuning.fused.layers import (
    adapted,
    allow_copies,
    computing_dtype,
    frozen_as,
    is_plain_lora,
    together,
)
from tuning.fused.lora import gated_mlp

# Model types whose attention's forward is: project, norm of queries and keys where the layer has
# one, rotate, attend, project; whose decoder layers' is: norm, attention, sum, norm, MLP, sum;
# whose MLP's is: down(act(gate(x)) * up(x)).
PLAIN = ("Llama", "Mistral", "Qwen2", "Qwen3")
PLAIN_ATTENTION = frozenset(f"{kind}Attention" for kind in PLAIN)
PLAIN_BLOCK = frozenset(f"{kind}DecoderLayer" for kind in PLAIN)
GATED_MLP = frozenset(f"{kind}MLP" for kind in PLAIN)
TOLERANCE = 1e-5
# Of the largest number in a gradient; rounding in another order stays well below it.
GRADIENT_TOLERANCE = 1e-2
# Numbers of each gradient that are compared.
TRACED = 4096


class Lean:
    """The changed modules of one model, and what of the present batch is scored."""

    def __init__(self) -> None:
        self.changed: list[Any] = []
        self.last_attention: Any = None
        """That of the last decoder layer, of whose output only scored positions matter."""
        self.targets: Tensor | None = None
        self.index: Tensor | None = None
        self.lengths: Sequence[int] = ()
        self.branches: Branches | None = None
        self.each: float | None = None

    def change(self, module: Any, forward: Callable[..., Any]) -> None:
        """Give `module` another forward, called with the module and the forward it had."""
        module.forward = partial(forward, module, module.forward)
        self.changed.append(module)

    def undo(self) -> None:
        """Give every module its own forward back."""
        for module in self.changed:
            vars(module).pop("forward", None)
        self.changed.clear()

    @contextmanager
    def scoring(
        self,
        keep: Tensor,
        targets: Tensor,
        positions: Tensor | None = None,
        *,
        branches: Branches | None = None,
        each: float | None = None,
    ) -> Iterator[None]:
        """Within, the model's `logits` are the sum of cross entropies of `targets`; with `each`,
        which is a temperature, the log-probability of each.

        `keep` of shape (batch, length) marks the scored positions, `targets` of shape (marked,).
        Attention is causal; `positions` of shape (batch, length) start again at 0 where a row
        begins, and keep packed rows apart, unless `branches` says where rows lie.
        """
        self.index, self.targets = keep.flatten().nonzero()[:, 0], targets
        self.branches, self.each = branches, each
        if branches is not None:
            self.lengths = branches.lengths
        else:
            self.lengths = [keep.shape[1]] * len(keep) if positions is None else _lengths(positions)
        try:
            yield
        finally:
            self.index = self.targets = self.branches = self.each = None

    def keeps_branches(self, model: Any) -> bool:
        """Whether the attention of all layers is ours, which alone knows of branches."""
        changed = {id(module) for module in self.changed}
        return all(
            id(module) in changed
            for module in model.modules()
            if type(module).__name__.endswith("Attention")
        )


def _lengths(positions: Tensor) -> list[int]:
    """Lengths of the rows whose positions these are, one after the other."""
    starts = (positions.flatten() == 0).nonzero()[:, 0].tolist()
    return [end - start for start, end in itertools.pairwise([*starts, positions.numel()])]


def make_lean(
    model: Any,
    loss: Callable[[Lean | None], Tensor],
    say: Callable[[str], None] | None = None,
) -> Lean | None:
    """Change the layers of `model`; None, and nothing changed, where that is not the same model.

    `loss` computes the loss of a few rows, with or without the changes: it and its gradient by
    every trained parameter have to be the same. `say` is told why the layers stay as they are.
    """
    lean = Lean()
    before, wanted = _traces(model, loss, None)
    try:
        for module in list(model.modules()):
            _change_layer(lean, module)
        _change_ends(lean, model)
        allow_copies(lean.changed)
        after, found = _traces(model, loss, lean)
        reason = _difference(before, wanted, after, found)
    except Exception as error:  # an architecture may do with its layers whatever it likes
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
    if reason is None:
        return lean
    lean.undo()
    if say is not None:
        say(reason)
    return None


@torch.enable_grad()
def _traces(
    model: Any, loss_of: Callable[[Lean | None], Tensor], lean: Lean | None
) -> tuple[float, list[Tensor]]:
    """The loss, and of each trained parameter's gradient its size and some of its numbers.

    Whole gradients of two passes would take twice the memory that training takes.
    """
    loss = loss_of(lean)
    if loss.dim():
        raise ValueError("what its output head gives is changed before it is the logits")
    trained = [part for part in model.parameters() if part.requires_grad]
    traces = []
    for grad in torch.autograd.grad(loss, trained, allow_unused=True):
        flat = torch.zeros(1) if grad is None else grad.detach().float().flatten()
        some = flat[:: max(1, len(flat) // TRACED)]
        traces.append(torch.cat([flat.norm()[None], flat.abs().max()[None], some]))
    return float(loss.detach()), traces


def _difference(
    before: float, wanted: Sequence[Tensor], after: float, found: Sequence[Tensor]
) -> str | None:
    if not abs(after - before) <= TOLERANCE * abs(before):
        return f"the loss of two rows would be {after:.6g} instead of {before:.6g}"
    largest = max((float(trace[1]) for trace in wanted), default=0.0)
    for ours, usual in zip(found, wanted, strict=True):
        # A gradient that is all but nothing beside the others is the rounding of a sum.
        allowed = GRADIENT_TOLERANCE * max(float(usual[1]), GRADIENT_TOLERANCE * largest)
        if not float((ours[1:] - usual[1:]).abs().max()) <= allowed:
            return "the gradients of two rows would differ"
    return None


def _change_layer(lean: Lean, module: Any) -> None:
    name = type(module).__name__
    if is_plain_lora(module):
        lean.change(module, _lora_forward)
    elif name in PLAIN_ATTENTION and not module.config.attention_dropout:
        if getattr(module, "sliding_window", None) is None:
            lean.change(module, partial(_attention_forward, lean))
    elif name in PLAIN_BLOCK:
        lean.change(module, partial(_block_forward, lean))
    elif name in GATED_MLP and module.config.hidden_act == "silu":
        lean.change(module, _mlp_forward)
    elif name.endswith("RMSNorm") and hasattr(module, "variance_epsilon"):
        probe = torch.linspace(-2, 3, 2 * module.weight.numel()).view(2, -1)
        ours = _normed(module, probe)[1]
        if ours.dtype == torch.float32 and torch.allclose(module(probe), ours, 1e-5, 1e-5):
            lean.change(module, _norm_forward)


def _change_ends(lean: Lean, model: Any) -> None:
    """The output head, and the last decoder layer."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    head = base.get_output_embeddings()
    if type(head) is nn.Linear and head.bias is None:
        lean.change(head, partial(_head_forward, lean))
    stacks = [part for part in base.modules() if isinstance(part, nn.ModuleList) and len(part)]
    last = stacks[0][-1] if stacks else None
    mlp = getattr(last, "mlp", None)
    if mlp is not None:
        lean.change(mlp, partial(_last_mlp_forward, lean))
        lean.last_attention = getattr(last, "self_attn", None)


def _lora_forward(layer: Any, usual: Callable[..., Tensor], x: Tensor, **extra: Any) -> Tensor:
    """A LoRA layer in one product, in autocast's dtype where that is on."""
    if extra or not is_plain_lora(layer):
        return usual(x, **extra)
    return together([layer], x)[0]


def _mlp_forward(mlp: Any, usual: Callable[..., Tensor], x: Tensor) -> Tensor:
    layers = (mlp.gate_proj, mlp.up_proj, mlp.down_proj)
    if all(is_plain_lora(layer) and layer.base_layer.bias is None for layer in layers):
        dtype = computing_dtype(x)
        with torch.autocast(x.device.type, enabled=False):
            return gated_mlp(x.to(dtype), *(adapted(layer, dtype) for layer in layers))
    gate, up = together(layers[:2], x)
    if gate.dtype != up.dtype:
        return usual(x)
    made: Tensor = mlp.down_proj(apply(SwiGlu, gate, up))
    return made


def _norm_forward(norm: Any, usual: Callable[..., Tensor], x: Tensor) -> Tensor:
    return _normed(norm, x)[1] if x.dtype == torch.float32 else usual(x)


def _normed(norm: Any, x: Tensor, added: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The residual stream, and the norm of it."""
    with torch.autocast(x.device.type, enabled=False):
        stream, normed = apply_all(RmsNorm, x, added, norm.weight, norm.variance_epsilon)
    return stream, normed


def _block_forward(
    lean: Lean, block: Any, usual: Callable[..., Any], hidden_states: Tensor, **extra: Any
) -> Any:
    """A decoder layer whose sums and norms are made in one pass."""
    norms = (block.input_layernorm, block.post_attention_layernorm)
    known = all("forward" in vars(norm) for norm in norms)
    if lean.index is None or hidden_states.dtype != torch.float32 or not known:
        return usual(hidden_states, **extra)
    stream, normed = _normed(norms[0], hidden_states)
    attended, _ = block.self_attn(hidden_states=normed, **extra)
    stream, normed = _normed(norms[1], stream, attended)
    return stream + block.mlp(normed)


def _attention_forward(
    lean: Lean,
    layer: Any,
    usual: Callable[..., Any],
    hidden_states: Tensor,
    position_embeddings: tuple[Tensor, Tensor] | None = None,
    attention_mask: Tensor | None = None,
    past_key_values: Any = None,
    **extra: Any,
) -> Any:
    """Causal attention of whole rows within `Lean.scoring`; all else is left to transformers."""
    if lean.index is None or past_key_values is not None:
        return usual(
            hidden_states,
            position_embeddings=position_embeddings,
            attention_mask=attention_mask,
            past_key_values=past_key_values,
            **extra,
        )
    assert position_embeddings is not None
    parts = (layer.q_proj, layer.k_proj, layer.v_proj)
    is_last = layer is lean.last_attention
    if is_last:
        k, v = together(parts[1:], hidden_states)
        q = _at_scored(lean.index, layer.q_proj, hidden_states)
    else:
        q, k, v = together(parts, hidden_states)
    positions = hidden_states.shape[0] * hidden_states.shape[1]
    q, k, v = (part.view(positions, -1, layer.head_dim) for part in (q, k, v))
    if hasattr(layer, "q_norm"):
        q, k = layer.q_norm(q.float()).to(v.dtype), layer.k_norm(k.float()).to(v.dtype)
    cos, sin = (
        part.expand(len(hidden_states), -1, -1).reshape(positions, -1)
        for part in position_embeddings
    )
    branches = lean.branches
    if branches is not None:
        q, k, v, cos, sin = (branches.laid_out(part) for part in (q, k, v, cos, sin))
    with torch.autocast(hidden_states.device.type, enabled=False):
        out = apply(CausalAttention, q, k, v, cos, sin, lean.lengths, layer.scaling)
    if branches is not None:
        out = branches.folded(out, positions)
    out = out.view(*hidden_states.shape[:-1], -1)
    return (_at_scored(lean.index, layer.o_proj, out) if is_last else layer.o_proj(out)), None


def _last_mlp_forward(lean: Lean, mlp: Any, usual: Callable[..., Any], x: Tensor) -> Any:
    return usual(x) if lean.index is None else _at_scored(lean.index, usual, x)


def _at_scored(index: Tensor, made_by: Callable[..., Tensor], x: Tensor) -> Tensor:
    """What is made of scored positions, zeros elsewhere: what the others become reaches no loss."""
    flat = x.reshape(-1, x.shape[-1])
    made = made_by(flat.index_select(0, index)[None])[0]
    whole = made.new_zeros(len(flat), made.shape[-1]).index_copy(0, index, made)
    return whole.view(*x.shape[:-1], -1)


def _head_forward(lean: Lean, head: Any, usual: Callable[..., Tensor], hidden: Tensor) -> Tensor:
    """Within `Lean.scoring` the loss itself or log-probabilities, else logits."""
    if lean.targets is None:
        return usual(hidden)
    dtype = computing_dtype(hidden)
    if head.weight.requires_grad:
        weight = head.weight if torch.is_grad_enabled() else head.weight.detach()
        weight = weight.to(dtype)
    else:
        weight = frozen_as(head, dtype)
    with torch.autocast(hidden.device.type, enabled=False):
        if lean.each is None:
            return apply(LabelLoss, hidden.to(dtype), weight, lean.targets)
        scaled = hidden.to(dtype) if lean.each == 1 else hidden.to(dtype) / lean.each
        return apply(LabelLogProbs, scaled, weight, lean.targets)
