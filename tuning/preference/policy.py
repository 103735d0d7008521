"""A policy that a run changes: how it is built, what it starts from, its log-probabilities.

The start is the reference of every objective here: what the model is before the first step. Knows
models and ids; knows neither losses nor votes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tuning.config import TuningConfig
from tuning.data.encode import IGNORED, TokenRow
from tuning.data.preferences.encode import Ids
from tuning.errors import ConfigError
from tuning.fused.model import Lean, make_lean
from tuning.methods.adapters import build_model
from tuning.methods.going_on import VIRTUAL, continue_adapter
from tuning.preference.batches import Group, collate_completions, completion_log_probs
from tuning.training.distributed import is_main_process, is_sharded, wait_for_all
from tuning.training.setup import load_base
from tuning.training.steps import Batch
from tuning.training.train import run_path

REFERENCE_FILE = "reference.safetensors"
REFERENCE_BATCH = 32
SAME = 1e-3
"""Largest difference of a completion's log-probability that another order of sums makes."""


def check_policy(config: TuningConfig, *, starts_from_adapter: bool) -> None:
    """ConfigError for settings with which the first step would not begin at the start."""
    if config.method in VIRTUAL and not starts_from_adapter:
        raise ConfigError(
            f"method {config.method!r}: new virtual tokens change the model before the first step, "
            f"so it would not begin as its reference; give a {config.method} variant as --base, or "
            "--method lora or full"
        )
    if config.lora.dropout and config.method in ("lora", "qlora"):
        raise ConfigError(
            f"lora.dropout: {config.lora.dropout:g} would part the policy from its reference by "
            f"chance at every step; leave it out with --objective {config.objective}"
        )


def build_policy(
    config: TuningConfig,
    folder: Path,
    adapter: Path | None,
    rows: Sequence[TokenRow],
    precision: str,
) -> tuple[Any, torch.dtype]:
    """The model to train, equal to its start, and the dtype its base is stored in.

    The start is the checkpoint in `folder`, or the adapter in `adapter` on it, which then goes on.
    No part of it drops out at random.
    """
    base, stored = load_base(config, folder, precision, max(map(len, rows)))
    if adapter is None:
        model = build_model(config, base, rows, is_tried=not is_sharded())
    else:
        model = continue_adapter(base, adapter)
    switch_dropout_off(model)
    return model, stored


