"""Which layers of an architecture an adapter sits on, read from the model itself.

Knows modules and what PEFT cannot wrap; builds nothing.
"""

from __future__ import annotations

import re
from typing import Any

import torch

from tuning.methods.requirements import MethodError

# Keys and values, and the second layer of the MLP: what IA3 scales, as architectures call them.
KEYS_AND_VALUES = (
    ("k_proj", "v_proj"),
    ("key", "value"),
    ("k_lin", "v_lin"),
    ("query_key_value",),
    ("qkv_proj",),
    ("Wqkv",),
    ("c_attn",),
)
INTO_MLP = ("down_proj", "fc2", "w2", "fc_out", "dense_4h_to_h", "lin2")
# What PEFT says of its own it cannot adapt: kernels of these read the weights past the layer.
MAMBA_TYPES = ("falcon_h1", "mamba", "mamba2", "falcon_mamba", "nemotron_h")
MAMBA_LAYERS = ("out_proj", "conv1d")


def linear_modules(model: Any) -> list[str]:
    """Last names of the layers that LoRA can adapt, the output head left out."""
    return sorted({name.rpartition(".")[2] for name in _linear_layers(model)})


def left_out(model: Any) -> str | None:
    """A pattern of the layers that no adapter may wrap; None where there are none.

    Eyes and ears that no text passes, layers that are no linear map of one input, as some routers
    are, and those whose weights are read past them.
    """
    names = [re.escape(name) + r"(?:\..*)?" for name in _other_senses(model)]
    names += [
        re.escape(name)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and not _is_linear_map(module)
    ]
    if model.config.model_type in MAMBA_TYPES:
        names.append(rf".*\.(?:{'|'.join(MAMBA_LAYERS)})")
    return "|".join(names) or None


def is_stored_turned(model: Any) -> bool:
    """Whether the layers hold their weights as (in, out), as GPT-2's do."""
    from transformers.pytorch_utils import Conv1D

    return any(isinstance(module, Conv1D) for module in model.modules())


def ia3_layers(model: Any) -> dict[str, list[str]]:
    """Settings that name the layers IA3 scales; none where PEFT knows the architecture.

    MethodError where no keys and values are found.
    """
    from peft.utils import TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING as KNOWN

    if model.config.model_type in KNOWN:
        return {}
    known = linear_modules(model)
    for names in KEYS_AND_VALUES:
        if all(name in known for name in names):
            inside = [name for name in INTO_MLP if name in known][:1]
            return {"target_modules": [*names, *inside], "feedforward_modules": inside}
    raise MethodError(
        f"method ia3: {type(model).__name__} has no layers for keys and values that it could "
        "scale; use --method lora"
    )


def _linear_layers(model: Any) -> list[str]:
    from transformers.pytorch_utils import Conv1D

    head, pattern = model.get_output_embeddings(), left_out(model)
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear | Conv1D)
        and module is not head
        and not (pattern and re.fullmatch(pattern, name))
    ]


@torch.no_grad()
def _is_linear_map(layer: Any) -> bool:
    """Whether a layer, perhaps of a class made of `Linear`, does to a row what `Linear` does."""
    if type(layer).forward is torch.nn.Linear.forward:
        return True
    row = torch.linspace(-1, 1, layer.in_features, dtype=layer.weight.dtype)[None]
    try:
        made = layer(row.to(layer.weight.device))
    except Exception:  # what else it asks for is its own affair: it is no linear map
        return False
    wanted = torch.nn.functional.linear(row.to(layer.weight.device), layer.weight, layer.bias)
    return isinstance(made, torch.Tensor) and torch.equal(made, wanted)


def _other_senses(model: Any) -> list[str]:
    """Names of the parts of a model of several senses that have a config of their own, not text."""
    from transformers import PreTrainedModel

    config = model.config
    text = config.get_text_config()
    own = [getattr(config, key, None) for key in getattr(config, "sub_configs", {})]
    others = [part for part in own if part is not None and part is not text]
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, PreTrainedModel) and any(module.config is part for part in others)
    ]
