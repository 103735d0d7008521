"""A real HTTP server on loopback that speaks the TGI and OpenAI wire, well or badly on purpose.

Each model it lists follows a `Script`; tests of the arena's client, streams and page use it to
see slow, dead and malformed servers. It answers with fixed words and makes no claim to be a model.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

WORDS = ("The", " capital", " of", " France", " is", " Paris", ".")
HASH = "ab" * 32


@dataclass
class Script:
    """How one model behaves: its words, its pace, and what goes wrong after how many words.

    With a `hold` the words after the first `after` wait until it is set.
    """

    words: tuple[str, ...] = WORDS
    delay: float = 0.0
    fault: str = ""
    after: int = 3
    hold: threading.Event | None = None
    kind: str = "lora"
    parent: str = "base"
    chat_template: bool = True


@dataclass
class FaultServer:
    """A running server; `open_streams` counts answers being written, `requests` what came."""

    scripts: dict[str, Script]
    url: str = ""
    open_streams: int = 0
    closed_at: list[float] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    is_tgi: bool = True
    listing: int = 200  # status of `/v1/models`
    refused: dict[str, Any] = field(default_factory=dict)  # folders, with why

    def __enter__(self) -> FaultServer:
        self._server = uvicorn.Server(
            uvicorn.Config(_app(self), port=0, log_level="error", timeout_graceful_shutdown=1)
        )
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        limit = time.monotonic() + 20
        while not self._server.started:
            assert time.monotonic() < limit, "the fault server did not start"
            time.sleep(0.01)
        port = self._server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def wait_for_streams(self, count: int, seconds: float = 30.0) -> None:
        """Wait until so many answers are being written: it hears of an end a moment later."""
        limit = time.monotonic() + seconds
        while self.open_streams != count:
            assert time.monotonic() < limit, f"{self.open_streams} streams, not {count}"
            time.sleep(0.01)

    def stop(self) -> None:
        """Stop listening and cut every stream."""
        self._server.should_exit = True
        self._thread.join(10)
        assert not self._thread.is_alive()


def _app(server: FaultServer) -> FastAPI:
    app = FastAPI()

    @app.get("/v1/models")
    async def models() -> Response:
        if server.listing != 200:
            return JSONResponse({"error": "no list"}, server.listing)
        data = [_entry(*item) for item in server.scripts.items()]
        return JSONResponse({"object": "list", "data": data})

    @app.get("/info")
    async def info() -> Response:
        known = {"model_id": "base", "max_total_tokens": 512, "refused": server.refused}
        return JSONResponse(known, 200 if server.is_tgi else 404)

    @app.get("/health")
    async def health() -> Response:
        return Response()

    @app.post("/chat_tokenize")
    async def chat_tokenize(request: Request) -> dict[str, Any]:
        body = await request.json()
        text = "".join(f"<{m['role']}>{m['content']}" for m in body["messages"])
        return {"tokenize_response": [], "templated_text": text}

    async def reply(request: Request, *, is_chat: bool) -> Response:
        body = await request.json()
        server.requests.append(body)
        server.headers.append(dict(request.headers))
        name = body["model"] if is_chat else (body["parameters"].get("adapter_id") or "base")
        script = server.scripts.get(name)
        if script is None:
            gone = {"error": f"The model `{name}` does not exist.", "error_type": "not_found"}
            return JSONResponse(gone, 404)
        if script.fault.isdigit():
            wrong = {"error": f"secret reason of {name}", "error_type": "validation"}
            return JSONResponse(wrong, int(script.fault))
        frames = _watched(server, _frames(script, name, is_chat=is_chat))
        return StreamingResponse(frames, media_type="text/event-stream")

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        return await reply(request, is_chat=True)

    @app.post("/v1/completions")
    async def completions(request: Request) -> Response:
        body = await request.json()
        server.requests.append(body)
        script = server.scripts[body["model"]]
        if script.fault.isdigit():
            return JSONResponse({"error": {"message": "no"}}, int(script.fault))
        frames = _watched(server, _completion(script))
        return StreamingResponse(frames, media_type="text/event-stream")

    @app.post("/generate_stream")
    async def generate_stream(request: Request) -> Response:
        return await reply(request, is_chat=False)

    return app


def _entry(name: str, script: Script) -> dict[str, Any]:
    return {
        "id": name,
        "object": "model",
        "created": 1,
        "owned_by": "tests",
        "root": name,
        "parent": None if script.kind == "base" else script.parent,
        "max_model_len": 512,
        "kind": script.kind,
        "weights_sha256": HASH,
        "chat_template": script.chat_template,
    }


async def _watched(server: FaultServer, frames: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    server.open_streams += 1
    try:
        async for frame in frames:
            yield frame
    finally:
        server.open_streams -= 1
        server.closed_at.append(time.monotonic())


async def _frames(script: Script, name: str, *, is_chat: bool) -> AsyncIterator[bytes]:
    for i, word in enumerate(script.words):
        while script.hold and i == script.after and not script.hold.is_set():
            await asyncio.sleep(0.01)
        if script.fault and i == script.after:
            match script.fault:
                case "cut":
                    return
                case "hang":
                    await asyncio.sleep(3600)
                case "json":
                    yield b"data: {broken\n\n"
                case "list":
                    yield b"data: [1]\n\n"
                case "error":
                    yield _data({"error": f"out of memory in {name}", "error_type": "generation"})
                    return
                case "ping":
                    yield b": ping\n\n"
        yield _word(word, i, name, is_chat=is_chat)
        await asyncio.sleep(script.delay)
    yield _last(script, name, is_chat=is_chat)
    if is_chat:
        yield b"data: [DONE]\n\n"


async def _completion(script: Script) -> AsyncIterator[bytes]:
    for i, word in enumerate(script.words):
        if script.fault == "cut" and i == script.after:
            return
        yield _data({"choices": [{"index": 0, "text": word, "finish_reason": None}]})
        await asyncio.sleep(script.delay)
    usage = {"completion_tokens": len(script.words)}
    yield _data({"choices": [{"index": 0, "text": "", "finish_reason": "length"}], "usage": usage})
    yield b"data: [DONE]\n\n"


def _data(value: Any) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def _chunk(name: str, content: str, reason: str | None) -> dict[str, Any]:
    return {
        "object": "chat.completion.chunk",
        "id": "",
        "created": 0,
        "model": name,
        "system_fingerprint": "tests",
        "choices": [
            {
                "index": 0,
                "delta": {"role": "assistant", "content": content},
                "logprobs": None,
                "finish_reason": reason,
            }
        ],
        "usage": None,
    }


def _word(word: str, index: int, name: str, *, is_chat: bool) -> bytes:
    if is_chat:
        return _data(_chunk(name, word, None))
    token = {"id": index, "text": word, "logprob": -0.5, "special": False}
    return _data({"index": index + 1, "token": token, "generated_text": None, "details": None})


def _last(script: Script, name: str, *, is_chat: bool) -> bytes:
    if is_chat:
        usage = {"prompt_tokens": 5, "completion_tokens": len(script.words), "total_tokens": 12}
        end = _data(_chunk(name, "", "stop"))
        return end + _data(
            {**_chunk(name, "", None), "choices": [], "usage": usage, "weights_sha256": HASH}
        )
    details = {
        "finish_reason": "eos_token",
        "generated_tokens": len(script.words) + 1,
        "seed": None,
        "input_length": 5,
    }
    token = {"id": 0, "text": "</s>", "logprob": -0.1, "special": True}
    return _data(
        {
            "index": len(script.words) + 1,
            "token": token,
            "generated_text": "".join(script.words),
            "details": details,
            "weights_sha256": HASH,
        }
    )
