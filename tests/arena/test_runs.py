"""Tuning runs of the page: who may, what is refused, what files tell; and real runs, to the end."""

from __future__ import annotations

import asyncio
import fcntl
import gc
import hashlib
import http.client
import json
import os
import signal
import socket
import stat
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fault_server import FaultServer, Script
from page_server import PageServer
from tuning_fixtures import make_base, rows, write_rows

from arena.runs import uploads
from arena.runs.commands import LongCommand
from arena.runs.figures import POINTS, Figures, thinned
from arena.runs.found import RunFinder, unfinished_of
from arena.runs.queue import RunQueue
from arena.runs.requests import RunRefusedError, RunRequest, folder_of, write_request
from arena.runs.uploads import UploadRefusedError, keep
from arena.runs.wishes import loop_of, request_of
from arena.web.authentication import Authenticator
from arena.web.users import FILE, make_user, write_users

ROUTES = (
    ("GET", "choices"),
    ("PUT", "data/rows.jsonl"),
    ("POST", "preview"),
    ("GET", "runs"),
    ("POST", "runs"),
    ("POST", "command"),
    ("GET", "runs/one"),
    ("POST", "runs/one/stop"),
    ("POST", "runs/one/resume"),
    ("DELETE", "runs/one"),
    ("GET", "runs/one/after"),
    ("POST", "runs/one/score"),
    ("POST", "runs/one/export"),
    ("POST", "runs/one/watch"),
    ("GET", "runs/one/report"),
    ("GET", "votes"),
    ("POST", "loops"),
    ("GET", "data/rows.jsonl/rows"),
    ("POST", "data/rows.jsonl/rows"),
    ("POST", "yaml"),
    ("POST", "settings"),
)
ASKED = {"name": "one", "settings": {"base": "starter", "data": ["starter"]}}


@pytest.fixture
def page(tmp_path: Path) -> Iterator[PageServer]:
    with FaultServer({"a": Script()}) as server, PageServer(tmp_path, server.url) as running:
        yield running


@contextmanager
def visit(page: PageServer, **options: Any) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=page.url, trust_env=False, timeout=600, **options) as client:
        yield client


def admin(page: PageServer) -> Any:
    """The person who opened the page from its start line."""
    return visit(page, headers={"authorization": f"Bearer {Authenticator(page.config.home).key}"})


def test_voters_reach_no_route_and_leave_no_trace(page: PageServer) -> None:
    home = page.config.home
    with visit(page) as stranger:
        for method, path in ROUTES:
            reply = stranger.request(method, f"/api/tune/{path}", json=ASKED)
            assert (reply.status_code, "admins" in reply.json()["error"]) == (403, True), path
    users = [make_user("ann", "voter", "ann's secret")]
    write_users(home / FILE, {user.name: user for user in users})
    with visit(page, auth=("ann", "ann's secret")) as voter:
        for method, path in ROUTES:
            assert voter.request(method, f"/api/tune/{path}", json=ASKED).status_code == 403, path
    assert not (home / "data").exists()
    assert not (home / "runs").exists()


def test_uploads_are_bounded_and_named_by_content(page: PageServer) -> None:
    home = page.config.home
    content = b'{"prompt": "Say red.", "completion": "red"}\n'
    with admin(page) as client:
        first = client.put("/api/tune/data/my.rows.jsonl", content=content)
        assert first.status_code == 201
        name = first.json()["name"]
        assert name == f"my.rows-{hashlib.sha256(content).hexdigest()[:12]}.jsonl"
        assert client.put("/api/tune/data/my.rows.jsonl", content=content).json()["name"] == name
        other = client.put("/api/tune/data/my.rows.jsonl", content=content * 2).json()["name"]
        assert other != name, "the old one stays"
        assert (home / "data" / name).read_bytes() == content
        assert stat.S_IMODE((home / "data" / name).stat().st_mode) == 0o600
        assert client.get(f"/api/tune/data/{name}").status_code in (404, 405), "never served again"
        for bad in (".hidden.jsonl", "page.html", "a%2F..%2Fb.jsonl", "x.jsonl.py", "%2e%2e"):
            assert client.put(f"/api/tune/data/{bad}", content=content).status_code >= 400, bad
        assert client.put("/api/tune/data/empty.csv", content=b"").status_code == 422
        # More than the page's usual body, far less than a file's bound.
        assert client.put("/api/tune/data/long.jsonl", content=content * 4000).status_code == 201
    connection = http.client.HTTPConnection("127.0.0.1", page.config.port, timeout=60)
    connection.putrequest("PUT", "/api/tune/data/large.jsonl")
    connection.putheader("content-length", str(uploads.FILE_BYTES + 1))
    connection.putheader("authorization", f"Bearer {Authenticator(home).key}")
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection.close()
    assert {path.name for path in (home / "data").iterdir()} == {name, other} | {
        path.name for path in (home / "data").glob("long-*.jsonl")
    }


