"""What `arena up` says is kept: whole lines of page and children, bounded, for the owner alone."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from arena import program_log as module
from arena.config.page_config import PageConfig
from arena.errors import ArenaError
from arena.program_log import ProgramLog, program_log
from arena.up import _tell_key
from arena.web.authentication import Authenticator


def kept(folder: Path) -> list[str]:
    """The lines of the newest file, without their times."""
    (path,) = folder.glob("arena-*.log")
    lines = path.read_text(encoding="utf-8").splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ ", line) for line in lines)
    return [line.partition(" ")[2] for line in lines]


def test_what_page_and_child_say_is_on_the_terminal_and_in_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = r"import os; os.write(2, b'10 %\r50 %\rdone\n'); os.write(2, b'half \xc3'); "
    script += r"os.write(2, b'\xa4\xff')"
    terminal = io.StringIO()

    def program() -> None:
        with program_log(tmp_path, 7860) as log:
            print("ready")
            print("note", file=sys.stderr)
            child = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE)
            assert child.stderr is not None
            log.follow("models", child.stderr, terminal).join(30)
            child.wait()
            raise ArenaError("too bad")

    with pytest.raises(ArenaError, match="too bad"):
        program()
    assert capsys.readouterr() == ("ready\n", "note\n")
    assert terminal.getvalue() == "10 %\r50 %\rdone\nhalf ä�", "as it came"
    lines = ["page ready", "page note", "models done", "page arena: too bad", "models half ä�"]
    assert kept(tmp_path / "logs") == lines
    print("after")
    assert len(kept(tmp_path / "logs")) == len(lines)


def test_the_files_are_bounded_and_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FILE_BYTES", 10_000)
    old = os.umask(0)
    try:
        log = ProgramLog(tmp_path / "logs" / "arena-1.log")
        for number in range(500):
            log.show("page", f"{number} " + "x" * 1000 + "\n", io.StringIO())
        log.show("page", "y" * 100_000, io.StringIO())  # a line that does not end
        assert sum(map(len, log._begun.values())) <= module.LINE_CHARS
        log.close()
    finally:
        os.umask(old)
    files = list((tmp_path / "logs").iterdir())
    assert len(files) == 1 + module.OLD_FILES
    assert all(path.stat().st_size < 15_000 for path in files)
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
    assert "y" * 100 in (tmp_path / "logs" / "arena-1.log").read_text()


def test_neither_a_lost_terminal_nor_a_full_disk_ends_anything(tmp_path: Path) -> None:
    gone = io.StringIO()
    gone.close()
    log = ProgramLog(tmp_path / "logs" / "arena-1.log")
    log.show("page", "one\n", gone)
    log.close()
    assert kept(tmp_path / "logs") == ["page one"]

    (tmp_path / "file").write_text("in the way")
    terminal = io.StringIO()
    blocked = ProgramLog(tmp_path / "file" / "arena-1.log")
    for _ in range(5):
        blocked.show("page", "one\n", terminal)
    blocked.close()
    told = [line for line in terminal.getvalue().splitlines() if line != "one"]
    assert len(told) == 1, "told once"
    assert "file/arena-1.log is not written" in told[0]

    if Path("/dev/full").exists():
        full = io.StringIO()
        (tmp_path / "logs" / "full.log").symlink_to("/dev/full")
        log = ProgramLog(tmp_path / "logs" / "full.log")
        log.show("page", "one\n", full)
        log.show("page", "two\n", full)
        log.close()
        assert "No space left" in full.getvalue()


def test_the_link_with_the_key_is_on_the_terminal_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(sys, "__stderr__", terminal)
    with program_log(tmp_path, 7860):
        print("ready")
        _tell_key(PageConfig((), tmp_path))
    assert f"/enter?key={Authenticator(tmp_path).key}" in terminal.getvalue()
    assert kept(tmp_path / "logs") == ["page ready"]
