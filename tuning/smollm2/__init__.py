"""Adapters that the package brings for SmolLM2-135M-Instruct, a model of others; knows no run."""

from __future__ import annotations

from pathlib import Path

WEIGHTS = Path(__file__).parent / "weights"
NAMES = ("smollm2-lora",)


def smollm2_variants() -> dict[str, Path]:
    """Adapters that travel in the package: name to variant folder. `arena models add smollm2`
    makes the base."""
    return {name: WEIGHTS / name for name in NAMES if (WEIGHTS / name).is_dir()}
