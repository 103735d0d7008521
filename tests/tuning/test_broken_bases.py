"""Bases that cannot be what they say: refused in one line that names file and remedy, by all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from tuning_fixtures import make_base

from tuning import TuningConfig, TuningError, tune
from tuning.config import TrainingOptions
from tuning.models.generate import greedy_answers
from tuning.models.loading import load_variant
from tuning.models.merge import merge_variant
from tuning.models.resolve import BaseError
from tuning.variant.checkpoint import check_checkpoint

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:The PEFT config's `base_model_name_or_path`:UserWarning"),
]
Break = Callable[[Path], None]
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


def config(**changes: Any) -> Break:
    """Set entries of config.json; None removes one."""

    def change(folder: Path) -> None:
        path = folder / "config.json"
        content = {**json.loads(path.read_text()), **changes}
        path.write_text(json.dumps({key: v for key, v in content.items() if v is not None}))

    return change


def quantised(method: str | None) -> Break:
    """What bitsandbytes, GPTQ and AWQ leave in config.json."""
    settings = {"bits": 4} if method is None else {"quant_method": method, "bits": 4}
    return config(quantization_config=settings)


def written(name: str, content: bytes) -> Break:
    """Replace one file."""
    return lambda folder: (folder / name).write_bytes(content) and None


def cut(name: str, share: float) -> Break:
    """Keep the first part of one file, as a copy that was cut short does."""

    def change(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: int(len(content) * share)])

    return change


def tensors(change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Break:
    """Rewrite the weights."""

    def rewrite(folder: Path) -> None:
        made = change(load_file(folder / WEIGHTS))
        save_file(made, folder / WEIGHTS, metadata={"format": "pt"})

    return rewrite


def without(part: str) -> Break:
    """Leave out the tensors whose names hold `part`."""
    return tensors(lambda found: {n: t for n, t in found.items() if part not in n})


def sharded(folder: Path) -> None:
    """An index that names a second shard, which was not copied."""
    (folder / WEIGHTS).rename(folder / "model-00001-of-00002.safetensors")
    table = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / INDEX).write_text(json.dumps({"weight_map": table}))


def stored(dtype: torch.dtype) -> Break:
    """Cast the weights, and say nothing of it in config.json."""
    return tensors(lambda found: {name: part.to(dtype) for name, part in found.items()})


NORM = "model.layers.1.input_layernorm.weight"
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 538090408\n"
BROKEN: dict[str, tuple[Break, str]] = {
    "no config": (lambda folder: (folder / "config.json").unlink(), "config.json"),
    "cut config": (cut("config.json", 0.5), r"config\.json: cannot be read as JSON .* restore"),
    "config is a list": (written("config.json", b"[1]"), r"config\.json: not a JSON object"),
    "config is no text": (written("config.json", b"\xff\xfe{"), r"config\.json: cannot be read as"),
    "no model_type": (config(model_type=None), "model_type is None, so its architecture is unk"),
    "model_type is a number": (config(model_type=7), "model_type is 7, so its architecture"),
    "unknown model_type": (config(model_type="llema"), "model_type 'llema' is none that the inst"),
    "remote code": (
        config(model_type="own", auto_map={"AutoModelForCausalLM": "modeling_own.Own"}),
        r"'own', which asks for code of its own \(auto_map\), .* is never run; give a base of",
    ),
    "no language model": (config(model_type="vit"), "model_type 'vit' is no causal language mo"),
    "wrong type": (config(hidden_size="wide"), "does not describe a llama model .*hidden_size"),
    "no heads": (config(num_attention_heads=0), "base .* cannot be loaded|does not describe"),
    "bitsandbytes": (quantised("bitsandbytes"), r"weights are quantised \(bitsandbytes\)"),
    "gptq": (quantised("gptq"), r"weights are quantised \(gptq\), .* give the checkpoint they"),
    "awq": (quantised("awq"), r"weights are quantised \(awq\)"),
    "unnamed quantisation": (quantised(None), r"quantised \(quantization_config is set\)"),
    "cut weights": (cut(WEIGHTS, 0.6), r"no whole safetensors file \(it has .* bytes of"),
    "cut header": (cut(WEIGHTS, 0.0005), "no whole safetensors file .* copy or download it again"),
    "empty weights": (written(WEIGHTS, b""), "no whole safetensors file"),
    "LFS pointer": (written(WEIGHTS, LFS), r"is a Git LFS pointer .* run `git lfs pull`"),
    "a page instead": (written(WEIGHTS, b"<!doctype html><html>" * 9), "no whole safetensors file"),
    "missing shard": (sharded, r"names model-00002-of-00002\.safetensors, which is not there"),
    "broken index": (written(INDEX, b'{"weight_map": 3}'), "weight_map is no table of files"),
    "cut index": (written(INDEX, b'{"weight_map": '), "index.json: cannot be read as JSON"),
    "lacks a tensor": (without(NORM), rf"lacks {NORM}, which would start from random numbers"),
    "lacks a layer": (without("layers.1."), r"lacks model\.layers\.1\.\S+, .* and 6 more, which"),
    "lacks embeddings": (without("embed_tokens"), "lacks .*embed_tokens"),
    "one layer too many": (config(num_hidden_layers=1), r"holds model\.layers\.1\..* has no use"),
    "stray tensor": (
        tensors(lambda found: {**found, "model.extra": torch.ones(2)}),
        r"holds model\.extra, for which the architecture of config\.json has no use",
    ),
    "another shape": (
        tensors(lambda found: {**found, NORM: torch.ones(31)}),
        rf"holds {NORM} \(31,\) for \(32,\) in another shape than config\.json gives",
    ),
    "other width": (config(intermediate_size=48), "in another shape than config.json gives"),
    "integers": (
        stored(torch.int8),
        r"embed_tokens\.weight is stored as I8, which is no whole weight",
    ),
    "bytes of fp8": (
        stored(torch.float8_e4m3fn),
        r"is stored as F8_E4M3, which is no .* give the checkpoint they were made from",
    ),
    "cut tokenizer": (cut("tokenizer.json", 0.5), "its tokenizer cannot be loaded .* tokenizer.js"),
    "no tokenizer": (written("tokenizer.json", b"{}"), "its tokenizer cannot be loaded"),
    "tokenizer is an LFS pointer": (written("tokenizer.json", LFS), "tokenizer cannot be loaded"),
    "broken tokenizer config": (
        written("tokenizer_config.json", b"{"),
        "tokenizer cannot be loaded|cannot be read as JSON",
    ),
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The base that each case breaks in one way."""
    return make_base(tmp_path_factory.mktemp("sound") / "base")


