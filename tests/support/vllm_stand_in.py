"""Stands in for the process `vllm serve`: its health, its two routes for adapters, its answers.

Answers say what was asked, so that a test sees what went over the border. A file `refuse` in its
folder makes it take no more adapters. `python vllm_stand_in.py FOLDER serve …`.
"""

from __future__ import annotations

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

FOLDER, WORDS = Path(sys.argv[1]), sys.argv[2:]


def option(name: str) -> str:
    return WORDS[WORDS.index(name) + 1]


def modules() -> list[str]:
    if "--lora-modules" not in WORDS:
        return []
    rest = WORDS[WORDS.index("--lora-modules") + 1 :]
    return [json.loads(word)["name"] for word in rest if word.startswith("{")]


NAMES = {option("--served-model-name"), *modules()}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self.reply(200 if self.path == "/health" else 404, {})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with (FOLDER / "asked.jsonl").open("a") as log:
            log.write(json.dumps([self.path, body]) + "\n")
        if self.path == "/v1/load_lora_adapter":
            is_whole = (Path(body["lora_path"]) / "adapter_model.safetensors").is_file()
            taken = is_whole and not (FOLDER / "refuse").exists()
            if taken:
                NAMES.add(body["lora_name"])
            self.reply(200 if taken else 400, {"error": {"message": "no room"}})
        elif self.path == "/v1/unload_lora_adapter":
            NAMES.discard(body["lora_name"])
            self.reply(200, {})
        elif body["model"] not in NAMES:
            self.reply(404, {"error": {"message": "no such model"}})
        elif body.get("stream"):
            self.stream(body["model"])
        else:
            message = {"role": "assistant", "content": "from vllm"}
            choice = {"index": 0, "message": message, "text": "from vllm", "finish_reason": "stop"}
            self.reply(200, {"model": body["model"], "choices": [choice]})

    def stream(self, model: str) -> None:
        parts = [{"content": "from "}, {"content": "vllm"}]
        chunks: list[Any] = [{"model": model, "choices": [{"index": 0, "delta": p}]} for p in parts]
        text = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"
        self.send(200, "text/event-stream", text.encode())

    def reply(self, status: int, content: Any) -> None:
        self.send(status, "application/json", json.dumps(content).encode())

    def send(self, status: int, kind: str, content: bytes) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


if __name__ == "__main__":
    import os

    (FOLDER / "started.jsonl").open("a").write(json.dumps([os.getpid(), WORDS]) + "\n")
    ThreadingHTTPServer(("127.0.0.1", int(option("--port"))), Handler).serve_forever()
