"""How many people can battle at once: first-token latency, stalls and memory of the page.

Starts a synthetic server (20 tokens/s a side) and the page, each as a process of its own, then
lets N visitors send one blind prompt at the same moment through Gradio's queue and event stream.
Prints a table and writes JSON. The load generator shares the machine: figures are an upper bound.

    python benchmarks/arena_load.py --visitors 25 50 100 200 --out load.json
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx2
import psutil

TOKENS = 160
TOKEN_SECONDS = 0.05

SERVER = """
import asyncio, json, sys
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse
import uvicorn
app = FastAPI()
count, pause = int(sys.argv[2]), float(sys.argv[3])

@app.get("/v1/models")
async def models():
    known = [{"id": n, "kind": "lora", "chat_template": True} for n in ("x", "y")]
    return {"object": "list", "data": known}

def chunk(text, reason=None):
    choice = {"index": 0, "delta": {"role": "assistant", "content": text}, "finish_reason": reason}
    body = {"object": "chat.completion.chunk", "id": "", "created": 0, "model": "x",
            "system_fingerprint": "", "choices": [choice], "usage": None}
    return "data: " + json.dumps(body) + "\\n\\n"

@app.post("/v1/chat/completions")
async def chat(request: Request):
    async def write():
        for i in range(count):
            yield chunk(f"word{i} ")
            await asyncio.sleep(pause)
        yield chunk("", "stop") + "data: [DONE]\\n\\n"
    return StreamingResponse(write(), media_type="text/event-stream")

uvicorn.run(app, port=int(sys.argv[1]), log_level="error")
"""


@dataclass
class Outcome:
    """One round: latencies in seconds, memory in MB."""

    visitors: int
    finished: int
    first_p50: float
    first_p95: float
    total_p95: float
    longest_silence: float
    page_cpu_ms: float  # of one battle
    battle_memory_kb: float  # growth of the page at its peak, by battle
    page_memory_mb: float


@dataclass
class Visit:
    """One visitor's battle."""

    first: float | None = None
    total: float | None = None
    silence: float = 0.0


async def visit(url: str, act: dict[str, Any], number: int) -> Visit:
    """Send one prompt and read the events to the end, as the page in a browser does."""
    seen = Visit()
    session = f"load{number:06d}{os.getpid()}"
    async with httpx2.AsyncClient(base_url=url, timeout=180, trust_env=False) as client:
        client.cookies.set("arena_voter", f"loadtest-visitor-{number:06d}")
        started = last = time.monotonic()
        body = {**act, "session_hash": session}
        reply = await client.post("/gradio_api/queue/join", json=body)
        if reply.status_code != 200:
            return seen
        events = f"/gradio_api/queue/data?session_hash={session}"
        async with client.stream("GET", events) as stream:
            async for line in stream.aiter_lines():
                if not line.startswith("data:"):
                    continue
                now = time.monotonic()
                if seen.first is None and "word0" in line:
                    seen.first = now - started
                if seen.first is not None:
                    seen.silence = max(seen.silence, now - last)
                last = now
                if '"process_completed"' in line:
                    seen.total = now - started
                    break
    return seen


def send_act(config: dict[str, Any]) -> dict[str, Any]:
    """The page's own send act: its number and inputs, found in the page's configuration."""
    ids = {c["props"].get("elem_id"): c["id"] for c in config["components"]}
    for act in config["dependencies"]:
        if [ids["send"], "click"] in act["targets"]:
            data = ["Tell me something.", "blind", [], "new", "", ""]
            return {"data": data, "fn_index": act["id"], "trigger_id": ids["send"]}
    raise SystemExit("the page has no send act")


async def measure(url: str, process: psutil.Process, visitors: int) -> Outcome:
    """All visitors at once."""
    async with httpx2.AsyncClient(base_url=url, trust_env=False, timeout=60) as client:
        act = send_act((await client.get("/config")).json())
    before, cpu_before = process.memory_info().rss, cpu_seconds(process)
    peaks = [before]
    looking = asyncio.create_task(watch_memory(process, peaks))
    seen = await asyncio.gather(*(visit(url, act, i) for i in range(visitors)))
    looking.cancel()
    cpu = cpu_seconds(process) - cpu_before
    grown = max(*peaks, process.memory_info().rss) - before
    first = sorted(v.first for v in seen if v.first is not None)
    total = sorted(v.total for v in seen if v.total is not None)
    return Outcome(
        visitors,
        len(total),
        quantile(first, 0.5),
        quantile(first, 0.95),
        quantile(total, 0.95),
        max(v.silence for v in seen),
        1000 * cpu / visitors,
        grown / 1e3 / visitors,
        process.memory_info().rss / 1e6,
    )


def cpu_seconds(process: psutil.Process) -> float:
    """CPU time the page has taken so far."""
    times = process.cpu_times()
    return times.user + times.system


async def watch_memory(process: psutil.Process, seen: list[int]) -> None:
    """Note the page's memory twice a second."""
    while True:
        seen.append(process.memory_info().rss)
        await asyncio.sleep(0.5)


def quantile(values: list[float], share: float) -> float:
    """The value below which this share lies; nan of nothing."""
    return values[min(len(values) - 1, int(share * len(values)))] if values else float("nan")


def wait_for(url: str) -> None:
    """Until the address answers."""
    limit = time.monotonic() + 120
    while time.monotonic() < limit:
        try:
            if httpx2.get(url, trust_env=False).status_code == 200:
                return
        except httpx2.HTTPError:
            time.sleep(0.2)
    raise SystemExit(f"{url} did not answer")


def main() -> None:
    """Run the rounds, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--visitors", type=int, nargs="+", default=[25, 50, 100, 200])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--port", type=int, default=7950)
    options = parser.parse_args()
    server_port = options.port + 1
    url, server_url = f"http://127.0.0.1:{options.port}", f"http://127.0.0.1:{server_port}"
    with tempfile.TemporaryDirectory() as home:
        words = [sys.executable, "-c", SERVER, str(server_port), str(TOKENS), str(TOKEN_SECONDS)]
        server = subprocess.Popen(words)
        arena = Path(sys.executable).with_name("arena")
        page = subprocess.Popen(
            [arena, "ui", "--backend", server_url, "--home", home, "--port", str(options.port)]
        )
        try:
            wait_for(f"{server_url}/v1/models")
            wait_for(f"{url}/healthz")
            process = psutil.Process(page.pid)
            rounds = [asyncio.run(measure(url, process, n)) for n in options.visitors]
        finally:
            page.terminate()
            server.terminate()
            page.wait()
            server.wait()
    print(
        "| battles | finished | first p50 | first p95 | total p95 | longest silence "
        "| page CPU a battle | memory a battle | page |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for r in rounds:
        print(
            f"| {r.visitors} | {r.finished} | {r.first_p50:.2f} s | {r.first_p95:.2f} s "
            f"| {r.total_p95:.1f} s | {r.longest_silence:.1f} s | {r.page_cpu_ms:.0f} ms "
            f"| {r.battle_memory_kb:.0f} kB | {r.page_memory_mb:.0f} MB |"
        )
    load = os.getloadavg()[0]
    print(f"\nalone: {TOKENS * TOKEN_SECONDS:.0f} s; {os.cpu_count()} cores, load {load:.1f} after")
    if options.out:
        found = {"rounds": [asdict(r) for r in rounds], "load_after": load}
        options.out.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
