"""`arena up` starts and answers on a machine without a network, and never asks for a name.

Run as a script, in a network namespace that has loopback only, this file is the probe.
"""

from __future__ import annotations

import fcntl
import json
import shutil
import socket
import struct
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from running import arena_up, clean_environment

# Loaded by each Python process at its start: notes every name that is looked up.
RECORDER = """
import os, socket

with open(os.environ["LOOKUPS"], "a") as notes:
    notes.write("loaded\\n")  # proof that the process is watched

def noted(real):
    def look_up(host, *args, **kwargs):
        with open(os.environ["LOOKUPS"], "a") as notes:
            notes.write(f"{host!r}\\n")
        return real(host, *args, **kwargs)
    return look_up

for name in ("getaddrinfo", "gethostbyname", "gethostbyname_ex"):
    setattr(socket, name, noted(getattr(socket, name)))
"""
LOOPBACK = {"loaded", "None", "'127.0.0.1'", "'::1'", "'0.0.0.0'", "'localhost'", "b'127.0.0.1'"}
SUPPORT = Path(__file__).parents[1] / "support"
NAMESPACE = ["unshare", "--map-root-user", "--net"]
UP_AND_RUNNING = 0x41  # IFF_UP | IFF_RUNNING
SIOCSIFFLAGS = 0x8914


def raise_loopback() -> None:
    """Switch `lo` on, as `ip link set lo up` does."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", UP_AND_RUNNING))


def ask(url: str, body: dict[str, object] | None = None) -> bytes:
    """The body of the reply; a POST if there is something to send."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as reply:
        content: bytes = reply.read()
    return content


def probe(place: Path) -> None:
    """Inside the namespace: run `arena up`, look at the page, ask each model, print what came."""
    raise_loopback()
    (place / "sitecustomize.py").write_text(RECORDER)
    notes = place / "lookups"
    environment = clean_environment(PYTHONPATH=str(place), LOOKUPS=str(notes))
    with arena_up("--home", place / "home", cwd=place, environment=environment) as running:
        page = ask(running.url).decode()
        server = running.serve_url
        models = [model["id"] for model in json.loads(ask(f"{server}/v1/models"))["data"]]
        question = [{"role": "user", "content": "What is the capital of France?"}]
        answers = {}
        for model in models:
            if model != "starter":
                body = {"model": model, "messages": question, "max_tokens": 8}
                reply = json.loads(ask(f"{server}/v1/chat/completions", body))
                answers[model] = reply["choices"][0]["message"]["content"]
    found = {"page": "gradio" in page, "answers": answers, "lookups": notes.read_text().split()}
    print(json.dumps(found))


def why_no_namespace() -> str | None:
    """None if a process here can have a network namespace of its own, else the reason."""
    if shutil.which("unshare") is None:
        return "no unshare (util-linux) on this machine"
    tried = subprocess.run([*NAMESPACE, "true"], capture_output=True, text=True, check=False)
    return tried.stderr.strip() or None


@pytest.mark.slow
def test_up_needs_no_network_and_asks_for_no_name(tmp_path: Path) -> None:
    reason = why_no_namespace()
    if reason:
        pytest.skip(f"cannot take the network away: {reason}")
    done = subprocess.run(
        [*NAMESPACE, sys.executable, __file__, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        env=clean_environment() | {"PYTHONPATH": str(SUPPORT)},
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["page"]
    assert set(found["answers"]) == {"starter-full", "starter-lora", "starter-prefix"}
    assert all(answer.strip() for answer in found["answers"].values())
    assert "loaded" in found["lookups"], "the recorder was not loaded"
    assert set(found["lookups"]) <= LOOPBACK


if __name__ == "__main__":
    probe(Path(sys.argv[1]))
