"""The settings of one tuning run: what they are called, what they default to, what is refused.

Every default is written once, here. Knows nothing of torch, files or models beyond their names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

from pydantic import Field

from tuning.errors import ConfigError as ConfigError
from tuning.value_types import (
    AnyCount,
    Count,
    Folder,
    Name,
    NotNegative,
    Number,
    Several,
    Share,
    Switch,
    Text,
    Whole,
    check_value,
    shown,
)

Precision = Literal["auto", "bf16", "fp32"]
Tracker = Literal["trackio", "wandb", "tensorboard"]
Method = Literal["full", "lora", "qlora", "prefix", "prompt", "ia3"]
ObjectiveName = Literal["sft", "reward", "dpo", "kto", "rl"]
# As TRL names them; the last two are KTO's.
PreferenceLoss = Literal[
    "sigmoid",
    "hinge",
    "ipo",
    "exo_pair",
    "nca_pair",
    "robust",
    "bco_pair",
    "sppo_hard",
    "aot",
    "aot_unpaired",
    "apo_zero",
    "apo_down",
    "discopop",
    "sft",
    "sigmoid_norm",
    "kto",
    "apo_zero_unpaired",
]
NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}")


@dataclass(frozen=True)
class DataOptions:
    """How rows are read, cleaned and split."""

    format: Name = "auto"
    """Name of a format of `tuning.data.formats`, or `auto` to detect it from the columns."""
    columns: Mapping[Name, Name] | None = None
    """What a row is made of (prompt, response, system, context, messages …) to its column."""
    drop: Annotated[tuple[Name, ...], Several] = ()
    """Columns to leave out, or keys of turns as messages.key; what nothing uses is refused."""
    weights: Annotated[tuple[Annotated[Number, Field(gt=0, le=1000)], ...], Several] = ()
    """How often each source is seen in an epoch (2 = twice, 0.5 = every other row); empty = 1."""
    strict: Switch = False
    """Stop at the first bad row instead of leaving it out and counting it."""
    deduplicate: Switch = True
    """Leave out rows whose messages are those of an earlier row, white space around them aside."""
    near_duplicates: Share = 1.0
    """Also leave out rows this similar (Jaccard of word triples); 1 leaves out equal rows alone."""
    heldout: Share = 0.02
    """Share of prompts kept out of training for the evaluation loss (at most 256 rows)."""
    heldout_file: Name | None = None
    """Own held-out rows instead; training rows with the same prompt are left out."""
    group_by: Name | None = None
    """Column whose values are kept whole on one side of the held-out split; default the prompt."""
    max_cut_share: Share = 0.01
    """Largest share of tokens that `max_length` may cut off before the run is refused."""


@dataclass(frozen=True)
class TemplateOptions:
    """How conversations become text."""

    file: Name | None = None
    """Jinja file of a chat template that replaces the base's; it is saved into the variant."""


@dataclass(frozen=True)
class TrainingOptions:
    """How the weights are changed."""

    epochs: Annotated[Number, Field(ge=0.001, le=100_000)] = 3.0
    """Passes over the training rows, unless `max_steps` or `max_minutes` ends the run before."""
    max_steps: Count | None = None
    """Optimizer steps at most; the learning rate follows."""
    max_minutes: Annotated[Number, Field(ge=0.001)] | None = None
    """Wall time at most, from the start of the command; the learning rate follows the clock."""
    learning_rate: Annotated[Number, Field(ge=1e-12)] | None = None
    """Peak learning rate; default by method and model width (`tuning.methods.requirements`)."""
    batch_size: Annotated[Count, Field(le=2**20)] = 32
    """Rows (or packs) of one optimizer step on one process, before accumulation."""
    accumulation: Annotated[Count, Field(le=2**20)] = 1
    """Batches whose gradients are summed before one optimizer step."""
    max_length: Annotated[Count, Field(ge=8)] | None = None
    """Longest row in tokens; default the model's own limit, at most 2048."""
    packing: Switch = False
    """Join short rows into sequences of `max_length`; no token sees another row."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """Shape of the learning rate after warm-up: cosine, linear or constant."""
    warmup: Share = 0.05
    """Share of the run in which the learning rate rises to its peak."""
    weight_decay: NotNegative = 0.0
    """AdamW's decoupled weight decay."""
    clip: NotNegative = 1.0
    """Largest norm of the gradient; 0 turns clipping off."""
    precision: Precision = "auto"
    """bf16 autocast or fp32; auto takes bf16 where that is faster: on GPUs, and CPUs with AMX."""
    lean: Switch = True
    """Train in layers that compute the same in fewer passes over memory (CPU, unsharded)."""
    neftune: Annotated[Number, Field(ge=0, le=1000)] | None = None
    """Noise on the embeddings (NEFTune's alpha, usually 5); none by default."""


