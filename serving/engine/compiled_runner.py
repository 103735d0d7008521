"""Runs a step of few tokens through `serving.kernels`, where a model and its adapters allow it.

Reads the addresses of a Llama-type model's weights (Llama, Mistral, Qwen2, Qwen3), of its pool and
of the stacked adapters. Knows modules, pools and plans; does not know requests.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from serving.adapters.lora import AdapterStacks
from serving.adapters.stacking import Stack
from serving.attention.packed import AttentionState
from serving.attention.pool import KVPool
from serving.engine.batch import StepPlan
from serving.engine.thread_team import Kernel, ThreadTeam
from serving.kernels.layout import (
    BF16,
    BF16_PRODUCTS,
    DOWN,
    FP32,
    GATE_UP,
    HEAD,
    OUT_PROJ,
    QKV,
    ModelArrays,
    StepTokens,
    Workspace,
    num_phases,
)

FAMILIES = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")
# Rotations that depend on the longest sequence of a batch, which a table cannot hold.
MOVING = ("dynamic", "longrope")
# More tokens are left to torch, whose large products are better; much better in bf16 by AMX.
MOST_TOKENS = 48
MOST_BESIDE_AMX = 20
# Parts that the work of a phase is cut into for each thread.
PARTS = 4


def may_compile(config: PreTrainedConfig) -> bool:
    """Whether a model of this config, in fp32 or bf16 on a CPU, will most likely run compiled."""
    names = getattr(config, "architectures", None) or ("",)
    return names[0] in FAMILIES and find_spec("numba") is not None


def most_tokens(dtype: torch.dtype) -> int:
    """Tokens of the largest step that is faster compiled than by torch on this processor."""
    has_amx = torch.cpu._is_amx_tile_supported()
    return MOST_BESIDE_AMX if dtype == torch.bfloat16 and has_amx else MOST_TOKENS


def reason_against(model: PreTrainedModel) -> str | None:
    """Why a model cannot run compiled; None when it can."""
    kind, config = type(model).__name__, model.config
    if kind not in FAMILIES:
        return f"{kind} is none of {', '.join(FAMILIES)}"
    if model.device.type != "cpu" or model.dtype not in (torch.float32, torch.bfloat16):
        return f"{model.dtype} on {model.device.type}: only fp32 and bf16 on a CPU are compiled"
    if config.hidden_act not in ("silu", "swish"):
        return f"activation {config.hidden_act} is not compiled"
    if config.rope_parameters["rope_type"] in MOVING:
        return f"rotary scaling {config.rope_parameters['rope_type']} is not compiled"
    for name, module in model.named_modules():
        is_plain = name.endswith(("o_proj", "gate_proj", "down_proj"))
        if is_plain and getattr(getattr(module, "linear", module), "bias", None) is not None:
            return f"{name} has a bias, which is not compiled"
    return None


def has_bf16_products() -> bool:
    """Whether this processor multiplies bf16 itself, and compiled code may ask it to."""
    from serving.kernels import bf16_products  # needs numba

    return bf16_products.has_bf16_products()


class CompiledRunner:
    """The compiled form of one engine's model. `takes` says whether a step can run in it.

    It takes none until `start` gave it the kernel, which needs numba and some time to compile.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        pool: KVPool,
        stacks: AdapterStacks,
        state: AttentionState,
        num_positions: int,
    ) -> None:
        assert reason_against(model) is None, "callers ask first"
        self._state = state
        self._model, self._pool, self._stacks = model, pool, stacks
        self._team: ThreadTeam | None = None
        self._parts = 1
        self._layers: Any = model.model.layers
        self._places = [_places(i, layer) for i, layer in enumerate(self._layers)]
        self._pool_shape: tuple[int, ...] = ()
        self._installed: object = None
        self._is_whole = True
        self._num_positions = num_positions
        self.most_tokens = most_tokens(model.dtype)
        self._arrays = self._read_arrays()
        self._num_words = len(model.get_input_embeddings().weight)
        self._workspace = self._new_workspace(1)

    def compile(self, kernel: Kernel) -> None:
        """Have `serving.kernels.step` compiled for this model's number format; safe beside steps.

        Seconds the first time on a machine, kept on its disk then: a step of no phases.
        """
        if self._arrays.like.dtype == BF16 and has_bf16_products():
            self._arrays = self._arrays._replace(like=np.empty(0, dtype=BF16_PRODUCTS))
            self._workspace = self._new_workspace(1)
        none = np.zeros(0, dtype=np.int64)
        tokens, logits = (
            StepTokens(*[none] * len(StepTokens._fields)),
            np.zeros((0, 0), dtype=np.float32),
        )
        kernel(0, 1, none, none, self._arrays, tokens, self._workspace, logits)

    def start(self, kernel: Kernel, num_threads: int) -> None:
        """Take steps from now on, on so many threads; call between two steps."""
        self._team = ThreadTeam(kernel, num_threads)
        self._parts = 1 if num_threads == 1 else PARTS * num_threads
        self._workspace = self._new_workspace(num_threads)

    def takes(self, plan: StepPlan) -> bool:
        """Whether a step is small enough, and its adapters act where the kernels look."""
        if self._team is None:
            return False
        self._follow_stacks()
        if not self._is_whole or plan.tokens.shape[1] > self.most_tokens:
            return False
        return int(plan.positions.max()) < self._num_positions

    def run(self, plan: StepPlan) -> torch.Tensor:
        """Logits [wanted places, vocab], fp32, of a step that `takes` agreed to.

        IndexError for a token that is not in the vocabulary: the kernel would read beyond it.
        """
        assert self._team is not None
        self._follow_pool()
        tokens = self._tokens(plan)
        if tokens.ids.min() < 0 or tokens.ids.max() >= self._num_words:
            raise IndexError(f"index out of range: token {tokens.ids.max()} of {self._num_words}")
        logits = np.empty((len(plan.wanted), self._arrays.shapes[HEAD, 0]), dtype=np.float32)
        counts = np.zeros((2, num_phases(len(self._layers))), dtype=np.int64)
        self._team.run(self._parts, *counts, self._arrays, tokens, self._workspace, logits)
        return torch.from_numpy(logits)

    def _tokens(self, plan: StepPlan) -> StepTokens:
        counts = plan.counts
        slots = self._stacks.slots
        low, high, owners = [], [], []
        for name, count in zip(plan.adapters, counts, strict=True):
            slot = slots.get(name) if name is not None else None
            low += [slot.low if slot else 0] * count
            high += [slot.high if slot else 0] * count
            owners += [slot.bit + 1 if slot and slot.has_gain else 0] * count
        positions = plan.positions[0].numpy()
        return StepTokens(
            plan.tokens[0].numpy(),
            positions,
            plan.layout.lines.numpy() - positions,
            np.cumsum([0, *counts]),
            np.array(low),
            np.array(high),
            np.array(owners),
            np.arange(len(positions)),
            plan.wanted.numpy(),
        )

    # --- arrays -----------------------------------------------------------------------------

    def _read_arrays(self) -> ModelArrays:
        model, config, count = self._model, self._model.config, len(self._layers)
        attention = self._layers[0].self_attn
        hidden, inner, head = config.hidden_size, config.intermediate_size, attention.head_dim
        heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
        table, last = model.get_input_embeddings().weight, model.get_output_embeddings().weight
        has_norms = hasattr(attention, "q_norm")
        arrays = ModelArrays(
            weights=np.zeros((count, 4), dtype=np.int64),
            biases=np.zeros(count, dtype=np.int64),
            targets=np.zeros((count, 4, 5), dtype=np.int64),
            shapes=np.array(
                [
                    ((heads + 2 * kv_heads) * head, hidden, 3), (hidden, heads * head, 1),
                    (2 * inner, hidden, 2), (hidden, inner, 1), (len(last), hidden, 1),
                ]
            ),
            cached=np.zeros((count, 2), dtype=np.int64),
            windows=np.array([self._state.windows[i] or 0 for i in range(count)]),
            norms=np.empty((count, 2, hidden), dtype=np.float32),
            head_norms=np.empty((count, 2, head if has_norms else 0), dtype=np.float32),
            last_norm=_floats(model.model.norm),
            **self._rotations(head),
            ends=np.array([table.data_ptr(), last.data_ptr()]),
            sizes=np.array([heads, kv_heads, head, 0, 0]),
            reals=np.array([config.rms_norm_eps, attention.scaling], dtype=np.float32),
            like=np.empty(0, dtype=FP32 if model.dtype == torch.float32 else BF16),
        )  # fmt: skip
        for i, layer in enumerate(self._layers):
            own, mlp = layer.self_attn, layer.mlp
            joint, gated = own.q_proj.group, mlp.gate_proj.group
            arrays.weights[i] = [
                weight.data_ptr() for weight in (
                    joint.weight, _base(own.o_proj).weight,
                    gated.weight, _base(mlp.down_proj).weight,
                )
            ]  # fmt: skip
            arrays.biases[i] = 0 if joint.bias is None else joint.bias.data_ptr()
            before = layer.input_layernorm, layer.post_attention_layernorm
            arrays.norms[i] = [_floats(norm) for norm in before]
            if has_norms:
                arrays.head_norms[i] = _floats(own.q_norm), _floats(own.k_norm)
        return arrays

    def _rotations(self, head: int) -> dict[str, Any]:
        """The model's own cosines and sines, [positions, head / 2]: both halves are alike."""
        rotary: Any = self._model.model.rotary_emb
        places = torch.arange(self._num_positions)[None]
        found = rotary(torch.empty(0, dtype=self._model.dtype), places)
        cos, sin = (part[0, :, : head // 2].float().contiguous().numpy() for part in found)
        return {"cos": cos, "sin": sin}

    def _new_workspace(self, threads: int) -> Workspace:
        shapes = self._arrays.shapes
        hidden, joint = shapes[OUT_PROJ, 0], max(shapes[QKV, 0], shapes[GATE_UP, 0])
        sizes = (
            (MOST_TOKENS, hidden), (threads, MOST_TOKENS, hidden), (MOST_TOKENS, joint),
            (MOST_TOKENS, shapes[OUT_PROJ, 1]), (MOST_TOKENS, shapes[DOWN, 1]),
            (MOST_TOKENS, hidden), (threads, self._num_positions),
        )  # fmt: skip
        like = self._arrays.like.dtype
        most = MOST_TOKENS * shapes[:, 1].max() if like == BF16_PRODUCTS else 0
        stored = np.zeros((threads, most), dtype=like)
        spaces = [np.zeros(size, dtype=np.float32) for size in sizes]
        return Workspace._make([*spaces, stored])

    def _follow_pool(self) -> None:
        """Learn where keys and values are, after the pool changed its shape."""
        pool, arrays = self._pool, self._arrays
        shape = (pool.num_slots, pool.capacity, pool.keys[0].data_ptr())
        if shape != self._pool_shape:
            self._pool_shape = shape
            arrays.sizes[4] = pool.num_slots * pool.capacity
            for i, pair in enumerate(zip(pool.keys, pool.values, strict=True)):
                arrays.cached[i] = [tensor.data_ptr() for tensor in pair]

    def _follow_stacks(self) -> None:
        """Learn where the stacked adapters are, after another set was installed."""
        installed = self._stacks.installed
        if installed is self._installed:
            return
        self._installed = installed
        self._arrays.targets[:] = 0
        self._is_whole = not self._stacks.is_split
        if self._is_whole:
            self._arrays.sizes[3] = max((s.high for s in self._stacks.slots.values()), default=0)
            for targets, places in zip(self._arrays.targets, self._places, strict=True):
                for row, place in zip(targets, places, strict=True):
                    stack = self._stacks.stack_at(place)
                    if stack is not None:
                        row[:] = _addresses(stack)


def _places(number: int, layer: Any) -> tuple[tuple[str, ...], ...]:
    """Where adapters act in a layer, in the order of the arrays."""
    stem = f"model.layers.{number}"
    return (
        tuple(layer.self_attn.q_proj.group.paths), (f"{stem}.self_attn.o_proj",),
        tuple(layer.mlp.gate_proj.group.paths), (f"{stem}.mlp.down_proj",),
    )  # fmt: skip


def _addresses(stack: Stack) -> list[int]:
    tensors = (stack.down, stack.up, stack.out_gain, stack.out_shift, stack.in_gain)
    return [tensor.data_ptr() if tensor is not None else 0 for tensor in tensors]


def _base(module: nn.Module) -> Any:
    """The linear layer itself, whether or not adapters act on it."""
    return getattr(module, "base", module)


def _floats(norm: Any) -> Any:
    return norm.weight.float().numpy()