def test_full_data_folder_takes_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"x" * 600
        yield b"y" * 600

    monkeypatch.setattr(uploads, "ALL_BYTES", 1000)
    with pytest.raises(UploadRefusedError, match=r"rows\.csv is larger than"):
        asyncio.run(keep(tmp_path, "rows.csv", pieces()))
    assert list((tmp_path / "data").iterdir()) == [], "nothing of it stays"


def test_uploads_that_a_kill_left_behind_go_with_the_next_one(tmp_path: Path) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"x"

    (tmp_path / "data").mkdir()
    left, running = (tmp_path / "data" / f".upload-{name}" for name in ("left", "running"))
    for path in (left, running):
        path.write_bytes(b"half")
    os.utime(left, (1_000_000_000, 1_000_000_000))
    kept = asyncio.run(keep(tmp_path, "rows.csv", pieces()))
    assert set((tmp_path / "data").iterdir()) == {kept, running}


def test_folders_that_cannot_be_made_and_broken_uploads_are_told(
    page: PageServer, capfd: pytest.CaptureFixture[str]
) -> None:
    home, port = page.config.home, page.config.port
    with socket.create_connection(("127.0.0.1", port)) as connection:
        head = f"PUT /api/tune/data/d.csv HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\n"
        head += f"authorization: Bearer {Authenticator(home).key}\r\ncontent-length: 99\r\n\r\nx"
        connection.sendall(head.encode())
        limit = time.monotonic() + 30
        while not list((home / "data").glob(".upload-*")):
            assert time.monotonic() < limit
            time.sleep(0.01)
    while list((home / "data").iterdir()):
        assert time.monotonic() < limit
        time.sleep(0.01)
    (home / "data").rmdir()
    (home / "models" / "made").mkdir(parents=True)
    for name in ("variant.json", "history.jsonl"):
        (home / "models" / "made" / name).write_text("{}")
    for name in ("data", "exports", "runs"):
        (home / name).write_text("a file")
    with admin(page) as client:
        assert client.put("/api/tune/data/d.csv", content=b"x").status_code == 422
        to = {"to": "gguf"}
        assert client.post("/api/tune/runs/made/export", json=to).status_code == 409
        assert client.post("/api/tune/runs", json=ASKED).status_code == 409
    write_request(home / "other", RunRequest("one"))
    (home / "other" / "runs" / ".queue.lock").mkdir()
    with pytest.raises(RunRefusedError, match="no run can be started"):
        RunQueue(home / "other").tick()
    assert "Traceback" not in capfd.readouterr().err


def test_words_of_a_run_are_no_options_of_ours(tmp_path: Path) -> None:
    settings = {
        "data": ["--json", "votes"],
        "base": "-x",
        "training.max_minutes": 0.5,
        "lora.target_modules": ["q_proj", "v_proj"],
        "overwrite": True,
        "seed": 2**60 + 1,
        "checks.patience": None,
    }
    asked = request_of(tmp_path, "one", settings, own_machine=True)
    assert asked.words == [
        *("--base=-x", "--data=--json", "--data=votes", "--name=one", "--max-minutes=0.5"),
        *("--set", "lora.target_modules=q_proj,v_proj", "--set", "overwrite=true"),
        *("--set", f"seed={2**60 + 1}"),
    ]
    assert asked.command(Path("/h")).endswith(f"--set seed={2**60 + 1} --home /h")


