"""Writes a causal language model as a GGUF file that llama.cpp and Ollama load.

Knows the tensors of Llama, Mistral, Qwen2, Qwen3 and Gemma types and llama.cpp's words for their
settings (the `gguf` library's); does not know which model is to be written, nor where.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType, GGUFWriter

from tuning.models.export.errors import ModelExportError
from tuning.models.export.gguf_vocabulary import write_vocabulary

FILE_TYPES = {
    "f32": gguf.LlamaFileType.ALL_F32,
    "f16": gguf.LlamaFileType.MOSTLY_F16,
    "bf16": gguf.LlamaFileType.MOSTLY_BF16,
    "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0,
}
BLOCK = 32
ARCHITECTURES = {
    "llama": gguf.MODEL_ARCH.LLAMA,
    "mistral": gguf.MODEL_ARCH.LLAMA,
    "qwen2": gguf.MODEL_ARCH.QWEN2,
    "qwen3": gguf.MODEL_ARCH.QWEN3,
    "gemma2": gguf.MODEL_ARCH.GEMMA2,
    "gemma3_text": gguf.MODEL_ARCH.GEMMA3,
}
"""transformers' model types to llama.cpp's architectures; others are refused by name."""


def write_gguf(path: Path, model: Any, tokenizer: Any, name: str, file_type: str) -> None:
    """Write `model` (a transformers causal model on the CPU) and its tokenizer to `path`.

    Matrices are stored as `file_type` says (f32, f16, bf16, q8_0), vectors in fp32. An
    architecture, setting or tokenizer that cannot be written is a ModelExportError.
    """
    config = model.config
    check_architecture(config)
    architecture = ARCHITECTURES[config.model_type]
    writer = GGUFWriter(path, gguf.MODEL_ARCH_NAMES[architecture])
    writer.add_name(name)
    writer.add_file_type(FILE_TYPES[file_type])
    _write_settings(writer, config)
    write_vocabulary(writer, tokenizer, config.vocab_size)
    for key, values in _tensors(model, architecture):
        kind = _kind(key, values, file_type)
        if kind is GGMLQuantizationType.F32:
            writer.add_tensor(key, values)
        else:
            writer.add_tensor(key, gguf.quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def check_architecture(config: Any) -> None:
    """ModelExportError for a model that llama.cpp would compute otherwise, or not at all."""
    kind = config.model_type
    if kind not in ARCHITECTURES:
        raise ModelExportError(
            f"model type {kind!r}: GGUF is written for {', '.join(ARCHITECTURES)}; export with "
            "--to folder, and convert with llama.cpp's own script"
        )
    rope = getattr(config, "rope_parameters", None) or {}
    layered = [value for value in rope.values() if isinstance(value, dict)] or [rope]
    scaled = [one["rope_type"] for one in layered if one.get("rope_type", "default") != "default"]
    if scaled:
        raise ModelExportError(f"rope_type {scaled[0]!r}: is not written as GGUF; use --to folder")
    if kind.startswith("qwen") and getattr(config, "use_sliding_window", False):
        raise ModelExportError(
            "use_sliding_window: llama.cpp has none for Qwen; turn it off, if unused"
        )
    scale = getattr(config, "query_pre_attn_scalar", None)
    if scale is not None and scale != config.head_dim:
        raise ModelExportError(
            f"query_pre_attn_scalar {scale} is not head_dim {config.head_dim}; llama.cpp takes that"
        )


def _write_settings(writer: GGUFWriter, config: Any) -> None:
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    rope = config.rope_parameters
    full = rope.get("full_attention", rope)
    window = getattr(config, "sliding_window", None)
    context = config.max_position_embeddings
    if window and config.model_type == "mistral":
        context = min(context, window)  # llama.cpp attends to all: the same, as long as it fits
    writer.add_context_length(context)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_rope_dimension_count(head)
    writer.add_rope_freq_base(full["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    if config.model_type in ("gemma2", "gemma3_text"):
        writer.add_sliding_window(window)
        for value, add in (
            (config.attn_logit_softcapping, writer.add_attn_logit_softcapping),
            (config.final_logit_softcapping, writer.add_final_logit_softcapping),
        ):
            if value is not None:
                add(value)


def _tensors(model: Any, architecture: Any) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    """llama.cpp's name and fp32 values of each tensor; an error for one it has no name for."""
    config = model.config
    names = gguf.get_tensor_name_map(architecture, config.num_hidden_layers)
    is_gemma = config.model_type.startswith("gemma")
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        key = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if key is None:
            raise ModelExportError(
                f"tensor {name}: llama.cpp has no name for it; export --to folder"
            )
        values = tensor.detach().to("cpu", torch.float32)
        if is_gemma and "norm" in name:
            values = values + 1  # Gemma multiplies by one and the weight
        if architecture is gguf.MODEL_ARCH.LLAMA:
            values = interleaved(name, values, config)
        yield key, np.ascontiguousarray(values.numpy())


def interleaved(name: str, values: torch.Tensor, config: Any) -> torch.Tensor:
    """Rows of q and k in the order of llama.cpp's `llama`, which turns neighbours, not halves."""
    heads = {
        "q_proj": config.num_attention_heads,
        "k_proj": config.num_key_value_heads,
    }
    for part, count in heads.items():
        if f".{part}." in name:
            half = values.shape[0] // count // 2
            turned = values.reshape(count, 2, half, *values.shape[1:]).transpose(1, 2)
            return turned.reshape(values.shape)
    return values


def _kind(key: str, values: np.ndarray[Any, Any], file_type: str) -> GGMLQuantizationType:
    """How one tensor is stored: vectors exactly, rows that make no whole blocks as fp16."""
    if values.ndim == 1 or file_type == "f32":
        return GGMLQuantizationType.F32
    if file_type == "q8_0" and values.shape[-1] % BLOCK:
        return GGMLQuantizationType.F16
    return GGMLQuantizationType[file_type.upper()]
