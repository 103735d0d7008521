"""What a finished base says of the run that made it, for a run that goes on from there.

Knows the base's folder; knows no model and no optimizer.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tuning.errors import TuningError
from tuning.json_lines import load_records
from tuning.variant.folder import HISTORY_FILE, read_variant


class PretrainError(TuningError):
    """Pretraining cannot start or go on; the message says what to change."""


@dataclass(frozen=True)
class EarlierRun:
    """What a finished base says of the run that made it; all zero where there was none."""

    run: dict[str, Any] = field(default_factory=dict)
    history: tuple[dict[str, float], ...] = ()
    num_documents: int = 0
    num_tokens: int = 0
    num_steps: int = 0
    minutes: float = 0.0

    @classmethod
    def read(cls, folder: Path) -> EarlierRun:
        """Of the base in `folder`; `PretrainError` if pretraining did not make it."""
        variant = read_variant(folder)
        if variant.kind != "base" or "num_documents" not in variant.run:
            raise PretrainError(
                f"{folder}: is no base that `arena starter pretrain` made; give --go-on one"
            )
        run = {**variant.run, "weights_sha256": variant.weights_sha256}
        history = tuple(load_records(folder / HISTORY_FILE))
        counts = {key: run[key] for key in ("num_documents", "num_tokens", "num_steps", "minutes")}
        return cls(run, history, **counts)
