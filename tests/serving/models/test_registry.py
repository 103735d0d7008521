"""Names, fingerprints and refusals of the registry, on sealed tiny variants."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import serving_models as tiny
import torch
from safetensors.torch import load_file, save_file
from serving_fixtures import tiny_config

from serving.adapters.peft_reader import read_adapter
from serving.config import ServeConfig, name_models
from serving.engine.compiled_runner import may_compile
from serving.errors import ModelLoadError, ServingError, UnknownModelError
from serving.models import loading
from serving.models.loading import pick_dtype
from serving.models.registry import Registry
from tuning.variant import Base, VariantError, weights_sha256
from tuning.variant.manifest import seal_variant


@pytest.fixture
def registry(tiny_home: Path) -> Iterator[Registry]:
    with Registry(tiny_config(tiny_home)) as running:
        yield running


def copy_lora(tiny_home: Path, target: Path) -> Path:
    """An unsealed copy of the LoRA folder, to be spoilt."""
    shutil.copytree(tiny_home / "lora", target)
    (target / "variant.json").unlink()
    return target


def change(folder: Path, **tensors: torch.Tensor | None) -> None:
    """Change tensors of an adapter file; the first key that contains the name is meant."""
    path = folder / "adapter_model.safetensors"
    found = load_file(path)
    for name, tensor in tensors.items():
        key = next((k for k in found if name in k), name)
        if tensor is None:
            del found[key]
        else:
            found[key] = tensor
    save_file(found, path)


def test_names_resolve_strictly(registry: Registry) -> None:
    assert registry.names == ["base", "full", "lora", "prefix"]
    for alias in (None, "", "tgi", "dummy", "base"):
        assert registry.resolve(alias) is registry.base
    assert registry.resolve("lora").parent == "base"
    assert registry.resolve("lora").engine is registry.base.engine
    assert registry.resolve("full").engine is not registry.base.engine
    with pytest.raises(UnknownModelError, match="served are: base, full, lora, prefix"):
        registry.resolve("LORA")


def test_an_adapter_goes_to_the_base_with_its_fingerprint(
    registry: Registry, tiny_home: Path, tmp_path: Path
) -> None:
    folder = copy_lora(tiny_home, tmp_path / "on-full")
    origin = Base("elsewhere", None, weights_sha256(tiny_home / "full"))
    seal_variant(folder, name="on-full", kind="lora", base=origin)
    model = registry.load("on-full", folder)
    assert model.engine is registry.resolve("full").engine
    assert model.parent == "full"
    stranger = copy_lora(tiny_home, tmp_path / "stranger")
    seal_variant(stranger, name="stranger", kind="lora", base=Base("gone", None, "0" * 64))
    with pytest.raises(ModelLoadError, match=r"tuned from 'gone' .* not loaded; start .* --base"):
        registry.load("stranger", stranger)


def test_an_adapter_waits_for_its_base(tiny_home: Path, tmp_path: Path) -> None:
    """One under home is told of as refused meanwhile, one that only joins its base is not."""
    origin = Base("later", None, weights_sha256(tiny_home / "full"))
    for name in ("early", "joins"):
        folder = copy_lora(tiny_home, tmp_path / name)
        seal_variant(folder, name=name, kind="lora", base=origin)
    config = ServeConfig(
        base=tiny_home / "base",
        base_name="base",
        models=(("early", tmp_path / "early"),),
        joining=(("joins", tmp_path / "joins"),),
    )
    with Registry(config) as registry:
        assert (registry.names, list(registry.refused)) == (["base"], ["early"])
        registry.offer("later", tiny_home / "full")
        assert registry.names == ["base", "later", "joins", "early"]
        assert not registry.refused
        assert {registry.resolve(name).parent for name in ("early", "joins")} == {"later"}


def test_an_adapter_made_elsewhere_goes_to_the_base_that_peft_noted(
    registry: Registry, tiny_home: Path, tmp_path: Path
) -> None:
    for name, note, parent in (
        ("by-folder", str(tiny_home / "full"), "full"),
        ("by-name", "full", "full"),
        ("unknown", "somebody/else", "base"),
    ):
        path = copy_lora(tiny_home, tmp_path / name) / "adapter_config.json"
        config = json.loads(path.read_text())
        path.write_text(json.dumps({**config, "base_model_name_or_path": note}))
        assert registry.load(name, tmp_path / name).parent == parent


def test_what_cannot_be_applied_is_refused_by_name(
    registry: Registry, tiny_home: Path, tmp_path: Path
) -> None:
    def spoilt(name: str) -> Path:
        return copy_lora(tiny_home, tmp_path / name)

    change(spoilt("zero"), **{
        k: torch.zeros_like(v)
        for k, v in load_file(tmp_path / "zero" / "adapter_model.safetensors").items()
        if "lora_B" in k
    })  # fmt: skip
    change(spoilt("nan"), lora_A=torch.full((4, 32), float("nan")))
    change(spoilt("extra"), **{"base_model.model.lm_head.modules_to_save": torch.ones(2)})
    change(spoilt("wide"), **{"layers.0.self_attn.q_proj.lora_A": torch.ones(4, 31)})
    change(spoilt("half"), **{"layers.0.self_attn.q_proj.lora_A": None})
    (spoilt("torn") / "adapter_model.safetensors").write_bytes(b"\x00" * 40)
    saved = spoilt("saved") / "adapter_config.json"
    saved.write_text(json.dumps({**json.loads(saved.read_text()), "modules_to_save": ["lm_head"]}))
    reasons = {
        "zero": "changes nothing",
        "nan": "not finite",
        "extra": "is not applied",
        "wide": "does not fit a layer of shape",
        "half": "lacks a lora_A / lora_B pair",
        "torn": "not readable as safetensors",
        "saved": "modules_to_save",
    }
    for name, reason in reasons.items():
        with pytest.raises((ServingError, VariantError), match=reason):
            registry.load(name, tmp_path / name)
    assert registry.names == ["base", "full", "lora", "prefix"]
    assert {a.name.partition("#")[0] for a in registry.base.engine.adapters.adapters} == {
        "lora",
        "prefix",
    }


def test_names_that_are_taken_or_mean_the_base(registry: Registry, tiny_home: Path) -> None:
    for name, reason in (("tgi", "means the base"), ("base", "means the base"),
                         ("lora", "already served")):  # fmt: skip
        with pytest.raises(ServingError, match=reason):
            registry.load(name, tiny_home / "lora")
    with pytest.raises(ServingError, match="stays loaded"):
        registry.unload("base")


def test_unloading_frees_the_engine_and_the_stack(registry: Registry) -> None:
    registry.unload("full")
    assert list(registry.engines) == ["base"]
    registry.unload("lora")
    assert [a.name.partition("#")[0] for a in registry.base.engine.adapters.adapters] == ["prefix"]
    assert registry.base.engine.stacks.slots == {}


def test_a_prefix_of_another_shape_is_refused(
    registry: Registry, tiny_home: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "narrow"
    shutil.copytree(tiny_home / "prefix", folder)
    (folder / "variant.json").unlink()
    change(folder, prompt_embeddings=torch.ones(5, 8))
    with pytest.raises(ModelLoadError, match="does not fit a base that needs 64"):
        registry.load("narrow", folder)


def test_names_of_models_to_serve(tmp_path: Path) -> None:
    base, own, other = (tmp_path / name for name in ("starter", "starter-lora", "x/mine"))
    for folder in (base, own, other):
        folder.mkdir(parents=True)
    packaged = {"starter": base, "starter-lora": tmp_path / "packaged"}
    named = name_models(base, packaged=packaged, variants=[own], given=[("a/b", other)])
    assert named == (("starter-lora", own), ("a/b", other))
    with pytest.raises(ServingError, match="model name 'mine' means"):
        name_models(base, packaged={"mine": own}, variants=[], given=[(str(other), other)])


def test_settings_that_make_no_sense(tmp_path: Path) -> None:
    with pytest.raises(ServingError, match="port 70000 is none"):
        ServeConfig(base=tmp_path, base_name="b", port=70000)
    with pytest.raises(ServingError, match="'m' is given twice"):
        ServeConfig(base=tmp_path, base_name="b", models=(("m", tmp_path), ("m", tmp_path)))


@pytest.mark.parametrize(
    ("is_compiled", "bf16_time", "want"),
    [
        (False, 0.9, torch.bfloat16),
        (False, 1.1, torch.float32),
        (True, 1.7, torch.bfloat16),  # Torch's prompts are slower, the compiled steps faster.
        (True, 9.0, torch.float32),  # No instructions for bf16: prompts would take for ever.
    ],
)
def test_the_number_format_is_the_faster_one(
    monkeypatch: pytest.MonkeyPatch, is_compiled: bool, bf16_time: float, want: torch.dtype
) -> None:
    times = {torch.float32: 1.0, torch.bfloat16: bf16_time}
    monkeypatch.setattr(loading, "time_product", lambda dtype, rows: times[dtype])

    def pick(wanted: str, device: str, size: int) -> torch.dtype:
        return pick_dtype(wanted, torch.device(device), size, is_compiled=is_compiled)

    assert pick("auto", "cpu", 2**30) is want
    assert pick("auto", "cpu", 20 * 2**20) is torch.float32  # It stays in the cache.
    assert pick("auto", "cuda", 2**30) is torch.bfloat16
    assert pick("bfloat16", "cpu", 1) is torch.bfloat16


def test_which_models_are_expected_to_run_compiled() -> None:
    for architecture, expected in (("llama", True), ("qwen3", True), ("gpt2", False)):
        config = tiny.make_model(architecture).config
        config.architectures = [type(tiny.make_model(architecture)).__name__]
        assert may_compile(config) is expected
    assert loading.time_product(torch.float32, 2) > 0


def test_rank_patterns_and_scales_are_read(tiny_home: Path, tmp_path: Path) -> None:
    settings = {
        "r": 2,
        "lora_alpha": 6,
        "rank_pattern": {"q_proj": 4},
        "alpha_pattern": {"v_proj": 10},
        "target_modules": ["q_proj", "v_proj"],
    }
    folder = tiny.save_adapter("llama", tiny_home / "base", tmp_path / "p", "lora", **settings)
    adapter = read_adapter(folder, "p")
    raw = load_file(folder / "adapter_model.safetensors")
    for module, scale, rank in (("q_proj", 6 / 4, 4), ("v_proj", 10 / 2, 2)):
        path = f"model.layers.0.self_attn.{module}"
        delta = adapter.deltas[path]
        assert delta.up is not None
        torch.testing.assert_close(delta.up, raw[f"base_model.model.{path}.lora_B.weight"] * scale)
        assert delta.up.shape[1] == rank
    assert adapter.rank == 4


@pytest.mark.parametrize(
    ("kind", "settings", "reason"),
    [
        ("lora", {"alora_invocation_tokens": [5, 6]}, "alora_invocation_tokens .* activated LoRA"),
        ("lora", {"layer_replication": [[0, 2], [1, 2]]}, "layer_replication .* repeated"),
        ("lora", {"r": 8}, "say rank 8 and the tensors of .* have 4"),
        ("lora", {"rank_pattern": {"q_proj": 2}}, "say rank 2 and the tensors of .*q_proj have 4"),
        ("lora", {"r": None}, "say rank None"),
        ("lora", {"use_qalora": True}, "use_qalora is True: this setting is not applied"),
        ("lora", {"setting_of_next_year": {"a": 1}}, "setting_of_next_year"),
        ("lora", {"init_lora_weights": "loftq"}, "changed the base"),
        ("prefix", {"num_virtual_tokens": 4}, "num_virtual_tokens is 4 and there are 5"),
    ],
)
def test_adapters_that_are_not_plain_are_refused_by_name(
    tiny_home: Path, tmp_path: Path, kind: str, settings: dict[str, object], reason: str
) -> None:
    """Their tensors alone would answer otherwise than PEFT does."""
    folder = tmp_path / kind
    shutil.copytree(tiny_home / kind, folder)
    path = folder / "adapter_config.json"
    read_adapter(folder, "plain")
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))
    with pytest.raises(ModelLoadError, match=reason):
        read_adapter(folder, "odd")


def test_ranks_by_pattern_are_plain(tiny_home: Path, tmp_path: Path) -> None:
    tiny.save_adapter(
        "llama", tiny_home / "base", tmp_path / "a", "lora", rank_pattern={"q_proj": 2}
    )
    assert read_adapter(tmp_path / "a", "a").rank == 4
