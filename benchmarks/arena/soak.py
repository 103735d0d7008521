"""Does the page hold: battles without end over servers that are slow, break off, hang and die.

25 visitors ask, read their answers and vote, again and again; one in ten leaves in the middle.
Every second one asks as the page's script does, whose answers are drawn; the others use the API. Of
three synthetic servers one is killed and started again all the time; the page itself once. Told at
the end: votes that were acknowledged and are not in the store, battles that did not end in time,
and how memory and descriptors of the page moved. Exit status 1 if something is lost or stuck, or
grows.

    python benchmarks/arena/soak.py --minutes 60 --out soak.json
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import httpx2
import psutil

LIMITS = "[limits]\n" + "".join(
    f"{name} = 1_000_000\n"
    for name in (
        *("requests_per_minute", "battles_per_minute", "new_voter_battles"),
        *("address_battles_per_minute", "new_voters_per_minute"),
    )
)
STUCK_SECONDS = 90.0
"""Longer than every deadline of an answer that these servers can meet (30 s, then 15 s)."""
KILL_SECONDS = 12.0
LOOK_SECONDS = 2.0
WARM_MINUTES = 2.0
"""What a page has loaded and keeps by then is not counted as growth."""
MOST_MB_A_MINUTE = 1.0
MOST_MORE_FILES = 50
Opened = tuple[str, str, AsyncIterator[str]]
"""Id and token of a battle and its events; of one that was refused no id, and the status."""
Opens = Callable[[httpx2.AsyncClient, str], AbstractAsyncContextManager[Opened]]
CHOICES = ("model_a", "model_b", "tie", "both_bad")

SERVER = r"""
import asyncio, json, random, sys
port, names = int(sys.argv[1]), sys.argv[2].split(",")
draw = random.Random(port)

def event(text, reason=None):
    choice = {"index": 0, "delta": {"role": "assistant", "content": text}, "finish_reason": reason}
    body = {"object": "chat.completion.chunk", "id": "", "created": 0, "model": "x",
            "system_fingerprint": "", "choices": [choice], "usage": None}
    return b"data: " + json.dumps(body).encode() + b"\n\n"

def chunk(data):
    return b"%x\r\n%b\r\n" % (len(data), data)

head = b"HTTP/1.1 %b\r\ncontent-type: %b\r\nconnection: close\r\n"
stream = head % (b"200 OK", b"text/event-stream") + b"transfer-encoding: chunked\r\n\r\n"
known = [{"id": n, "kind": "lora", "chat_template": True} for n in names]
models = json.dumps({"object": "list", "data": known}).encode()

async def answer(writer):
    manner = draw.choices(("whole", "slow", "cut", "hang", "silent"), (80, 8, 6, 3, 3))[0]
    if manner == "silent":
        await asyncio.sleep(60)
    writer.write(stream)
    count = draw.randint(20, 80)
    for i in range(count):
        if i == count // 2 and manner == "cut":
            return
        if i == count // 2 and manner == "hang":
            await asyncio.sleep(60)
        writer.write(chunk(event(f"**word{i}** " if i % 7 else f"`x_{i}` $a^{{{i}}}$\n\n")))
        await writer.drain()
        await asyncio.sleep(0.25 if manner == "slow" else 0.05)
    writer.write(chunk(event("", "stop") + b"data: [DONE]\n\n") + b"0\r\n\r\n")

async def serve(reader, writer):
    try:
        asked = await reader.readuntil(b"\r\n\r\n")
        if asked.startswith(b"POST /v1/chat/completions "):
            await answer(writer)
        elif asked.startswith(b"GET /v1/models "):
            reply = head % (b"200 OK", b"application/json")
            writer.write(reply + b"content-length: %d\r\n\r\n" % len(models) + models)
        else:
            writer.write(head % (b"404 Not Found", b"text/plain") + b"content-length: 0\r\n\r\n")
        await writer.drain()
    except (ConnectionError, asyncio.IncompleteReadError):
        pass
    finally:
        writer.close()

