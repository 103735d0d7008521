"""What stands between a browser and the page: a proxy's path, its word on the visitor, the name
asked for.

A proxy is believed only where its address was given; what others forward is taken away, so that
nothing behind reads it. Plain ASGI; knows no visitor and no battle.
"""

from __future__ import annotations

import ipaddress
import json
import socket
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from arena.config.page_config import PublicAddress

ROOT_KEY = "arena.root_path"
FORWARDED = ("forwarded", "x-forwarded-", "x-real-ip", "x-original-", "x-gradio-server")
LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "[::1]")
ANY = "*"
FIGURES = "<address>"
"""Among the names known: every address in figures."""


def root_path_of(scope: Mapping[str, Any]) -> str:
    """The path that the page lies under for a browser, without its last slash; "" for none."""
    return str(scope.get(ROOT_KEY, ""))


def trusted_hosts(host: str, allowed: Sequence[str]) -> list[str]:
    """Names under which the page may be asked for.

    This machine's own and those given, which keeps a foreign page from reaching it by rebinding its
    name. Listening on the network: addresses in figures, too, which nobody can rebind.
    """
    own = [*LOOPBACK_HOSTS, *allowed]
    if host in ("127.0.0.1", "localhost", "::1"):
        return own
    return [*own, socket.gethostname().lower(), host, FIGURES]


def is_in_figures(name: str) -> bool:
    """Whether a name is an address."""
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


class ProxyMiddleware:
    """Middleware: the request as the browser sent it, or a refusal of the name it was sent to.

    Args:
        app: the page.
        public: where the page is put.
        hosts: names that it may be asked for by; one like `*.example.org` stands for all below it.
    """

    def __init__(self, app: ASGIApp, public: PublicAddress, hosts: Sequence[str]) -> None:
        self.app = app
        self.public = public
        self.hosts = [*hosts, *(urlsplit(origin).hostname or "" for origin in public.origins)]
        inner: Any = self._from_browser
        self._believing = ProxyHeadersMiddleware(inner, trusted_hosts=list(public.proxies))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what is asked for by a known name."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        scope = dict(scope)
        client = scope.get("client")
        if client and client[0] in self._believing.trusted_hosts:
            host = Headers(scope=scope).get("x-forwarded-host", "").split(",")[0].strip()
            if host:
                scope["headers"] = [
                    *(item for item in scope["headers"] if item[0] != b"host"),
                    (b"host", host.encode("latin-1")),
                ]
        believing: Any = self._believing
        await believing(scope, receive, send)

    async def _from_browser(self, scope: Scope, receive: Receive, send: Send) -> None:
        host = Headers(scope=scope).get("host", "")
        if not self._is_known(host):
            await _refuse(host, scope, send)
            return
        headers = [
            item for item in scope["headers"] if not item[0].decode("latin-1").startswith(FORWARDED)
        ]
        origin = self._origin_of(host)
        if origin is not None:  # a proxy that asks by its own name; what follows needs the page's
            scope["scheme"] = origin.scheme
            headers = [item for item in headers if item[0] != b"host"]
            headers.append((b"host", origin.netloc.encode("latin-1")))
        scope["headers"] = headers
        scope[ROOT_KEY] = self.public.root_path
        inside = self.public.root_path + "/"
        if self.public.root_path and scope["path"].startswith(inside):
            scope["path"] = scope["path"].removeprefix(self.public.root_path)
            raw = scope.get("raw_path") or b""
            scope["raw_path"] = raw.removeprefix(self.public.root_path.encode())
        await self.app(scope, receive, send)

    def _is_known(self, host: str) -> bool:
        name = (
            (urlsplit(f"//{host}").hostname or "")
            if "[" not in host
            else host.partition("]")[0] + "]"
        )
        return any(
            pattern in (ANY, name)
            or (pattern == FIGURES and is_in_figures(name))
            or (pattern.startswith("*.") and name.endswith(pattern[1:]))
            for pattern in self.hosts
        )

    def _origin_of(self, host: str) -> Any:
        """The page's public address where a request names another host, such as a proxy's own."""
        origins = [urlsplit(origin) for origin in self.public.origins]
        if not origins or any(origin.netloc == host for origin in origins):
            return None
        return origins[0]


async def _refuse(host: str, scope: Scope, send: Send) -> None:
    """Say which name is not known, and what lets it in."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.close"})
        return
    shown = "".join(char for char in host if char.isprintable())[:100]
    text = f"the page does not know the name {shown!r}; start it with --allowed-host and that name"
    body = json.dumps({"error": text}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 400, "headers": headers})
    await send({"type": "http.response.body", "body": body})
