"""Runs a web application on a socket of ours until it is told to stop; says when it answers.

Knows sockets, signals and uvicorn; knows no page and no model.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvicorn

from arena.errors import ArenaError
from arena.web.connections import (
    ACCEPTED_AT_ONCE,
    BACKLOG,
    MOST_CONNECTIONS,
    AcceptFailures,
    PunctualProtocol,
)

if TYPE_CHECKING:
    from starlette.types import ASGIApp

SHUTDOWN_SECONDS = 2
TELL_SECONDS = 1.5


class ListenError(ArenaError):
    """The address cannot be listened on."""


class HomeError(ArenaError):
    """The home folder cannot be used."""


def bind(host: str, port: int, option: str = "--port") -> socket.socket:
    """A listening socket; a taken port is named together with the option that changes it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol named, asyncio sends small pieces at once and waits for no acknowledgement.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise ListenError(
                f"port {port} is in use; stop what listens there or choose another with {option}"
            ) from error
        raise ListenError(
            f"cannot listen on {host}:{port} ({error.strerror}); choose another with {option}"
        ) from error
    except OverflowError as error:
        listener.close()
        raise ListenError(f"port {port} is none; give {option} 0 to 65535") from error
    return listener


def prepare_home(home: Path) -> Path:
    """The home folder, made if it was missing, and proved to be writable."""
    try:
        home.mkdir(parents=True, exist_ok=True)
        probe = home / f".write-test-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise HomeError(
            f"home {str(home)!r} cannot be written to ({error.strerror}); "
            "choose another with --home"
        ) from error
    return home.resolve()


class QuietServer(uvicorn.Server):
    """uvicorn that ends by returning: a signal closes it in order and is not raised again.

    `before_end` is awaited first of all, a moment at most: those who watch are told.
    """

    def __init__(self, config: uvicorn.Config, before_end: Callable[[], Awaitable[Any]]) -> None:
        super().__init__(config)
        self._before_end = before_end

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and let as many wait as before."""
        await super().startup(sockets)
        for listener in sockets or ():
            listener.listen(BACKLOG)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Tell, then close."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TELL_SECONDS):
                await self._before_end()
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """SIGINT and SIGTERM ask for an orderly end; a second one for an end at once."""
        wanted = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self.handle_exit) for number in wanted}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def run(
    app: ASGIApp,
    listener: socket.socket,
    beside: Callable[[QuietServer], Awaitable[Any]],
    before_end: Callable[[], Awaitable[Any]],
) -> None:
    """Serve until a signal; `beside` runs in the same loop, and its failure ends the server.

    `before_end`: what is done first when it ends.
    """
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        timeout_keep_alive=30,
        http=PunctualProtocol,
        backlog=ACCEPTED_AT_ONCE,
        limit_concurrency=MOST_CONNECTIONS,
        server_header=False,
        proxy_headers=False,
    )
    server = QuietServer(config, before_end)
    gc.collect()
    gc.freeze()  # what stands now stays: looking through it again would halt every stream at once

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(AcceptFailures())
        serving = asyncio.create_task(server.serve([listener]))
        helper = asyncio.create_task(_guarded(beside, server))
        await serving
        helper.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await helper

    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())


async def _guarded(beside: Callable[[QuietServer], Awaitable[Any]], server: QuietServer) -> None:
    try:
        await beside(server)
    except ArenaError:
        server.should_exit = True
        raise
