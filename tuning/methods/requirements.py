"""What each method needs of a machine, and its learning rate where none is given.

Knows names of methods; loads no model.
"""

from __future__ import annotations

import importlib.util

import torch

from tuning.errors import TuningError


class MethodError(TuningError):
    """A method that does not fit the base model; names the setting and what would fit."""


def default_learning_rate(method: str, hidden_size: int, objective: str = "sft") -> float:
    """Peak learning rate where none is given.

    Full tuning's falls with the width (2e-5 at 4096, as published for 7B models); LoRA takes ten
    times as much; virtual tokens and IA3 vectors are few and take large steps at any width. A
    policy that learns from preferences or rewards starts where it is good, and takes a tenth.
    """
    full = 2e-5 * 4096 / hidden_size
    low_rank = {"lora": 10 * full, "qlora": 10 * full}
    rates = {"full": full, **low_rank, "prefix": 2e-2, "prompt": 3e-2, "ia3": 2e-2}
    return rates[method] * (0.1 if objective in ("dpo", "kto", "rl") else 1)


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
