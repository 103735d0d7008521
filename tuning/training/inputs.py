"""Everything of a run that comes before the model: base folder, tokenizer, rows, ledger.

Shared by training and by `--preview`, so a preview shows exactly what would be trained.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any, Protocol

from tuning.config import ConfigError, TuningConfig
from tuning.data.corpus import Corpus, load_corpus
from tuning.data.encode import TokenRow, encode_examples, encode_heldout, rows_sha256
from tuning.data.examples import examples_sha256
from tuning.data.ledger import BadRow, Ledger
from tuning.data.probe import check_template
from tuning.data.rendering import is_dated
from tuning.data.template import ensure_template, read_template, turn_ends
from tuning.methods.going_on import VIRTUAL, check_goes_on, num_virtual_tokens
from tuning.models.loading import find_base
from tuning.models.merge import MERGEABLE
from tuning.models.resolve import BaseError, refuse_packaged, resolve_base, revision_of
from tuning.models.tokenizers import load_tokenizer
from tuning.variant.checkpoint import check_checkpoint, positions_of
from tuning.variant.folder import Base, Variant, read_variant
from tuning.variant.stops import stop_ids

POLICIES = frozenset({"dpo", "kto", "rl"})
"""Objectives that begin where a variant stands, also an adapter."""
DEFAULT_MAX_LENGTH = 2048
MIN_LENGTH = 8  # the least that training.max_length may be


class RunLedger(Protocol):
    """What became of every row of a run."""

    @property
    def bad_rows(self) -> Sequence[BadRow]:
        """Rows that could not be used."""
        ...

    def to_json(self) -> dict[str, Any]:
        """For `variant.json`."""
        ...

    def lines(self) -> list[str]:
        """What a person reads before training starts."""
        ...


class Inputs(Protocol):
    """What a run and its variant need to know of the inputs, whatever the run is for."""

    @property
    def folder(self) -> Path: ...
    @property
    def parent(self) -> Variant: ...
    @property
    def base(self) -> Base: ...
    @property
    def tokenizer(self) -> Any: ...
    @property
    def template(self) -> str: ...
    @property
    def stop_ids(self) -> tuple[int, ...]: ...
    @property
    def rows(self) -> Sequence[Any]: ...
    @property
    def heldout(self) -> Sequence[Any]: ...
    @property
    def day(self) -> date | None: ...
    @property
    def order(self) -> tuple[int, ...]: ...
    @property
    def max_length(self) -> int: ...
    @property
    def ledger(self) -> RunLedger: ...
    @property
    def sources(self) -> dict[str, str]:
        """Source name to its sha256."""
        ...

    @property
    def data_sha256(self) -> str:
        """Fingerprint of the rows that are trained on."""
        ...

    @property
    def heldout_sha256(self) -> str:
        """Fingerprint of the rows that are held out."""
        ...

    @property
    def tokens_sha256(self) -> str:
        """Fingerprint of both as they are encoded."""
        ...

    @property
    def drawn(self) -> list[dict[str, Any]]:
        """What made the messages of a mixture's rows."""
        ...

    def place(self, example: int) -> str:
        """Where the row numbered `example` in batches came from, as `file:line`."""
        ...


@dataclass(frozen=True)
class Start:
    """What a run starts from: the base as a folder, with its tokenizer ready for chat."""

    folder: Path
    parent: Variant
    base: Base
    tokenizer: Any
    template: str
    """Whose chat template it is: `default`, `base` or `file`."""
    stop_ids: tuple[int, ...]
    """Tokens that end an answer; the first that is learned is the tokenizer's EOS."""
    max_length: int
    adapter: Path | None
    """The adapter on `folder` that goes on, where one does."""


@dataclass(frozen=True)
class Prepared(Start):
    """The inputs of supervised tuning, checked and encoded."""

    corpus: Corpus
    rows: list[TokenRow]
    heldout: list[TokenRow]
    day: date | None
    """Whose date the template has written; None where it writes none."""
    order: tuple[int, ...]
    """Positions into `rows` that make an epoch."""
    ledger: Ledger

    @property
    def tokens_sha256(self) -> str:
        """Fingerprint of what is trained on and evaluated: ids and labels, row by row."""
        return rows_sha256((*self.rows, *self.heldout))

    @property
    def data_sha256(self) -> str:
        """Fingerprint of the conversations that are trained on."""
        return self.corpus.sha256

    @property
    def heldout_sha256(self) -> str:
        """Fingerprint of the conversations that are held out."""
        return examples_sha256(self.corpus.heldout)

    @property
    def sources(self) -> dict[str, str]:
        """Source name to its sha256."""
        return self.corpus.sources

    @property
    def drawn(self) -> list[dict[str, Any]]:
        """What made the messages of each of a mixture's rows."""
        places = dict.fromkeys(row.example for row in self.rows)
        made = [self.corpus.train[place].drawn for place in places]
        return [row.to_json() for row in made if row]

    def place(self, example: int) -> str:
        """Where a trained conversation came from."""
        return self.corpus.train[example].place


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
    refuse_packaged(config.name)
    if os.path.lexists(config.folder) and not config.overwrite:
        raise ConfigError(
            f"name {config.name!r}: {config.folder} exists; choose another --name, give "
            f"--overwrite, or run `arena models remove {config.name}`"
        )


