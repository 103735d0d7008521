"""How busy a server says it is: requests that run and wait, from its Prometheus metrics.

Knows the metric names of text-generation-inference (and ours, which are the same), vLLM, SGLang and
llama.cpp; a server that has none of them tells nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

import httpx2

from arena.backends.http import http_client, key_of
from arena.backends.wire_values import count_of

ASK_SECONDS = 1.0
RUNNING = (
    "tgi_batch_current_size",
    "vllm:num_requests_running",
    "sglang:num_running_reqs",
    "llamacpp:requests_processing",
)
WAITING = (
    "tgi_queue_size",
    "vllm:num_requests_waiting",
    "sglang:num_queue_reqs",
    "llamacpp:requests_deferred",
)


@dataclass(frozen=True)
class Queue:
    """Requests of one server; None where it does not tell."""

    running: int | None = None
    waiting: int | None = None


async def ask_queues(urls: Iterable[str], key_env: str | None = None) -> dict[str, Queue]:
    """The queues of servers by address; a server that does not answer tells nothing."""
    asked = list(dict.fromkeys(urls))
    return dict(
        zip(asked, await asyncio.gather(*(_ask(url, key_env) for url in asked)), strict=True)
    )


async def _ask(url: str, key_env: str | None) -> Queue:
    try:
        async with asyncio.timeout(ASK_SECONDS), http_client() as client:
            key = {"authorization": f"Bearer {key_of(key_env)}"}
            reply = await client.get(f"{url}/metrics", headers=key)
    except (httpx2.HTTPError, TimeoutError):
        return Queue()
    return read_queue(reply.text) if reply.status_code == 200 else Queue()


def read_queue(text: str) -> Queue:
    """The queue in a page of metrics; several series of one name are summed."""
    sums: dict[str, float] = {}
    for line in text.splitlines():
        name, _, rest = line.partition("{")
        value = rest.rpartition("}")[2] if rest else name.partition(" ")[2]
        name = name.split(" ")[0]
        if name in RUNNING or name in WAITING:
            try:
                sums[name] = sums.get(name, 0.0) + float(value.split()[0])
            except (ValueError, IndexError):
                continue  # a broken line of somebody else's metrics tells nothing
    return Queue(_first(sums, RUNNING), _first(sums, WAITING))


def _first(sums: dict[str, float], names: Iterable[str]) -> int | None:
    return next((count_of(sums[name]) for name in names if name in sums), None)
