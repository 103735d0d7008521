"""Experiment trackers that get a run's losses and rates: transformers' own callbacks, guarded.

Knows names of trackers and where their files go; knows no data and no weights.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from transformers import TrainerCallback

from tuning.config import TuningConfig
from tuning.errors import ConfigError, TuningError

PROJECT = "instruct-arena"
TENSORBOARD = "tensorboard"


class TrackerError(TuningError):
    """A tracker that does not start; names it and why."""


def check_trackers(config: TuningConfig) -> None:
    """ConfigError for a tracker whose library is not installed."""
    for name in config.checks.report_to:
        if find_spec(name) is None:
            raise ConfigError(
                f"checks.report_to: the library {name} is not installed; run 'pip install {name}', "
                "or leave it out"
            )


def tracker_callbacks(config: TuningConfig, say: Callable[[str], None]) -> list[Any]:
    """A callback for each tracker of the settings; `say` gets a line when one breaks midway."""
    return [Tracked(name, _started(name, config), say) for name in config.checks.report_to]


def _started(name: str, config: TuningConfig) -> Callable[[], Any]:
    """What makes the tracker's callback once training begins."""

    def start() -> Any:
        from transformers.integrations.integration_utils import (
            TensorBoardCallback,
            get_reporting_integration_callbacks,
        )

        if name != TENSORBOARD:
            return get_reporting_integration_callbacks(name)[0]()
        from torch.utils.tensorboard import SummaryWriter

        return TensorBoardCallback(SummaryWriter(str(config.home / "runs" / config.name)))

    return start


class Tracked(TrainerCallback):  # type: ignore[misc]
    """A tracker that cannot spoil a run: one that does not start is refused, one that breaks while
    the run goes on is left out from there."""

    def __init__(self, name: str, start: Callable[[], Any], say: Callable[[str], None]) -> None:
        self._name = name
        self._start = start
        self._say = say
        self._inner: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start it, on the main process; TrackerError where it does not."""
        if not state.is_world_process_zero:
            return
        try:
            self._inner = self._start()
            self._inner.on_train_begin(args, state, control, **kwargs)
        except Exception as error:  # each tracker has errors of its own
            raise TrackerError(
                f"checks.report_to: {self._name} does not start ({_line(error)}); see its "
                "settings, or leave it out"
            ) from error

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Pass losses and rates on."""
        self._pass("on_log", args, state, control, **kwargs)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Let it write what it has."""
        self._pass("on_train_end", args, state, control, **kwargs)

    def _pass(self, event: str, *given: Any, **kwargs: Any) -> None:
        if self._inner is None:
            return
        try:
            getattr(self._inner, event)(*given, **kwargs)
        except Exception as error:
            self._inner = None
            self._say(f"checks.report_to: {self._name} is left out from here ({_line(error)})")


def _line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
