"""Builds the model a method trains: the whole checkpoint, or a PEFT adapter on a frozen one.

Knows PEFT and the learning rates that suit each method; knows nothing of data files or runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from tuning.config import TuningConfig
from tuning.data.encode import TokenRow
from tuning.methods.requirements import MethodError
from tuning.methods.virtual_tokens import start_from_data


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