def broken_copy(sound: Path, tmp_path: Path, case: str) -> Path:
    """The base with one thing wrong."""
    folder = tmp_path / "base"
    shutil.copytree(sound, folder)
    BROKEN[case][0](folder)
    return folder


def config_for(base: Path, data: Path, home: Path, name: str = "v") -> TuningConfig:
    """One step of LoRA."""
    return TuningConfig(
        base=str(base),
        data=(str(data),),
        name=name,
        home=home,
        training=TrainingOptions(max_steps=1, batch_size=8),
    )


def assert_one_sentence(error: BaseException) -> None:
    """One line of bearable length, with a remedy after the semicolon."""
    assert "\n" not in str(error)
    assert "; " in str(error)
    assert len(str(error)) < 900


@pytest.mark.parametrize("case", BROKEN)
def test_it_is_not_tuned(sound: Path, tiny_data: Path, tmp_path: Path, case: str) -> None:
    folder = broken_copy(sound, tmp_path, case)
    with pytest.raises(TuningError, match=BROKEN[case][1]) as caught:
        tune(config_for(folder, tiny_data, tmp_path))
    assert_one_sentence(caught.value)
    assert list((tmp_path / "models").iterdir()) == []


@pytest.mark.parametrize("case", BROKEN)
def test_it_is_not_evaluated(sound: Path, tmp_path: Path, case: str) -> None:
    folder = broken_copy(sound, tmp_path, case)
    with pytest.raises(TuningError, match=BROKEN[case][1]) as caught:
        load_variant(str(folder), tmp_path)
    assert_one_sentence(caught.value)


