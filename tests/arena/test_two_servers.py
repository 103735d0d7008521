"""One battle between models of different servers: this project's own and `transformers serve`."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from page_server import PageServer
from running import clean_environment, free_port
from serving_models import TEMPLATE, save_checkpoint

from serving.config import ServeConfig
from serving.http.server import ServerThread

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint("llama", tmp_path_factory.mktemp("models") / "full", template=TEMPLATE)


@pytest.fixture(scope="module")
def foreign(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a `transformers serve` that holds the same checkpoint."""
    port = free_port()
    command = [
        str(Path(sys.executable).with_name("transformers")), "serve", str(checkpoint),
        "--host", "127.0.0.1", "--port", str(port), "--device", "cpu", "--dtype", "float32",
    ]  # fmt: skip
    log = tmp_path_factory.mktemp("log") / "serve.log"
    with log.open("wb") as sink:
        process = subprocess.Popen(
            command,
            stdout=sink,
            stderr=subprocess.STDOUT,
            env=clean_environment(HF_HUB_OFFLINE="1"),
        )
    url = f"http://127.0.0.1:{port}"
    try:
        limit = time.monotonic() + 120
        while True:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < limit, log.read_text()
            try:
                if httpx2.get(f"{url}/health", trust_env=False).status_code == 200:
                    break
            except httpx2.HTTPError:
                time.sleep(0.2)
        yield url
    finally:
        process.kill()
        process.wait()


def test_the_same_weights_answer_alike_on_two_servers(
    checkpoint: Path, foreign: str, tmp_path: Path
) -> None:
    """Greedy in fp32: this server and another program's must write the same text."""
    (tmp_path / "arena.toml").write_text(
        f'[[participant]]\nname = "foreign"\nurl = "{foreign}"\nmodel = "{checkpoint}"\n',
        encoding="utf-8",
    )
    config = ServeConfig(base=checkpoint, base_name="own", port=0, device="cpu")
    with (
        ServerThread(config) as own,
        PageServer(tmp_path, own.url) as page,
        httpx2.Client(base_url=page.url, trust_env=False, timeout=120) as client,
    ):
        body = {"prompt": "the river sings under", "models": ["own", "foreign"]}
        opened = client.post("/api/battles", json=body)
        assert opened.status_code == 201, opened.text
        battle, headers = opened.json()["battle"], {"x-battle-token": opened.json()["token"]}
        with client.stream("GET", f"/api/battles/{battle}/events", headers=headers) as reply:
            assert "event: end" in list(reply.iter_lines())
        vote = client.post(f"/api/battles/{battle}/votes", json={"winner": "tie"}, headers=headers)
        assert vote.status_code == 201, vote.text
        turn = page.store.load_battle(battle, token=opened.json()["token"]).battle.turns[-1]
        mine, theirs = turn.answer(0), turn.answer(1)
        assert mine is not None
        assert theirs is not None
        assert mine.text
        # Where the last token ends within a character only one of the two shows its half.
        assert mine.text.rstrip("\ufffd") == theirs.text.rstrip("\ufffd")
        assert (mine.weights_sha256 is None, theirs.weights_sha256) == (False, None)
