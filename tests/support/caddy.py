"""Runs the real Caddy in front of a page, with a site of ours; knows no page."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from nginx import listens

CADDY = shutil.which("caddy")
WITHOUT_TLS = "{\n\tadmin off\n\tauto_https off\n}\n\n"


@contextmanager
def caddy(folder: Path, site: str, port: int) -> Iterator[str]:
    """The address of Caddy with this site, whose name is made `port`; skips without it."""
    if CADDY is None:
        pytest.skip("no caddy here; Debian has it as caddy")
    folder.mkdir(parents=True, exist_ok=True)
    site, number = re.subn(r"(?m)^\S+ \{$", f"http://127.0.0.1:{port} {{", site, count=1)
    assert number == 1
    config = folder / "Caddyfile"
    config.write_text(WITHOUT_TLS + site)
    own = {"XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder), "HOME": str(folder)}
    with (folder / "caddy.log").open("wb") as log:
        process = subprocess.Popen(
            [CADDY, "run", "--config", str(config), "--adapter", "caddyfile"],
            env={**os.environ, **own},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        limit = time.monotonic() + 30
        while not listens(port):
            assert process.poll() is None, (folder / "caddy.log").read_text()
            assert time.monotonic() < limit, "Caddy does not listen"
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)
