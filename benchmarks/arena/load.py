"""How many people can battle at once: first-token latency, stalls and memory of the page.

Starts a synthetic server (20 tokens/s a side) and the page, each as a process of its own, then
lets N visitors send one blind prompt at the same moment and read the answers to their end, by the
request that the page's script makes in a browser: an act whose reply goes on as a stream of events.
Prints a table and writes JSON. Load generator and synthetic server share the machine, so both are
plain sockets that take as little of it as they can; what they take of the CPU is told.

    python benchmarks/arena/load.py --visitors 25 50 100 200 --out load.json
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
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx2
import psutil

TOKENS = 160
TOKEN_SECONDS = 0.05
LIMITS = "[limits]\n" + "".join(
    f"{name} = 100_000\n" for name in ("address_battles_per_minute", "new_voters_per_minute")
)
WHOLE = f"word{TOKENS - 1}".encode()

SERVER = r"""
import asyncio, json, sys
port, count, pause = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])

def chunk(data):
    return b"%x\r\n%b\r\n" % (len(data), data)

def event(text, reason=None):
    choice = {"index": 0, "delta": {"role": "assistant", "content": text}, "finish_reason": reason}
    body = {"object": "chat.completion.chunk", "id": "", "created": 0, "model": "x",
            "system_fingerprint": "", "choices": [choice], "usage": None}
    return b"data: " + json.dumps(body).encode() + b"\n\n"

words = [chunk(event(f"word{i} ")) for i in range(count)]
last = chunk(event("", "stop") + b"data: [DONE]\n\n") + b"0\r\n\r\n"
head = b"HTTP/1.1 %b\r\ncontent-type: %b\r\nconnection: close\r\n"
stream = head % (b"200 OK", b"text/event-stream") + b"transfer-encoding: chunked\r\n\r\n"
known = [{"id": n, "kind": "lora", "chat_template": True} for n in ("x", "y")]
models = json.dumps({"object": "list", "data": known}).encode()

async def serve(reader, writer):
    asked = await reader.readuntil(b"\r\n\r\n")
    try:
        if asked.startswith(b"POST /v1/chat/completions "):
            writer.write(stream)
            for word in words:
                writer.write(word)
                await asyncio.sleep(pause)
            writer.write(last)
        elif asked.startswith(b"GET /v1/models "):
            reply = head % (b"200 OK", b"application/json")
            writer.write(reply + b"content-length: %d\r\n\r\n" % len(models) + models)
        else:
            writer.write(head % (b"404 Not Found", b"text/plain") + b"content-length: 0\r\n\r\n")
        await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()

async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()

asyncio.run(main())
"""


@dataclass
class AnswerOutcome:
    """One round: latencies in seconds, memory in MB."""

    visitors: int
    finished: int
    asked_p95: float
    first_p50: float
    first_p95: float
    total_p95: float
    longest_silence: float
    page_cpu_ms: float  # of one battle
    other_cpu_ms: float  # of one battle: the synthetic server and the visitors
    battle_memory_kb: float  # growth of the page at its peak, by battle
    page_memory_mb: float
    battle_kb: float  # sent to one visitor


@dataclass
class Visit:
    """One visitor's battle."""

    asked: float | None = None  # the act was answered
    first: float | None = None  # the first word was told
    total: float | None = None  # both whole answers were
    num_bytes: int = 0
    silence: float = 0.0


