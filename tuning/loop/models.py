"""The models of a loop: its start, its reward models, its policies, each made once.

Those of the loop itself are variants under home; those of its controls lie in the loop's folder, so
that none of them is served. Knows settings and folders; the making is tuning's own.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from tuning.config import TuningConfig
from tuning.config_files import load_config
from tuning.errors import ConfigError
from tuning.loop.folder import LoopFolder
from tuning.loop.settings import LoopError, LoopSettings
from tuning.loop.votes import TRUE, VoteFile
from tuning.methods.going_on import METHODS
from tuning.models.loading import find_base
from tuning.models.merge import MERGEABLE, merge_variant
from tuning.models.resolve import resolve_base
from tuning.objectives import tune
from tuning.variant.folder import Variant, file_sha256, read_variant

START = "start"
MERGED = "merged-start"


@dataclass(frozen=True)
class Beginning:
    """What a loop starts from: the model, and the checkpoint that reward models are made of."""

    variant: Variant
    scored: Path
    """A checkpoint of the start's weights; of its base where they are no weights of a layer."""

    @property
    def folder(self) -> Path:
        """The start's own folder."""
        return self.variant.folder

    @property
    def method(self) -> str:
        """How a policy goes on from it."""
        return METHODS[self.variant.kind] if self.variant.is_adapter else "lora"


def find_beginning(settings: LoopSettings, folder: LoopFolder) -> Beginning:
    """The start, merged once into the loop's folder where it is an adapter.

    LoopError for a reward model and for a base without a chat template, BaseError for a name that
    is no model's.
    """
    from tuning.models.tokenizers import load_tokenizer

    variant = read_variant(resolve_base(settings.base, settings.home).resolve())
    if variant.kind == "reward":
        raise LoopError(
            f"base {settings.base!r}: is a reward model, which writes no answers; give the model "
            "whose answers are to get better"
        )
    if not load_tokenizer(variant.folder).chat_template:
        raise LoopError(
            f"base {settings.base!r}: has no chat template, so it follows no instructions yet; "
            "tune it first with `arena tune`, and give the variant"
        )
    if not variant.is_adapter:
        return Beginning(variant, variant.folder)
    base = find_base(variant, settings.home).resolve()
    _see(base, folder)
    if variant.kind not in MERGEABLE:
        return Beginning(variant, base)
    merged = folder.models / MERGED
    if not merged.exists():
        merge_variant(str(variant.folder), folder.path, MERGED, str(base))
    return Beginning(variant, read_variant(merged).folder)


def _see(base: Path, folder: LoopFolder) -> None:
    """Let the models of the controls find the base of an adapter, as those under home do."""
    link = folder.models / base.name
    if not os.path.lexists(link):
        link.symlink_to(base)


def refuse_taken_names(settings: LoopSettings) -> None:
    """ConfigError where a model has the name of one that the loop is going to make."""
    for objective in ("reward", *settings.policies):
        name = f"{settings.name}-{objective}"
        if os.path.lexists(settings.home / "models" / name):
            raise _taken(name, settings.home / "models" / name)


def _taken(name: str, folder: Path) -> ConfigError:
    return ConfigError(
        f"name {name!r}: {folder} is another model; give the loop another --name, or run "
        f"`arena models remove {name}`"
    )


def reward_config(
    settings: LoopSettings, folder: LoopFolder, beginning: Beginning, votes: VoteFile, which: str
) -> TuningConfig:
    """The run of a reward model on one file of votes."""
    given = settings.of_section("reward")
    base = settings.base if beginning.scored == beginning.folder else str(beginning.scored)
    return _config(settings, folder, votes, which, base, "reward", given)


def policy_config(
    settings: LoopSettings,
    folder: LoopFolder,
    beginning: Beginning,
    votes: VoteFile,
    which: str,
    objective: str,
    reward: str | None,
) -> TuningConfig:
    """The run of a policy on one file of votes; rl maximises the reward model in `reward`."""
    given = {"method": beginning.method, **settings.of_section("policy")}
    if objective == "rl":
        assert reward is not None
        given = {"preference.reward": reward, **given}
    else:
        given = {key: value for key, value in given.items() if key not in OF_RL}
    return _config(settings, folder, votes, which, settings.base, objective, given)


OF_RL = frozenset(
    f"preference.{key}"
    for key in ("reward", "policy_gradient", "kl", "generations", "sampling_temperature",
                "answer_tokens")
)  # fmt: skip


def _config(
    settings: LoopSettings,
    folder: LoopFolder,
    votes: VoteFile,
    which: str,
    base: str,
    objective: str,
    given: Mapping[str, Any],
) -> TuningConfig:
    is_main = which == TRUE
    if not is_main:
        base = str(resolve_base(base, settings.home).resolve())
    votes.check()
    return load_config(
        None,
        {
            "base": base,
            "data": (str(votes.path),),
            "name": f"{settings.name if is_main else which}-{objective}",
            "home": str(settings.home if is_main else folder.path),
            "objective": objective,
            "seed": settings.seed,
            "data_options.heldout": votes.heldout,
            "checks.samples": 0,
            **given,
        },
    )


def make(config: TuningConfig, home: Path, console: Console) -> dict[str, Any]:
    """Make the variant, or take it where this very run made it before; what is kept of it."""
    variant = _made_before(config)
    if variant is None:
        variant = tune(config, console=console)
    run = variant.run
    return {
        "model": variant.name,
        "in_home": config.home == home,
        "weights_sha256": variant.weights_sha256,
        "objective": config.objective,
        "method": config.method,
        "learning_rate": run["learning_rate"],
        "steps": run["steps"],
        "stopped_early": run["stopped_early"],
        "train_seconds": run["seconds"],
        "metrics": variant.metrics,
        "remarks": run["remarks"],
        "ledger": run["ledger"],
    }


def _made_before(config: TuningConfig) -> Variant | None:
    """The variant of this run, made before the loop could write that down.

    ConfigError where another model has its name.
    """
    if not os.path.lexists(config.folder):
        return None
    variant = read_variant(config.folder)
    told = variant.run.get("config")
    same = replace(config, overwrite=False, restart=False).to_json()
    del same["home"]
    if told is not None and _plain(told) == _plain(same) and _same_votes(config, variant):
        return variant
    raise _taken(config.name, config.folder)


def _same_votes(config: TuningConfig, variant: Variant) -> bool:
    """Whether the file it learned from is the one that is there; of rl the prompts are known."""
    known = variant.run.get("sources", {})
    hashes = {source: file_sha256(Path(source)) for source in config.data}
    return config.objective == "rl" or known == hashes


def _plain(value: Any) -> Any:
    """A JSON value with its sequences as lists."""
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, list | tuple) else value


def folder_of(made: Mapping[str, Any], settings: LoopSettings, folder: LoopFolder) -> Path:
    """Where a made model is."""
    return (settings.home if made["in_home"] else folder.path) / "models" / str(made["model"])
