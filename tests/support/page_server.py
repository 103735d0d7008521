"""Runs the arena's page in a thread, on a port of its own, as `arena ui` does."""

from __future__ import annotations

import asyncio
import faulthandler
import socket
import threading
import time
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI

from arena.app import create_app
from arena.battles.service import BattleService
from arena.config.page_config import PageConfig
from arena.storage.store import Store
from arena.web.server import bind


class PageServer:
    """The page over the given servers; a context manager. A `port` of 0 is any free one."""

    def __init__(self, home: Path, *backends: str, port: int = 0, **settings: Any) -> None:
        self.listener: socket.socket = bind("127.0.0.1", port)
        port = self.listener.getsockname()[1]
        self.config = PageConfig(backends, home, port=port, **settings)
        home.mkdir(parents=True, exist_ok=True)
        self.url = self.config.page_url
        self.app: FastAPI | None = None
        self._server: uvicorn.Server | None = None
        self._failure: BaseException | None = None

    @property
    def service(self) -> BattleService:
        """The battle service behind the page."""
        assert self.app is not None
        service: BattleService = self.app.state.service
        return service

    @property
    def store(self) -> Store:
        """The store behind the page."""
        return self.service.store

    def __enter__(self) -> PageServer:
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        limit = time.monotonic() + 30
        while self._server is None or not self._server.started:
            if not self._thread.is_alive():
                self.listener.close()
                raise RuntimeError("the page ended before it answered") from self._failure
            assert time.monotonic() < limit, "the page did not start"
            time.sleep(0.01)
        return self

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:  # whoever waits for the start tells what ended it
            self._failure = error
            if self._server is not None and self._server.started:
                raise

    async def _serve(self) -> None:
        # Made inside the loop: outside of one Gradio opens loops that it never closes.
        self.app = create_app(self.config)
        config = uvicorn.Config(
            self.app, log_level="error", timeout_graceful_shutdown=1, proxy_headers=False
        )
        self._server = uvicorn.Server(config)
        await self._server.serve([self.listener])

    def __exit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.should_exit = True
        self._thread.join(60)
        self.listener.close()
        if self._thread.is_alive():
            faulthandler.dump_traceback(all_threads=True)
        assert not self._thread.is_alive(), "the page did not end; every thread's stack is above"
