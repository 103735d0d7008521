"""Helper processes whose parent was killed end at once, and without a word."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys

from arena.page.drawing import process
from serving.models import render_child


def renderer(line: socket.socket) -> subprocess.Popen[bytes]:
    number = str(line.fileno())
    return subprocess.Popen(
        [sys.executable, "-P", render_child.__file__, number, "13", "536870912", "8000000"],
        pass_fds=[line.fileno()],
        stderr=subprocess.PIPE,
    )


def test_a_renderer_whose_server_died_while_it_loads_says_nothing() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        child = renderer(theirs)
    assert child.communicate(timeout=120) == (None, b"")
    assert child.returncode == 0


def test_a_renderer_whose_server_died_while_it_waits_says_nothing() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        child = renderer(theirs)
        theirs.close()
        assert render_child.receive(ours) == {"ready": True}
    assert child.communicate(timeout=120) == (None, b"")
    assert child.returncode == 0


def test_a_drawing_process_whose_page_died_says_nothing() -> None:
    source, sink = os.pipe()
    child = subprocess.Popen(
        [sys.executable, "-P", process.__file__, "1", "4000000000"],
        stdin=subprocess.PIPE,
        stdout=sink,
        stderr=subprocess.PIPE,
    )
    os.close(sink)
    os.close(source)
    body = b'[["marked", "a", "b"]]'
    assert child.communicate(struct.pack(">I", len(body)) + body, timeout=120) == (None, b"")
    assert child.returncode == 0
