"""The page as one FastAPI application: stage, Gradio page, guards, health.

`create_app` builds it without listening; `arena/up.py` and `arena ui` run it.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import gradio as gr
from fastapi import FastAPI
from fastapi.responses import JSONResponse
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from arena.board import wire_board
from arena.client import install_http_client
from arena.guard import Guard, trusted_hosts
from arena.handlers import Changes, Handlers
from arena.page import EXAMPLES, Page, build_page
from arena.roster import Roster
from arena.settings import PageConfig
from arena.stage import Stage
from arena.store import Store
from arena.theme import head, theme
from arena.wording import words

log = logging.getLogger(__name__)


def create_app(config: PageConfig, store: Store | None = None) -> FastAPI:
    """The guarded page over the store of `config.home` and the servers of `config.backends`."""
    install_http_client()
    store = store or Store(config.database)
    orphans = store.close_orphans()
    if orphans:
        log.warning("%d answers were cut off when the program last ended", orphans)
    stage = Stage(store, Roster(config.backends, config.sampling), config)
    app = FastAPI(
        title="Instruct Arena",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        lifespan=_lifespan(stage),
        max_body_size=config.limits.body_bytes,
        middleware=_middleware(config),
    )
    app.state.stage = stage

    @app.get("/healthz")
    async def health() -> JSONResponse:
        """200 while the page runs and its database answers; servers are told apart."""
        backends = await stage.roster.backends()
        return JSONResponse(
            {
                "status": "ok",
                "battles_running": stage.num_running,
                "servers_up": sum(backend.is_up for backend in backends),
                "servers": len(backends),
            }
        )

    return _mount(app, build_blocks(stage, config), config)


def _lifespan(stage: Stage) -> Any:
    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await stage.close()

    return lifespan


def _middleware(config: PageConfig) -> list[Middleware]:
    """Outermost first. Our own CORS middleware keeps Gradio from adding its open one."""
    hosts = trusted_hosts(config.host, config.allowed_hosts)
    return [
        Middleware(TrustedHostMiddleware, allowed_hosts=hosts),
        Middleware(Guard, requests_per_minute=config.limits.requests_per_minute),
        Middleware(CORSMiddleware, allow_origins=[]),
    ]


def build_blocks(stage: Stage, config: PageConfig) -> gr.Blocks:
    """The Gradio page, wired; the queue reads `max_threads` when it is made."""
    say = words()
    with gr.Blocks(title=say("page.title"), analytics_enabled=False, fill_width=True) as demo:
        page = build_page(say)
        handlers = Handlers(stage, page)
        _wire(demo, page, handlers)
        wire_board(page, stage)
    demo.max_threads = 2 * config.limits.running_battles
    demo.queue(
        max_size=config.limits.waiting_battles, default_concurrency_limit=None, api_open=False
    )
    return demo


def _wire(demo: gr.Blocks, page: Page, handlers: Handlers) -> None:
    """Tie acts to elements. `api_visibility` is tidiness; rights are checked in the stage."""
    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    everything = page.battle_outputs
    demo.load(handlers.on_load, None, everything, **quiet)
    asks = [page.prompt, page.mode, page.models]
    gr.on(
        [page.send.click, page.prompt.submit],
        handlers.on_send,
        asks,
        everything,
        trigger_mode="once",
        **quiet,
    )
    for button, text in zip(page.examples, EXAMPLES, strict=True):
        button.click(_example(handlers, text), asks[1:], everything, trigger_mode="once", **quiet)
    link = [page.battle, page.token]
    page.stop.click(handlers.on_stop, link, everything, **quiet)
    for choice, button in page.votes.items():
        button.click(_choice(handlers, choice), link, everything, trigger_mode="once", **quiet)
    page.new.click(handlers.on_new, None, everything, **quiet)
    page.mode.change(handlers.on_mode, page.mode, [page.models], **quiet)
    for part in link:
        part.change(None, link, None, js="(b, t) => window.arenaLink(b, t)", **quiet)


def _example(handlers: Handlers, prompt: str) -> Any:
    async def ask(
        mode: str, models: list[str] | None, request: gr.Request
    ) -> AsyncGenerator[Changes, None]:
        async for changes in handlers.on_send(prompt, mode, models, request):
            yield changes

    return ask


def _choice(handlers: Handlers, choice: str) -> Any:
    async def judge(battle: str, token: str, request: gr.Request) -> Changes:
        return await handlers.on_vote(choice, battle, token, request)

    return judge


def _mount(app: FastAPI, demo: gr.Blocks, config: PageConfig) -> FastAPI:
    """Mount with everything off that would talk to others, keep copies, or serve files."""
    mounted: FastAPI = gr.mount_gradio_app(
        app,
        demo,
        path="/",
        server_name=config.host,
        server_port=config.port,
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
        head=head(),
    )
    return mounted
