"""All models that travel in the package, by name; knows no other place where models lie."""

from __future__ import annotations

from pathlib import Path

from tuning.smollm2 import smollm2_variants
from tuning.starter import shipped_models


def packaged_models() -> dict[str, Path]:
    """Name to variant folder: the starter, its variants, and the adapters on models of others."""
    return {**shipped_models(), **smollm2_variants()}
