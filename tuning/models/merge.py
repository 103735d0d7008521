"""Merges an adapter into its base, and refuses to when the merged model answers differently.

Knows PEFT's merge and how to compare two models; the folder is written by `tuning.training.save`'s
helpers and sealed as any other.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tuning.config import check_folder_name
from tuning.data.template import render_prompts, tokenize
from tuning.errors import TuningError
from tuning.models.generate import greedy_answers
from tuning.models.loading import Loaded, find_base, load_variant
from tuning.models.resolve import refuse_packaged
from tuning.models.tokenizers import WRITE_ERRORS, save_tokenizer
from tuning.quiet import known_warnings_hidden
from tuning.variant.checkpoint import read_model_config
from tuning.variant.folder import HISTORY_FILE, Base, Variant, read_variant
from tuning.variant.manifest import seal_variant, whole_folder

MERGEABLE = ("lora", "dora", "ia3")
# Largest difference of logits, relative to their largest size, that fp32 rounding can make.
TOLERANCE = 1e-4
PROBES = (
    "What is the capital of France?",
    "Write a short story about a dog.",
    "Add 12 and 7.",
    "List three animals.",
    "Is a rose a flower? Answer with one word.",
)


class MergeError(TuningError):
    """An adapter that cannot be merged, or a merge that changes answers."""


@dataclass(frozen=True)
class Parity:
    """How far the merged model is from adapter and base, on the same prompts.

    `fp32` and `saved` are the largest differences of logits relative to the largest logit, before
    and after the merged weights are cast to the dtype they are saved in.
    """

    fp32: float
    saved: float
    dtype: str
    same_greedy_answers: int
    num_prompts: int


def merge_variant(name: str, home: Path, new_name: str, base: str | None = None) -> Variant:
    """Write the full checkpoint `new_name` that answers as the adapter `name` on its base does.

    MergeError when the fp32 logits differ by more than `TOLERANCE`, or for virtual tokens, which
    no weight of the base can take up.
    """
    check_folder_name(new_name)
    refuse_packaged(new_name)
    target = Path(home) / "models" / new_name
    if os.path.lexists(target):
        raise MergeError(f"{target}: exists; choose another --as name")
    with known_warnings_hidden():
        loaded = load_variant(name, home, base)
        if loaded.variant.kind not in MERGEABLE:
            raise MergeError(
                f"{name}: is of kind {loaded.variant.kind}; only {', '.join(MERGEABLE)} adapters "
                "can be merged into weights"
            )
        base_folder = find_base(loaded.variant, home, base)
        model, parity = merge_loaded(loaded, _stored_dtype(base_folder))
        return _write(loaded, model, parity, base_folder, target)


def merge_loaded(loaded: Loaded, dtype: torch.dtype) -> tuple[Any, Parity]:
    """The merged model in `dtype`, and how it compares; `loaded` is used up by it."""
    prompts = render_prompts(
        loaded.tokenizer, [[{"role": "user", "content": probe}] for probe in PROBES]
    )
    ids = tokenize(loaded.tokenizer, prompts)
    before = _logits(loaded.model, ids)
    settings: dict[str, Any] = {"max_new_tokens": 24, "stop_ids": loaded.stop_ids}
    answers = greedy_answers(loaded.model, loaded.tokenizer, prompts, **settings)
    model = loaded.model.merge_and_unload(safe_merge=True).eval()
    fp32 = _difference(before, _logits(model, ids))
    if not fp32 <= TOLERANCE:
        raise MergeError(
            f"{loaded.variant.name}: the merged model's logits differ by {fp32:.2g} (relative; "
            f"{TOLERANCE:g} is allowed); keep the adapter on its base"
        )
    model.to(dtype)
    merged = greedy_answers(model, loaded.tokenizer, prompts, **settings)
    return model, Parity(
        fp32=fp32,
        saved=_difference(before, _logits(model, ids)),
        dtype=str(dtype).removeprefix("torch."),
        same_greedy_answers=sum(a == b for a, b in zip(answers, merged, strict=True)),
        num_prompts=len(prompts),
    )


@torch.no_grad()
def _logits(model: Any, ids: list[list[int]]) -> list[torch.Tensor]:
    return [model(input_ids=torch.tensor([item])).logits[0].float() for item in ids]


def _difference(left: list[torch.Tensor], right: list[torch.Tensor]) -> float:
    largest = max(float(item.abs().max()) for item in left)
    return max(float((a - b).abs().max()) for a, b in zip(left, right, strict=True)) / largest


def _stored_dtype(folder: Path) -> torch.dtype:
    dtype = read_model_config(folder).dtype
    return dtype if isinstance(dtype, torch.dtype) else torch.float32


def _write(loaded: Loaded, model: Any, parity: Parity, base_folder: Path, target: Path) -> Variant:
    try:
        with whole_folder(target) as folder:
            _fill(folder, loaded, model, parity, base_folder, target.name)
    except WRITE_ERRORS as error:
        raise MergeError(
            f"{target}: could not be written ({' '.join(str(error).split())}); make room and "
            "repeat the command"
        ) from error
    return read_variant(target)


def _fill(
    folder: Path, loaded: Loaded, model: Any, parity: Parity, base_folder: Path, name: str
) -> None:
    parent = loaded.variant
    model.generation_config.eos_token_id = list(loaded.stop_ids)
    model.generation_config.pad_token_id = loaded.tokenizer.pad_token_id
    model.save_pretrained(folder)
    save_tokenizer(loaded.tokenizer, folder)
    for kept in (HISTORY_FILE, "loss.png"):
        if (parent.folder / kept).is_file():
            shutil.copyfile(parent.folder / kept, folder / kept)
    seal_variant(
        folder,
        name=name,
        kind="full",
        base=parent.base or Base(str(base_folder), None, read_variant(base_folder).weights_sha256),
        run={**parent.run, "merged": {"adapter": parent.name, **vars(parity)}},
        parent=parent.name,
    )
    (folder / "README.md").write_text(_card(name, parent, parity), encoding="utf-8")


def _card(name: str, parent: Variant, parity: Parity) -> str:
    base = parent.base.id if parent.base else "its base"
    return (
        f"---\nbase_model: {base}\nlibrary_name: transformers\npipeline_tag: text-generation\n"
        f"tags: [instruction-tuned, merged]\n---\n\n# {name}\n\n"
        f"The {parent.kind} adapter `{parent.name}` merged into `{base}`.\n\n"
        f"On {parity.num_prompts} prompts its logits differ from adapter and base by at most "
        f"{parity.fp32:.1e} of the largest logit in fp32, and by {parity.saved:.1e} as saved "
        f"({parity.dtype}); {parity.same_greedy_answers} of {parity.num_prompts} greedy answers "
        "are the same.\n"
    )
