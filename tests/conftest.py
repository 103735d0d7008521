"""What all tests share: no network but loopback, a scratch cache, and the browser.

Fixtures of one part live in `<part>_fixtures.py` beside this file and are named in
`pytest_plugins`.
"""

from __future__ import annotations

import functools
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import chromium
import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser

# Libraries read these when they are first imported, which is before any fixture runs.
CACHE = tempfile.mkdtemp(prefix="arena-tests-")
os.environ.update(
    DO_NOT_TRACK="1",
    GRADIO_ANALYTICS_ENABLED="False",
    HF_HOME=CACHE,
    HF_HUB_DISABLE_TELEMETRY="1",
    MPLBACKEND="Agg",
    TOKENIZERS_PARALLELISM="false",
)
os.environ.pop("ARENA_HOME", None)
if "PYTEST_XDIST_WORKER" in os.environ:
    # Test processes side by side: more threads than cores would wait for each other.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

LOOPBACK = {"localhost", "127.0.0.1", "::1", "0.0.0.0", "::", ""}
# Names that no resolver may ever answer (RFC 2606 and 6761): a test may ask for them.
RESERVED = (".invalid", ".test", ".example")

pytest_plugins: list[str] = ["store_fixtures", "serving_fixtures", "tuning_fixtures"]


chromium_path = functools.cache(chromium.find_chromium)


def pytest_unconfigure() -> None:
    """Drop the scratch cache."""
    shutil.rmtree(CACHE, ignore_errors=True)


@pytest.fixture(autouse=True)
def no_lookups(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Refuse every DNS look-up of this process, and fail the test that asked for one."""
    asked: list[str] = []
    real = socket.getaddrinfo

    def getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host or ""
        if name in LOOPBACK:
            return real(host, *args, **kwargs)
        if not name.endswith(RESERVED):
            asked.append(name)
        raise socket.gaierror(socket.EAI_NONAME, f"tests have no network; looked up {name!r}")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    yield
    assert asked == [], "looked up hosts outside this machine"


def pytest_runtest_setup(item: pytest.Item) -> None:
    """A test marked `browser` needs a Chromium: skipped with the reason, failed under CI."""
    if item.get_closest_marker("browser") and chromium_path() is None:
        if os.environ.get("CI") == "true":
            pytest.fail(chromium.why_missing(), pytrace=False)
        pytest.skip(chromium.why_missing())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with much slow work come first, so that no process is left alone with one at the end.

    The Makefile keeps xdist from ordering the files by their number of tests instead.
    """
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return
    work: dict[Path, float] = {}
    for item in items:
        slow = item.get_closest_marker("slow") or item.get_closest_marker("browser")
        work[item.path] = work.get(item.path, 0.0) + (5.0 if slow else 0.1)  # rough seconds
    items.sort(key=lambda item: -work[item.path])  # stable: the order in a file stays


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One headless Chromium for a test file; each test opens its own context in it.

    Not for the session: Playwright keeps an event loop running in this thread, in which
    `asyncio.run` of a later test file would fail.
    """
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(
            executable_path=chromium_path(), args=list(chromium.ARGUMENTS)
        )
        yield running
        running.close()
