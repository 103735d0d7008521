"""Nothing that a model server tells says where folders lie."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest
from serving_fixtures import tiny_config

from serving.http.app import create_app
from serving.http.routes_models import without_places
from serving.models.registry import Registry


def test_nothing_told_says_where_folders_lie(tiny_home: Path, tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()

    async def ask(registry: Registry) -> str:
        app = create_app(registry, registry.config)
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as api:
            replies = [await api.get(path) for path in ("/info", "/v1/models")]
        assert [reply.status_code for reply in replies] == [200, 200]
        assert "broken" in replies[0].json()["refused"]
        return "".join(reply.text for reply in replies)

    config = tiny_config(tiny_home, models=(("broken", tmp_path / "broken"),))
    with Registry(config) as registry:
        told = asyncio.run(ask(registry))
    for place in (tiny_home, tmp_path):
        assert str(place) not in told
        assert str(place.parent) not in told


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("/home/ann/models/x: no config.json", "x: no config.json"),
        ("cannot read '/srv/a/b/c.safetensors'", "cannot read 'c.safetensors'"),
        ("and/or 1/2 http://example.org/a/b", "and/or 1/2 http://example.org/a/b"),
    ],
)
def test_places_are_taken_out_of_a_text(text: str, told: str) -> None:
    assert without_places(text) == told
