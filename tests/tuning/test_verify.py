"""What `arena models verify` sees in the tensors of each kind, sealed by whoever changed them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tuning_fixtures import make_base, rows, write_rows

from tuning import TuningConfig, tune
from tuning.config import LoraOptions, PrefixOptions, TrainingOptions
from tuning.variant import Variant, VariantError, read_variant
from tuning.variant.manifest import seal_variant
from tuning.variant.verify import verify_variant

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Position ids are not supported:UserWarning"),
]
Tensors = dict[str, torch.Tensor]
UP, DOWN = "model.layers.1.mlp.up_proj", "model.layers.1.mlp.down_proj"


def without(*parts: str) -> Callable[[Tensors], Tensors]:
    """Drop the tensors whose name has one of the parts."""
    return lambda tensors: {
        name: tensor for name, tensor in tensors.items() if not any(part in name for part in parts)
    }


def filled(value: float, part: str = "") -> Callable[[Tensors], Tensors]:
    """Give the tensors with `part` in their name one value."""
    return lambda tensors: {
        name: torch.full_like(tensor, value) if part in name else tensor
        for name, tensor in tensors.items()
    }


def narrowed(tensors: Tensors) -> Tensors:
    """Cut the last column off every tensor."""
    return {name: tensor[..., :-1].contiguous() for name, tensor in tensors.items()}


def added(tensors: Tensors) -> Tensors:
    """A tensor that belongs nowhere."""
    return {**tensors, "other": torch.ones(1)}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base and a variant of each kind."""
    home = tmp_path_factory.mktemp("home")
    make_base(home / "base")
    data = write_rows(home / "rows.jsonl", rows())
    for kind in ("full", "lora", "dora", "prefix", "prompt", "ia3"):
        config = TuningConfig(
            base=str(home / "base"),
            data=(str(data),),
            name=kind,
            method="lora" if kind == "dora" else kind,
            home=home,
            lora=LoraOptions(rank=2, dora=kind == "dora"),
            prefix=PrefixOptions(virtual_tokens=3),
            training=TrainingOptions(max_steps=1, batch_size=8, learning_rate=1e-2),
        )
        tune(config)
    return home


def changed(home: Path, kind: str, tmp_path: Path, change: Callable[[Tensors], Tensors]) -> Variant:
    """A copy of a variant with other tensors and fitting hashes."""
    import shutil

    folder = tmp_path / kind
    shutil.copytree(home / "models" / kind, folder)
    (weights,) = folder.glob("*.safetensors")
    save_file(change(load_file(weights)), weights, metadata={"format": "pt"})
    made = read_variant(home / "models" / kind)
    return seal_variant(folder, name=kind, kind=made.kind, base=made.base)


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("full", filled(float("nan"), "norm"), r"norm.* holds NaN or infinity"),
        ("full", without(UP), rf"lacks {UP}\.weight among its tensors"),
        ("full", added, "has unexpected other among"),
        ("full", narrowed, r"has shape .* in the base"),
        ("lora", without(UP), f"lacks all of {UP}"),
        ("lora", without(f"{UP}.lora_B"), "no lora_B of its rank"),
        ("lora", without(f"{UP}.lora_A"), f"lacks A of {UP}"),
        ("lora", narrowed, "fits no layer"),
        ("dora", without(f"{UP}.lora_magnitude"), f"lacks magnitude_vector of {UP}"),
        ("dora", filled(0, "lora_B"), "changes nothing of its base"),
        ("prefix", filled(float("inf")), "holds NaN or infinity"),
        ("prefix", filled(0), "changes nothing of its base"),
        ("prefix", narrowed, r"has shape \(3, 63\), expected \(3, 64\)"),
        ("prefix", without("prompt"), "lacks prompt_embeddings"),
        ("prompt", narrowed, r"has shape \(3, 31\), expected \(3, 32\)"),
        ("prompt", added, "has unexpected other among"),
        ("ia3", filled(1), "changes nothing of its base"),
        ("ia3", without(DOWN), f"lacks all of {DOWN}"),
        ("ia3", narrowed, "fits no layer"),
    ],
)
def test_what_is_wrong_is_named(
    home: Path, tmp_path: Path, kind: str, change: Callable[[Tensors], Tensors], message: str
) -> None:
    made = changed(home, kind, tmp_path, change)
    with pytest.raises(VariantError, match=message):
        verify_variant(made.folder, home / "base")


def test_a_full_variant_that_is_its_base_is_refused(home: Path, tmp_path: Path) -> None:
    same = load_file(home / "base" / "model.safetensors")
    made = changed(home, "full", tmp_path, lambda _: same)
    with pytest.raises(VariantError, match="changes nothing of its base"):
        verify_variant(made.folder, home / "base")


@pytest.mark.parametrize("kind", ["full", "lora", "dora", "prefix", "prompt", "ia3"])
def test_good_ones_pass_and_another_base_is_refused(home: Path, tmp_path: Path, kind: str) -> None:
    assert verify_variant(home / "models" / kind, home / "base").kind == kind
    other = make_base(tmp_path / "other")
    weights = load_file(other / "model.safetensors")
    weights["model.norm.weight"][0] += 1
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(VariantError, match=r"was made from weights .* give the base it was made"):
        verify_variant(home / "models" / kind, other)