@asynccontextmanager
async def request(port: int, head: str, body: bytes = b"") -> AsyncIterator[asyncio.StreamReader]:
    """Send one request on a connection of its own; what comes back."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    writer.write(f"{head}\r\nhost: 127.0.0.1:{port}\r\nconnection: close\r\n".encode())
    if body:
        writer.write(b"content-type: application/json\r\ncontent-length: %d\r\n" % len(body))
    writer.write(b"\r\n" + body)
    try:
        yield reader
    finally:
        writer.close()


async def visit(port: int, number: int) -> Visit:
    """Send one prompt and read the events to the end, as the page's script does in a browser."""
    seen = Visit()
    started = last = time.monotonic()
    body = {"prompt": "Tell me something.", "mode": "blind", "models": [], "following": "new"}
    act = (
        "POST /live/send HTTP/1.1\r\naccept: text/event-stream, application/json\r\n"
        f"cookie: arena_voter=loadtest-visitor-{os.getpid()}-{number:06d}\r\n"
        "sec-fetch-site: same-origin"
    )
    async with request(port, act, json.dumps(body).encode()) as stream:
        async for line in stream:
            if not line.startswith(b"data:"):
                continue
            now = time.monotonic()
            if seen.asked is None:
                seen.asked = now - started
            elif seen.first is None and b"word0" in line:
                seen.first = now - started
            elif seen.first is not None:
                seen.silence = max(seen.silence, now - last)
            last = now
            seen.num_bytes += len(line)
            if line.startswith(b'data: {"end"') and line.count(WHOLE) >= 2:
                seen.total = now - started
    return seen


async def measure(
    port: int, process: psutil.Process, server: psutil.Process, visitors: int
) -> AnswerOutcome:
    """All visitors at once."""
    others = (server, psutil.Process())
    before, cpu_before = process.memory_info().rss, cpu_seconds(process)
    others_before = sum(map(cpu_seconds, others))
    peaks = [before]
    looking = asyncio.create_task(watch_memory(process, peaks))
    seen = await asyncio.gather(*(visit(port, i) for i in range(visitors)))
    looking.cancel()
    cpu = cpu_seconds(process) - cpu_before
    other_cpu = sum(map(cpu_seconds, others)) - others_before
    grown = max(*peaks, process.memory_info().rss) - before
    first = sorted(v.first for v in seen if v.first is not None)
    total = sorted(v.total for v in seen if v.total is not None)
    return AnswerOutcome(
        visitors,
        len(total),
        quantile(sorted(v.asked for v in seen if v.asked is not None), 0.95),
        quantile(first, 0.5),
        quantile(first, 0.95),
        quantile(total, 0.95),
        max(v.silence for v in seen),
        1000 * cpu / visitors,
        1000 * other_cpu / visitors,
        grown / 1e3 / visitors,
        process.memory_info().rss / 1e6,
        sum(v.num_bytes for v in seen) / 1e3 / visitors,
    )


def cpu_seconds(process: psutil.Process) -> float:
    """CPU time that a process has taken so far."""
    times = process.cpu_times()
    return float(times.user + times.system)


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
        Path(home, "arena.toml").write_text(LIMITS)  # all visitors come from one address
        words = [sys.executable, "-c", SERVER, str(server_port), str(TOKENS), str(TOKEN_SECONDS)]
        server = subprocess.Popen(words)
        arena = Path(sys.executable).with_name("arena")
        page = subprocess.Popen(
            [arena, "ui", "--backend", server_url, "--home", home, "--port", str(options.port)]
        )
        try:
            wait_for(f"{server_url}/v1/models")
            wait_for(f"{url}/healthz")
            watched = psutil.Process(page.pid), psutil.Process(server.pid)
            rounds = [asyncio.run(measure(options.port, *watched, n)) for n in options.visitors]
        finally:
            page.terminate()
            server.terminate()
            page.wait()
            server.wait()
    print(
        "| battles | finished | act p95 | first p50 | first p95 | total p95 | longest silence "
        "| page CPU a battle | others' CPU | memory a battle | page | sent a battle |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|---|")
    for r in rounds:
        print(
            f"| {r.visitors} | {r.finished} | {r.asked_p95:.2f} s | {r.first_p50:.2f} s "
            f"| {r.first_p95:.2f} s | {r.total_p95:.1f} s | {r.longest_silence:.1f} s "
            f"| {r.page_cpu_ms:.0f} ms | {r.other_cpu_ms:.0f} ms | {r.battle_memory_kb:.0f} kB "
            f"| {r.page_memory_mb:.0f} MB | {r.battle_kb:.0f} kB |"
        )
    load = os.getloadavg()[0]
    print(f"\nalone: {TOKENS * TOKEN_SECONDS:.0f} s; {os.cpu_count()} cores, load {load:.1f} after")
    if options.out:
        found = {"rounds": [asdict(r) for r in rounds], "load_after": load}
        options.out.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
