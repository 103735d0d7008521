"""The process that serves: a socket, the models, the application, and a thread of it for tests.

Knows uvicorn and the registry; does not know routes.
"""

from __future__ import annotations

import asyncio
import errno
import gc
import logging
import socket
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import TracebackType

import uvicorn
from fastapi import FastAPI

from serving.config import ServeConfig
from serving.elsewhere.follower import Follower
from serving.elsewhere.forwarding import Forwarder
from serving.elsewhere.vllm_process import VllmConfig, VllmProcess
from serving.engine.worker import Worker
from serving.errors import PortInUseError, ServingError
from serving.http.app import create_app
from serving.http.connections import ACCEPTED_AT_ONCE, BACKLOG, BoundedProtocol, QuietLoop
from serving.models.registry import Registry
from serving.models.watcher import Watcher

logger = logging.getLogger(__name__)
STARTUP_SECONDS = 30.0
DRAIN_SECONDS = 0.5
SHUTDOWN_SECONDS = 3


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; PortInUseError names the port and what to do."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol named, asyncio sends small pieces at once; else a stream's first token would
    # wait 40 ms for an acknowledgement.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise PortInUseError(
                f"port {port} on {host} is in use; stop what listens there or give another --port"
            ) from error
        raise ServingError(f"cannot listen on {host}:{port}: {error.strerror}") from error
    return listener


def serve(
    config: ServeConfig,
    on_ready: Callable[[str], None] | None = None,
    vllm: VllmConfig | None = None,
) -> None:
    """Load the models, listen, and block until interrupted; `on_ready` is told the URL.

    With `vllm` that engine is started beside ours and answers for base and LoRA variants.
    """
    # A person reads along: what is loaded, refused and answered. No effect if logging is set up.
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("serving").setLevel(logging.INFO)
    # PEFT asks a model for an attribute that was renamed. Where it does, filters are set for a
    # moment, which another thread's may undo.
    warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*")
    if config.hosts == ("*",):
        logger.warning(
            "on %s any name is answered, a page's elsewhere too: name this server's own with "
            "--allowed-host", config.host,
        )  # fmt: skip
    listener = bind(config.host, config.port)  # First: a taken port should not cost a load.
    with listener, Registry(config) as registry, watching(registry), beside(registry, vllm) as way:
        # Half a million objects of libraries stay for good; were the collector to look at them
        # all, that would stop every thread for a quarter of a second.
        gc.freeze()
        server = _server_of(registry, on_ready and (lambda: on_ready(_url(listener))), way)
        server.run(sockets=[listener])


@contextmanager
def watching(registry: Registry) -> Iterator[None]:
    """Follow home's variants meanwhile, if there is a home."""
    if registry.config.home is None:
        yield
        return
    watcher = Watcher(registry, registry.config.home)
    watcher.start()
    try:
        yield
    finally:
        watcher.stop()


@contextmanager
def beside(registry: Registry, vllm: VllmConfig | None) -> Iterator[Forwarder | None]:
    """The way to a vLLM that runs meanwhile, if one is to."""
    if vllm is None:
        yield None
        return
    with Follower(registry, VllmProcess(vllm)) as follower:
        yield Forwarder(follower, registry.config.limits.deadline_seconds)


class ServerThread:
    """A server in a thread of this process; a context manager that stops it.

    `url` is where it answers once `start` (or `with`) returned.
    """

    def __init__(self, config: ServeConfig, vllm: VllmConfig | None = None) -> None:
        self.config = config
        self._vllm = vllm
        self._exit = ExitStack()
        listener = bind(config.host, config.port)
        self._exit.callback(listener.close)
        self._listener = listener
        self.url = _url(listener)
        self.registry: Registry | None = None

    def start(self) -> ServerThread:
        """Load the models and answer requests; ServingError when that fails."""
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Stop answering and free the models and the port; safe to call twice."""
        self._exit.close()

    def _start(self) -> None:
        registry = Registry(self.config)
        self.registry = registry
        ready = threading.Event()
        way = self._exit.enter_context(beside(registry, self._vllm))
        server = _server_of(registry, ready.set, way)
        thread = threading.Thread(
            target=server.run, args=([self._listener],), name="serving-http", daemon=True
        )
        # Undone from the last to the first: end the streams, then wait for the connections.
        self._exit.callback(thread.join, 10)
        self._exit.callback(registry.close)
        thread.start()
        self._exit.callback(setattr, server, "should_exit", True)
        self._exit.enter_context(watching(registry))
        deadline = time.monotonic() + STARTUP_SECONDS
        while not ready.wait(0.1):
            if not thread.is_alive() or time.monotonic() > deadline:
                raise ServingError(f"the server at {self.url} did not start")

    def __enter__(self) -> ServerThread:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def _server_of(
    registry: Registry, on_ready: Callable[[], None] | None, outside: Forwarder | None = None
) -> _Uvicorn:
    config = registry.config
    app = create_app(registry, config)
    app.state.server.outside = outside
    keep_alive = config.limits.keep_alive_seconds
    return _Uvicorn(app, on_ready, keep_alive, outside, registry.worker)


class _Uvicorn(uvicorn.Server):
    """Uvicorn that tells when it listens; when it ends, those of `worker` who wait are told why."""

    def __init__(
        self,
        app: FastAPI,
        on_ready: Callable[[], None] | None,
        keep_alive: int,
        outside: Forwarder | None = None,
        worker: Worker | None = None,
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                log_level="warning",
                access_log=False,
                timeout_keep_alive=keep_alive,
                timeout_graceful_shutdown=SHUTDOWN_SECONDS,
                http=BoundedProtocol,
                backlog=ACCEPTED_AT_ONCE,
            )
        )
        self._on_ready = on_ready
        self._outside = outside
        self._worker = worker

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        asyncio.get_running_loop().set_exception_handler(QuietLoop())
        await super().startup(sockets)
        for listener in sockets or ():
            listener.listen(BACKLOG)  # as many wait as before
        if self.started and self._on_ready is not None:
            self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept nothing further; what is not answered soon gets an error that says why."""
        ending = [asyncio.create_task(_end_rows(self._worker))] if self._worker else []
        await super().shutdown(sockets)
        await asyncio.gather(*ending)
        if self._outside is not None:
            await self._outside.close()


async def _end_rows(worker: Worker) -> None:
    until = time.monotonic() + DRAIN_SECONDS
    while worker.is_busy and time.monotonic() < until:
        await asyncio.sleep(0.05)
    await asyncio.to_thread(worker.stop, SHUTDOWN_SECONDS)


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    shown = "127.0.0.1" if host in ("0.0.0.0", "::") else host
    return f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"