@pytest.mark.parametrize(
    ("name", "settings", "named"),
    [
        ("../x", {}, "name"),
        ("", {}, "name"),
        (".hidden", {}, "name"),
        ("one", {"home": "/"}, "home"),
        ("one", {"__class__": 1}, "__class__"),
        ("one", {"seed": "1\n2"}, "seed"),
        ("one", {"seed": "\ud800"}, "seed"),
        ("one", {"seed": "1" * 9999}, "seed"),
        ("one", {"data": ["/etc/passwd"]}, "/etc/passwd"),
        ("one", {"data": "../rows.jsonl"}, "../rows.jsonl"),
        ("one", {"base": "/somewhere/model"}, "/somewhere/model"),
        ("one", {"preference.reward": "../reward"}, "../reward"),
        ("one", {"template.file": "/etc/passwd"}, "template.file"),
        ("one", {"data_options.heldout_file": "x.jsonl"}, "heldout_file"),
    ],
)
def test_what_cannot_be_asked_is_refused_by_name(
    tmp_path: Path, name: str, settings: dict[str, Any], named: str
) -> None:
    """For an admin of a page where people sign in, who has no other access to the machine."""
    with pytest.raises(RunRefusedError, match=named.replace("/", ".")):
        request_of(tmp_path, name, settings, own_machine=False)
    kept: dict[str, Any] = {"data": ["votes", "owner/set"], "preference.reward": "suite"}
    assert request_of(tmp_path, "one", kept, own_machine=False)


def test_figures_are_read_on_as_they_grow(tmp_path: Path) -> None:
    path = tmp_path / "live.jsonl"
    lines = [json.dumps({"run": {"steps": 10}}).encode()]
    for step in range(1, 11):
        record = {"step": step, "loss": 11.0 - step, "progress": step / 10, "seconds": 2.0 * step}
        lines.append(json.dumps(record).encode())
    whole = b"\n".join(lines) + b"\n"
    growing = Figures(path)
    for end in range(0, len(whole) + 1, 37):
        path.write_bytes(whole[:end])
        seen = growing.read().losses
        assert [step for step, _ in seen] == list(range(1, whole[:end].count(b"\n")))
    path.write_bytes(whole)
    assert (
        growing.read().losses
        == Figures(path).read().losses
        == [(s, 11.0 - s) for s in range(1, 11)]
    )
    assert growing.summary()["steps"] == 10
    path.write_bytes(b"\n".join(lines[:5]) + b"\n")  # gone on with from an earlier checkpoint
    assert growing.read().summary()["step"] == 4
    assert growing.seconds_left == pytest.approx(8.0 * (1 / 0.4 - 1))
    path.write_bytes(b"\xff\n[]\n7\n" + lines[1] + b"\n")
    assert growing.read().losses == [(1, 10.0)]


def test_figures_that_no_answer_can_say_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "live.jsonl"
    path.write_text(
        '{"run": {"steps": NaN}}\n'
        '{"step": 1, "loss": NaN, "progress": Infinity, "seconds": 1e999, "eval_loss": Infinity}\n'
        f'{{"step": 2, "loss": {"9" * 400}, "tokens_per_second": {"9" * 400}}}\n'
        + "[" * 100_000
        + '\n{"step": 3, "loss": 2.5, "samples": [{"answer": NaN}]}\n',
        encoding="utf-8",
    )
    figures = Figures(path).read()
    assert json.dumps({**figures.summary(), **figures.curves()}, allow_nan=False)
    assert (figures.losses, figures.heldout, figures.progress) == ([(3, 2.5)], [], 0.0)


def test_a_long_curve_keeps_its_mean_and_its_end() -> None:
    points = [(step, float(step % 7)) for step in range(1, 10_001)]
    thin = thinned(points)
    assert len(thin) <= POINTS
    assert thin[-1][0] == 10_000
    assert sum(y for _, y in thin) / len(thin) == pytest.approx(3.0, abs=0.05)


