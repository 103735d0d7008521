"""What a run is tuned for, by name: `tune(config)` makes the variant that its settings describe."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from functools import partial

from rich.console import Console

from tuning.config import TuningConfig
from tuning.methods.requirements import check_method
from tuning.training.distributed import is_main_process, wait_for_all
from tuning.training.inputs import check_home, check_name
from tuning.training.objective import Objective, Supervised
from tuning.training.train import run_tuning
from tuning.variant.folder import Variant
from tuning.verified.rows import PREFIX, with_verified_rows


def objective_of(config: TuningConfig) -> Objective:
    """The objective that the settings name."""
    if config.objective == "sft":
        return Supervised()
    if config.objective == "reward":
        from tuning.preference.reward import RewardModel

        return RewardModel()
    if config.objective == "dpo":
        from tuning.preference.dpo import Dpo

        return Dpo()
    if config.objective == "kto":
        from tuning.preference.kto import Kto

        return Kto()
    assert config.objective == "rl"
    from tuning.preference.rl import PolicyGradient

    return PolicyGradient()


def tune(
    config: TuningConfig,
    *,
    console: Console | None = None,
    replayed: Mapping[int, float] | None = None,
    day: date | None = None,
) -> Variant:
    """Make the variant that `config` describes and return it; its folder is whole or absent.

    Progress goes to `console` (none by default). `replayed` gives the progress of each step of an
    earlier run, to repeat one that was bounded by the clock; `day` is the day on which this is
    called, by default today. Raises a TuningError, as `run_tuning` says. Data called `verified:…`
    is made first, by the main process.
    """
    say = partial(console.print, highlight=False) if console is not None else lambda line: None
    if any(source.startswith(PREFIX) for source in config.data):
        # Before minutes of answers, not after them.
        check_method(config.method)
        check_home(config)
        check_name(config)
    if is_main_process():
        config = with_verified_rows(config, say)
    wait_for_all()
    if not is_main_process():
        config = with_verified_rows(config, lambda line: None)
    objective = objective_of(config)
    return run_tuning(config, objective, console=console, replayed=replayed, day=day)
