"""Instruction-tuned variants of a base model: data, templates, methods, training, evaluation.

`from tuning import TuningConfig, tune` is the Python interface; torch loads with the first call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tuning.errors import TuningError

if TYPE_CHECKING:
    from tuning.config import TuningConfig
    from tuning.objectives import tune

__all__ = ["TuningConfig", "TuningError", "tune"]


def __getattr__(name: str) -> Any:
    """Load what is asked for, so that reading a variant folder loads neither torch nor settings."""
    if name == "TuningConfig":
        from tuning.config import TuningConfig

        return TuningConfig
    if name == "tune":
        from tuning.objectives import tune

        return tune
    raise AttributeError(f"module 'tuning' has no attribute {name!r}")