def test_files_tell_how_a_run_stands(tmp_path: Path) -> None:
    """Without a page, as after kill -9 of it: queued, alive, and each way to end."""
    finder = RunFinder(tmp_path)
    asked = RunRequest("one", {"base": "starter", "data": ["starter"]})
    write_request(tmp_path, asked)
    log = folder_of(tmp_path, "one") / "log.txt"

    def state() -> str | None:
        found = finder.find("one")
        return found.state if found else None

    assert state() == "queued"
    write_request(tmp_path, RunRequest("one", asked.settings, phase="started", pid=1))
    log.write_text("")
    assert state() == "cut_off", "no word, no process"
    with log.open("rb") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        assert state() == "starting"
        folder = unfinished_of(tmp_path, "one")
        folder.mkdir(parents=True)
        (folder / "live.jsonl").write_text('{"run": {"steps": 9, "began_ms": 5}}\n')
        with (folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            lock.write(str(os.getpid()))
            lock.flush()
            found = finder.find("one")
            assert found is not None
            assert (found.state, found.pid) == ("running", os.getpid())
            later = RunRequest("one", asked.settings, phase="started", order_ms=6)
            write_request(tmp_path, later)
            assert state() == "starting", "the figures are those of an earlier part"
    log.write_text("rows: 3\narena: base 'starter': is not there\n")
    found = finder.find("one")
    assert found is not None
    assert (found.state, found.told) == ("failed", "base 'starter': is not there")
    (folder_of(tmp_path, "one") / "result.json").write_text('{"folder": "x"}')
    assert state() is None, "its variant was deleted"
    (tmp_path / "models" / "one").mkdir(parents=True)
    (tmp_path / "models" / "one" / "variant.json").write_text("{}")
    assert state() == "done"
    for broken in (b"", b"[]", b"\xff", b'{"name": "one", "share": "x"}'):
        (folder_of(tmp_path, "one") / "request.json").write_bytes(broken)
        assert finder.all() is not None


def test_a_finished_run_is_not_forgotten_for_one_that_may_not_replace_it(tmp_path: Path) -> None:
    asked = RunRequest("one", {"base": "starter", "data": ["starter"]}, phase="started")
    write_request(tmp_path, asked)
    folder = folder_of(tmp_path, "one")
    (folder / "log.txt").write_text("")
    (folder / "result.json").write_text('{"folder": "x"}')
    (tmp_path / "models" / "one").mkdir(parents=True)
    (tmp_path / "models" / "one" / "variant.json").write_text("[" * 100_000)
    queue = RunQueue(tmp_path)
    with pytest.raises(RunRefusedError, match="is a variant already"):
        queue.add(RunRequest("one", {"base": "starter", "data": ["starter"]}))
    with (folder / "score.log").open("w") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        with pytest.raises(RunRefusedError, match="is being scored"):
            queue.add(RunRequest("one", {**asked.settings, "overwrite": True}))
    (tmp_path / "models" / ".one.run").mkdir()
    (tmp_path / "models" / ".one.run" / "lock").write_text("9" * 30)
    assert queue.get("one").state == "done"


def test_a_run_goes_on_with_its_trackers_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RunQueue, "tick", lambda _: None)  # it waits
    asked = RunRequest("one", {"base": "starter", "data": ["starter"]}, phase="started")
    write_request(tmp_path, asked)
    folder = folder_of(tmp_path, "one")
    for name in ("log.txt", "result.json", "score.log", "events.out.tfevents.1"):
        (folder / name).write_text("arena: no room\n")
    queue = RunQueue(tmp_path)
    assert queue.resume("one").state == "queued"
    assert {path.name for path in folder.iterdir()} == {"request.json", "events.out.tfevents.1"}
    queue.stop("one")
    assert queue.resume("one", restart=True).state == "queued"
    assert {path.name for path in folder.iterdir()} == {"request.json"}


def wait(client: httpx2.Client, name: str, *states: str, seconds: float = 400) -> dict[str, Any]:
    """The run once it is in one of the states."""
    limit = time.monotonic() + seconds
    while True:
        run: dict[str, Any] = client.get(f"/api/tune/runs/{name}").json()
        if run["state"] in states:
            return run
        assert time.monotonic() < limit, run
        time.sleep(0.2)


def settings_of(home: Path, **changes: Any) -> dict[str, Any]:
    """A run of the tiny base in 40 steps."""
    return {
        "base": str(home / "base"),
        "data": [str(home / "rows.jsonl")],
        "training.max_steps": 40,
        "training.epochs": 1000,
        "lora.rank": 4,
        "data_options.heldout": 0.1,
        **changes,
    }


