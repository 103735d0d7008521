"""The HTTP application over a registry of models, and the process that serves it.

Wires routes, error answers and listening together; each route's shapes are in `routes_*`.
"""

from __future__ import annotations

import errno
import hmac
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import TracebackType

import uvicorn
from fastapi import Depends, FastAPI, Request
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from serving.config import ServeConfig
from serving.errors import EngineFailure, PortInUseError, ServingError, UnknownModelError
from serving.http import routes_chat, routes_completions, routes_generate, routes_models
from serving.http.state import Server, server_of, speaks_openai
from serving.models.registry import Registry
from serving.models.throttle import keep_what_is_loaded
from serving.models.watcher import Watcher
from serving.protocol.problems import Problem, from_exception

STARTUP_SECONDS = 30.0
# TGI's labels of failures that never reach the engine.
FAILURE_LABELS = {
    "validation": "validation",
    "overloaded": "overloaded",
    "template_error": "template",
    "adapter_not_found": "validation",
}


def create_app(registry: Registry, config: ServeConfig) -> FastAPI:
    """The application; closing the registry stays the caller's business."""

    app = FastAPI(
        title="instruct-arena serving",
        openapi_url="/api-doc/openapi.json",
        dependencies=[Depends(_require_key)],
    )
    app.state.server = Server(registry, config)
    modules = (routes_generate, routes_chat, routes_completions, routes_models)
    for module in modules:
        app.include_router(module.router)
    # The same routes below each model's own URL, for clients that know one model per server.
    for module in modules:
        app.include_router(module.router, prefix="/models/{model:path}", include_in_schema=False)
    for route, method in ((routes_generate.compatible, "POST"), (routes_models.health, "GET")):
        app.add_api_route("/models/{model:path}", route, methods=[method], include_in_schema=False)
    # The last is a defect of ours: it is logged, and answered in JSON all the same.
    for kind in (Problem, UnknownModelError, EngineFailure, Exception):
        app.add_exception_handler(kind, _answer_problem)
    app.add_exception_handler(HTTPException, _answer_http)
    if config.cors:
        app.add_middleware(
            CORSMiddleware, allow_origins=["*"], allow_methods=["GET", "POST"], allow_headers=["*"]
        )
    return app


async def _require_key(request: Request) -> None:
    """Ask for the key where one is set; looking at health and models stays free."""
    key = server_of(request).config.api_key
    if key is None or request.method != "POST":
        return
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not hmac.compare_digest(given.encode(), key.encode()):
        raise Problem(401, "unauthorized", "Send the server's key as `Authorization: Bearer <key>`")


async def _answer_problem(request: Request, error: Exception) -> Response:
    problem = from_exception(error)
    if problem.status < 500 and problem.error_type in FAILURE_LABELS:
        server_of(request).metrics.count(
            "tgi_request_failure", err=FAILURE_LABELS[problem.error_type]
        )
    is_openai = request.url.path.find("/v1/") >= 0 and speaks_openai(request)
    return problem.response(openai=is_openai)


async def _answer_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    problem = Problem(error.status_code, "not_found" if error.status_code == 404 else "validation",
                      f"{error.detail}: {request.method} {request.url.path}")  # fmt: skip
    is_openai = request.url.path.find("/v1/") >= 0 and speaks_openai(request)
    return problem.response(openai=is_openai)


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; PortInUseError names the port and what to do."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol named, asyncio sends small pieces at once; else a stream's first token would
    # wait 40 ms for an acknowledgement.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise PortInUseError(
                f"port {port} on {host} is in use; stop what listens there or give another --port"
            ) from error
        raise ServingError(f"cannot listen on {host}:{port}: {error.strerror}") from error
    return listener


def serve(config: ServeConfig, on_ready: Callable[[str], None] | None = None) -> None:
    """Load the models, listen, and block until interrupted; `on_ready` is told the URL."""
    # A person reads along: what is loaded, refused and answered. No effect if logging is set up.
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("serving").setLevel(logging.INFO)
    listener = bind(config.host, config.port)  # First: a taken port should not cost a load.
    with listener, Registry(config) as registry, watching(registry):
        keep_what_is_loaded()
        server = _Uvicorn(
            create_app(registry, config), on_ready and (lambda: on_ready(_url(listener)))
        )
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


class ServerThread:
    """A server in a thread of this process; a context manager that stops it.

    `url` is where it answers once `start` (or `with`) returned.
    """

    def __init__(self, config: ServeConfig) -> None:
        self.config = config
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
        server = _Uvicorn(create_app(registry, self.config), ready.set)
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
