"""Builds the model a method trains: the whole checkpoint, or a PEFT adapter on a frozen one.

Knows PEFT and the learning rates that suit each method; knows nothing of data files or runs.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tuning.config import TuningConfig
from tuning.encode import TokenRow
from tuning.errors import TuningError

EAGER_LENGTH = 256
INIT_CANDIDATES = 8
INIT_ROWS = 64


class MethodError(TuningError):
    """A method that does not fit the base model; names the setting and what would fit."""


def default_learning_rate(method: str, hidden_size: int) -> float:
    """Peak learning rate where none is given.

    Full tuning's falls with the width (2e-5 at 4096, as published for 7B models); LoRA takes ten
    times as much; virtual tokens and IA3 vectors are few and take large steps at any width.
    """
    full = 2e-5 * 4096 / hidden_size
    low_rank = {"lora": 10 * full, "qlora": 10 * full}
    return {"full": full, **low_rank, "prefix": 2e-2, "prompt": 3e-2, "ia3": 2e-2}[method]


def check_method(method: str) -> None:
    """Refuse a method that this machine cannot run, before anything is read."""
    if method != "qlora":
        return
    missing = []
    if not torch.cuda.is_available():
        missing.append("a CUDA GPU")
    if importlib.util.find_spec("bitsandbytes") is None:
        missing.append("the package bitsandbytes")
    if missing:
        raise MethodError(
            f"method qlora: its 4-bit base needs {' and '.join(missing)}, not found here; use "
            "--method lora"
        )


def pick_precision(precision: str) -> str:
    """Resolve `auto`: bf16 on a GPU or CPU that multiplies bf16 faster than fp32, else fp32.

    AVX-512 without AMX has bf16 products too, but at half the speed of its fp32 ones.
    """
    if precision != "auto":
        return precision
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if torch.cpu._is_amx_tile_supported() else "fp32"


def pick_width_step(precision: str) -> int:
    """Of how many tokens the width of a batch is a multiple, in this precision on this machine.

    oneDNN, which torch leaves bf16 products to on a CPU with AMX, compiles one for each shape and
    keeps up to 1,024 of them: some 200 MiB less in a run over many lengths, at the same speed.
    """
    is_compiled = precision == "bf16" and not torch.cuda.is_available()
    return 32 if is_compiled and torch.cpu._is_amx_tile_supported() else 1


def load_model(folder: Path, *, dtype: torch.dtype, attention: str, four_bit: bool = False) -> Any:
    """Load a causal model from `folder` (safetensors only, no code of its own).

    `four_bit` quantises its layers to NF4 for QLoRA (CUDA and bitsandbytes only).
    """
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    extra: dict[str, Any] = {}
    if four_bit:
        extra["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        )

    try:
        return AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            attn_implementation=attention,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            **extra,
        )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        reason = " ".join(str(error).split())[:300]
        raise MethodError(
            f"base {folder}: cannot be loaded as a causal language model ({reason}); give a "
            "folder with config.json, tokenizer and *.safetensors"
        ) from error


def pick_attention(longest: int) -> str:
    """Plain attention for short rows on a CPU, where it beats the fused kernel; else the fused."""
    return "eager" if longest <= EAGER_LENGTH and not torch.cuda.is_available() else "sdpa"


def build_model(config: TuningConfig, model: Any, rows: Sequence[TokenRow]) -> Any:
    """The model to train; adapters start so that `rows` (encoded training rows) suit them."""
    _check_vocabulary(model, rows)
    if config.method == "full":
        return model
    from peft import get_peft_model

    peft_config = _peft_config(config, model)
    try:
        tuned = get_peft_model(model, peft_config)
    except ValueError as error:
        if config.method in ("lora", "qlora") and "target" in str(error).lower():
            raise MethodError(
                f"lora.target_modules: {', '.join(config.lora.target_modules)} not found in the "
                f"model; it has {', '.join(linear_modules(model))}, or use all-linear"
            ) from error
        raise MethodError(f"method {config.method}: {' '.join(str(error).split())}") from error
    virtual = config.method in ("prefix", "prompt") and config.prefix.init == "data"
    if virtual and not (config.method == "prefix" and config.prefix.projection):
        start_from_data(tuned, rows, config)
    return tuned


def linear_modules(model: Any) -> list[str]:
    """Last names of the layers that LoRA can adapt, the output head left out."""
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings()
    return sorted(
        {
            name.rpartition(".")[2]
            for name, module in model.named_modules()
            if isinstance(module, torch.nn.Linear | Conv1D) and module is not head
        }
    )


def count_parameters(model: Any) -> tuple[int, int]:
    """(trainable, all) parameters."""
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    return sum(size for size, on in sizes if on), sum(size for size, _ in sizes)


def _peft_config(config: TuningConfig, model: Any) -> Any:
    import peft

    common: dict[str, Any] = {"task_type": "CAUSAL_LM", "base_model_name_or_path": config.base}
    if config.method in ("lora", "qlora"):
        _check_targets(config.lora.target_modules, model)
        targets: Any = list(config.lora.target_modules)
        return peft.LoraConfig(
            r=config.lora.rank,
            lora_alpha=_alpha(config),
            lora_dropout=config.lora.dropout,
            target_modules="all-linear" if targets == ["all-linear"] else targets,
            use_rslora=config.lora.rslora,
            use_dora=config.lora.dora,
            fan_in_fan_out=model.config.model_type == "gpt2",
            **common,
        )
    if config.method == "prefix":
        return peft.PrefixTuningConfig(
            num_virtual_tokens=config.prefix.virtual_tokens,
            prefix_projection=config.prefix.projection,
            **common,
        )
    if config.method == "prompt":
        return peft.PromptTuningConfig(num_virtual_tokens=config.prefix.virtual_tokens, **common)
    return peft.IA3Config(fan_in_fan_out=model.config.model_type == "gpt2", **common)


def _alpha(config: TuningConfig) -> float:
    alpha = config.lora.alpha if config.lora.alpha is not None else 2 * config.lora.rank
    return int(alpha) if float(alpha).is_integer() else alpha


def _check_targets(targets: Sequence[str], model: Any) -> None:
    known = linear_modules(model)
    for target in targets:
        if target != "all-linear" and target.rpartition(".")[2] not in known:
            raise MethodError(
                f"lora.target_modules: unknown module {target!r}; the model has "
                f"{', '.join(known)}, or use all-linear"
            )


def _check_vocabulary(model: Any, rows: Sequence[TokenRow]) -> None:
    size = model.get_input_embeddings().num_embeddings
    largest = max(int(row.ids.max()) for row in rows)
    if largest >= size:
        raise MethodError(
            f"vocabulary: the tokenizer gives id {largest}, but the model has {size} embeddings; "
            "give the tokenizer that belongs to the model"
        )


def start_from_data(model: Any, rows: Sequence[TokenRow], config: TuningConfig) -> float:
    """Set the virtual tokens to what the base makes of real training rows; returns their loss.

    Several stretches of training rows, each ending with a whole row, are tried on other rows and
    the one with the lowest loss is taken: virtual tokens that begin as a worked example start
    where in-context learning already is (Li and Liang 2021 initialise from real words).
    """
    generator = np.random.default_rng([config.seed, 7])
    count = config.prefix.virtual_tokens
    sample = [rows[i] for i in generator.permutation(len(rows))[:INIT_ROWS]]
    best: tuple[float, torch.Tensor] | None = None
    for _ in range(INIT_CANDIDATES):
        context = _context(rows, count, generator)
        _set_virtual_tokens(model, context, config.method)
        loss = _loss(model, sample, config.method, count)
        if best is None or loss < best[0]:
            best = (loss, context)
    assert best is not None
    _set_virtual_tokens(model, best[1], config.method)
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
    cache = base(input_ids=context, use_cache=True).past_key_values
    # PEFT's layout: (tokens, layers x 2, heads, head size), keys of a layer before its values.
    parts = [
        part[0].transpose(0, 1) for layer in cache.layers for part in (layer.keys, layer.values)
    ]
    weight.copy_(torch.stack(parts, dim=1).reshape(context.shape[1], -1))


@torch.no_grad()
def _loss(model: Any, rows: Sequence[TokenRow], method: str, count: int) -> float:
    from tuning.collate import Collator
    from tuning.trainer import label_loss

    batch = Collator(pad_id=0)([[row] for row in rows])
    batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
    total, items = label_loss(model, batch, virtual_tokens=count if method == "prompt" else 0)
    return float(total / items)