@dataclass(frozen=True)
class LoraOptions:
    """Low-rank adapters."""

    rank: Annotated[Count, Field(le=2**16)] = 16
    """Size of the low-rank matrices."""
    alpha: Annotated[Number, Field(gt=0)] | None = None
    """Scale; default twice the rank."""
    dropout: Annotated[Share, Field(lt=1)] = 0.0
    """Share of the adapters' inputs that is left out at each step."""
    target_modules: Annotated[tuple[Name, ...], Several, Field(min_length=1)] = ("all-linear",)
    """Last names of the layers to adapt; `all-linear` takes all but the output head."""
    rslora: Switch = False
    """Scale by alpha / sqrt(rank) instead of alpha / rank."""
    dora: Switch = False
    """Weight-decomposed LoRA."""


@dataclass(frozen=True)
class PrefixOptions:
    """Prefix and prompt tuning."""

    virtual_tokens: Annotated[Count, Field(le=2**16)] = 32
    """How many learned tokens stand before the prompt."""
    projection: Switch = False
    """Reparametrise the prefix by a two-layer net while training (prefix only)."""
    init: Literal["data", "random"] = "data"
    """`data` starts from what the base makes of real training rows, `random` from noise."""


@dataclass(frozen=True)
class PreferenceOptions:
    """How preferences are learned from: reward models, DPO, KTO and reinforcement learning."""

    strength: Literal["none", "margin", "scale"] = "scale"
    """What the strength of a vote does (reward, dpo): nothing, a margin between the scores, or a
    factor of the pair's loss (scaled Bradley-Terry)."""
    center: NotNegative = 0.01
    """Weight of the mean of (chosen score + rejected score)², which keeps scores around 0."""
    ties: Literal["leave_out", "equal"] = "leave_out"
    """What ties become for a reward model: left out and counted, or pairs of equal answers."""
    row_weights: Switch = True
    """Use the weights of rows, as those of rankings; without, every pair counts the same."""
    loss: Annotated[tuple[PreferenceLoss, ...], Several] = ()
    """Losses of dpo or kto, by TRL's names; default sigmoid for dpo, kto for kto."""
    loss_weights: Annotated[tuple[NotNegative, ...], Several] = ()
    """Weight of each loss; default 1 each."""
    beta: Annotated[Number, Field(gt=0)] = 0.1
    """How much a step away from the start costs (dpo, kto); for ipo its tau."""
    label_smoothing: Annotated[Number, Field(ge=0, lt=0.5)] | Literal["auto"] = 0.0
    """Share of votes taken to be the wrong way round (robust, exo_pair); `auto` estimates it from
    repeated votes."""
    reward: Name | None = None
    """What rl maximises: a reward model by name, or `suite` for the checks of the rows."""
    policy_gradient: Literal["rloo", "grpo"] = "rloo"
    """How rl weighs answers to one prompt against each other: RLOO or GRPO."""
    kl: NotNegative = 0.05
    """Weight of the KL divergence from the start (rl)."""
    generations: Annotated[Count, Field(ge=2, le=1024)] = 4
    """Answers written for each prompt (rl)."""
    sampling_temperature: Annotated[Number, Field(gt=0, le=100)] = 1.0
    """Temperature of those answers."""
    answer_tokens: Count = 64
    """Longest of those answers in tokens."""


@dataclass(frozen=True)
class CheckOptions:
    """What happens while training goes on."""

    eval_every: Count | None = None
    """Steps between evaluations of the held-out loss; default five times a run."""
    patience: Count | None = None
    """Evaluations without a better held-out loss after which the run stops early; its weights are
    those of the best evaluation."""
    save_every: NotNegative = 60.0
    """Seconds between checkpoints from which a killed run goes on; 0 saves none."""
    save_steps: Count | None = None
    """Steps between checkpoints instead."""
    samples: AnyCount = 3
    """Held-out prompts answered at each evaluation and shown."""
    report_to: Annotated[tuple[Tracker, ...], Several] = ()
    """Trackers that get losses and rates as well: trackio, wandb, tensorboard (under `runs/` of
    home)."""
    challengers: Literal["none", "until_done", "kept"] = "none"
    """Whether the adapter of each evaluation is a variant `NAME@STEP` too, served while the run
    goes on: until it is done, or kept."""


