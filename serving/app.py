"""The HTTP application over a registry of models, and the process that serves it.

Wires routes, error answers and listening together; each route's shapes are in `routes_*`.
"""

from __future__ import annotations

import errno
import socket
import threading
import time
from collections.abc import Callable
from types import TracebackType

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from serving import routes_generate, routes_models, routes_openai
from serving.config import ServeConfig
from serving.context import Server, speaks_openai
from serving.errors import EngineFailure, PortInUseError, ServingError
from serving.problems import Problem, from_exception
from serving.registry import Registry, UnknownModelError

STARTUP_SECONDS = 30.0


def create_app(registry: Registry, config: ServeConfig) -> FastAPI:
    """The application; closing the registry stays the caller's business."""

    app = FastAPI(title="instruct-arena serving", openapi_url="/api-doc/openapi.json")
    app.state.server = Server(registry, config)
    for module in (routes_generate, routes_openai, routes_models):
        app.include_router(module.router)
    for kind in (Problem, UnknownModelError, EngineFailure):
        app.add_exception_handler(kind, _answer_problem)
    app.add_exception_handler(HTTPException, _answer_http)
    return app


async def _answer_problem(request: Request, error: Exception) -> Response:
    is_openai = request.url.path.find("/v1/") >= 0 and speaks_openai(request)
    return from_exception(error).response(openai=is_openai)


async def _answer_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    problem = Problem(error.status_code, "not_found" if error.status_code == 404 else "validation",
                      f"{error.detail}: {request.method} {request.url.path}")  # fmt: skip
    is_openai = request.url.path.find("/v1/") >= 0 and speaks_openai(request)
    return problem.response(openai=is_openai)


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; PortInUseError names the port and what to do."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise PortInUseError(
                f"port {port} on {host} is in use; stop what listens there or give another port"
            ) from error
        raise ServingError(f"cannot listen on {host}:{port}: {error.strerror}") from error
    return listener


def serve(config: ServeConfig, on_ready: Callable[[str], None] | None = None) -> None:
    """Load the models, listen, and block until interrupted; `on_ready` is told the URL."""
    listener = bind(config.host, config.port)  # First: a taken port should not cost a load.
    with listener, Registry(config) as registry:
        server = _Uvicorn(
            create_app(registry, config), on_ready and (lambda: on_ready(_url(listener)))
        )
        server.run(sockets=[listener])


class ServerThread:
    """A server in a thread of this process; a context manager that stops it.

    `url` is where it answers once `start` (or `with`) returned.
    """

    def __init__(self, config: ServeConfig) -> None:
        self.config = config
        self._listener = bind(config.host, config.port)
        self.url = _url(self._listener)
        self.registry: Registry | None = None

    def start(self) -> ServerThread:
        """Load the models and answer requests; ServingError when that fails."""
        try:
            self.registry = Registry(self.config)
        except BaseException:
            self._listener.close()
            raise
        self._ready = threading.Event()
        self._server = _Uvicorn(create_app(self.registry, self.config), self._ready.set)
        self._thread = threading.Thread(
            target=self._server.run, args=([self._listener],), name="serving-http", daemon=True
        )
        self._thread.start()
        deadline = time.monotonic() + STARTUP_SECONDS
        while not self._ready.wait(0.1):
            if not self._thread.is_alive() or time.monotonic() > deadline:
                self.stop()
                raise ServingError(f"the server at {self.url} did not start")
        return self

    def stop(self) -> None:
        """Stop answering and free the models."""
        self._server.should_exit = True
        if self.registry is not None:
            self.registry.close()
        self._thread.join(10)
        self._listener.close()

    def __enter__(self) -> ServerThread:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


class _Uvicorn(uvicorn.Server):
    """Uvicorn that tells when it listens."""

    def __init__(self, app: FastAPI, on_ready: Callable[[], None] | None) -> None:
        super().__init__(
            uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=5)
        )
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and self._on_ready is not None:
            self._on_ready()


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    shown = "127.0.0.1" if host in ("0.0.0.0", "::") else host
    return f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"
