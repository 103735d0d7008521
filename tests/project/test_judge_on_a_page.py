"""A program judges over the API as people do; its votes are marked, and kept from people's."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx2
import pytest
from fault_server import FaultServer, Script
from page_server import PageServer

from arena.commands.judge import JudgeError, JudgeRequest, run_judge
from arena.commands.vote_data import as_files
from arena.exports.dataset import ExportError
from arena.storage.rating_input import VoteFilter, read_rating_input
from tuning.data.preferences.load import read_preferences
from tuning.preference.agreement import agreement_of

RIGHT = ("The", " capital", " of", " France", " is", " Paris", ".")
WRONG = (*RIGHT[:-2], " Rome", ".")


@pytest.fixture
def page(tmp_path: Path) -> Iterator[PageServer]:
    scripts = {"right": Script(RIGHT), "wrong": Script(WRONG)}
    with FaultServer(scripts) as server, PageServer(tmp_path / "home", server.url) as running:
        yield running


def request(page: PageServer, suite: Path, **change: object) -> JudgeRequest:
    """A judge of twelve battles, half of them judged twice."""
    given = {
        "url": page.url,
        "suite": str(suite),
        "count": 12,
        "noise": 0.0,
        "position": 0.0,
        "length": 0.0,
        "repeat": 0.5,
        "voters": 3,
        "parallel": 2,
        "models": (),
        "seed": 0,
    }
    return JudgeRequest(**{**given, **change})  # type: ignore[arg-type]


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    check = {"kind": "fact", "answers": ["Paris"]}
    rows = [
        {"id": str(at), "prompt": f"{at}. What is the capital of France?", "check": check}
        for at in range(12)
    ]
    path = tmp_path / "suite.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_program_votes_and_says_so(
    page: PageServer, suite: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_judge(request(page, suite), json_out=True)
    counts = json.loads(capsys.readouterr().out)
    assert sum(counts.values()) == 18
    assert set(counts) <= {"model_a", "model_b"}
    assert len(read_rating_input(page.store).table) == 0
    assert read_rating_input(page.store).left_out == {"synthetic": 18}
    assert len(read_rating_input(page.store, VoteFilter(synthetic=True)).table) == 18
    home = page.config.home
    with pytest.raises(ExportError, match=r"no vote makes a votes row .*synthetic 18"):
        as_files(("votes",), home)
    found = read_preferences(as_files(("synthetic-votes",), home))
    assert {pair.models for pair in found.pairs} == {("right", "wrong")}
    assert len(found.pairs) == 18
    repeated = agreement_of(found.pairs)
    assert repeated is not None
    assert repeated.rate == 1.0
    # A person's vote beside them is the only one that counts for people.
    with httpx2.Client(base_url=page.url, trust_env=False, timeout=60) as client:
        opened = client.post("/api/battles", json={"prompt": "Hello?"}).json()
        path, key = f"/api/battles/{opened['battle']}", {"x-battle-token": opened["token"]}
        while client.get(path, headers=key).json()["running"]:
            pass
        client.post(f"{path}/votes", json={"winner": "model_a"}, headers=key)
    assert len(read_rating_input(page.store).table) == 1


@pytest.mark.parametrize("said", [b"<h1>hello</h1>", b"{}", b"[1]"])
def test_another_server_is_no_page(page: PageServer, suite: Path, said: bytes) -> None:
    class Other(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.send_header("content-length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Other) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        with pytest.raises(JudgeError, match="does not answer as a page of the arena"):
            run_judge(request(page, suite, url=url), json_out=False)
        server.shutdown()


def test_what_a_judge_cannot_do_is_told(page: PageServer, suite: Path) -> None:
    with pytest.raises(JudgeError, match=r"--url http://127.0.0.1:9: cannot be reached"):
        run_judge(request(page, suite, url="http://127.0.0.1:9"), json_out=False)
    for wrong in ("nonsense", "ftp://host", "http://127.0.0.1:7x", ""):
        with pytest.raises(JudgeError, match="is no address; write it like http"):
            run_judge(request(page, suite, url=wrong), json_out=False)
    with pytest.raises(JudgeError, match="--model: 1 given"):
        run_judge(request(page, suite, models=("right",)), json_out=False)
    with pytest.raises(JudgeError, match="--repeat is a share"):
        run_judge(request(page, suite, repeat=2.0), json_out=False)
    with pytest.raises(JudgeError, match=r"was refused with 4\d\d .*nobody"):
        run_judge(request(page, suite, models=("right", "nobody")), json_out=False)
