"""Hub ids as base and as data, from a hub on this machine that answers as the real one does."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from tuning_fixtures import make_base, rows, write_rows

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(ThreadingHTTPServer):
    """Serves folders as repositories of one commit; `fetched` lists the files that were taken."""

    def __init__(self, repositories: dict[str, Path]) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.repositories = repositories
        self.fetched: set[str] = set()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_address[1]}"


class Answer(BaseHTTPRequestHandler):
    """The few questions that huggingface_hub and datasets ask."""

    server: Hub

    def do_GET(self) -> None:
        """A file, or what a repository is and holds."""
        path = urlsplit(self.path).path
        for name, folder in self.server.repositories.items():
            start, kind = f"/{name}/resolve/", f"/api/{name.removeprefix('models/')}"
            if path.startswith(start.replace("/models/", "/")):
                self.give_file(folder / path.rpartition("/")[2])
                return
            if path.startswith((kind, f"/api/{name}")):
                listing = [
                    {
                        "type": "file",
                        "path": file.name,
                        "size": file.stat().st_size,
                        "oid": "0" * 40,
                    }
                    for file in folder.iterdir()
                ]
                about = {
                    "id": name.partition("/")[2],
                    "sha": COMMIT,
                    "siblings": [{"rfilename": item["path"]} for item in listing],
                }
                self.give(200, json.dumps(listing if "/tree/" in path else about).encode())
                return
        self.give(404, b"{}", {"X-Error-Code": "RepoNotFound"})

    do_HEAD = do_GET  # noqa: N815

    def give_file(self, file: Path) -> None:
        """A file of a repository with its hash."""
        if not file.is_file():
            self.give(404, b"", {"X-Error-Code": "EntryNotFound"})
            return
        if self.command == "GET":
            self.server.fetched.add(file.name)
        content = file.read_bytes()
        self.give(200, content, {"ETag": f'"{hashlib.sha1(content).hexdigest()}"'})

    def give(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        """Send it, without the content when only asked about it."""
        self.send_response(status)
        for name, value in {"X-Repo-Commit": COMMIT, **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """A hub with one model, which holds pickle weights too, and one dataset."""
    place = tmp_path_factory.mktemp("hub")
    make_base(place / "model")
    (place / "model" / "pytorch_model.bin").write_bytes(b"never to be fetched")
    (place / "rows").mkdir()
    write_rows(place / "rows" / "train.jsonl", rows())
    hub = Hub({"models/owner/model": place / "model", "datasets/owner/rows": place / "rows"})
    thread = threading.Thread(target=hub.serve_forever)
    thread.start()
    yield hub
    hub.shutdown()
    hub.server_close()
    thread.join()


def tune(hub: Hub, home: Path, base: str, data: str) -> subprocess.CompletedProcess[str]:
    """One step of the real command, with an empty cache."""
    environment = {
        **os.environ,
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(home / "cache"),
        "HF_HUB_OFFLINE": "0",
    }
    command = [sys.executable, "-m", "arena.cli", "tune", "--base", base, "--data", data]
    command += ["--name", "v", "--max-steps", "1", "--home", str(home), "--json"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_base_and_data_come_from_the_hub(hub: Hub, tmp_path: Path) -> None:
    made = tune(hub, tmp_path, "owner/model", "owner/rows")
    assert made.returncode == 0, made.stderr
    variant = json.loads(made.stdout)
    assert (variant["base"]["id"], variant["base"]["revision"]) == ("owner/model", COMMIT)
    assert variant["run"]["ledger"]["rows"]["read"] == 48
    assert list(variant["run"]["sources"]) == ["owner/rows"]
    assert {"model.safetensors", "train.jsonl"} <= hub.fetched
    assert "pytorch_model.bin" not in hub.fetched


@pytest.mark.slow
@pytest.mark.parametrize(
    ("base", "data", "message"),
    [
        ("owner/none", "owner/rows", "arena: base 'owner/none': not a folder here, and the hub"),
        ("owner/model", "owner/none", "arena: data 'owner/none': no such file or folder, and the"),
    ],
)
def test_what_the_hub_does_not_have_is_named(
    hub: Hub, tmp_path: Path, base: str, data: str, message: str
) -> None:
    wrong = tune(hub, tmp_path, base, data)
    assert wrong.returncode == 1
    assert wrong.stderr.startswith(message), wrong.stderr
    assert wrong.stderr.count("\n") == 1, wrong.stderr
