"""Keeps libraries from talking between our lines; errors and other warnings come through."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

# Each is said by one library about its own use of another, and asks nothing of the user.
KNOWN_WARNINGS = (
    ".*is_gradient_checkpointing.*",  # PEFT asks a model for an attribute that was renamed
    ".*gradient_checkpointing` is deprecated.*",  # accelerate's arguments in transformers
    "Position ids are not supported for parameter efficient tuning.*",  # PEFT, prompt tuning
    "The following (rank|alpha)_pattern keys did not match.*",  # PEFT's own, of experts
    "target_parameters=.* were set but no parameter was matched.*",  # the same
    "The PEFT config's `base_model_name_or_path` was renamed.*",  # we match bases by fingerprint
)


def quiet_libraries() -> None:
    """Turn off informational logs and progress bars of transformers and datasets."""
    import datasets
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    datasets.utils.logging.set_verbosity_error()
    datasets.disable_progress_bars()


@contextmanager
def known_warnings_hidden() -> Iterator[None]:
    """Hide the warnings listed above for the length of the block."""
    with warnings.catch_warnings():
        for message in KNOWN_WARNINGS:
            warnings.filterwarnings("ignore", message=message)
        yield
