"""/metrics: what is counted, and what engines and queues say at this moment."""

from __future__ import annotations

import asyncio
from functools import partial

from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse, Response

from serving.engine.efficiency import eta, measure_bandwidth, rho
from serving.http.metrics import Labels
from serving.http.state import ServerState, server_of

router = APIRouter(tags=["About the server"])


@router.get("/metrics")
async def metrics(request: Request) -> Response:
    """All series in Prometheus' text form."""
    server = server_of(request)
    await measure(server)
    text = server.metrics.render(gauges(server))
    return PlainTextResponse(text, media_type="text/plain; version=0.0.4; charset=utf-8")


async def measure(server: ServerState) -> None:
    """Measure the bandwidth of engines that have run steps, once each, between two steps."""
    for name, engine in server.registry.engines.items():
        if name not in server.bandwidths and engine.stats.steps:
            measured = server.registry.worker.call(partial(measure_bandwidth, engine))
            server.bandwidths[name] = await asyncio.wrap_future(measured)


def gauges(server: ServerState) -> dict[str, dict[Labels, float]]:
    """What engines and queues say at this moment."""
    found: dict[str, dict[Labels, float]] = {}

    def put(name: str, value: float | None, **labels: str) -> None:
        if value is not None:
            found.setdefault(name, {})[tuple(sorted(labels.items()))] = value

    engines = server.registry.engines
    put("tgi_queue_size", sum(len(e.waiting) for e in engines.values()))
    put("tgi_batch_current_size", sum(len(e.rows) for e in engines.values()))
    rows = [row for engine in engines.values() for row in list(engine.rows)]
    put("tgi_batch_current_max_tokens", sum(row.most_tokens for row in rows))
    put("tgi_batch_total_tokens", sum(row.length for row in rows))
    put("tgi_batch_max_total_tokens", sum(e.limits.kv_tokens for e in engines.values()))
    for name, engine in engines.items():
        stats = engine.stats
        put("arena_engine_steps_count", stats.steps, base=name)
        put("arena_engine_compiled_steps_count", stats.compiled_steps, base=name)
        put("arena_engine_prefill_tokens_count", stats.prefill_tokens, base=name)
        put("arena_engine_decode_tokens_count", stats.decode_tokens, base=name)
        put("arena_engine_rows_cancelled_count", stats.rows_cancelled, base=name)
        put("arena_engine_rows_failed_count", stats.rows_failed, base=name)
        put("arena_engine_rows_preempted_count", stats.rows_preempted, base=name)
        put("arena_prefix_cache_reused_tokens_count", engine.cache.num_reused, base=name)
        put("arena_kv_bytes", engine.pool.num_bytes, base=name)
        put("arena_step_rho", rho(stats.times), base=name)
        if name in server.bandwidths:
            put("arena_bandwidth_bytes_per_second", server.bandwidths[name], base=name)
            by_rows = eta(stats.times, server.bandwidths[name])
            put("arena_step_eta", by_rows[min(by_rows)] if by_rows else None, base=name)
            for count, value in by_rows.items():
                put("arena_step_eta_by_rows", value, base=name, rows=str(count))
    for model in server.registry:
        running = [r for r in list(model.engine.rows) if r.request.adapter == model.adapter]
        put("arena_variant_rows", len(running), model=model.name)
    put("arena_models_refused", len(server.registry.refused))
    return found
