"""The HTTP client of every call to a model server: bounded, without redirects, with its own key.

Knows HTTP; knows no model, no battle and no store.
"""

from __future__ import annotations

import os
import ssl
import urllib.request
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import httpx2
from huggingface_hub import set_async_client_factory

from arena.backends.bounds import ANSWER, LOOKUP, Bounds, bound
from arena.backends.transport import CompiledTransport

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
UNPACKED = {"accept-encoding": "identity"}  # packed words come later, and bombs come packed


def key_of(key_env: str | None) -> str:
    """The value of an environment variable; a dash where there is none."""
    return (os.environ.get(key_env, "") if key_env else "") or "-"


@lru_cache(maxsize=1)
def _ssl_context() -> ssl.SSLContext:
    return httpx2.create_ssl_context()


@lru_cache(maxsize=1)
def _has_proxies() -> bool:
    """Whether the environment names proxies; a client that looks itself does so each time."""
    return bool(urllib.request.getproxies())


def http_client(timeout: float | None = None, bounds: Bounds = LOOKUP) -> httpx2.AsyncClient:
    """A client that follows no redirect and takes no proxy on the way to this machine.

    Replies are held to `bounds`; `timeout` is of each step, so a caller sets the whole's deadline.
    """
    hooks: dict[str, list[Callable[..., Any]]] = {"response": [partial(bound, bounds=bounds)]}
    if not _has_proxies():
        return httpx2.AsyncClient(
            transport=CompiledTransport(_ssl_context()),
            timeout=timeout,
            trust_env=False,
            headers=UNPACKED,
            event_hooks=hooks,
        )
    return httpx2.AsyncClient(
        follow_redirects=False,
        timeout=timeout,
        verify=_ssl_context(),
        mounts={f"all://{host}": None for host in LOOPBACK},
        headers=UNPACKED,
        event_hooks=hooks,
    )


def _answer_client() -> httpx2.AsyncClient:
    return http_client(bounds=ANSWER)


def install_http_client() -> None:
    """Make huggingface_hub use our client for its asynchronous calls in this process."""
    set_async_client_factory(_answer_client)
