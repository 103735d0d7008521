"""The settings of one tuning run: what they are called, what they default to, what is refused.

Every default is written once, here. Knows nothing of torch, files or models beyond their names.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tuning.errors import TuningError

METHODS = ("full", "lora", "qlora", "prefix", "prompt", "ia3")
SCHEDULES = ("cosine", "linear", "constant")
PRECISIONS = ("auto", "bf16", "fp32")
NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}")


class ConfigError(TuningError):
    """A setting that is unknown, of the wrong type or out of range; names key, value, remedy."""


@dataclass(frozen=True)
class DataOptions:
    """How rows are read, cleaned and split."""

    format: str = "auto"
    """Name of a format of `tuning.formats`, or `auto` to detect it from the columns."""
    columns: Mapping[str, str] | None = None
    """Column map for files of no known format: keys prompt, response and perhaps system."""
    weights: tuple[float, ...] = ()
    """How often each source is seen in an epoch (2 = twice, 0.5 = every other row); empty = 1."""
    strict: bool = False
    """Stop at the first bad row instead of leaving it out and counting it."""
    deduplicate: bool = True
    """Leave out rows whose messages are the same as those of an earlier row."""
    near_duplicates: float = 1.0
    """Also leave out rows this similar (Jaccard of word triples); 1 compares words exactly."""
    heldout: float = 0.02
    """Share of prompts kept out of training for the evaluation loss (at most 256 rows)."""
    heldout_file: str | None = None
    """Own held-out rows instead; training rows with the same prompt are left out."""
    group_by: str | None = None
    """Column whose values are kept whole on one side of the held-out split; default the prompt."""
    max_cut_share: float = 0.01
    """Largest share of tokens that `max_length` may cut off before the run is refused."""


@dataclass(frozen=True)
class TrainingOptions:
    """How the weights are changed."""

    epochs: float = 3.0
    """Passes over the training rows, unless `max_steps` or `max_minutes` ends the run before."""
    max_steps: int | None = None
    """Optimizer steps at most; the learning rate follows."""
    max_minutes: float | None = None
    """Wall time at most, from the start of the command; the learning rate follows the clock."""
    learning_rate: float | None = None
    """Peak learning rate; default by method and model width (`tuning.methods`)."""
    batch_size: int = 32
    """Rows (or packs) of one optimizer step on one process, before accumulation."""
    accumulation: int = 1
    """Batches whose gradients are summed before one optimizer step."""
    max_length: int | None = None
    """Longest row in tokens; default the model's own limit, at most 2048."""
    packing: bool = False
    """Join short rows into sequences of `max_length`; no token sees another row."""
    schedule: str = "cosine"
    """Shape of the learning rate after warm-up: cosine, linear or constant."""
    warmup: float = 0.05
    """Share of the run in which the learning rate rises to its peak."""
    weight_decay: float = 0.0
    """AdamW's decoupled weight decay."""
    clip: float = 1.0
    """Largest norm of the gradient; 0 turns clipping off."""
    precision: str = "auto"
    """bf16 autocast or fp32; auto takes bf16 where that is faster: on GPUs, and CPUs with AMX."""
    lean: bool = True
    """Train in layers that compute the same in fewer passes over memory (CPU, unsharded)."""
    neftune: float | None = None
    """Noise on the embeddings (NEFTune's alpha, usually 5); none by default."""


@dataclass(frozen=True)
class LoraOptions:
    """Low-rank adapters."""

    rank: int = 16
    """Size of the low-rank matrices."""
    alpha: float | None = None
    """Scale; default twice the rank."""
    dropout: float = 0.0
    """Share of the adapters' inputs that is left out at each step."""
    target_modules: tuple[str, ...] = ("all-linear",)
    """Last names of the layers to adapt; `all-linear` takes all but the output head."""
    rslora: bool = False
    """Scale by alpha / sqrt(rank) instead of alpha / rank."""
    dora: bool = False
    """Weight-decomposed LoRA."""


@dataclass(frozen=True)
class PrefixOptions:
    """Prefix and prompt tuning."""

    virtual_tokens: int = 32
    """How many learned tokens stand before the prompt."""
    projection: bool = False
    """Reparametrise the prefix by a two-layer net while training (prefix only)."""
    init: str = "data"
    """`data` starts from what the base makes of real training rows, `random` from noise."""


@dataclass(frozen=True)
class CheckOptions:
    """What happens while training goes on."""

    eval_every: int | None = None
    """Steps between evaluations of the held-out loss; default five times a run."""
    patience: int | None = None
    """Evaluations without a better held-out loss after which the run stops early; its weights are
    those of the best evaluation."""
    save_every: float = 60.0
    """Seconds between checkpoints from which a killed run goes on; 0 saves none."""
    save_steps: int | None = None
    """Steps between checkpoints instead."""
    samples: int = 3
    """Held-out prompts answered at each evaluation and shown."""


