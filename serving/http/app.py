"""The HTTP application over a registry of models: its routes, its key, its error answers.

Knows which routes there are; does not know what they say, nor how the process listens.
"""

from __future__ import annotations

import hmac

from fastapi import Depends, FastAPI, Request
from fastapi.middleware.cors import CORSMiddleware
from fastapi.middleware.trustedhost import TrustedHostMiddleware
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from serving.config import ServeConfig
from serving.errors import EngineFailure, UnknownModelError
from serving.http import (
    routes_chat,
    routes_completions,
    routes_generate,
    routes_metrics,
    routes_models,
    routes_score,
    routes_tokenize,
)
from serving.http.edge import Edge
from serving.http.state import ServerState, server_of, speaks_openai
from serving.models.registry import Registry
from serving.protocol.problems import Problem, from_exception

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
    app.state.server = server = ServerState(registry, config)
    modules = (
        routes_generate, routes_chat, routes_completions, routes_tokenize, routes_models,
        routes_score, routes_metrics,
    )  # fmt: skip
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
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(config.hosts), www_redirect=False)
    app.add_middleware(Edge, server=server)
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
