"""Servers on loopback that the serving tests talk to through real clients."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import serving_models as tiny

from serving.config import ServeConfig
from serving.http.server import ServerThread
from tuning.variant import Base, weights_sha256
from tuning.variant.manifest import seal_variant


@pytest.fixture(scope="session")
def tiny_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """base, full (other weights), lora, prefix: sealed variant folders over a tiny Llama."""
    home = tmp_path_factory.mktemp("serving") / "models"
    tiny.save_checkpoint("llama", home / "base")
    seal_variant(home / "base", name="base", kind="base")
    origin = Base("base", None, weights_sha256(home / "base"))
    tiny.save_checkpoint("llama", home / "full", seed=5, template=tiny.TEMPLATE)
    seal_variant(home / "full", name="full", kind="full", base=origin)
    for kind in ("lora", "prefix"):
        tiny.save_adapter("llama", home / "base", home / kind, kind)
        tiny.save_tokenizer(home / kind, tiny.TEMPLATE)
        seal_variant(home / kind, name=kind, kind=kind, base=origin)
    return home


def tiny_config(folder: Path, **settings: object) -> ServeConfig:
    """The four models of `tiny_home` on any free port, fp32 on the CPU."""
    models = tuple((name, folder / name) for name in ("full", "lora", "prefix"))
    defaults: dict[str, object] = {"models": models, "port": 0, "device": "cpu"}
    return ServeConfig(base=folder / "base", base_name="base", **{**defaults, **settings})  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def tiny_server(tiny_home: Path) -> Iterator[ServerThread]:
    """One server for all tests that only ask."""
    with ServerThread(tiny_config(tiny_home)) as server:
        yield server
