"""`arena export --push`: refused without a token; with one, the files arrive as they are."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from store_fixtures import Hand
from typer.testing import CliRunner

from arena.cli import app
from arena.exports.dataset import ExportOptions, export
from arena.exports.hub import PushError, check_push, push


@dataclass
class Hub:
    """What a hub on loopback was asked for, by the paths of its public API."""

    url: str = ""
    refuse: bool = False
    tokens: set[str | None] = field(default_factory=set)
    created: list[dict[str, Any]] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    commits: int = 0

    def answer(self, path: str, body: bytes) -> tuple[int, dict[str, Any]]:
        """Status and JSON of one request."""
        if self.refuse:
            return 403, {"error": "You have no right to write here"}
        if path == "/api/repos/create":
            self.created.append(json.loads(body))
            return 200, {"url": f"{self.url}/datasets/people/votes"}
        if path.endswith("/preupload/main"):
            files = json.loads(body)["files"]
            return 200, {"files": [self._regular(file["path"]) for file in files]}
        if path.endswith("/commit/main"):
            for line in body.splitlines():
                value = json.loads(line)["value"]
                if "content" in value:
                    self.files[value["path"]] = base64.b64decode(value["content"])
            self.commits += 1
            return 200, {"commitOid": "1" * 40, "commitUrl": f"{self.url}/c/1"}
        if path.endswith("/validate-yaml"):
            return 200, {"errors": [], "warnings": []}
        return 200, {"sha": "0" * 40, "siblings": [], "id": "people/votes"}

    def _regular(self, path: str) -> dict[str, Any]:
        return {"path": path, "uploadMode": "regular", "shouldIgnore": False, "oid": None}


@pytest.fixture
def hub() -> Iterator[Hub]:
    """A hub that takes everything."""
    found = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            found.tokens.add(self.headers.get("Authorization"))
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, told = found.answer(self.path.partition("?")[0], body)
            content = b"[]" if "/tree/" in self.path else json.dumps(told).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield found
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_files_arrive_as_they_are_in_one_commit(hand: Hand, hub: Hub, tmp_path: Path) -> None:
    hand.vote(texts=["one “𝄞”\r\n", "two"])
    out = tmp_path / "out"
    export(hand.store, out, ExportOptions())
    url = push(out, "people/votes", "secret", endpoint=hub.url)
    assert url == f"{hub.url}/datasets/people/votes"
    assert hub.files == {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in out.rglob("*")
        if path.is_file()
    }
    assert hub.commits == 1
    assert hub.tokens == {"Bearer secret"}
    (created,) = hub.created
    assert created["type"] == "dataset"
    assert created.get("private") or created.get("visibility") == "private"


def test_the_refusal_of_the_hub_is_told(hand: Hand, hub: Hub, tmp_path: Path) -> None:
    hand.vote()
    export(hand.store, tmp_path / "out", ExportOptions())
    hub.refuse = True
    with pytest.raises(PushError, match=r"the hub refused .*out is written all the same"):
        push(tmp_path / "out", "people/votes", "secret", endpoint=hub.url)
    with pytest.raises(PushError, match="does not answer"):
        push(tmp_path / "out", "people/votes", "secret", endpoint="http://127.0.0.1:9")


def test_without_a_token_nothing_is_written(
    hand: Hand, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hand.vote()
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    command = ["export", "--home", str(hand.store.path.parent), "--out", str(tmp_path / "out")]
    with pytest.raises(PushError, match="needs a token of the hub; set HF_TOKEN"):
        CliRunner().invoke(app, [*command, "--push", "people/votes"], catch_exceptions=False)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["votes", "a/b/c", "people/two words", ""])
def test_a_name_that_is_none(name: str) -> None:
    with pytest.raises(PushError, match="write ORG/NAME"):
        check_push(name)
