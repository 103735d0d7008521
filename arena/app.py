"""The page as one FastAPI application: battle service, Gradio page, middleware, health.

`create_app` builds it without listening; `arena/up.py` and `arena ui` run it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

import gradio as gr
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Mount

from arena.backends.http import install_http_client
from arena.backends.pool import BackendPool
from arena.battles.partial_texts import keep_partial_texts
from arena.battles.service import BattleService
from arena.battles.set_judging import SetJudging
from arena.config.arena_toml import FILE, read_arena_config
from arena.config.page_config import PageConfig
from arena.errors import ArenaError
from arena.i18n import words
from arena.page.actions.admin import AdminActions
from arena.page.actions.answers import AnswerActions
from arena.page.actions.battles import BattleActions
from arena.page.actions.judging import JudgingActions
from arena.page.actions.prompt_sets import PromptSetActions
from arena.page.actions.results import ResultActions
from arena.page.client_api import add_client_api
from arena.page.drawing.drawer import Drawer
from arena.page.gradio_patch import look_less_often, send_only_changes
from arena.page.layout import Page
from arena.page.live_routes import live_router
from arena.page.live_updates import ElementNumbers
from arena.page.render import Renderer
from arena.page.theme import head, theme
from arena.page.wiring import wire
from arena.runs.queue import RunQueue
from arena.storage.store import Store
from arena.web.access import AccessMiddleware
from arena.web.api import (
    answer_error,
    answer_http_error,
    answer_invalid,
    answer_unknown,
    api_router,
)
from arena.web.api_tune import tune_router
from arena.web.authentication import Authenticator
from arena.web.guesses import Guesses
from arena.web.proxy import ProxyMiddleware, trusted_hosts
from arena.web.reload import ReloadMiddleware
from arena.web.signin import signin_router
from arena.web.sse_session import SseSessionMiddleware

log = logging.getLogger(__name__)

WRITERS = 32
SWEEP_SECONDS = 15.0
QUEUE_SECONDS = 1.0
AGAIN_SECONDS = 5.0


def create_app(config: PageConfig, store: Store | None = None) -> FastAPI:
    """The page, over the store of `config.home` and the servers of `config.backends`."""
    install_http_client()
    store = store or Store(config.database)
    orphans = store.close_orphans()
    if orphans:
        log.warning("%d answers were cut off when the program last ended", orphans)
    arena_config = read_arena_config(config.home / FILE)
    config = replace(config, limits=arena_config.limits or config.limits)
    pool = BackendPool(config.backends, config.sampling, arena_config)
    service = BattleService(store, pool, config.limits, config.deadlines, arena_config.drawing)
    set_judging = SetJudging(service, config.home)
    authenticator = Authenticator(config.home)
    authenticator.check()
    guesses = Guesses()
    drawer = Drawer()
    queue = RunQueue(config.home)
    app = FastAPI(
        title="Instruct Arena",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        lifespan=_lifespan(service, drawer, queue),
        max_body_size=config.limits.body_bytes,
        middleware=_middleware(config, authenticator, service, guesses),
    )
    app.state.service = service
    app.include_router(api_router(service, set_judging, config.home))
    app.include_router(tune_router(queue, service))
    app.add_api_route(
        "/api/{rest:path}", answer_unknown, methods=["GET", "POST", "PUT", "PATCH", "DELETE"]
    )
    app.include_router(signin_router(authenticator, guesses))
    app.add_exception_handler(ArenaError, answer_error)
    app.add_exception_handler(RequestValidationError, answer_invalid)
    app.add_exception_handler(HTTPException, answer_http_error)

    @app.get("/healthz")
    async def health() -> JSONResponse:
        """200 while the page runs and can read and write its votes; servers are told apart."""
        fault = await asyncio.to_thread(service.health.look)
        told = {
            "status": "ok" if fault is None else "the store fails; the log says why",
            "battles_running": service.num_running,
            "servers_up": sum(backend.is_up for backend in service.pool.known()),
            "servers": service.pool.num_servers,
        }
        return JSONResponse(told, 200 if fault is None else 503)

    demo, renderer = build_blocks(service, set_judging, config, drawer)
    app.include_router(
        live_router(
            service,
            AnswerActions(service, set_judging, renderer),
            JudgingActions(service, set_judging, renderer),
            ElementNumbers(renderer.page.live_outputs),
        )
    )
    return _mount(app, demo, config)


def _lifespan(service: BattleService, drawer: Drawer, queue: RunQueue) -> Any:
    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        # Threads mostly wait for the disk; as many as may share one commit (see `group_commit`).
        pool = ThreadPoolExecutor(WRITERS, "store")
        asyncio.get_running_loop().set_default_executor(pool)
        await service.pool.backends()  # within a deadline: the first battle need not wait
        acts = (
            partial(_sweep, service),
            service.watch_store,
            partial(keep_partial_texts, service.store, service.running_battles),
            partial(_run_queue, queue),
        )
        beside = [asyncio.create_task(go_on(act)) for act in acts]
        yield
        for task in beside:
            task.cancel()
        await asyncio.to_thread(queue.close)
        await service.close()
        await drawer.close()

    return lifespan


async def go_on(act: Callable[[], Awaitable[object]], seconds: float = AGAIN_SECONDS) -> None:
    """Do what the page does beside its requests; begun again after `seconds` where it fails.

    Nobody waits for it, so that a failure would be heard of by nobody, and the work stay undone.
    """
    while True:
        try:
            await act()
            return
        except Exception:  # whatever it is: the log has it, and the page lives on
            log.exception("work beside the page failed, and begins again in %g s", seconds)
        await asyncio.sleep(seconds)


async def _sweep(service: BattleService) -> None:
    """End the answers that another page on this home left behind when it died."""
    while True:
        await asyncio.sleep(SWEEP_SECONDS)
        try:
            await asyncio.to_thread(service.store.close_orphans, also_own=False)
        except ArenaError as error:
            log.warning("answers of dead programs stay open: %s", error)


async def _run_queue(queue: RunQueue) -> None:
    """Start the tuning runs that wait, one after another."""
    while True:
        try:
            await asyncio.to_thread(queue.tick)
        except (ArenaError, OSError) as error:
            log.warning("no tuning run can be started: %s", error)
        await asyncio.sleep(QUEUE_SECONDS)


def _middleware(
    config: PageConfig, authenticator: Authenticator, service: BattleService, guesses: Guesses
) -> list[Middleware]:
    """Outermost first. Our own CORS middleware keeps Gradio from adding its open one."""
    hosts = trusted_hosts(config.host, config.allowed_hosts)
    return [
        Middleware(ProxyMiddleware, public=config.public, hosts=hosts),
        Middleware(
            AccessMiddleware,
            requests_per_minute=config.limits.requests_per_minute,
            allowed_origins=config.public.origins,
            authenticator=authenticator,
            guesses=guesses,
        ),
        Middleware(CORSMiddleware, allow_origins=[]),
        Middleware(SseSessionMiddleware),
        Middleware(ReloadMiddleware, service=service),
    ]


def build_blocks(
    service: BattleService, set_judging: SetJudging, config: PageConfig, drawer: Drawer
) -> tuple[gr.Blocks, Renderer]:
    """The Gradio page, wired, and what changes its elements.

    The queue reads `max_threads` when it is made.
    """
    say = words()
    with gr.Blocks(title=say("page.title"), analytics_enabled=False, fill_width=True) as demo:
        page = Page(say)
        renderer = Renderer(page, drawer, service.pool.num_variants)
        wire(
            demo,
            page,
            BattleActions(service, renderer),
            PromptSetActions(service, set_judging, page),
            ResultActions(service, config.home),
            AdminActions(service, config.home, page.admin),
        )
        add_client_api(service, set_judging, config.home)
    send_only_changes(demo)
    # Gradio would sum up its timings with pandas after every event, for a page that is shut here.
    os.environ.setdefault("GRADIO_ANALYTICS_CACHE_FREQUENCY", str(10**9))
    demo.max_threads = 2 * config.limits.running_battles
    demo.queue(
        max_size=config.limits.waiting_battles, default_concurrency_limit=None, api_open=False
    )
    look_less_often(demo)
    return demo, renderer


def _mount(app: FastAPI, demo: gr.Blocks, config: PageConfig) -> FastAPI:
    """Mount with everything off that would talk to others, keep copies, or serve files."""
    mounted: FastAPI = gr.mount_gradio_app(
        app,
        demo,
        path="/",
        server_name=config.host,
        server_port=config.port,
        root_path=config.public.root_path or None,
        run_history=False,
        enable_monitoring=False,
        show_error=False,
        footer_links=[],
        max_file_size="1kb",
        allowed_paths=[],
        blocked_paths=[str(config.home.resolve())],
        mcp_server=False,
        ssr_mode=False,
        pwa=False,
        theme=theme(),
        head=head(config.public.root_path, config.limits.prompt_chars),
    )
    # Gradio is an application of its own: its refusals are told as ours are.
    for route in mounted.routes:
        if isinstance(route, Mount) and isinstance(route.app, FastAPI):
            route.app.add_exception_handler(RequestValidationError, answer_invalid)
    return mounted
