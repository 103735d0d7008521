"""What the engine would answer wrongly is refused when it is loaded, by name."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import replace
from pathlib import Path

import peft
import pytest
import serving_models as tiny
import torch
from serving_fixtures import tiny_config
from tiny_models import make_tiny
from transformers import AutoModelForCausalLM

from serving.adapters.patterns import matches
from serving.adapters.peft_reader import Adapter, read_adapter
from serving.config import ServeConfig
from serving.errors import ModelLoadError
from serving.models import registry as loads
from serving.models.probed import FILE
from serving.models.registry import Registry


def make_base(kind: str, folder: Path) -> Path:
    """A wide-awake tiny checkpoint of that architecture."""
    model = make_tiny(kind, tiny.VOCAB)
    with torch.no_grad():
        for name, part in model.named_parameters():
            if part.dim() > 1 and "norm" not in name:
                part.mul_(6)
    model.save_pretrained(folder)
    tiny.save_tokenizer(folder)
    return folder


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("bart", "the engine's scores are not those of transformers"),
        ("roberta", "the engine's scores are not those of transformers"),
        ("axk2", r"AXK2ForCausalLM does not run in the engine \(TypeError: 'NoneType'"),
        ("bloom", "its attention does not go through transformers' attention interface"),
    ],
)
def test_architectures_that_the_engine_gets_wrong(kind: str, reason: str, tmp_path: Path) -> None:
    base = make_base(kind, tmp_path / "base")
    with pytest.raises(ModelLoadError, match=reason):
        Registry(ServeConfig(base=base, base_name="base", port=0, device="cpu", dtype="float32"))


@pytest.mark.parametrize(
    ("kind", "targets", "dora", "served"),
    [
        ("bert", ["query", "transform.dense"], True, "lies behind the last hidden state"),
        ("bert", ["query", "value"], True, None),
        ("axk1", ["kv_b_proj", "up_proj", "o_proj"], False, None),
        ("axk1", ["kv_b_proj", "up_proj", "o_proj"], True, None),
    ],
)
def test_adapters_come_out_as_peft_has_them_or_are_refused(
    kind: str, targets: list[str], dora: bool, served: str | None, tmp_path: Path
) -> None:
    base = make_base(kind, tmp_path / "base")
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    settings = peft.LoraConfig(task_type="CAUSAL_LM", r=2, use_dora=dora, target_modules=targets)
    with tiny.peft_warnings():
        tuned = peft.get_peft_model(model, settings)
        with torch.no_grad():
            for name, part in tuned.named_parameters():
                if "lora_B" in name:
                    part.copy_(torch.randn_like(part))
        tuned.save_pretrained(tmp_path / "tuned")
    config = ServeConfig(
        base=base, base_name="base", models=(("tuned", tmp_path / "tuned"),), device="cpu",
        dtype="float32",
    )  # fmt: skip
    with Registry(config) as registry:
        assert ("tuned" in registry.names) == (served is None), registry.refused
        assert served is None or served in registry.refused["tuned"]


def test_an_adapter_that_the_engine_would_read_otherwise_is_refused(
    tiny_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if the reader forgot a scale: what PEFT makes of the same files differs."""
    folder = tmp_path / "scaled"
    shutil.copytree(tiny_home / "lora", folder)
    (folder / "variant.json").unlink()
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "use_rslora": True}))
    with Registry(tiny_config(tiny_home, models=(("scaled", folder),))) as registry:
        assert registry.names == ["base", "scaled"]

    def misread(folder: Path, name: str) -> Adapter:
        adapter = read_adapter(folder, name)
        deltas = {
            path: replace(delta, up=delta.up * 2)
            for path, delta in adapter.deltas.items()
            if delta.up is not None
        }
        return Adapter(name, deltas)

    monkeypatch.setattr(loads, "read_adapter", misread)
    with Registry(tiny_config(tiny_home, models=(("scaled", folder),))) as registry:
        assert "scaled: the engine's scores are not those" in registry.refused["scaled"]
        assert registry.base.engine.adapters.adapters == []


def test_a_restart_does_not_probe_adapters_again(
    tiny_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Path] = []
    real = loads.plain_adapted_scores

    def counted(engine: object, adapter: object, folder: Path, path: object) -> torch.Tensor:
        asked.append(folder)
        return real(engine, adapter, folder, path)  # type: ignore[arg-type]

    monkeypatch.setattr(loads, "plain_adapted_scores", counted)
    config = tiny_config(tiny_home, models=(("lora", tiny_home / "lora"),), home=tmp_path)
    for spoil, probed in (("", 1), ("", 1), ("{", 2), ("[]", 3)):
        if spoil:
            (tmp_path / FILE).write_text(spoil)
        with Registry(config) as registry:
            assert registry.names == ["base", "lora"]
        assert len(asked) == probed
    assert len(json.loads((tmp_path / FILE).read_text())) == 2  # the adapter and its template


@pytest.mark.parametrize("expression", ["(a+)+$", "(a|aa)+", "(.*a){20}", "([a-z_.]+)*x"])
def test_an_expression_takes_linear_time(expression: str) -> None:
    started = time.process_time()
    assert not matches(expression, "a" * 5_000 + "!")
    assert time.process_time() - started < 2


def test_expressions_mean_what_they_mean_in_peft(tiny_home: Path, tmp_path: Path) -> None:
    name = "model.layers.1.self_attn.q_proj"
    for expression, fits in (
        ("(.*\\.)?(q_proj)", True), ("(.*\\.)?(proj)", False),
        ("(.*\\.)?(layers\\.[0-3]\\.self_attn\\.(q|v)_proj)", True),
        ("(.*\\.)?(^model\\.layers\\.1\\..*)", True),
    ):  # fmt: skip
        assert matches(expression, name) is fits
    for expression in ("(?=q)q_proj", r"(q)\1", "(", "a" * 5_000):
        with pytest.raises(ModelLoadError, match="the expression"):
            matches(expression, name)


def test_a_hostile_pattern_of_an_adapter_does_not_hold_the_start(
    tiny_home: Path, tmp_path: Path
) -> None:
    models = []
    for number, pattern in enumerate(("([a-z_.0-9]+)+!", "(?:(?:.*)*)*x", "(?<=q)q_proj")):
        folder = tmp_path / f"hostile{number}"
        shutil.copytree(tiny_home / "lora", folder)
        (folder / "variant.json").unlink()
        path = folder / "adapter_config.json"
        settings = {**json.loads(path.read_text()), "alpha_pattern": {pattern: 4}}
        settings |= {"rank_pattern": {pattern: 4}, "target_modules": pattern}
        path.write_text(json.dumps({**settings, "exclude_modules": pattern}))
        models.append((folder.name, folder))
    started = time.process_time()
    with Registry(tiny_config(tiny_home, models=tuple(models))) as registry:
        assert registry.names == ["base", "hostile0", "hostile1"]
        assert "is none that can be matched in linear time" in registry.refused["hostile2"]
    assert time.process_time() - started < 20
