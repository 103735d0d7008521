"""The adapter as it is at each evaluation, as a variant `name@step` of its own beside the others.

Whoever serves the home folder serves it while the run goes on. Knows folders; trains nothing, and
whatever goes wrong here is told and does not end the run.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from tuning.config import TuningConfig
from tuning.errors import ConfigError
from tuning.models.tokenizers import WRITE_ERRORS
from tuning.training.distributed import is_sharded
from tuning.training.history import History
from tuning.training.inputs import Inputs
from tuning.training.save import write_step
from tuning.variant.folder import CHECKPOINT_NAME, VariantError, read_variant
from tuning.variant.manifest import remove_folder

HALF_WRITTEN = re.compile(r"\..+@[0-9]{1,12}\.(?:[a-z0-9_]{8}|replaced|removed)\.tmp")
MOST = 32
"""So many checkpoints of a run are served at most; of more every second one goes."""


def check_challengers(config: TuningConfig) -> None:
    """ConfigError where no adapter comes to be that could be asked."""
    if config.checks.challengers == "none":
        return
    if config.method == "full" or config.objective == "reward":
        what = "method full" if config.method == "full" else "objective reward"
        raise ConfigError(
            f"checks.challengers: {config.checks.challengers} serves the adapter of each "
            f"evaluation, and {what} makes none that writes answers; choose another method or "
            "leave it out"
        )


class Challengers:
    """The checkpoints of one run that are served. `say` is told of one that could not be written.

    By `checks.challengers` they stay when the run is done (`kept`) or go (`until_done`).
    """

    def __init__(
        self, config: TuningConfig, prepared: Inputs, say: Callable[[str], object]
    ) -> None:
        self._config = config
        self._prepared = prepared
        self._say = say

    @property
    def are_wanted(self) -> bool:
        """Whether any are written; weights spread over processes are not."""
        return self._config.checks.challengers != "none" and not is_sharded()

    def publish(self, model: Any, step: int, history: History, run: dict[str, Any]) -> None:
        """Write the adapter as it is after `step`; whole or not at all."""
        if not self.are_wanted:
            return
        stays = self._config.checks.challengers == "kept"
        run = {**run, "checkpoint": {"of": self._config.name, "step": step, "stays": stays}}
        try:
            write_step(self._config, self._prepared, model, step, history, run)
            self._thin_out()
        except (*WRITE_ERRORS, VariantError, ValueError) as error:  # of a loss that is no number
            self._say(
                f"{self._config.name}@{step}: is not served, since it could not be written "
                f"({' '.join(str(error).split())})"
            )

    def remove(self) -> None:
        """Remove those of this name, also what a killed run left half written."""
        for path in self._config.folder.parent.glob(f".{self._config.name}@*.tmp"):
            if HALF_WRITTEN.fullmatch(path.name) and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
        for folder in self._ours().values():
            _remove(folder)

    def _thin_out(self) -> None:
        """Of too many leave the first, the newest and every second one between."""
        steps = sorted(self._ours().items())
        if len(steps) > MOST:
            for _, folder in steps[1:-1:2]:
                _remove(folder)

    def _ours(self) -> dict[int, Path]:
        """The whole checkpoints of this run by step; not what somebody added under such a name."""
        found = {}
        for folder in self._config.folder.parent.glob(f"{self._config.name}@*"):
            named = CHECKPOINT_NAME.fullmatch(folder.name)
            if named is None or folder.is_symlink():
                continue
            with suppress(OSError, VariantError):
                if read_variant(folder, verify=False).checkpoint_of == self._config.name:
                    found[int(named["step"])] = folder
        return found

    def end(self) -> None:
        """The run is done: they go unless they are to stay."""
        if self._config.checks.challengers != "kept":
            self.remove()


def _remove(folder: Path) -> None:
    with suppress(OSError):  # the page was first
        remove_folder(folder)
