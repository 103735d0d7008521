"""A TCP proxy on loopback that keeps every byte the server sent: what a browser could know."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from urllib.parse import urlsplit


class RecordingProxy:
    """Stands between a browser and a server; `received` is all that came back, uncompressed."""

    def __init__(self, target: str) -> None:
        parts = urlsplit(target)
        assert parts.hostname is not None
        assert parts.port is not None
        self._target = (parts.hostname, parts.port)
        self._started = threading.Event()
        self.received = bytearray()
        self.url = ""

    def __enter__(self) -> RecordingProxy:
        self._thread = threading.Thread(target=asyncio.run, args=(self._serve(),), daemon=True)
        self._thread.start()
        assert self._started.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join(10)
        assert not self._thread.is_alive()

    async def _serve(self) -> None:
        self._loop, self._stopped = asyncio.get_running_loop(), asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        self._started.set()
        await self._stopped.wait()
        server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        up_reader, up_writer = await asyncio.open_connection(*self._target)
        try:
            await asyncio.gather(
                self._ask(reader, up_writer), self._tell(up_reader, writer), return_exceptions=True
            )
        finally:
            for each in (writer, up_writer):
                each.close()
                with contextlib.suppress(OSError):
                    await each.wait_closed()

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(65_536):
            # Same length, other name: the server then sends nothing compressed.
            writer.write(chunk.replace(b"Accept-Encoding:", b"X-ccept-Encoding:"))
            await writer.drain()
        writer.write_eof()

    async def _tell(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(65_536):
            self.received += chunk
            writer.write(chunk)
            await writer.drain()
        writer.write_eof()
