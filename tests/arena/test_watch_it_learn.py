"""Checkpoints as challengers: a real run, a real server and a page, which may die in between."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import httpx2
import pytest
from page_server import PageServer
from tuning_fixtures import make_base, rows, write_rows

from arena.runs.challengers import challengers, sweep, to_watch
from arena.runs.found import RunFinder
from arena.runs.queue import RunQueue
from arena.web.authentication import Authenticator
from serving.config import ServeConfig
from serving.http.server import ServerThread


def until(found: Any, seconds: float = 400) -> Any:
    """What `found` gives, once it gives something."""
    limit = time.monotonic() + seconds
    while not (told := found()):
        assert time.monotonic() < limit
        time.sleep(0.2)
    return told


@pytest.mark.slow
def test_checkpoints_are_asked_by_name_while_the_run_goes_on(tmp_path: Path) -> None:
    make_base(tmp_path / "base")
    settings = {
        "base": str(tmp_path / "base"),
        "data": [str(write_rows(tmp_path / "rows.jsonl", rows()))],
        "training.max_steps": 100_000,
        "training.epochs": 100_000,
        "data_options.heldout": 0.1,
        "checks.eval_every": 40,
        "checks.challengers": "until_done",
    }
    serve = ServeConfig(base=tmp_path / "base", base_name="base", home=tmp_path, port=0)
    with ServerThread(serve) as server:

        def visit(page: PageServer) -> httpx2.Client:
            key = {"authorization": f"Bearer {Authenticator(tmp_path).key}"}
            return httpx2.Client(base_url=page.url, trust_env=False, timeout=600, headers=key)

        def served() -> set[str]:
            reply = httpx2.get(f"{server.url}/v1/models", trust_env=False)
            return {one["id"] for one in reply.json()["data"] if one["checkpoint_of"] == "v"}

        with PageServer(tmp_path, server.url) as first, visit(first) as client:
            asked = {"name": "v", "settings": settings}
            assert client.post("/api/tune/runs", json=asked).status_code == 201
            early = client.post("/api/tune/runs/v/watch", json={"prompt": "Say red."})
            assert (early.status_code, "next evaluation" in early.json()["error"]) == (409, True)
            assert until(lambda: len(served()) >= 2)
        # That page is gone. Another one finds the run and its checkpoints.
        with PageServer(tmp_path, server.url) as second, visit(second) as client:
            assert len(client.get("/api/tune/runs/v").json()["checkpoints"]) >= 2
            opened = until(lambda: _watch(client))
            assert opened["models"][0] == "base"
            assert [name.partition("@")[0] for name in opened["models"][1:]] == ["v"] * (
                len(opened["models"]) - 1
            )
            place = f"/api/battles/{opened['battle']}"
            token = {"x-battle-token": opened["token"]}
            until(lambda: not client.get(place, headers=token).json()["running"])
            view = client.get(place, headers=token).json()
            assert [side["model"] for side in view["sides"]] == opened["models"]
            assert all(side["state"] == "done" for side in view["sides"]), view
            # Nobody draws them blind: with the base there is one alone.
            blind = client.post("/api/battles", json={"prompt": "Say red then blue."})
            assert blind.status_code == 422
            os.kill(RunQueue(tmp_path).get("v").pid, signal.SIGKILL)
            until(lambda: client.get("/api/tune/runs/v").json()["state"] == "cut_off")
            assert served(), "it can go on; who removes it removes them"
            assert client.delete("/api/tune/runs/v").status_code == 204
            assert challengers(tmp_path) == []
            until(lambda: not served())


def _watch(client: httpx2.Client) -> Any:
    reply = client.post("/api/tune/runs/v/watch", json={"prompt": "Say red then blue."})
    return reply.json() if reply.status_code == 201 else None


def test_checkpoints_of_runs_that_are_over_are_swept(tmp_path: Path) -> None:
    models = tmp_path / "models"
    noted = {"done@1": ("done", False), "done@2": ("done", True), "gone@1": ("gone", False)}
    noted |= {"cut@1": ("cut", False), "own@1": ("other", False)}
    for name, (run, stays) in noted.items():
        (models / name).mkdir(parents=True)
        checkpoint = f'{{"of": "{run}", "step": 1, "stays": {str(stays).lower()}}}'
        (models / name / "variant.json").write_text(f'{{"run": {{"checkpoint": {checkpoint}}}}}')
    (models / "done").mkdir()
    for file in ("variant.json", "history.jsonl"):
        (models / "done" / file).write_text("{}")
    (models / ".cut.run" / "step-000000001").mkdir(parents=True)
    (models / "odd@1").mkdir()
    sweep(RunFinder(tmp_path))
    left = sorted(path.name for path in models.glob("*@*"))
    assert left == ["cut@1", "done@2", "odd@1", "own@1"]


def test_at_most_eight_are_watched() -> None:
    steps = [f"v@{step}" for step in range(1, 21)]
    chosen = to_watch(steps, "base", "v")
    assert (len(chosen), chosen[0], chosen[1], chosen[-2:]) == (8, "base", "v@1", ["v@20", "v"])
    assert len(set(chosen)) == 8
    assert to_watch(steps[:2], None, None) == ["v@1", "v@2"]
