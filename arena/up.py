"""Runs the page, alone or with a model server of its own, and says when both answer.

The model server is a child process: it loads torch while the page loads Gradio, a crash of
one leaves the other alive, and it is started again. Knows no page from inside and no model.
"""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

import httpx2

from arena.children import Child, ModelServer, SmolLM2
from arena.config.page_config import PageConfig
from arena.errors import ArenaError
from arena.program_log import program_log, tell_terminal
from arena.web.server import QuietServer, bind, prepare_home, run

if TYPE_CHECKING:
    from fastapi import FastAPI

    from arena.backends.pool import BackendPool

READY_SECONDS = 600.0  # a large model from a slow disk
MAX_RESTARTS = 5
QUIET_SECONDS = 600.0
"""So long without losing the server, and what was before counts no more."""
WATCH_SECONDS = 0.5
HEALTH_SECONDS = 10.0
HANG_SECONDS = 30.0
"""A server that computes still answers; one that says nothing for so long is stopped or stuck."""
POLL_SECONDS = 0.1
LOOPBACK = ("127.0.0.1", "::1", "localhost")
SAID_WHY = (1, 2)  # the child's exit status after a line on stderr that says what is wrong


class UpError(ArenaError):
    """The model server did not start, or does not stay up."""


def run_ui(config: PageConfig) -> None:
    """`arena ui`: the page alone, until a signal."""
    prepare_home(config.home)
    with (
        bind(config.host, config.port) as listener,
        program_log(config.home, config.port),
    ):
        from arena.app import create_app

        page = create_app(config)

        async def beside(_: QuietServer) -> None:
            await _answers(f"{config.page_url}/healthz", READY_SECONDS)
            await _tell_servers(page)
            _tell_key(config)
            print(f"Arena ready at {config.page_url}", flush=True)

        run(page, listener, beside, page.state.service.end_battles)


def run_up(config: PageConfig, server: ModelServer, *, smollm2: bool = False) -> None:
    """`arena up`: the model server and the page, until a signal.

    With `smollm2` that model joins beside them once it is converted, if its package is there.
    Raises UpError, or SystemExit with the child's status once it has said what is wrong.
    """
    prepare_home(config.home)
    bind(server.host, server.port, "--serve-port").close()
    with (
        bind(config.host, config.port) as listener,
        program_log(config.home, config.port) as log,
    ):
        child = Child(server, log)
        joining = SmolLM2(server.home, log) if smollm2 else None
        child.start()
        try:
            from arena.app import create_app

            app = create_app(config)

            async def beside(page: QuietServer) -> None:
                await _until_ready(config, child)
                await _tell_servers(app)
                _tell_key(config)
                print(f"Arena ready at {config.page_url}", flush=True)
                if joining is not None:
                    joining.start()
                await _keep_up(child, app.state.service.pool, page)

            async def before_end() -> None:
                try:
                    await app.state.service.end_battles()
                finally:
                    child.ask_to_end()

            run(app, listener, beside, before_end)
        except ChildSaidWhyError:
            raise SystemExit(1) from None
        finally:
            child.stop()
            if joining is not None:
                joining.stop()


class ChildSaidWhyError(UpError):
    """The child has printed its one line already; nothing is to be added."""


async def _until_ready(config: PageConfig, child: Child) -> None:
    """Wait for the models, then for the page; UpError as soon as the child has ended."""
    waiting = asyncio.create_task(_answers(f"{child.server.url}/health", READY_SECONDS))
    while not waiting.done():
        await asyncio.wait([waiting], timeout=POLL_SECONDS)
        status = child.exit_status
        if status is not None and not waiting.done():
            waiting.cancel()
            raise (
                ChildSaidWhyError("it said why")
                if status in SAID_WHY
                else UpError(
                    f"the model server ended with status {status} before it was ready; "
                    "run 'arena serve' alone to see why"
                )
            )
    await waiting
    await _answers(f"{config.page_url}/healthz", READY_SECONDS)


async def _tell_servers(app: FastAPI) -> None:
    """Say on stderr which servers answer, and how; the page itself names no model."""
    from arena.backends.pool import server_lines

    for line in server_lines(await app.state.service.pool.backends(fresh=True)):
        print(f"arena: {line}", file=sys.stderr, flush=True)


def _tell_key(config: PageConfig) -> None:
    """The link that opens the page with its tabs Tune and Admin, on a machine of one's own."""
    from arena.web.authentication import Authenticator

    authenticator = Authenticator(config.home)
    if config.host in LOOPBACK and authenticator.users is None:
        link = f"{config.page_url}/enter?key={authenticator.key}"
        tell_terminal(f"arena: to tune on the page, open {link}\n")


async def _keep_up(child: Child, pool: BackendPool, page: QuietServer) -> None:
    """Start the model server again when it ends by itself or hangs; give up on one that keeps on.

    What happened before a quiet while is forgotten: a server that ends once a week is kept up.
    """
    ends: list[float] = []
    silent_since: float | None = None
    loop = asyncio.get_running_loop()
    async with httpx2.AsyncClient(timeout=HEALTH_SECONDS, trust_env=False) as client:
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            if page.should_exit:  # the server was asked to end, too
                return
            why = f"ended with status {child.exit_status}"
            if child.exit_status is None:
                if await _is_heard(client, f"{child.server.url}/health"):
                    silent_since = None
                    pool.restarting = frozenset()
                    continue
                silent_since = silent_since or loop.time()
                if loop.time() - silent_since < HANG_SECONDS:
                    continue
                why = f"did not answer for {HANG_SECONDS:.0f} s"
                await asyncio.to_thread(child.kill)
            ends = [at for at in ends if loop.time() - at < QUIET_SECONDS] + [loop.time()]
            if len(ends) > MAX_RESTARTS:
                raise UpError(
                    f"the model server was lost {len(ends)} times in {QUIET_SECONDS / 60:.0f} "
                    f"minutes; it {why} at last; run 'arena serve' alone to see why"
                )
            print(f"arena: the model server {why}; starting it again", file=sys.stderr, flush=True)
            pool.restarting = frozenset({child.server.url})
            await asyncio.sleep(min(8.0, 0.5 * 2 ** len(ends)))
            child.start()
            # It is loading; a model may take as long as at the first start.
            silent_since = loop.time() + READY_SECONDS


async def _is_heard(client: httpx2.AsyncClient, url: str) -> bool:
    """Whether anything answers there, whatever it says: a busy server is no dead one."""
    try:
        return (await client.get(url)).status_code > 0
    except httpx2.HTTPError:
        return False


async def _answers(url: str, seconds: float) -> None:
    """Return once the address answers 200; UpError when it does not in time."""
    deadline = asyncio.get_running_loop().time() + seconds
    async with httpx2.AsyncClient(timeout=2.0, trust_env=False) as client:
        while not await _is_ok(client, url):
            if asyncio.get_running_loop().time() > deadline:
                raise UpError(f"{url} did not answer within {seconds:.0f} s")
            await asyncio.sleep(POLL_SECONDS)


async def _is_ok(client: httpx2.AsyncClient, url: str) -> bool:
    try:
        return (await client.get(url)).status_code == 200
    except httpx2.HTTPError:
        return False