ADAPTER = "adapter_model.safetensors"
BROKEN_ADAPTERS: dict[str, tuple[Break, str]] = {
    "cut": (cut(ADAPTER, 0.5), "is no whole safetensors file"),
    "no weights": (lambda folder: (folder / ADAPTER).unlink(), "no weights, and only"),
    "empty": (written(ADAPTER, b""), "is no whole safetensors file"),
    "pointer": (written(ADAPTER, b"version https://git-lfs.github.com/spec/v1\n"), "Git LFS"),
    "deep": (
        written(ADAPTER, (200_000).to_bytes(8, "little") + b"[" * 200_000),
        "its header cannot be read",
    ),
    "no rank": (
        written("adapter_config.json", b'{"peft_type": "LORA", "r": "x"}'),
        "cannot put it on its base",
    ),
}


@pytest.fixture(scope="module")
def foreign(sound: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter as another program leaves it: no variant.json."""
    base = AutoModelForCausalLM.from_pretrained(sound)
    folder = tmp_path_factory.mktemp("foreign") / "adapter"
    tuned = get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    tuned.save_pretrained(folder)
    AutoTokenizer.from_pretrained(sound).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("case", BROKEN_ADAPTERS)
def test_a_broken_adapter_of_another_program_is_refused(
    sound: Path, foreign: Path, tmp_path: Path, case: str
) -> None:
    folder = tmp_path / "adapter"
    shutil.copytree(foreign, folder)
    assert load_variant(str(folder), tmp_path, base=str(sound)).model is not None
    bend, told = BROKEN_ADAPTERS[case]
    bend(folder)
    for act in (load_variant, lambda name, home, base: merge_variant(name, home, "m", base=base)):
        with pytest.raises(TuningError, match=told) as caught:
            act(str(folder), tmp_path, base=str(sound))
        assert_one_sentence(caught.value)
    assert not (tmp_path / "models").exists()


@pytest.mark.slow
def test_an_adapter_is_not_merged_into_a_base_that_lacks_a_layer(
    sound: Path, tiny_data: Path, tmp_path: Path
) -> None:
    """The adapter of another program names no fingerprint, so the weights alone can tell."""
    tune(config_for(sound, tiny_data, tmp_path))
    (tmp_path / "models" / "v" / "variant.json").unlink()
    folder = broken_copy(sound, tmp_path, "lacks a tensor")
    with pytest.raises(TuningError, match=f"lacks {NORM}"):
        merge_variant("v", tmp_path, "merged", base=str(folder))
    assert not (tmp_path / "models" / "merged").exists()


def test_a_tied_head_and_old_buffers_are_no_fault(sound: Path, tmp_path: Path) -> None:
    """Checkpoints hold a tied head or not, and old ones the frequencies that config.json gives."""
    folder = tmp_path / "base"
    shutil.copytree(sound, folder)
    tied = "model.embed_tokens.weight"
    frequencies = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}
    tensors(lambda found: {**found, "lm_head.weight": found[tied].clone(), **frequencies})(folder)
    assert load_variant(str(folder), tmp_path).model is not None


def test_a_tokenizer_of_another_model_is_told_before_it_asks(sound: Path, tmp_path: Path) -> None:
    folder = tmp_path / "base"
    shutil.copytree(sound, folder)
    half = 200
    config(vocab_size=half)(folder)
    tensors(lambda found: {n: t[:half].clone() if "embed" in n else t for n, t in found.items()})(
        folder
    )
    loaded = load_variant(str(folder), tmp_path)
    with pytest.raises(BaseError, match=r"tokenizer gives id \d+, but the model has 200 embedd"):
        greedy_answers(loaded.model, loaded.tokenizer, ["red blue green cat dog"], max_new_tokens=1)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    name=st.sampled_from(["config.json", WEIGHTS, INDEX]),
    content=st.one_of(
        st.binary(max_size=64),
        st.recursive(
            st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=8),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(
                        [
                            "model_type",
                            "weight_map",
                            "quantization_config",
                            "auto_map",
                            "vocab_size",
                        ]
                    ),
                    inner | st.just("llama"),
                )
            ),
            max_leaves=6,
        ).map(lambda value: json.dumps(value).encode()),
    ),
)
def test_any_bytes_are_a_sentence_or_sound(
    tmp_path_factory: pytest.TempPathFactory, sound: Path, name: str, content: bytes
) -> None:
    folder = tmp_path_factory.mktemp("any") / "base"
    shutil.copytree(sound, folder)
    (folder / name).write_bytes(content)
    try:
        check_checkpoint(folder)
    except TuningError as error:
        assert_one_sentence(error)
