"""What the routes of one server share: its models, its limits, its counts.

Knows the application's state; does not know any route, nor what a request asks.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from fastapi import Request
from starlette.types import Scope

from serving.completion.checks import input_limit
from serving.completion.grammar import GrammarCompiler
from serving.config import ServeConfig
from serving.elsewhere.forwarding import Forwarder
from serving.http.metrics import Metrics
from serving.models.registry import Registry, ServedModel
from serving.protocol.problems import overloaded

VERSION = "3.3.6-dev0"


class Admission:
    """Counts the requests in work, whatever their route, streamed or not.

    A request holds its place from when its body is read until its answer is over; the place is
    noted in the ASGI scope, which both ends see.
    """

    KEY = "arena.place"

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.active = 0

    def take(self, scope: Scope) -> None:
        """A place for the request of `scope`; Problem 429 when every one is taken."""
        assert self.KEY not in scope["state"], "one place a request"
        if self.active >= self.limit:
            raise overloaded()
        self.active += 1
        scope["state"][self.KEY] = True

    def give_back(self, scope: Scope) -> None:
        """Free the place of a request, if it took one."""
        if scope["state"].pop(self.KEY, False):
            self.active -= 1


@dataclass
class ServerState:
    """State of one running server, kept in `app.state.server`.

    `bandwidths` are bytes per second, measured for an engine once it has run. `outside` is the way
    to the engine beside ours, if there is one.
    """

    registry: Registry
    config: ServeConfig
    admission: Admission = field(init=False)
    grammars: GrammarCompiler = field(default_factory=GrammarCompiler)
    metrics: Metrics = field(init=False)
    bandwidths: dict[str, float] = field(default_factory=dict)
    outside: Forwarder | None = None

    def __post_init__(self) -> None:
        self.admission = Admission(self.config.limits.max_concurrent_requests)
        base = self.registry.base
        self.metrics = Metrics(input_limit(base, self.config.limits), base.max_total_tokens)
        self.registry.worker.on_step = self.metrics.count_step


def server_of(request: Request) -> ServerState:
    """The server that answers this request."""
    server: ServerState = request.app.state.server
    return server


HELD = "arena.models"


def hold(request: Request, model: ServedModel) -> ServedModel:
    """Keep a model until the request is over, whoever unloads it meanwhile: it may ask again."""
    server_of(request).registry.hold(model)
    request.scope["state"].setdefault(HELD, []).append(model)
    return model


def let_go(scope: Scope, server: ServerState) -> None:
    """Keep the models of a request that is over no longer."""
    for model in scope["state"].pop(HELD, []):
        server.registry.let_go(model)


def speaks_openai(request: Request) -> bool:
    """Whether the caller wants OpenAI's forms: its SDK's headers say so, or the setting does."""
    if server_of(request).config.openai_dialect:
        return True
    return any(name.startswith("x-stainless-") for name in request.headers)