@dataclass(frozen=True)
class TuningConfig:
    """One tuning run. `tuning.tune(TuningConfig(...))` is what `arena tune` calls."""

    base: str
    """`starter`, a variant under home, a checkpoint folder or a hub id."""
    data: tuple[str, ...]
    """`starter`, files (JSON, JSONL, CSV, Parquet), dataset folders or hub ids."""
    name: str
    """Name of the variant to make."""
    method: str = "lora"
    """One of `METHODS`: full, lora, qlora, prefix, prompt, ia3."""
    home: Path = Path("workspace")
    """Folder whose `models/` holds the variants, also those that `base` may name."""
    seed: int = 0
    """Of the order of the rows, new weights, dropout and the held-out split."""
    overwrite: bool = False
    """Replace a variant of the same name once the new one is whole."""
    restart: bool = False
    """Forget an unfinished run of the same name instead of going on with it."""
    data_options: DataOptions = field(default_factory=DataOptions)
    """How rows are read, cleaned and split."""
    training: TrainingOptions = field(default_factory=TrainingOptions)
    """How the weights are changed."""
    lora: LoraOptions = field(default_factory=LoraOptions)
    """For lora and qlora."""
    prefix: PrefixOptions = field(default_factory=PrefixOptions)
    """For prefix and prompt."""
    checks: CheckOptions = field(default_factory=CheckOptions)
    """Evaluations, early stopping, checkpoints, samples."""

    def __post_init__(self) -> None:
        if isinstance(self.data, str):
            object.__setattr__(self, "data", (self.data,))
        object.__setattr__(self, "home", Path(self.home))
        _check(self)

    def to_json(self) -> dict[str, Any]:
        """The settings as JSON values; `load_config` reads them back."""
        content = asdict(self)
        content["home"] = str(self.home)
        return content

    @property
    def kind(self) -> str:
        """Kind of the variant this run makes (contract 1)."""
        if self.method in ("lora", "qlora"):
            return "dora" if self.lora.dora else "lora"
        return self.method

    @property
    def folder(self) -> Path:
        """Where the finished variant goes."""
        return self.home / "models" / self.name


def _check(config: TuningConfig) -> None:
    """Refuse values that no run can use; one line each."""
    check_member("method", config.method, METHODS)
    check_member("training.schedule", config.training.schedule, SCHEDULES)
    check_member("training.precision", config.training.precision, PRECISIONS)
    check_member("prefix.init", config.prefix.init, ("data", "random"))
    if not NAME_PATTERN.fullmatch(config.name) or config.name.endswith(".tmp"):
        raise ConfigError(
            f"name: {config.name!r} cannot be a folder name; use letters, digits, '.', '_', '-'"
        )
    for key, minimum in _MINIMA.items():
        value = config
        for part in key.split("."):
            value = getattr(value, part)
        if value is not None and not value >= minimum:  # type: ignore[operator]
            raise ConfigError(f"{key}: {value!r} is too small; give at least {minimum}")
    for key, share in {
        "data_options.heldout": config.data_options.heldout,
        "data_options.max_cut_share": config.data_options.max_cut_share,
        "data_options.near_duplicates": config.data_options.near_duplicates,
        "training.warmup": config.training.warmup,
        "lora.dropout": config.lora.dropout,
    }.items():
        if not 0 <= share <= 1:
            raise ConfigError(f"{key}: {share!r} is no share; give a number from 0 to 1")
    if config.training.packing and config.method in ("prefix", "prompt"):
        raise ConfigError(
            f"training.packing: cannot be used with method {config.method!r}, because rows packed "
            "behind virtual tokens would see each other; set packing to false"
        )
    weights = config.data_options.weights
    if weights and (len(weights) != len(config.data) or min(weights) <= 0):
        raise ConfigError(
            f"data_options.weights: {weights!r} does not fit {len(config.data)} data source(s); "
            "give one positive number for each"
        )


_MINIMA: dict[str, float] = {
    "training.epochs": 0.001,
    "training.max_steps": 1,
    "training.max_minutes": 0.001,
    "training.learning_rate": 1e-12,
    "training.batch_size": 1,
    "training.accumulation": 1,
    "training.max_length": 8,
    "training.clip": 0,
    "training.weight_decay": 0,
    "lora.rank": 1,
    "prefix.virtual_tokens": 1,
    "checks.eval_every": 1,
    "checks.patience": 1,
    "checks.save_every": 0,
    "checks.save_steps": 1,
    "checks.samples": 0,
    "seed": 0,
}


def check_member(key: str, value: str, known: tuple[str, ...]) -> None:
    """Refuse a value that is none of the known ones, by the name of its setting."""
    if value not in known:
        near = difflib.get_close_matches(value, known, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ConfigError(f"{key}: unknown value {value!r}; {hint}known are {', '.join(known)}")
