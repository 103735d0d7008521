"""Puts a saved adapter on its base by PEFT, and holds what PEFT read against the file.

PEFT renames tensors as transformers does for an architecture's old checkpoints, and a name that no
longer fits is left out with a warning: the model then answers with what it was filled with.
Knows models in memory and adapter folders; knows neither variants nor runs.
"""

from __future__ import annotations

import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from tuning.models.errors import BaseError
from tuning.variant.checkpoint import one_line, read_header


def put_on(model: Any, folder: Path, *, is_trainable: bool = False) -> Any:
    """`model` with the adapter in `folder` on it, each tensor as in its file.

    BaseError where PEFT leaves out or changes one, or cannot read the adapter, and
    CheckpointFilesError for a file of weights that is not whole.
    """
    import safetensors.torch
    from peft import PeftModel, get_peft_model_state_dict

    weights = folder / "adapter_model.safetensors"
    if not weights.is_file():
        raise BaseError(f"adapter {folder.name!r}: has no {weights.name}; copy it there again")
    read_header(weights)
    with warnings.catch_warnings():
        # It is said below, as an error.
        warnings.filterwarnings("ignore", "Found missing adapter keys", UserWarning)
        try:
            tuned = PeftModel.from_pretrained(
                model, folder, is_trainable=is_trainable, local_files_only=True
            )
        except (TypeError, ValueError, KeyError, AttributeError, RuntimeError) as error:
            raise BaseError(
                f"adapter {folder.name!r}: PEFT {version('peft')} cannot put it on its base "
                f"({one_line(error)}); mend its adapter_config.json, or give the base it is of"
            ) from error
    saved = safetensors.torch.load_file(weights)
    read = get_peft_model_state_dict(tuned, save_embedding_layers=False)
    # A file of other names was written for an older form of the architecture, and is converted.
    changed = [name for name in saved if name in read and not _is_equal(saved[name], read[name])]
    lost = _missing(tuned, saved) or changed
    if lost:
        raise BaseError(
            f"adapter {folder.name!r}: PEFT {version('peft')} does not read {len(lost)} of its "
            f"{len(read)} tensors as they are ({lost[0]}); save it with this version of PEFT, or "
            "tune one for other modules (lora.target_modules)"
        )
    return tuned


def lost_when_loaded(tuned: Any) -> list[str]:
    """Names of adapter weights that PEFT would not find again in a file it wrote itself."""
    from peft import get_peft_model_state_dict

    return _missing(tuned, get_peft_model_state_dict(tuned, save_embedding_layers=False))


def _missing(tuned: Any, tensors: dict[str, torch.Tensor]) -> list[str]:
    """Weights of the adapter that `tensors`, loaded into it, do not reach.

    Virtual tokens are one tensor, which is there or is an error of PEFT's own.
    """
    from peft import set_peft_model_state_dict

    if tuned.active_peft_config.is_prompt_learning:
        return []
    missing = set(set_peft_model_state_dict(tuned, tensors).missing_keys)
    return [
        name
        for name, _ in tuned.named_parameters()
        if name in missing and tuned.active_adapter in name.split(".")
    ]


def _is_equal(saved: torch.Tensor, read: torch.Tensor) -> bool:
    return saved.shape == read.shape and torch.equal(saved.to(read.device, read.dtype), read)
