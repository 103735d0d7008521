"""Compiled steps: which models have them, how exact bf16 is, and what happens without numba."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import serving_fixtures
import serving_models as tiny
import torch
import transformers

from serving import kernels
from serving.config import EngineLimits
from serving.engine import compiled_runner
from serving.engine.compilation import compile_beside
from serving.engine.compiled_runner import reason_against
from serving.engine.engine import Engine
from serving.engine.request import EngineRequest, Event, PrefillEvent
from serving.kernels.step import step
from serving.models.registry import Registry

LONG = tiny.long_prompt(40)


def prompt_logprobs(engine: Engine, prompt: tuple[int, ...]) -> torch.Tensor:
    """Log probabilities of a prompt's tokens after the first, as the engine notes them."""
    events: list[Event] = []
    engine.submit(EngineRequest(prompt, 1, events.append, prompt_logprobs=True))
    while engine.has_work:
        engine.step()
    first = events[0]
    assert isinstance(first, PrefillEvent)
    return torch.tensor(first.logprobs[1:])


def started(model: transformers.PreTrainedModel, num_threads: int) -> Engine:
    engine = Engine(model, EngineLimits(max_total_tokens=128, prefix_cache_tokens=0))
    assert engine.compiled is not None
    engine.compiled.compile(step)
    engine.compiled.start(step, num_threads)
    return engine


@pytest.mark.slow
@pytest.mark.parametrize("own_products", [True, False])
@pytest.mark.parametrize("architecture", ["llama", "qwen3"])
def test_in_bf16_it_is_nearer_the_exact_answer_than_torch(
    monkeypatch: pytest.MonkeyPatch, architecture: str, own_products: bool
) -> None:
    """With the processor's own products of bf16, where it has them, and without."""
    if not own_products:
        monkeypatch.setattr(compiled_runner, "has_bf16_products", lambda: False)
    elif not compiled_runner.has_bf16_products():
        pytest.skip("this processor has no products of bf16")
    half = tiny.make_model(architecture).to(torch.bfloat16)
    exact = tiny.make_model(architecture)
    exact.load_state_dict(half.state_dict())  # The same weights, fp32 arithmetic.
    told = {}
    for name, model in (("exact", exact), ("torch", half)):
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([LONG])).logits[0, :-1].float()
        index = torch.tensor([LONG[1:]]).T
        told[name] = torch.log_softmax(logits, -1).gather(1, index)[:, 0]
    engine = started(half, 1)
    assert engine.compiled is not None
    engine.compiled.most_tokens = len(LONG)  # Whatever this processor's torch is good at.
    found = prompt_logprobs(engine, LONG)
    assert engine.stats.compiled_steps == 1
    error = (found - told["exact"]).abs()
    assert error.mean() < (told["torch"] - told["exact"]).abs().mean()


def test_the_number_of_threads_changes_nothing() -> None:
    found = [prompt_logprobs(started(tiny.make_model("llama"), n), LONG) for n in (1, 2, 3)]
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_what_cannot_run_compiled_says_why() -> None:
    assert reason_against(tiny.make_model("qwen2")) is None
    assert "GPT2LMHeadModel is none of" in str(reason_against(tiny.make_model("gpt2")))
    assert "float16" in str(reason_against(tiny.make_model("llama").half()))
    model = tiny.make_model("llama")
    model.config.rope_parameters["rope_type"] = "dynamic"
    assert "dynamic" in str(reason_against(model))
    config = transformers.LlamaConfig(**tiny.COMMON, **tiny.WIDE, mlp_bias=True)
    biased = transformers.AutoModelForCausalLM.from_config(config)
    assert "has a bias" in str(reason_against(biased))


def test_a_long_chunk_and_places_beyond_the_table_are_left_to_torch() -> None:
    engine = started(tiny.make_model("llama"), 1)
    prompt_logprobs(engine, tiny.long_prompt(60))
    assert engine.stats.steps == 1
    assert engine.stats.compiled_steps == 0


@pytest.mark.parametrize(("has_amx", "most"), [(True, 20), (False, 48)])
def test_bf16_is_left_to_torch_sooner_where_it_has_amx(
    monkeypatch: pytest.MonkeyPatch, has_amx: bool, most: int
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: has_amx)
    for dtype, tokens in ((torch.bfloat16, most), (torch.float32, 48)):
        for count, compiled in ((tokens, 1), (tokens + 1, 0)):
            engine = started(tiny.make_model("llama").to(dtype), 1)
            prompt_logprobs(engine, tiny.long_prompt(count))
            assert (engine.stats.steps, engine.stats.compiled_steps) == (1, compiled)


def test_a_server_compiles_beside_its_work(tmp_path: Path) -> None:
    tiny.save_checkpoint("llama", tmp_path / "base")
    with Registry(serving_fixtures.tiny_config(tmp_path, models=())) as registry:
        engine = registry.base.engine
        thread = compile_beside("again", engine, registry.worker)
        assert thread is not None
        thread.join()
        before = engine.stats.steps - engine.stats.compiled_steps
        registry.worker.call(lambda: prompt_logprobs(engine, LONG)).result()
        assert engine.stats.compiled_steps >= 1
        assert engine.stats.steps - engine.stats.compiled_steps == before


def test_without_numba_torch_runs_all_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "serving.kernels.step", None)
    tiny.save_checkpoint("llama", tmp_path / "base")
    with (
        caplog.at_level(logging.WARNING),
        Registry(serving_fixtures.tiny_config(tmp_path, models=())) as registry,
    ):
        thread = compile_beside("again", registry.base.engine, registry.worker)
        assert thread is not None
        thread.join()
        registry.worker.call(lambda: prompt_logprobs(registry.base.engine, LONG)).result()
        assert registry.base.engine.stats.compiled_steps == 0
        assert registry.base.engine.stats.steps >= 1
    assert "install numba" in caplog.text


SCORE = """
import numpy as np
from serving.kernels.step import _score
scores, ones = np.zeros(1, np.float32), np.ones((1, 4), np.float32)
_score(ones[0], ones, 0, np.float32(1), scores)
print(scores[0], _score.stats.cache_hits and "kept" or "compiled")
"""


@pytest.mark.slow
def test_what_is_kept_on_disk_follows_every_source(tmp_path: Path) -> None:
    """Numba alone would look at `step.py`, and go on with what `intrinsics.py` was."""
    package = tmp_path / "serving" / "kernels"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").touch()
    for source in Path(kernels.__path__[0]).glob("*.py"):
        shutil.copy(source, package)

    def run() -> list[str]:
        environment = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
        return subprocess.run(
            [sys.executable, "-c", SCORE], env=environment, capture_output=True, text=True,
            timeout=120, check=True, cwd=tmp_path,
        ).stdout.split()  # fmt: skip

    assert run() == ["4.0", "compiled"]
    assert run() == ["4.0", "kept"]
    intrinsics = package / "intrinsics.py"
    text = intrinsics.read_text()
    assert "lambda value: value\n" in text
    intrinsics.write_text(text.replace("lambda value: value\n", "lambda value: value + value\n"))
    assert run() == ["8.0", "compiled"]