def prepare(config: TuningConfig, day: date | None = None) -> Prepared:
    """Find the base, read and encode the data; every user's mistake in them is raised here.

    A template that writes the date writes that of `day`, by default today's.
    """
    day = day or date.today()
    start = find_start(config)
    tokenizer, max_length = start.tokenizer, start.max_length
    ledger, options = Ledger(), config.data_options
    corpus = load_corpus(config.data, options, config.seed, ledger)
    examples = (*corpus.train, *corpus.heldout)
    check_template(tokenizer, examples, name_template(config), day)
    rows = encode_examples(tokenizer, corpus.train, max_length, options, ledger, day)
    _count_mixture(corpus, rows, ledger)
    heldout = encode_heldout(tokenizer, corpus.heldout, max_length, options, ledger, day)
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
        **vars(start),
        day=day if is_dated(tokenizer.chat_template) else None,
        corpus=corpus,
        rows=rows,
        heldout=heldout,
        order=order,
        ledger=ledger,
    )


def find_start(config: TuningConfig) -> Start:
    """The base of a run, whatever it is for; BaseError for what cannot be one."""
    folder = resolve_base(config.base, config.home)
    parent, adapter = read_variant(folder), None
    _check_parent(config, parent)
    if parent.is_adapter:
        check_goes_on(config, parent.kind)
        adapter, folder = folder, find_base(parent, config.home)
    model_config = check_checkpoint(folder)
    folders = (folder,) if adapter is None else (adapter, folder)
    tokenizer = load_tokenizer(folders[0])
    stops = stop_ids(tokenizer, *folders)
    vocabulary = getattr(model_config.get_text_config(), "vocab_size", None)
    template = _give_template(config, tokenizer, str(folder), vocabulary)
    return Start(
        folder=folder,
        parent=parent,
        base=_base_of(config, parent, folder, is_adapted=adapter is not None),
        tokenizer=tokenizer,
        template=template,
        stop_ids=turn_ends(tokenizer, stops),
        max_length=pick_max_length(
            config, model_config, None if adapter is None else num_virtual_tokens(adapter)
        ),
        adapter=adapter,
    )


def _check_parent(config: TuningConfig, parent: Variant) -> None:
    """BaseError where a run with this objective cannot begin at `parent`; says where it can."""
    origin = "the model it was made from" + (f", {parent.base.id!r}" if parent.base else "")
    if parent.kind == "reward" and config.objective != "reward":
        more = "" if parent.is_adapter else ", or --objective reward to go on with it"
        raise BaseError(
            f"base {config.base!r}: is a reward model, which scores answers and writes none; give "
            f"{origin}{more}"
        )
    if not parent.is_adapter or config.objective in POLICIES:
        return
    remedy = f"give {origin}"
    if parent.kind in MERGEABLE:
        remedy = f"merge it first with `arena models merge {parent.name}`"
    kind = "reward model's" if parent.kind == "reward" else parent.kind
    raise BaseError(f"base {config.base!r}: is a {kind} adapter, not a checkpoint; {remedy}")


def _base_of(config: TuningConfig, parent: Variant, folder: Path, *, is_adapted: bool) -> Base:
    """The checkpoint in `folder`: of a run that begins there, or with an adapter of it."""
    if not is_adapted:
        return Base(id_of_base(config, folder), revision_of(folder), parent.weights_sha256)
    assert parent.base is not None
    try:
        known = resolve_base(parent.base.id, config.home, local_files_only=True) == folder
    except BaseError:
        known = False
    # A path is one seen from the variant that recorded it.
    where = os.path.relpath(folder.resolve(), config.folder.resolve())
    return replace(parent.base, id=parent.base.id if known else where)


def _count_mixture(corpus: Corpus, rows: Sequence[TokenRow], ledger: Ledger) -> None:
    """Count in `ledger` which template of a mixture made how many of the rows."""
    for example in dict.fromkeys(row.example for row in rows):
        drawn = corpus.train[example].drawn
        if drawn is not None:
            made = ledger.mixture.setdefault(drawn.row.source.name, Counter())
            made[f"{drawn.template.name} {drawn.kind}"] += 1


def _give_template(config: TuningConfig, tokenizer: Any, where: str, vocabulary: int | None) -> str:
    """Make the tokenizer ready for chat, with the settings' template if there is one."""
    file = config.template.file
    own = None if file is None else read_template(file)
    return ensure_template(tokenizer, where, vocabulary, own)


def name_template(config: TuningConfig) -> str:
    """What errors call the template of the run."""
    file = config.template.file
    return f"base {config.base!r}" if file is None else f"template.file {file!r}"


def pick_max_length(config: TuningConfig, model_config: Any, virtual: int | None = None) -> int:
    """Longest row in tokens: the setting, else the model's own limit, at most 2048.

    `virtual` positions are taken by an adapter that goes on; by default the settings say it.

    ConfigError where virtual tokens leave no room for a row, or the setting more than there is.
    """
    text_config = model_config.get_text_config()
    limit = positions_of(text_config) or DEFAULT_MAX_LENGTH
    if virtual is None:
        virtual = config.prefix.virtual_tokens if config.method in VIRTUAL else 0
    room = limit - virtual
    if virtual and room < MIN_LENGTH:
        raise ConfigError(
            f"prefix.virtual_tokens: {virtual} leave {max(0, room)} of the {limit} positions of "
            f"the base for a row; give at most {max(1, limit // 2)}"
        )
    asked = config.training.max_length
    if asked is not None and asked > room:
        taken = f" ({virtual} of {limit} are taken by virtual tokens)" if virtual else ""
        raise ConfigError(
            f"training.max_length: {asked} is more than the {room} positions of the base{taken}; "
            "give at most that"
        )
    return int(asked or min(room, DEFAULT_MAX_LENGTH))


def id_of_base(config: TuningConfig, folder: Path) -> str:
    """What `variant.json` calls the base: its name, or its path seen from the variant."""
    if not Path(config.base).expanduser().is_dir() or folder != Path(config.base).expanduser():
        return config.base
    return os.path.relpath(folder.resolve(), config.folder.resolve())