def switch_dropout_off(model: Any) -> None:
    """Dropout would make log-probabilities differ from the reference's for no reason."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout = 0.0


def as_token_rows(groups: Sequence[Group]) -> list[TokenRow]:
    """Prompts with their first completions as the rows that models are built for."""
    rows = []
    for index, (prompt, completions) in enumerate(groups):
        ids = np.concatenate([prompt, completions[0]]).astype(np.int32)
        labels = ids.copy()
        labels[: len(prompt)] = IGNORED
        rows.append(TokenRow(ids, labels, index))
    return rows


class Policy:
    """The model of a run as a source of log-probabilities, in the fastest layout that is exact."""

    def __init__(
        self,
        config: TuningConfig,
        model: Any,
        examples: Sequence[Group],
        pad_id: int,
        precision: str,
        say: Callable[[str], None],
    ) -> None:
        self.pad_id = pad_id
        self.half = precision == "bf16"
        prompted = config.method == "prompt"
        self.virtual_tokens = model.active_peft_config.num_virtual_tokens if prompted else 0
        few = [(prompt, list(parts)) for prompt, parts in examples[:2]]
        self.lean = self._lean(config, model, few, say)
        self.shares_prompts = self._can_share(config, model, few)

    def collate(self, groups: Sequence[Group]) -> Batch:
        """Tensors of all completions; their prompts once where that changes nothing."""
        return collate_completions(groups, self.pad_id, shared=self.shares_prompts)

    def log_probs(self, model: Any, batch: Batch, *, temperature: float = 1.0) -> Tensor:
        """Of each completion of a batch, shape (completions,)."""
        return completion_log_probs(
            model,
            batch,
            virtual_tokens=self.virtual_tokens,
            lean=self.lean,
            temperature=temperature,
        )

    def reference(
        self,
        config: TuningConfig,
        made_of: Sequence[str],
        model: Any,
        parts: Mapping[str, Sequence[Group]],
    ) -> dict[str, Tensor]:
        """What the start gives the completions of each part; a resumed run reads it."""
        return stored_reference(
            config,
            made_of,
            lambda: {name: self.at_start(model, groups) for name, groups in parts.items()},
        )

    def at_start(self, model: Any, groups: Sequence[Group]) -> Tensor:
        """Log-probabilities of all completions of `groups` in order, without gradients."""
        order = sorted(range(len(groups)), key=lambda at: _size(groups[at]))
        found: dict[int, Tensor] = {}
        was_training = model.training
        model.eval()
        try:
            with torch.no_grad(), self.autocast(model):
                for start in range(0, len(order), REFERENCE_BATCH):
                    chosen = order[start : start + REFERENCE_BATCH]
                    batch = self.collate([groups[at] for at in chosen])
                    moved = {name: part.to(model.device) for name, part in batch.items()}
                    values = self.log_probs(model, moved).cpu()
                    counts = [len(groups[at][1]) for at in chosen]
                    found.update(zip(chosen, torch.split(values, counts), strict=True))
        finally:
            model.train(was_training)
        return torch.cat([found[at] for at in range(len(groups))]) if groups else torch.zeros(0)

    def autocast(self, model: Any) -> Any:
        """The precision of the run's steps."""
        return torch.autocast(model.device.type, torch.bfloat16, enabled=self.half)

    def _lean(
        self, config: TuningConfig, model: Any, few: Sequence[Group], say: Callable[[str], None]
    ) -> Lean | None:
        if not config.training.lean or torch.cuda.is_available() or is_sharded():
            return None
        batch = collate_completions(few, self.pad_id, shared=False)

        def loss(lean: Lean | None) -> Tensor:
            return -completion_log_probs(
                model, batch, virtual_tokens=self.virtual_tokens, lean=lean
            ).sum()

        was_training = model.training
        model.eval()
        try:
            return make_lean(
                model, loss, lambda why: say(f"training.lean: the plain layers are kept ({why})")
            )
        finally:
            model.train(was_training)

    def _can_share(self, config: TuningConfig, model: Any, few: Sequence[Group]) -> bool:
        """Whether prompts that lie in a batch once give the same log-probabilities."""
        if self.lean is None or config.method in VIRTUAL or not self.lean.keeps_branches(model):
            return False
        if all(len(parts) < 2 for _, parts in few):
            return False
        was_training = model.training
        model.eval()
        try:
            with torch.no_grad():
                apart, together = (
                    completion_log_probs(
                        model,
                        collate_completions(few, self.pad_id, shared=shared),
                        lean=self.lean,
                    )
                    for shared in (False, True)
                )
        finally:
            model.train(was_training)
        return bool(((apart - together).abs() <= SAME * (1 + apart.abs())).all())


def _size(group: Group) -> int:
    prompt, parts = group
    return len(prompt) + sum(map(len, parts))


def stored_reference(
    config: TuningConfig, identity: Sequence[str], compute: Callable[[], dict[str, Tensor]]
) -> dict[str, Tensor]:
    """What the start gives the rows of a run, computed once: a resumed run reads it.

    It lies in the run's folder, with the fingerprint of what it was made of, which is `identity`.
    """
    path = run_path(config) / REFERENCE_FILE
    made_of = hashlib.sha256(json.dumps(list(identity)).encode()).hexdigest()
    if is_main_process():
        found = _read_reference(path, made_of)
        if found is not None:
            return found
    found = compute()
    if is_main_process():
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{path.name}.tmp")
        save_file({**found, "made_of": _as_bytes(made_of)}, temporary)
        temporary.replace(path)
    wait_for_all()
    return found


def _read_reference(path: Path, made_of: str) -> dict[str, Tensor] | None:
    """None where there is no file, a torn one, or one of another run."""
    try:
        found = load_file(path)
    except (OSError, SafetensorError):
        return None
    same = "made_of" in found and torch.equal(found.pop("made_of"), _as_bytes(made_of))
    return found if same else None


def _as_bytes(text: str) -> Tensor:
    return torch.tensor(list(text.encode()), dtype=torch.uint8)


class StartValues:
    """The trained parameters as they were before the first step, to be looked up later."""

    def __init__(self, model: Any) -> None:
        self._values = {name: part.detach().clone() for name, part in _trained(model).items()}

    @contextmanager
    def back(self, model: Any) -> Iterator[None]:
        """Within, the model is what it was at the start."""
        parameters = _trained(model)
        now = {name: part.data for name, part in parameters.items()}
        try:
            for name, part in parameters.items():
                part.data = self._values[name]
            yield
        finally:
            for name, part in parameters.items():
                part.data = now[name]


def _trained(model: Any) -> dict[str, nn.Parameter]:
    return {name: part for name, part in model.named_parameters() if part.requires_grad}


def group_of(prompt: Ids, *completions: Ids) -> Group:
    """Ids as the layout wants them."""
    return prompt.tolist(), [completion.tolist() for completion in completions]
