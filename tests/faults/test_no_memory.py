"""A model for which there is no memory, to load it or to answer, costs the others nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from serving_fixtures import tiny_config

from serving.engine.batch import StepPlan
from serving.engine.engine import Engine
from serving.http.server import ServerThread
from serving.models import registry

ASKED = {"inputs": "one two", "parameters": {"max_new_tokens": 4}}


def test_others_are_served_and_answer(tiny_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load, run = registry.load_engine, Engine._run

    def load_full_without_memory(folder: Path, *words: Any, **more: Any) -> Engine:
        if folder.name == "full":
            torch.empty(2**55, dtype=torch.uint8)  # torch's own error: nobody has so much
        return load(folder, *words, **more)

    def run_lora_without_memory(engine: Engine, plan: StepPlan) -> torch.Tensor | Exception:
        if any(row.request.model == "lora" for row in plan.rows):
            return MemoryError("no room")
        return run(engine, plan)

    monkeypatch.setattr(registry, "load_engine", load_full_without_memory)
    with ServerThread(tiny_config(tiny_home)) as server:
        monkeypatch.setattr(Engine, "_run", run_lora_without_memory)
        with httpx.Client(base_url=server.url, timeout=60) as client:
            info = client.get("/info").json()
            assert list(info["refused"]) == ["full"]
            assert "can't allocate memory" in info["refused"]["full"]
            failed = client.post("/models/lora/generate", json=ASKED)
            assert failed.status_code == 503
            assert "Out of memory" in failed.json()["error"]
            for name in ("base", "prefix"):
                assert client.post(f"/models/{name}/generate", json=ASKED).status_code == 200
