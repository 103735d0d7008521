"""The shipped starter, served: the same tokens as transformers and PEFT, and a quick start."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import serving_models as tiny

from serving.config import ServeConfig, name_models
from serving.engine.request import EngineRequest, TokenEvent
from serving.models.registry import Registry
from tuning.starter import shipped_models

SHIPPED = shipped_models()
PROMPTS = ("The capital of France is", "User: Name two animals.\nAssistant:", "A cat")
pytestmark = pytest.mark.skipif(not SHIPPED, reason="the starter's weights are not built yet")


@pytest.fixture(scope="module")
def registry() -> Iterator[Registry]:
    start = time.monotonic()
    base = SHIPPED["starter"]
    models = name_models(base, packaged=SHIPPED, variants=[], given=[])
    with Registry(ServeConfig(base=base, base_name="starter", models=models)) as running:
        assert time.monotonic() - start < 30, "loading four small models takes seconds"
        yield running


def test_all_four_are_served(registry: Registry) -> None:
    assert set(registry.names) == set(SHIPPED)
    assert registry.refused == {}
    assert len(registry.engines) == 2  # starter with its adapters, starter-full


def test_greedy_tokens_equal_generate_in_a_mixed_batch(registry: Registry) -> None:
    got: dict[tuple[str, str], list[int]] = {}
    asked: dict[tuple[str, str], tuple[int, ...]] = {}
    done = []
    for text in PROMPTS:
        for model in registry:
            ids = tuple(model.tokenizer(text)["input_ids"])
            key = (model.name, text)
            got[key], asked[key] = [], ids

            def sink(event: object, tokens: list[int] = got[key]) -> None:
                assert isinstance(event, TokenEvent), event
                tokens.append(event.choice.token)
                if event.finish_reason is not None:
                    done.append(1)

            request = EngineRequest(ids, 24, sink, adapter=model.adapter, eos_ids=model.eos_ids)
            registry.worker.submit(model.engine, request)
    deadline = time.monotonic() + 120
    while len(done) < len(asked) and time.monotonic() < deadline:
        time.sleep(0.02)
    for (name, text), ids in asked.items():
        folder = SHIPPED[name]
        adapter: Path | None = folder if registry.resolve(name).adapter else None
        base = SHIPPED["starter"] if adapter else folder
        assert got[name, text] == list(tiny.generate(base, adapter, ids, 24)), (name, text)
