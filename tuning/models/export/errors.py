"""The one error of an export that cannot be carried out as asked."""

from __future__ import annotations

from tuning.errors import TuningError


class ModelExportError(TuningError):
    """A model that the target cannot take, or a file that does not answer as the model does."""
