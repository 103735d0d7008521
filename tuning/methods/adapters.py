"""Builds the model a method trains: the whole checkpoint, or a PEFT adapter on a frozen one.

Knows PEFT and the learning rates that suit each method; knows nothing of data files or runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from tuning.config import TuningConfig
from tuning.data.encode import TokenRow
from tuning.errors import is_out_of_memory
from tuning.methods.fitness import check_base, check_fit, refusal_named
from tuning.methods.layers import ia3_layers, is_stored_turned, left_out, linear_modules
from tuning.methods.requirements import MethodError
from tuning.methods.virtual_tokens import cache_sizes, start_from_data


def build_model(
    config: TuningConfig, model: Any, rows: Sequence[TokenRow], *, is_tried: bool = True
) -> Any:
    """The model to train; adapters start so that `rows` (encoded training rows) suit them.

    MethodError when the method does not hold on the model's architecture, which is tried on a short
    row unless the model is in parts or quantised.
    """
    _check_vocabulary(model, rows)
    is_tried = is_tried and config.method != "qlora"
    if is_tried:
        check_base(model, rows[0].ids.tolist())
    if config.method == "full":
        return model
    tuned = _with_adapter(config, model, _peft_config(config, model))
    virtual = config.method in ("prefix", "prompt") and config.prefix.init == "data"
    if is_tried:
        check_fit(tuned, config.method, rows[0].ids.tolist())
    if virtual and not (config.method == "prefix" and config.prefix.projection):
        remedy = "set prefix.init to random, or use --method lora"
        with refusal_named(tuned, "prefix.init", "cannot start from rows", remedy):
            start_from_data(tuned, rows, config)
    return tuned


def build_scorer(config: TuningConfig, model: Any) -> Any:
    """The reward model to train, of a checkpoint with a scalar head: all of it, or an adapter and
    the head. MethodError where the method cannot."""
    for name, part in model.named_parameters():
        if not bool(torch.isfinite(part).all()):
            raise MethodError(
                f"base: {name} holds NaN or infinite numbers, which would be in every score; give "
                "a checkpoint without"
            )
    if config.method == "full":
        return model
    peft_config = _peft_config(config, model, "SEQ_CLS")
    peft_config.modules_to_save = ["score"]
    return _with_adapter(config, model, peft_config)


def _with_adapter(config: TuningConfig, model: Any, peft_config: Any) -> Any:
    """The adapter on `model`; MethodError for whatever PEFT makes of an architecture."""
    from peft import get_peft_model

    known = linear_modules(model)
    try:
        return get_peft_model(model, peft_config)
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise _refusal(config, known, error) from error


def _refusal(config: TuningConfig, known: Sequence[str], error: Exception) -> MethodError:
    """What PEFT will not do with a model, with what may be given instead."""
    reason = " ".join(str(error).split())[:300] or type(error).__name__
    if config.method not in ("lora", "qlora"):
        return MethodError(f"method {config.method}: {reason}; use --method lora")
    if not known:
        return MethodError(f"method {config.method}: it has no linear layers; use --method full")
    plain = "leave lora.dora out, or " if config.lora.dora else ""
    return MethodError(
        f"lora.target_modules: {', '.join(config.lora.target_modules)} cannot be adapted "
        f"({reason.rstrip('.')}); {plain}name some of the model's layers: {', '.join(known)}"
    )


def count_parameters(model: Any) -> tuple[int, int]:
    """(trainable, all) parameters."""
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    return sum(size for size, on in sizes if on), sum(size for size, _ in sizes)


def _peft_config(config: TuningConfig, model: Any, task: str = "CAUSAL_LM") -> Any:
    import peft

    common: dict[str, Any] = {"task_type": task, "base_model_name_or_path": config.base}
    if config.method == "prefix":
        remedy = "use --method lora"
        with refusal_named(model, "method prefix", "fails on a short row", remedy):
            sizes = cache_sizes(model, config.prefix)
        return peft.PrefixTuningConfig(
            num_virtual_tokens=config.prefix.virtual_tokens,
            prefix_projection=config.prefix.projection,
            **sizes,
            **common,
        )
    if config.method == "prompt":
        text = model.config.get_text_config()
        return peft.PromptTuningConfig(
            num_virtual_tokens=config.prefix.virtual_tokens,
            token_dim=model.get_input_embeddings().embedding_dim,
            # PEFT asks for both, and makes nothing of them here.
            num_layers=getattr(text, "num_hidden_layers", 1),
            num_attention_heads=getattr(text, "num_attention_heads", 1),
            **common,
        )
    common["fan_in_fan_out"] = is_stored_turned(model)
    if pattern := left_out(model):
        common["exclude_modules"] = pattern
    if config.method == "ia3":
        return peft.IA3Config(**ia3_layers(model), **common)
    _check_targets(config.lora.target_modules, model)
    targets: Any = list(config.lora.target_modules)
    return peft.LoraConfig(
        r=config.lora.rank,
        lora_alpha=_alpha(config),
        lora_dropout=config.lora.dropout,
        target_modules="all-linear" if targets == ["all-linear"] else targets,
        use_rslora=config.lora.rslora,
        use_dora=config.lora.dora,
        **common,
    )


def _alpha(config: TuningConfig) -> float:
    alpha = config.lora.alpha if config.lora.alpha is not None else 2 * config.lora.rank
    return int(alpha) if float(alpha).is_integer() else alpha


def _check_targets(targets: Sequence[str], model: Any) -> None:
    known = linear_modules(model)
    if len(set(targets)) < len(targets):
        raise MethodError(
            f"lora.target_modules: {', '.join(targets)} names a layer twice; give each name once"
        )
    if "all-linear" in targets and len(targets) > 1:
        others = ", ".join(target for target in targets if target != "all-linear")
        raise MethodError(
            f"lora.target_modules: all-linear already takes every layer, and {others} beside it "
            "would be dropped; give all-linear alone, or names alone"
        )
    for target in targets:
        if target != "all-linear" and target.rpartition(".")[2] not in known:
            raise MethodError(
                f"lora.target_modules: unknown module {target!r}; the model has "
                f"{', '.join(known)}, or use all-linear"
            )


def _check_vocabulary(model: Any, rows: Sequence[TokenRow]) -> None:
    check_vocabulary(model, max(int(row.ids.max()) for row in rows))


def check_vocabulary(model: Any, largest: int) -> None:
    """MethodError where the model has no embedding for the largest id of the rows."""
    size = model.get_input_embeddings().num_embeddings
    if largest >= size:
        raise MethodError(
            f"vocabulary: the tokenizer gives id {largest}, but the model has {size} embeddings; "
            "give the tokenizer that belongs to the model"
        )