async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()

asyncio.run(main())
"""


@dataclass
class Look:
    """The page's process at one moment."""

    minute: float
    memory_mb: float
    num_files: int
    life: int  # how often the page was started
    helpers_mb: float  # the processes that it started: what draws foreign texts


@dataclass
class Soak:
    """What happened; `votes` by battle, as they were acknowledged."""

    minutes: float = 0.0
    battles: int = 0
    votes: dict[str, str] = field(default_factory=dict)
    told: Counter[str] = field(default_factory=Counter)
    stuck: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    unfinished: int = 0
    kills: int = 0
    looks: list[Look] = field(default_factory=list)
    seconds_to_end: float = 0.0

    def faults(self) -> list[str]:
        """What must not be."""
        found = [f"{len(self.lost)} votes lost"] if self.lost else []
        found += [f"{len(self.stuck)} battles stuck"] if self.stuck else []
        found += [f"{self.unfinished} answers left open"] if self.unfinished else []
        found += [] if self.votes else ["nobody could vote"]
        if (slope := self.slope()) is not None and slope > MOST_MB_A_MINUTE:
            found.append(f"memory grows by {slope:.1f} MB a minute")
        files = [look.num_files for look in self.late()]
        early, late = files[: len(files) // 2], files[len(files) // 2 :]
        if early and max(late) - max(early) > MOST_MORE_FILES:
            found.append("descriptors grow")
        return found

    def late(self) -> list[Look]:
        """The page that lived last, once it was warm."""
        last = [look for look in self.looks if look.life == self.looks[-1].life]
        return [look for look in last if look.minute > last[0].minute + WARM_MINUTES]

    def slope(self) -> float | None:
        """MB a minute by least squares; None for a run too short to tell."""
        looks = self.late()
        if len(looks) < 30:
            return None
        middle = sum(look.minute for look in looks) / len(looks)
        spread = sum((look.minute - middle) ** 2 for look in looks)
        return sum((look.minute - middle) * look.memory_mb for look in looks) / spread


def free_port() -> int:
    """A port of loopback that nothing listens on now."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


class Programs:
    """The servers and the page, each a process of its own, killed and started again at will."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.life = 0
        self._servers: dict[int, tuple[str, subprocess.Popen[bytes]]] = {}
        for names in ("one,two", "three", "four,five"):
            self._serve(free_port(), names)
        self._log = (home / "page.log").open("ab")
        self.page = self._start_page()

    def _serve(self, port: int, names: str) -> None:
        words = [sys.executable, "-c", SERVER, str(port), names]
        self._servers[port] = names, subprocess.Popen(words)

    def kill_server(self, draw: random.Random) -> None:
        """End one without a word, and start it again."""
        port = draw.choice(list(self._servers))
        names, process = self._servers[port]
        process.kill()
        process.wait()
        self._serve(port, names)

    def _start_page(self) -> subprocess.Popen[bytes]:
        self.life += 1
        words = [str(Path(sys.executable).with_name("arena")), "ui", "--home", str(self.home)]
        for port in self._servers:
            words += ["--backend", f"http://127.0.0.1:{port}"]
        words += ["--port", str(self.port)]
        return subprocess.Popen(words, stdout=self._log, stderr=subprocess.STDOUT)

    def kill_page(self) -> None:
        """As a machine that runs out of memory does, and start it again."""
        self.page.kill()
        self.page.wait()
        self.page = self._start_page()

    def end(self) -> float:
        """End the page in order; how many seconds that took."""
        began = time.monotonic()
        self.page.terminate()
        self.page.wait(60)
        took = time.monotonic() - began
        self.stop()
        return took

    def stop(self) -> None:
        """Leave nothing behind."""
        for process in (self.page, *(process for _, process in self._servers.values())):
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
            process.wait()
        self._log.close()


@contextmanager
def programs(home: Path) -> Iterator[Programs]:
    """All of them, ended in any case."""
    running = Programs(home)
    try:
        yield running
    finally:
        running.stop()


async def visit(soak: Soak, url: str, draw: random.Random, until: float, opens: Opens) -> None:
    """One visitor: ask, read to the end, vote; the page may be away for a while."""
    cookies = {"arena_voter": f"soak-visitor-{draw.getrandbits(64):016x}"}
    async with httpx2.AsyncClient(
        base_url=url, trust_env=False, timeout=STUCK_SECONDS, cookies=cookies
    ) as client:
        while time.monotonic() < until:
            try:
                async with asyncio.timeout(STUCK_SECONDS):
                    await battle(soak, client, draw, opens)
            except TimeoutError:
                soak.stuck.append(f"after {soak.minutes:.1f} minutes")
            except httpx2.HTTPError as error:
                soak.told[type(error).__name__] += 1
                await asyncio.sleep(1.0)


async def battle(soak: Soak, client: httpx2.AsyncClient, draw: random.Random, opens: Opens) -> None:
    """One battle to its vote, or to its visitor's leaving."""
    leaves_after = draw.randint(1, 20) if draw.random() < 0.1 else None
    async with opens(client, f"Tell me {draw.random()}.") as (name, token, events):
        if not name:
            soak.told[f"asked: {token}"] += 1
            await asyncio.sleep(0.5)
            return
        soak.battles += 1
        number = 0
        async for _ in events:
            number += 1
            if number == leaves_after:
                soak.told["left"] += 1
                return
    vote, headers = draw.choice(CHOICES), {"x-battle-token": token}
    judged = await client.post(f"/api/battles/{name}/votes", json={"winner": vote}, headers=headers)
    if judged.status_code == 201:
        soak.votes[name] = vote
    else:
        soak.told[f"voted: {judged.status_code}"] += 1


@asynccontextmanager
async def by_api(client: httpx2.AsyncClient, prompt: str) -> AsyncIterator[Opened]:
    """A battle as a program asks for it."""
    asked = await client.post("/api/battles", json={"prompt": prompt})
    if asked.status_code != 201:
        yield "", str(asked.status_code), nothing()
        return
    name, token = asked.json()["battle"], asked.json()["token"]
    headers = {"x-battle-token": token}
    async with client.stream("GET", f"/api/battles/{name}/events", headers=headers) as stream:
        yield (
            name,
            token,
            (line async for line in stream.aiter_lines() if line.startswith("event:")),
        )


@asynccontextmanager
async def by_page(client: httpx2.AsyncClient, prompt: str) -> AsyncIterator[Opened]:
    """A battle as the page's script asks for it: the reply goes on as the answers."""
    await client.get("/")
    headers = {"accept": "text/event-stream"}
    body = {"prompt": prompt, "mode": "blind"}
    async with client.stream("POST", "/live/send", json=body, headers=headers) as stream:
        lines = (line async for line in stream.aiter_lines() if line.startswith("data:"))
        first = await anext(lines, "data: {}")
        link = parse_qs(json.loads(first.removeprefix("data:")).get("link", ""))
        if link:
            yield link["battle"][0], link["t"][0], lines
        else:
            yield "", str(stream.status_code), nothing()


async def nothing() -> AsyncIterator[str]:
    """No event."""
    return
    yield


async def watch(soak: Soak, running: Programs, draw: random.Random, minutes: float) -> None:
    """Look at the page, kill servers now and then, and the page once after a quarter."""
    began = killed = time.monotonic()
    while soak.minutes < minutes:
        await asyncio.sleep(LOOK_SECONDS)
        soak.minutes = (time.monotonic() - began) / 60
        try:
            page = psutil.Process(running.page.pid)
            seen = page.memory_info().rss / 1e6, page.num_fds()
            helpers = sum(child.memory_info().rss for child in page.children(recursive=True)) / 1e6
            soak.looks.append(Look(soak.minutes, *seen, running.life, helpers))
        except psutil.Error:
            soak.told["page gone"] += 1
        if time.monotonic() - killed > KILL_SECONDS:
            killed = time.monotonic()
            soak.kills += 1
            await asyncio.to_thread(running.kill_server, draw)
        if running.life == 1 and soak.minutes > minutes / 4:
            await asyncio.to_thread(running.kill_page)


async def ready(url: str) -> None:
    """Until the page answers."""
    async with httpx2.AsyncClient(trust_env=False, timeout=5) as client:
        async with asyncio.timeout(180):
            while True:
                try:
                    if (await client.get(f"{url}/healthz")).status_code == 200:
                        return
                except httpx2.HTTPError:
                    await asyncio.sleep(0.3)


async def play(soak: Soak, running: Programs, minutes: float, visitors: int) -> None:
    """The whole time, and until the last battles are over."""
    await ready(running.url)
    draw = random.Random(0)
    until = time.monotonic() + 60 * minutes
    await asyncio.gather(
        watch(soak, running, draw, minutes),
        *(
            visit(soak, running.url, random.Random(i), until, (by_api, by_page)[i % 2])
            for i in range(visitors)
        ),
    )


def stored(home: Path) -> tuple[dict[str, str], int]:
    """The votes in the store by battle, and how many answers are still called being written."""
    from arena.storage.database import DatabaseConfig, reading

    with reading(home / "arena.db", DatabaseConfig()) as db:
        votes = db.query(
            "SELECT b.public_id AS battle, v.winner FROM votes v JOIN turns t ON t.id = v.turn_id"
            " JOIN battles b ON b.id = t.battle_id"
        )
        found = {row["battle"]: row["winner"] for row in votes}
        open_ = next(iter(db.query("SELECT count(*) AS n FROM answers WHERE status = 'streaming'")))
    return found, int(open_["n"])


def run(minutes: float, visitors: int = 25) -> Soak:
    """Everything, in a home of its own."""
    soak = Soak()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        (home / "arena.toml").write_text(LIMITS)
        with programs(home) as running:
            asyncio.run(play(soak, running, minutes, visitors))
            soak.seconds_to_end = running.end()
        votes, soak.unfinished = stored(home)
        soak.lost = [name for name, vote in soak.votes.items() if votes.get(name) != vote]
    return soak


def told(soak: Soak) -> dict[str, Any]:
    """The figures that are shown."""
    looks, slope = soak.late() or soak.looks, soak.slope()
    return {
        "minutes": round(soak.minutes, 1),
        "battles": soak.battles,
        "votes": len(soak.votes),
        "votes_lost": len(soak.lost),
        "battles_stuck": len(soak.stuck),
        "answers_left_open": soak.unfinished,
        "server_kills": soak.kills,
        "page_starts": soak.looks[-1].life,
        "memory_mb": [round(looks[0].memory_mb), round(looks[-1].memory_mb)],
        "helpers_mb": [round(looks[0].helpers_mb), round(looks[-1].helpers_mb)],
        "mb_a_minute": None if slope is None else round(slope, 2),
        "files": [min(look.num_files for look in looks), max(look.num_files for look in looks)],
        "seconds_to_end": round(soak.seconds_to_end, 1),
        "told": dict(soak.told),
        "cores": os.cpu_count(),
    }


def main() -> int:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--battles", type=int, default=25, help="at a time")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    soak = run(options.minutes, options.battles)
    print(json.dumps(told(soak), indent=1))
    if options.out:
        found = told(soak) | {"looks": [asdict(look) for look in soak.looks]}
        options.out.write_text(json.dumps(found, indent=1))
    for fault in soak.faults():
        print(f"soak: {fault}", file=sys.stderr)
    return bool(soak.faults())


if __name__ == "__main__":
    sys.exit(main())
