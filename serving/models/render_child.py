"""The process in which chat templates are rendered: a stranger's program, kept small.

Started by `serving.models.rendering` with one socket. A frame is eight bytes of length and JSON.
Each rendering has a bound on its processor time, on memory and on what it writes; the system ends
the process when it goes beyond, whatever it is doing, and the parent starts another. Imports
transformers without torch, and nothing of this program.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import socket
import sys
from pathlib import Path
from typing import Any

HEAD_BYTES = 8
STATM = Path("/proc/self/statm")


def main() -> None:
    """Render what comes over the socket until the other end closes it."""
    descriptor, cpu_seconds, memory_bytes, most_characters = map(int, sys.argv[1:])
    os.environ["USE_TORCH"] = "0"
    from transformers.utils.chat_template_utils import render_jinja_template

    line = socket.socket(fileno=descriptor)
    if STATM.is_file():  # Linux; elsewhere the system does not hold to a bound on addresses
        used = int(STATM.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + memory_bytes,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(ConnectionError):  # a parent that died leaves nobody to tell
        send(line, {"ready": True})
        while (request := receive(line)) is not None:
            signal.setitimer(signal.ITIMER_VIRTUAL, cpu_seconds)
            answer = render(render_jinja_template, request, most_characters)
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            send(line, answer)


def render(function: Any, request: dict[str, Any], most_characters: int) -> dict[str, Any]:
    """The text, or why there is none."""
    try:
        text = str(function(**request)[0][0])
        if len(text) > most_characters:
            return {"kind": "bound", "error": f"it writes more than {most_characters:,} characters"}
        text.encode("utf-8")
    except (MemoryError, RecursionError, OverflowError) as error:
        return {"kind": "bound", "error": f"it takes too much memory ({type(error).__name__})"}
    except Exception as error:
        return {"kind": type(error).__name__, "error": str(error)[:1_000]}
    return {"text": text}


def send(line: socket.socket, value: Any) -> None:
    """One frame."""
    body = json.dumps(value).encode()
    line.sendall(len(body).to_bytes(HEAD_BYTES, "big") + body)


def receive(line: socket.socket) -> Any:
    """The next frame; None when the other end is gone."""
    head = exactly(line, HEAD_BYTES)
    body = head and exactly(line, int.from_bytes(head, "big"))
    return json.loads(body) if body else None


def exactly(line: socket.socket, count: int) -> bytes:
    """So many bytes; none when the other end is gone before."""
    data = bytearray()
    while len(data) < count:
        part = line.recv(min(count - len(data), 2**20))
        if not part:
            return b""
        data += part
    return bytes(data)


if __name__ == "__main__":
    main()
