"""The variant folder: read and checked, sealed, looked into, described; contract 1.

Knows files and tensors on disk; knows neither data, training nor how a model is loaded. `serving`
imports this package and nothing else of `tuning`.
"""

from __future__ import annotations

from tuning.variant.checkpoint import check_checkpoint, refuse_missing
from tuning.variant.folder import (
    ADAPTER_CONFIG,
    ADAPTER_KINDS,
    FORMAT_VERSION,
    KINDS,
    UNSEALED_FILES,
    VARIANT_FILE,
    Base,
    Variant,
    VariantError,
    combine_weights,
    file_sha256,
    list_variants,
    load_json,
    parse_variant,
    read_variant,
    weights_sha256,
)
from tuning.variant.stops import stop_ids

__all__ = [
    "ADAPTER_CONFIG",
    "ADAPTER_KINDS",
    "FORMAT_VERSION",
    "KINDS",
    "UNSEALED_FILES",
    "VARIANT_FILE",
    "Base",
    "Variant",
    "VariantError",
    "check_checkpoint",
    "combine_weights",
    "file_sha256",
    "list_variants",
    "load_json",
    "parse_variant",
    "read_variant",
    "refuse_missing",
    "stop_ids",
    "weights_sha256",
]
