"""The embedded small language model: its world, pretraining and weights; knows no tuning run."""

from __future__ import annotations

from pathlib import Path

WEIGHTS = Path(__file__).parent / "weights"
STARTER = "starter"
NAMES = (STARTER, "starter-full", "starter-lora", "starter-prefix")


def shipped_models() -> dict[str, Path]:
    """The models that travel in the package: name to variant folder, base first."""
    return {name: WEIGHTS / name for name in NAMES if (WEIGHTS / name).is_dir()}