@pytest.mark.slow
def test_runs_go_one_by_one_and_survive_stop_kill_and_the_page(tmp_path: Path) -> None:
    make_base(tmp_path / "base")
    write_rows(tmp_path / "rows.jsonl", rows())
    long = settings_of(tmp_path, **{"training.max_steps": 100_000, "checks.save_steps": 20})
    with FaultServer({"a": Script()}) as server:
        with PageServer(tmp_path, server.url) as first, admin(first) as client:
            for name, settings in (("long", long), ("short", settings_of(tmp_path))):
                reply = client.post("/api/tune/runs", json={"name": name, "settings": settings})
                assert reply.status_code == 201, reply.text
            bad = {"name": "bad", "settings": {**settings_of(tmp_path), "lora.rnk": 4}}
            client.post("/api/tune/runs", json=bad)
            again = client.post("/api/tune/runs", json={"name": "short", "settings": {}})
            assert (again.status_code, "queued already" in again.json()["error"]) == (409, True)
            assert wait(client, "long", "running")["by"] == "page"
            assert client.get("/api/tune/runs/short").json()["state"] == "queued"
        # The page ended; its run went on, and the next page finds it.
        with PageServer(tmp_path, server.url) as second, admin(second) as client:
            run = wait(client, "long", "running")
            while not (run["losses"] and run["step"] > 25):
                time.sleep(0.2)
                run = wait(client, "long", "running")
            assert run["tokens_per_second"] > 0
            assert run["seconds_left"] is None or run["seconds_left"] > 0
            pid = RunQueue(tmp_path).get("long").pid
            os.kill(pid, signal.SIGKILL)
            run = wait(client, "long", "cut_off")
            assert run["can_resume"]
            done = wait(client, "short", "done")
            assert done["losses"][-1][0] == 40
            assert done["heldout_losses"], "held-out loss at each evaluation"
            assert "done" in {one["state"] for one in client.get("/api/tune/runs").json()["runs"]}
            failed = wait(client, "bad", "failed")
            assert "did you mean 'lora.rank'" in failed["error"], "as `arena tune` says it"
            client.post("/api/tune/runs/long/resume", json={})
            run = wait(client, "long", "running")
            assert run["step"] is None or run["step"] >= 20, "from its checkpoint"
            assert client.post("/api/tune/runs/long/stop").json()["state"] == "stopping"
            run = wait(client, "long", "stopped")
            assert "repeat the command to go on" in run["said"]
            after = client.get("/api/tune/runs/short/after").json()
            assert (after["card"].startswith("---"), after["jobs"]) == (True, {})
            for name in ("long", "short", "bad"):
                assert client.delete(f"/api/tune/runs/{name}").status_code == 204
            assert client.get("/api/tune/runs").json()["runs"] == []
            assert [path.name for path in (tmp_path / "models").iterdir()] == []


def test_scores_and_exports_are_told_by_their_files(tmp_path: Path) -> None:
    """Also after the page that began them has died: a lock while they go on, then the result."""
    queue = RunQueue(tmp_path)
    write_request(tmp_path, RunRequest("one", phase="started"))
    with pytest.raises(RunRefusedError, match="no variant yet"):
        queue.score("one")
    folder = folder_of(tmp_path, "one")
    assert queue.jobs.told("one") == {}
    (folder / "score.log").write_text("arena: model 'one': is gone\n")
    assert queue.jobs.told("one")["score"] == {
        "state": "failed",
        "result": None,
        "error": "model 'one': is gone",
    }
    with (folder / "score.log").open("rb") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        assert queue.jobs.told("one")["score"]["state"] == "running"
        with pytest.raises(RunRefusedError, match="goes on already"):
            queue.jobs.score("one", "starter")
        with pytest.raises(RunRefusedError, match="wait for the end"):
            queue.remove("one")
    (folder / "score.json").write_text('{"suite": "starter"}')
    assert queue.jobs.told("one")["score"]["result"] == {"suite": "starter"}
    with pytest.raises(RunRefusedError, match=r"target '\.\./x'"):
        queue.jobs.export("one", "../x")


def test_nothing_is_said_of_a_run_that_outlives_its_page(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    with (tmp_path / "out").open("wb") as out:
        command = LongCommand(["--version"], out, out.fileno())
        pid = command.pid
        del command  # warnings are errors here, and one from `__del__` ends this test
        gc.collect()
    assert os.waitpid(pid, 0)[1] == 0
    assert not recwarn.list
    assert b"arena" in (tmp_path / "out").read_bytes()


@pytest.mark.parametrize(
    "settings",
    [
        {"base": "/etc"},
        {"data": "/etc/passwd"},
        {"policy.template.file": "/etc/passwd"},
        {"reward.data_options.heldout_file": "/etc/passwd"},
        {"policy.preference.reward": "/etc/model"},
    ],
)
def test_a_loop_of_a_shared_page_reads_no_file_of_the_machine(settings: dict[str, str]) -> None:
    with pytest.raises(RunRefusedError):
        loop_of("x", "starter", settings, own_machine=False)
    asked = loop_of("x", "starter", {"policy": "dpo"}, own_machine=False)
    assert (asked.settings["base"], asked.settings["data"]) == ("starter", "votes")
