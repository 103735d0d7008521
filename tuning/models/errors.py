"""The error of a base model that cannot be had; knows no cause itself."""

from __future__ import annotations

from tuning.errors import TuningError


class BaseError(TuningError):
    """A base that cannot be found or loaded; names it and the remedy."""
