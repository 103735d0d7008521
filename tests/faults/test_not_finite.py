"""Rows whose scores are not finite end by name and change nobody else's answer, now or later."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import serving_models as tiny
import torch
from safetensors.torch import load_file, save_file
from serving_fixtures import tiny_config
from transformers import AutoModelForCausalLM

from serving.adapters.peft_reader import Adapter, LinearDelta, read_adapter
from serving.config import EngineLimits
from serving.engine.engine import Engine
from serving.engine.request import EngineRequest, Event, FailureEvent, TokenEvent
from serving.errors import ModelLoadError, NotFiniteFailure
from serving.kernels.step import step
from serving.models.registry import Registry
from tuning.variant import VariantError

NUM_NEW = 8
HUGE = 3e38
Spoil = Callable[[dict[str, torch.Tensor]], None]


@dataclass
class Tried:
    """One request and what came of it."""

    request: EngineRequest
    events: list[Event]

    @property
    def tokens(self) -> tuple[int, ...]:
        return tuple(e.choice.token for e in self.events if isinstance(e, TokenEvent))


def ask(engine: Engine, prompt: tuple[int, ...], adapter: str | None) -> Tried:
    events: list[Event] = []
    request = EngineRequest(
        prompt, NUM_NEW, events.append, adapter=adapter, model=adapter or "base",
        eos_ids=frozenset({1}),
    )  # fmt: skip
    engine.submit(request)
    return Tried(request, events)


def huge_layers(good: Adapter) -> Adapter:
    """The same layers with products that leave fp32: finite weights, infinite sums."""
    deltas = {
        path: LinearDelta(delta.down, torch.full_like(delta.up, HUGE))
        for path, delta in good.deltas.items()
        if delta.down is not None and delta.up is not None
    }
    return Adapter("broken layers", deltas)


def huge_gains(good: Adapter) -> Adapter:
    """As IA3 would: outputs times a number that leaves fp32."""
    path = "model.layers.0.self_attn.v_proj"
    delta = good.deltas[path]
    assert delta.up is not None
    return Adapter("broken gains", {path: LinearDelta(out_gain=torch.full((len(delta.up),), HUGE))})


def huge_prefix(_good: Adapter) -> Adapter:
    """Keys whose scores, and values whose sums, leave fp32."""
    return Adapter("broken prefix", prefix=torch.full((5, 64), HUGE))


@pytest.fixture(scope="module", params=["torch", "compiled"])
def engine(request: pytest.FixtureRequest, tiny_home: Path) -> Engine:
    """A base with its LoRA and prefix; small chunks, and a cache that takes any prompt of 17."""
    model = AutoModelForCausalLM.from_pretrained(tiny_home / "base", dtype=torch.float32)
    limits = EngineLimits(4, 256, kv_tokens=2048, prefill_chunk=5, prefix_cache_tokens=512)
    made = Engine(model, limits)
    if request.param == "compiled":
        assert made.compiled is not None
        made.compiled.compile(step)
        made.compiled.start(step, 1)
    return made


@pytest.mark.parametrize("break_adapter", [huge_layers, huge_gains, huge_prefix])
def test_the_others_of_a_step_answer_as_alone(
    engine: Engine, tiny_home: Path, break_adapter: Callable[[Adapter], Adapter]
) -> None:
    good = [read_adapter(tiny_home / kind, kind) for kind in ("lora", "prefix")]
    broken = break_adapter(good[0])
    adapters = [*good, broken]
    engine.install_adapters(adapters, engine.prepare_adapters(adapters))
    shared = tiny.long_prompt(30, seed=7)
    prompts = [shared, *tiny.prompts(3, seed=8), tiny.long_prompt(23, seed=9)]
    kinds = [broken.name, None, "lora", "prefix", None]
    for _ in range(2):  # again, in the places and the cache that the first round left
        tried = [ask(engine, *pair) for pair in zip(prompts, kinds, strict=True)]
        while engine.has_work:
            engine.step()
        for prompt, kind, row in zip(prompts[1:], kinds[1:], tried[1:], strict=True):
            folder = tiny_home / kind if kind else None
            assert row.tokens == tiny.generate(tiny_home / "base", folder, prompt, NUM_NEW), kind
        (failure,) = tried[0].events
        assert isinstance(failure, FailureEvent)
        assert isinstance(failure.error, NotFiniteFailure)
        assert f"{broken.name} gave scores that are not finite" in str(failure.error)
        # What a broken row computed serves nobody: a prompt that begins alike is read anew.
        assert engine.cache.find(broken.name, shared) == (0, [])
        prompts[2] = shared


def test_a_broken_row_that_leaves_early_leaves_nothing(engine: Engine, tiny_home: Path) -> None:
    """Given up while its prompt is read, before any score of it was looked at."""
    lora = read_adapter(tiny_home / "lora", "lora")
    adapters = [lora, huge_layers(lora)]
    engine.install_adapters(adapters, engine.prepare_adapters(adapters))
    broken = ask(engine, tiny.long_prompt(200, seed=1), adapters[1].name)
    beside = ask(engine, tiny.prompts(1, seed=2)[0], None)
    engine.step()
    broken.request.cancel()
    later = [ask(engine, prompt, None) for prompt in tiny.prompts(4, seed=3)]
    while engine.has_work:
        engine.step()
    for row in (beside, *later):
        truth = tiny.generate(tiny_home / "base", None, tuple(row.request.prompt), NUM_NEW)
        assert row.tokens == truth
    assert all(bool(t.isfinite().all()) for t in (*engine.pool.keys, *engine.pool.values))


def spoilt(tiny_home: Path, target: Path, kind: str, spoil: Spoil) -> Path:
    """A copy of a variant without its seal, its tensors changed."""
    shutil.copytree(tiny_home / kind, target)
    (target / "variant.json").unlink()
    (path,) = target.glob("*.safetensors")
    tensors = load_file(path)
    spoil(tensors)
    save_file(tensors, path, metadata={"format": "pt"})
    return target


def key_of(tensors: dict[str, torch.Tensor], part: str) -> str:
    return next(key for key in tensors if part in key)


def fill(part: str, value: float) -> Spoil:
    def spoil(tensors: dict[str, torch.Tensor]) -> None:
        tensors[key_of(tensors, part)].fill_(value)

    return spoil


def rename(tensors: dict[str, torch.Tensor]) -> None:
    key = key_of(tensors, "down_proj")
    tensors[key.replace("down_proj", "dwn_proj")] = tensors.pop(key)


def drop(tensors: dict[str, torch.Tensor]) -> None:
    del tensors[key_of(tensors, "layers.1.mlp.up_proj")]


def add(tensors: dict[str, torch.Tensor]) -> None:
    tensors["model.layers.7.mlp.up_proj.weight"] = torch.ones(48, 32)


def narrow(tensors: dict[str, torch.Tensor]) -> None:
    key = key_of(tensors, "up_proj")
    tensors[key] = tensors[key][:40].clone()


REFUSED: dict[str, tuple[str, Spoil, str]] = {
    "huge LoRA": ("lora", fill("lora_B", HUGE), "not finite"),
    "huge prefix": ("prefix", fill("prompt_embeddings", HUGE), "not finite"),
    "NaN in a LoRA": ("lora", fill("lora_A", float("nan")), "lora_A.weight holds values that are"),
    "another key": ("full", rename, "lacks model.layers.0.mlp.down_proj.weight"),
    "a lacking key": ("full", drop, "lacks model.layers.1.mlp.up_proj.weight"),
    "a surplus key": ("full", add, "holds model.layers.7.mlp.up_proj.weight"),
    "another shape": ("full", narrow, r"up_proj.weight \(40, 32\) for \(48, 32\) in another shape"),
    "NaN": ("full", fill("o_proj", float("nan")), "o_proj.weight holds values that are not finite"),
    "infinity": ("full", fill("norm", float("inf")), "weight holds values that are not finite"),
    "huge": ("full", fill("lm_head", HUGE), "not finite"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_variant_whose_first_step_cannot_be_right_is_refused(
    tiny_home: Path, tmp_path: Path, case: str
) -> None:
    kind, spoil, reason = REFUSED[case]
    folder = spoilt(tiny_home, tmp_path / "spoilt", kind, spoil)
    with Registry(tiny_config(tiny_home, models=(("lora", tiny_home / "lora"),))) as registry:
        before = registry.base.engine.adapters.adapters
        with pytest.raises((ModelLoadError, VariantError), match=reason):
            registry.load("spoilt", folder)
        assert registry.names == ["base", "lora"]
        assert registry.base.engine.adapters.adapters == before
        assert list(registry.engines) == ["base"]


@pytest.mark.parametrize("alpha", [1e300, 1e39])
def test_a_scale_that_leaves_the_number_format_is_refused(
    tiny_home: Path, tmp_path: Path, alpha: float
) -> None:

    folder = spoilt(tiny_home, tmp_path / "loud", "lora", lambda tensors: None)
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "lora_alpha": alpha}))
    with Registry(tiny_config(tiny_home, models=(("loud", folder),))) as registry:
        assert registry.names == ["base"]
        assert registry.refused["loud"].startswith("loud: ")
        reason = (
            "in torch.float32; lower its lora_alpha" if alpha > 1e40 else "gave scores that are"
        )
        assert reason in registry.refused["loud"]
        assert "not finite" in registry.refused["loud"]
