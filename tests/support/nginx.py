"""Runs the real nginx in front of a page, with a server block of ours; knows no page."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
WHOLE = """daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
worker_processes 1;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {server}
}}
"""


def documented(page: Path, language: str = "nginx") -> str:
    """The server block of a page of the docs, or another's site."""
    found = re.search(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    return found[1]


@contextmanager
def nginx(folder: Path, server: str, port: int) -> Iterator[str]:
    """The address of nginx with this server block, whose port is made `port`; skips without it."""
    if NGINX is None:
        pytest.skip("no nginx here; Debian has it as nginx-light")
    folder.mkdir(parents=True, exist_ok=True)
    server = re.sub(r"listen \d+;", f"listen 127.0.0.1:{port};", server)
    config = folder / "nginx.conf"
    config.write_text(WHOLE.format(folder=folder, server=server))
    process = subprocess.Popen([NGINX, "-p", str(folder), "-c", str(config)])
    try:
        limit = time.monotonic() + 30
        while not listens(port):
            assert process.poll() is None, (folder / "error.log").read_text()
            assert time.monotonic() < limit, "nginx does not listen"
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


def listens(port: int) -> bool:
    """Whether anything answers at this port of loopback."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
