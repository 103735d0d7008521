"""Everything of a run that comes before the model: base folder, tokenizer, rows, ledger.

Shared by training and by `--preview`, so a preview shows exactly what would be trained.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuning.config import ConfigError, TuningConfig
from tuning.data.corpus import Corpus, load_corpus
from tuning.data.encode import TokenRow, encode_examples, encode_heldout
from tuning.data.ledger import Ledger
from tuning.data.template import ensure_template
from tuning.models.resolve import BaseError, resolve_base, revision_of
from tuning.models.tokenizers import load_tokenizer
from tuning.variant.checkpoint import check_checkpoint
from tuning.variant.folder import ADAPTER_KINDS, Base, Variant, read_variant

DEFAULT_MAX_LENGTH = 2048


@dataclass(frozen=True)
class Prepared:
    """The inputs of a run, checked and encoded."""

    folder: Path
    parent: Variant
    base: Base
    tokenizer: Any
    default_template: bool
    corpus: Corpus
    rows: list[TokenRow]
    heldout: list[TokenRow]
    order: tuple[int, ...]
    """Positions into `rows` that make an epoch."""
    max_length: int
    ledger: Ledger


def check_home(config: TuningConfig) -> None:
    """Refuse early what would fail at the end: an unwritable home."""
    models = config.home / "models"
    try:
        models.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"home {config.home}: cannot be written ({error.strerror}); choose another --home"
        ) from error
    if not os.access(models, os.W_OK | os.X_OK):
        raise ConfigError(f"home {config.home}: is not writable; choose another --home")


def check_name(config: TuningConfig) -> None:
    """Refuse early a name that is taken."""
    if os.path.lexists(config.folder) and not config.overwrite:
        raise ConfigError(
            f"name {config.name!r}: {config.folder} exists; choose another --name, give "
            f"--overwrite, or run `arena models remove {config.name}`"
        )


def prepare(config: TuningConfig) -> Prepared:
    """Find the base, read and encode the data; every user's mistake in them is raised here."""
    folder = resolve_base(config.base, config.home)
    parent = read_variant(folder)
    if parent.kind in ADAPTER_KINDS:
        raise BaseError(
            f"base {config.base!r}: is a {parent.kind} adapter, not a checkpoint; merge it first "
            f"with `arena models merge {parent.name}`"
        )
    model_config = check_checkpoint(folder)
    ledger = Ledger()
    corpus = load_corpus(config.data, config.data_options, config.seed, ledger)
    tokenizer = load_tokenizer(folder)
    default_template = ensure_template(
        tokenizer, str(folder), getattr(model_config, "vocab_size", None)
    )
    max_length = pick_max_length(config, model_config)
    rows = encode_examples(tokenizer, corpus.train, max_length, config.data_options, ledger)
    for example in dict.fromkeys(row.example for row in rows):
        drawn = corpus.train[example].drawn
        if drawn is not None:
            made = ledger.mixture.setdefault(drawn.row.source.name, Counter())
            made[f"{drawn.template.name} {drawn.kind}"] += 1
    heldout = encode_heldout(tokenizer, corpus.heldout, max_length, config.data_options, ledger)
    if config.checks.patience is not None and not heldout:
        raise ConfigError(
            f"checks.patience: {config.checks.patience} evaluations, but no row is held out to "
            "evaluate on; raise data_options.heldout or give data_options.heldout_file"
        )
    by_example: dict[int, list[int]] = {}
    for position, row in enumerate(rows):
        by_example.setdefault(row.example, []).append(position)
    order = tuple(at for example in corpus.order for at in by_example.get(example, ()))
    return Prepared(
        folder=folder,
        parent=parent,
        base=Base(id_of_base(config, folder), revision_of(folder), parent.weights_sha256),
        tokenizer=tokenizer,
        default_template=default_template,
        corpus=corpus,
        rows=rows,
        heldout=heldout,
        order=order,
        max_length=max_length,
        ledger=ledger,
    )


def pick_max_length(config: TuningConfig, model_config: Any) -> int:
    """Longest row in tokens: the setting, else the model's own limit, at most 2048."""
    limit = getattr(model_config, "max_position_embeddings", None) or DEFAULT_MAX_LENGTH
    if config.method in ("prefix", "prompt"):
        limit -= config.prefix.virtual_tokens
    asked = config.training.max_length
    if asked is not None and asked > limit:
        raise ConfigError(
            f"training.max_length: {asked} is more than the {limit} positions of the base; "
            "give at most that"
        )
    return int(asked or min(limit, DEFAULT_MAX_LENGTH))


def id_of_base(config: TuningConfig, folder: Path) -> str:
    """What `variant.json` calls the base: its name, or its path seen from the variant."""
    if not Path(config.base).expanduser().is_dir() or folder != Path(config.base).expanduser():
        return config.base
    return os.path.relpath(folder.resolve(), config.folder.resolve())
