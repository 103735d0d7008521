"""Two servers of ours behind two pages on one database: a battle over both, voted on at either."""

from __future__ import annotations

from pathlib import Path

import httpx2
import pytest
from page_server import PageServer
from serving_fixtures import tiny_home
from serving_models import TEMPLATE, save_checkpoint

from serving.config import ServeConfig
from serving.http.server import ServerThread
from tuning.variant import weights_sha256

__all__ = ["tiny_home"]
pytestmark = pytest.mark.slow
MOST_SECONDS = 120


def test_two_servers_behind_two_pages(tiny_home: Path, tmp_path: Path) -> None:
    second = save_checkpoint("llama", tmp_path / "other", seed=9, template=TEMPLATE)
    configs = [
        ServeConfig(base=tiny_home / "full", base_name="here", port=0, device="cpu"),
        ServeConfig(base=second, base_name="there", port=0, device="cpu"),
    ]
    home = tmp_path / "home"
    home.mkdir()
    with (
        ServerThread(configs[0]) as here,
        ServerThread(configs[1]) as there,
        PageServer(home, here.url, there.url) as one,
        PageServer(home, here.url, there.url) as two,
        httpx2.Client(trust_env=False, timeout=MOST_SECONDS) as client,
    ):
        asked = {"prompt": "the river", "models": ["here", "there"]}
        opened = client.post(f"{one.url}/api/battles", json=asked)
        assert opened.status_code == 201, opened.text
        path = f"/api/battles/{opened.json()['battle']}"
        headers = {"x-battle-token": opened.json()["token"]}
        with client.stream("GET", f"{one.url}{path}/events", headers=headers) as events:
            assert "event: end" in list(events.iter_lines())
        seen = client.get(f"{two.url}{path}", headers=headers).json()
        vote = {"winner": "model_a"}
        voted = client.post(f"{two.url}{path}/votes", json=vote, headers=headers)
        assert voted.status_code == 201, voted.text
        at_home = client.get(f"{one.url}{path}", headers=headers).json()
        assert at_home["vote"]["winner"] == "model_a"
        assert [side["text"] for side in at_home["sides"]] == [
            side["text"] for side in seen["sides"]
        ]
        weights = {side["model"]: side["weights_sha256"] for side in at_home["sides"]}
        assert weights == {
            "here": weights_sha256(tiny_home / "full"),
            "there": weights_sha256(second),
        }
