"""Sorts base and variants into what an engine with plain LoRA serves, and what it leaves out, why.

Such an engine holds one base with low-rank adapters over it, takes tokenizer and chat template
from the base, and runs each whole checkpoint in a process of its own. Knows variant folders.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from serving.adapters.peft_reader import read_adapter, read_config
from serving.errors import ServingError
from serving.models.names import check_name
from serving.models.tokenizers import TokenizerCache
from tuning.variant import Variant, VariantError, read_variant, stop_ids

MOST_RANK = 512
"""The widest LoRA that vLLM has room for."""
MERGE = "merge it by 'arena models merge {name}', and deploy the checkpoint that this makes"
BESIDE = "serve it by 'arena serve' beside"
REASONS = {
    "dora": f"is DoRA, which these engines do not apply; {MERGE}",
    "ia3": f"is IA3, which these engines do not apply; {MERGE}",
    "prefix": f"is a prefix, which these engines do not apply; {BESIDE}",
    "prompt": f"is a prompt variant, which these engines do not apply; {BESIDE}",
    "reward": f"is a reward model, which scores and writes no text; {BESIDE}",
}


@dataclass(frozen=True)
class PlacedModel:
    """A model that the engine serves: its name here, and all that has to be said of it."""

    name: str
    variant: Variant
    template: str | None
    stop_ids: tuple[int, ...]
    rank: int = 0

    @property
    def folder(self) -> Path:
        """Where its files lie now."""
        return self.variant.folder


@dataclass(frozen=True)
class Placement:
    """A base with adapters over it, whole checkpoints, and why the others are left out."""

    base: PlacedModel
    adapters: tuple[PlacedModel, ...]
    checkpoints: tuple[PlacedModel, ...]
    left_out: dict[str, str]

    @property
    def models(self) -> tuple[PlacedModel, ...]:
        """All that are served, the base first."""
        return (self.base, *self.adapters, *self.checkpoints)

    @property
    def template(self) -> str | None:
        """The chat template of base and adapters together."""
        return next((one.template for one in self.adapters), self.base.template)

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """All tokens that end an answer of the base or of an adapter, in ascending order."""
        models = (self.base, *self.adapters)
        return tuple(sorted({token for model in models for token in model.stop_ids}))

    @property
    def max_rank(self) -> int:
        """The widest adapter's rank; 0 without adapters."""
        return max((one.rank for one in self.adapters), default=0)


def place(
    base: tuple[str, Path], models: Sequence[tuple[str, Path]], *, one_template: bool = True
) -> Placement:
    """What an engine can serve of `base` and `models`, each a name with its folder.

    With `one_template` adapters need the base's chat template or, where it has none, one in
    common: the most frequent one is taken.
    ServingError or VariantError when the base itself cannot be read.
    """
    tokenizers = TokenizerCache()
    root = _placed(base[0], read_variant(base[1]), tokenizers)
    if root.variant.is_adapter or root.variant.kind == "reward":
        raise ServingError(
            f"base {base[0]!r}: is of kind {root.variant.kind}; give a whole checkpoint"
        )
    adapters: list[PlacedModel] = []
    checkpoints: list[PlacedModel] = []
    left_out: dict[str, str] = {}
    for name, folder in models:
        try:
            model = place_one(root, name, folder, tokenizers)
        except (ServingError, VariantError) as error:
            left_out[name] = str(error)
            continue
        (adapters if model.variant.is_adapter else checkpoints).append(model)
    if one_template:
        common = root.template or _most_frequent(adapters)
        for model in [one for one in adapters if one.template != common]:
            adapters.remove(model)
            left_out[model.name] = (
                f"has another chat template than {'the base' if root.template else 'the others'}, "
                f"and a process has one template; {MERGE.format(name=model.name)}"
            )
    return Placement(root, tuple(adapters), tuple(checkpoints), left_out)


def _most_frequent(adapters: Sequence[PlacedModel]) -> str | None:
    """The chat template that most of them have; of two as frequent the first one's."""
    counts = Counter(model.template for model in adapters).most_common(1)
    return counts[0][0] if counts else None


def place_one(
    base: PlacedModel, name: str, folder: Path, tokenizers: TokenizerCache
) -> PlacedModel:
    """The model in `folder` beside `base`; ServingError or VariantError says why it cannot be."""
    check_name(name)
    variant = read_variant(folder)
    if variant.kind in REASONS:
        raise ServingError(REASONS[variant.kind].format(name=name))
    if not variant.is_adapter:
        return _placed(name, variant, tokenizers)
    _require_base(base, variant)
    rank = plain_rank(folder, name)
    return _placed(name, variant, tokenizers, base.folder, rank)


def plain_rank(folder: Path, name: str) -> int:
    """The rank of a LoRA adapter that is the same, with the same scale, in all its layers.

    ServingError says what other engines would leave out in silence, or refuse.
    """
    config = read_config(folder)
    for key in ("rank_pattern", "alpha_pattern"):
        if config.get(key):
            raise ServingError(
                f"has a {key}, which not every version of these engines reads; {_merge(name)}"
            )
    rank = read_adapter(folder, name).rank
    if rank > MOST_RANK:
        raise ServingError(
            f"has rank {rank}, and vLLM has room for {MOST_RANK} at most; {_merge(name)}"
        )
    return rank


def _merge(name: str) -> str:
    return MERGE.format(name=name)


def _require_base(base: PlacedModel, variant: Variant) -> None:
    """ServingError for an adapter of another base; a foreign one has to name the base."""
    if variant.base is not None:
        if variant.base.sha256 != base.variant.weights_sha256:
            raise ServingError(
                f"was tuned from {variant.base.id!r} (weights {variant.base.sha256[:12]}), and the "
                f"base here is {base.name!r} (weights {base.variant.weights_sha256[:12]}); deploy "
                "it with --base of its own"
            )
        return
    origin = str(read_config(variant.folder).get("base_model_name_or_path") or "")
    if origin != base.name and not (origin and Path(origin).resolve() == base.folder.resolve()):
        raise ServingError(
            f"names {origin!r} as its base, and the base here is {base.name!r}; deploy it with "
            "--base of its own"
        )


def _placed(
    name: str,
    variant: Variant,
    tokenizers: TokenizerCache,
    base_folder: Path | None = None,
    rank: int = 0,
) -> PlacedModel:
    tokenizer = tokenizers.load(variant.folder)
    folders = [variant.folder, *([base_folder] if base_folder else [])]
    template = tokenizer.chat_template if isinstance(tokenizer.chat_template, str) else None
    return PlacedModel(name, variant, template, stop_ids(tokenizer, *folders), rank)
