"""Repeats the run behind a variant and says whether it gives the same weights.

The history holds how far the run was at each step, so a run that the clock ended is repeated
step by step with the same learning rates. Same machine and versions are up to the caller.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import torch
from rich.console import Console

from tuning.config import TuningConfig
from tuning.config_files import load_config
from tuning.errors import TuningError
from tuning.models.loading import find_base
from tuning.models.resolve import BaseError, resolve_base
from tuning.training.checkpoints import flatten
from tuning.training.objective import Objective, Supervised
from tuning.variant.folder import Variant, read_variant
from tuning.variant.plots import read_history

TEMPLATE_FILE = "chat_template.jinja"


class ReproduceError(TuningError):
    """A variant that cannot be made again here; says what is missing or differs."""


@dataclass(frozen=True)
class Reproduction:
    """The fingerprints of the variant and of what the repeated run made."""

    variant: Variant
    weights_sha256: str

    @property
    def same(self) -> bool:
        """True when not one bit of the weights differs."""
        return self.weights_sha256 == self.variant.weights_sha256


def reproduce(
    folder: Path,
    home: Path,
    console: Console | None = None,
    objective_of: Callable[[TuningConfig], Objective] = lambda config: Supervised(),
) -> Reproduction:
    """Repeat the run of the variant in `folder` with its settings, in a scratch folder.

    `objective_of` gives the objective of settings, by default supervised tuning.

    ReproduceError when the variant has no run, or when its data is not what it was.
    """
    from tuning.training.train import InterruptedRunError, run_tuning

    variant = read_variant(folder)
    if "config" not in variant.run or "merged" in variant.run:
        raise ReproduceError(f"{variant.name}: was not made by a tuning run; nothing to repeat")
    config = _config_of(variant, home)
    day = variant.run.get("template_day")
    day = day and date.fromisoformat(day)
    objective = objective_of(config)
    prepared = objective.prepare(config, day)
    if prepared.data_sha256 != variant.run["data_sha256"]:
        raise ReproduceError(
            f"{variant.name}: its data ({', '.join(config.data)}) is not what it was when the "
            "variant was made; restore the files"
        )
    if prepared.tokens_sha256 != variant.run.get("tokens_sha256", prepared.tokens_sha256):
        raise ReproduceError(
            f"{variant.name}: its data is encoded otherwise than when the variant was made "
            f"({_why_otherwise(variant, prepared.tokenizer.chat_template)}); restore the base's "
            "tokenizer files"
        )
    progress = {
        item["step"]: item["progress"] for item in read_history(folder) if "progress" in item
    }
    threads = torch.get_num_threads()
    torch.set_num_threads(variant.run.get("threads", threads))
    try:
        with tempfile.TemporaryDirectory(prefix="arena-reproduce-") as scratch:
            scratched = replace(config, home=Path(scratch), name="again")
            made = run_tuning(scratched, objective, console=console, replayed=progress, day=day)
            return Reproduction(variant, made.weights_sha256)
    except InterruptedRunError as error:
        raise ReproduceError(
            f"{variant.name}: stopped before its run was repeated, of which nothing is kept; "
            "repeat the command to begin anew"
        ) from error
    finally:
        torch.set_num_threads(threads)


def _why_otherwise(variant: Variant, template: str) -> str:
    path = variant.folder / TEMPLATE_FILE
    saved = path.read_text(encoding="utf-8") if path.is_file() else None
    if saved != template:
        return "the chat template is another one"
    return "the template is the same; the tokenizer, or the version that encodes, is another one"


def differences(variant: Variant) -> list[str]:
    """Versions and device that are not what they were, since they may change the last bits."""
    from tuning.hardware import describe_device
    from tuning.training.save import package_versions

    now = {**package_versions(), "device": describe_device()}
    then = {**variant.run["versions"], "device": variant.run["device"]}
    return [
        f"{key} was {then[key]}, is {value}"
        for key, value in now.items()
        if key in then and then[key] != value
    ]


def _config_of(variant: Variant, home: Path) -> TuningConfig:
    """The recorded settings, with the base where it is now and the precision it was run in."""
    settings = _by_field(variant.run["config"])
    # Variants from before there were lean layers were made without; the last bits tell.
    settings.setdefault("training.lean", False)
    settings["base"] = str(_start_of(variant, home))
    settings["home"] = str(home)
    if settings.get("template.file") is not None:
        settings["template.file"] = str(variant.folder / TEMPLATE_FILE)
    settings["training.precision"] = variant.run["precision"]
    settings.update({"overwrite": False, "restart": False, "checks.save_every": 0.0})
    settings["checks.save_steps"] = None
    settings["checks.report_to"] = ()
    settings["checks.challengers"] = "none"
    return load_config(None, settings)


def _start_of(variant: Variant, home: Path) -> Path:
    """Where the run began: the base, or the adapter that it went on with."""
    start = variant.run.get("start")
    if start is None:
        return find_base(variant, home)
    for name in (str(variant.run["config"]["base"]), start["name"]):
        try:
            folder = resolve_base(name, home, local_files_only=True, what="model")
        except BaseError:
            continue
        if read_variant(folder).weights_sha256 == start["sha256"]:
            return folder
    raise ReproduceError(
        f"{variant.name}: went on with {start['name']!r} of weights {start['sha256'][:12]}, which "
        f"is not under {home}; restore that variant"
    )


def _by_field(content: dict[str, object]) -> dict[str, object]:
    """One entry for each setting; the column map is a value, not a section."""
    options = content.get("data_options")
    columns = options.get("columns") if isinstance(options, dict) else None
    flat = {
        key: value
        for key, value in flatten(content).items()
        if not key.startswith("data_options.columns.")
    }
    return {**flat, "data_options.columns": columns}