@dataclass(frozen=True)
class TuningConfig:
    """One tuning run. `tuning.tune(TuningConfig(...))` is what `arena tune` calls."""

    base: Name
    """`starter`, a variant under home, a checkpoint folder or a hub id."""
    data: Annotated[tuple[Name, ...], Several, Field(min_length=1)]
    """`starter`, files (JSON, JSONL, CSV, Parquet), dataset folders, hub ids or mixtures (YAML)."""
    name: Text
    """Name of the variant to make."""
    method: Method = "lora"
    """What is trained: full, lora, qlora, prefix, prompt or ia3."""
    objective: ObjectiveName = "sft"
    """What it is trained for: sft (answers as in the rows), reward (a model that scores answers),
    dpo and kto (preferences), or rl (a reward)."""
    home: Folder = Path("workspace")
    """Folder whose `models/` holds the variants, also those that `base` may name."""
    seed: Annotated[Whole, Field(ge=0, le=2**32 - 1)] = 0
    """Of the order of the rows, new weights, dropout and the held-out split."""
    overwrite: Switch = False
    """Replace a variant of the same name once the new one is whole."""
    restart: Switch = False
    """Forget an unfinished run of the same name instead of going on with it."""
    data_options: DataOptions = field(default_factory=DataOptions)
    """How rows are read, cleaned and split."""
    template: TemplateOptions = field(default_factory=TemplateOptions)
    """How conversations become text."""
    training: TrainingOptions = field(default_factory=TrainingOptions)
    """How the weights are changed."""
    lora: LoraOptions = field(default_factory=LoraOptions)
    """For lora and qlora."""
    prefix: PrefixOptions = field(default_factory=PrefixOptions)
    """For prefix and prompt."""
    preference: PreferenceOptions = field(default_factory=PreferenceOptions)
    """For the objectives reward, dpo, kto and rl."""
    checks: CheckOptions = field(default_factory=CheckOptions)
    """Evaluations, early stopping, checkpoints, samples."""

    def __post_init__(self) -> None:
        for item in fields(self):
            value = _checked(item.name, getattr(self, item.name), hints_of(TuningConfig)[item.name])
            object.__setattr__(self, item.name, value)
        _check_together(self)

    def to_json(self) -> dict[str, Any]:
        """The settings as JSON values; `load_config` reads them back."""
        content = asdict(self)
        content["home"] = str(self.home)
        return content

    @property
    def kind(self) -> str:
        """Kind of the variant this run makes (contract 1)."""
        if self.objective == "reward":
            return "reward"
        if self.method in ("lora", "qlora"):
            return "dora" if self.lora.dora else "lora"
        return self.method

    @property
    def folder(self) -> Path:
        """Where the finished variant goes."""
        return self.home / "models" / self.name


@cache
def hints_of(owner: type) -> dict[str, Any]:
    """Name of each field of a settings class to its type with all that is annotated to it."""
    return get_type_hints(owner, include_extras=True)


def _checked(key: str, value: Any, hint: Any) -> Any:
    """A value, or a section with each of its values, as its type asks."""
    if not is_dataclass(hint):
        return check_value(key, value, hint)
    assert isinstance(hint, type)
    if not isinstance(value, hint):
        raise ConfigError(f"{key}: {shown(value)} is no {hint.__name__}; give one")
    content = {
        name: _checked(f"{key}.{name}", getattr(value, name), inner)
        for name, inner in hints_of(hint).items()
    }
    return hint(**content)


def check_folder_name(name: str) -> None:
    """ConfigError where a variant cannot be called `name`: `.tmp` ends what is half written."""
    if not NAME_PATTERN.fullmatch(name) or name.endswith(".tmp"):
        raise ConfigError(
            f"name: {shown(name)} cannot be a folder name; use letters, digits, '.', '_', '-', and "
            "no .tmp at the end"
        )


def _check_together(config: TuningConfig) -> None:
    """Refuse values that are good alone and do not fit each other; one line each."""
    check_folder_name(config.name)
    if config.training.packing and config.method in ("prefix", "prompt"):
        raise ConfigError(
            f"training.packing: cannot be used with method {config.method!r}, because rows packed "
            "behind virtual tokens would see each other; set packing to false"
        )
    if config.training.packing and config.objective != "sft":
        raise ConfigError(
            f"training.packing: cannot be used with objective {config.objective!r}, whose rows are "
            "compared one by one; set packing to false"
        )
    losses, shares = config.preference.loss, config.preference.loss_weights
    if shares and len(shares) != len(losses):
        raise ConfigError(
            f"preference.loss_weights: {shown(shares)} does not fit {len(losses)} loss(es); give "
            "one number for each of preference.loss"
        )
    weights = config.data_options.weights
    if weights and len(weights) != len(config.data):
        raise ConfigError(
            f"data_options.weights: {shown(weights)} does not fit {len(config.data)} data "
            "source(s); give one positive number for each"
        )
