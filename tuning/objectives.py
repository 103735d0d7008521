"""What a run is tuned for, by name: `tune(config)` makes the variant that its settings describe."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date

from rich.console import Console

from tuning.config import TuningConfig
from tuning.errors import ConfigError
from tuning.training.objective import Objective, Supervised
from tuning.training.train import run_tuning
from tuning.variant.folder import Variant


def objective_of(config: TuningConfig) -> Objective:
    """The objective that the settings name."""
    if config.objective == "sft":
        return Supervised()
    if config.objective == "reward":
        from tuning.preference.reward import RewardModel

        return RewardModel()
    raise ConfigError(f"objective: {config.objective!r} is not made here yet; give sft or reward")


def tune(
    config: TuningConfig,
    *,
    console: Console | None = None,
    replayed: Mapping[int, float] | None = None,
    day: date | None = None,
) -> Variant:
    """Make the variant that `config` describes and return it, as `run_tuning` says."""
    objective = objective_of(config)
    return run_tuning(config, objective, console=console, replayed=replayed, day=day)
