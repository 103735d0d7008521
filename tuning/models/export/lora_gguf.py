"""Writes a LoRA adapter as the GGUF file that llama.cpp's `--lora` takes; knows no base weights."""

from __future__ import annotations

import json
import re
from pathlib import Path

import gguf
import numpy as np
import torch
from gguf import GGUFWriter

from tuning.models.export.errors import ModelExportError
from tuning.models.export.gguf_file import ARCHITECTURES, check_architecture, interleaved
from tuning.variant.checkpoint import read_model_config
from tuning.variant.folder import ADAPTER_CONFIG
from tuning.variant.verify import read_tensors

KEY = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<part>[AB])\.weight")
PLAIN = {"use_dora": False, "use_rslora": False, "rank_pattern": {}, "alpha_pattern": {}}


def write_lora_gguf(path: Path, adapter: Path, base: Path, name: str) -> None:
    """Write the LoRA adapter in folder `adapter` of the base in folder `base` to `path`.

    ModelExportError for an adapter that llama.cpp's plain LoRA cannot say.
    """
    settings = json.loads((adapter / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    for key, plain in PLAIN.items():
        if settings.get(key) not in (None, plain):
            raise ModelExportError(
                f"{key} {settings[key]!r}: llama.cpp's adapters have none; export it merged, "
                "without --adapter"
            )
    config = read_model_config(base)
    check_architecture(config)
    architecture = ARCHITECTURES[config.model_type]
    names = gguf.get_tensor_name_map(architecture, config.num_hidden_layers)
    writer = GGUFWriter(path, gguf.MODEL_ARCH_NAMES[architecture])
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, float(settings["lora_alpha"]))
    writer.add_name(name)
    for key, tensor in read_tensors(adapter).items():
        found = KEY.fullmatch(key)
        place = names.get_name(f"{found['module']}.weight", (".weight",)) if found else None
        if found is None or place is None:
            raise ModelExportError(f"tensor {key}: llama.cpp has no place for it; export it merged")
        values = tensor.to(torch.float32)
        if found["part"] == "B" and architecture is gguf.MODEL_ARCH.LLAMA:
            values = interleaved(f"{found['module']}.weight", values, config)
        writer.add_tensor(f"{place}.lora_{found['part'].lower()}", np.ascontiguousarray(values))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
