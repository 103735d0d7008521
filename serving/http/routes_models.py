"""What a server tells about itself: health, limits, models, metrics; and loading of models."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response

from serving.completion.checks import input_limit
from serving.engine.efficiency import eta, measure_bandwidth, rho
from serving.errors import ServingError, UnknownModelError
from serving.http.metrics import Labels
from serving.http.state import VERSION, Server, body_schema, read_body, server_of
from serving.models.registry import ServedModel
from serving.protocol.problems import Problem
from serving.protocol.schema import LoadRequest, UnloadRequest
from tuning.variant import VariantError

router = APIRouter(tags=["About the server"])


@router.get("/")
@router.get("/health")
@router.get("/ping")
async def health(request: Request) -> Response:
    """200 while the engine's thread runs; a model's own URL: while it is served."""
    server_of(request).registry.resolve(request.path_params.get("model"))
    if not server_of(request).registry.worker.is_alive:
        raise Problem(503, "healthcheck", "unhealthy")
    return Response(status_code=200)


@router.get("/info")
async def info(request: Request) -> dict[str, Any]:
    """Model and limits, in TGI's names, and the variants that are served."""
    server = server_of(request)
    registry, limits = server.registry, server.config.limits
    model = registry.resolve(request.path_params.get("model"))
    return {
        "model_id": model.name,
        "model_sha": None,
        "model_dtype": str(model.engine.dtype),
        "model_device_type": model.engine.device.type,
        "model_pipeline_tag": "text-generation",
        "max_concurrent_requests": limits.max_concurrent_requests,
        "max_best_of": limits.max_best_of,
        "max_stop_sequences": limits.max_stop_sequences,
        "max_input_tokens": input_limit(model, limits),
        "max_total_tokens": model.max_total_tokens,
        "validation_workers": 1,
        "max_client_batch_size": limits.max_client_batch_size,
        "router": "instruct-arena",
        "version": VERSION,
        "sha": None,
        "docker_label": None,
        "weights_sha256": model.weights_sha256,
        "adapters": [m.name for m in registry if m.adapter is not None],
        "refused": registry.refused,
    }


@router.get("/v1/models")
async def list_models(request: Request) -> dict[str, Any]:
    """All models, the base first, adapters with the base they run on."""
    registry = server_of(request).registry
    return {"object": "list", "data": [model_json(model) for model in registry]}


def model_json(model: ServedModel) -> dict[str, Any]:
    """One entry of the list, in vLLM's form and ours."""
    return {
        "id": model.name,
        "object": "model",
        "created": model.created,
        "owned_by": "instruct-arena",
        "root": str(model.folder),
        "parent": model.parent,
        "max_model_len": model.max_total_tokens,
        "permission": [],
        "kind": model.kind,
        "weights_sha256": model.weights_sha256,
        "chat_template": model.has_chat_template,
    }


@router.post("/v1/load_lora_adapter", openapi_extra=body_schema(LoadRequest.model_json_schema()))
async def load_adapter(request: Request) -> Response:
    """Serve the variant in a folder from now on, in vLLM's form; streams that run go on."""
    body = await read_body(request, LoadRequest.model_validate)
    server = server_of(request)
    require_local(request, server)
    name, path = body.lora_name, body.lora_path
    if not name or not path:
        return refusal(400, "Both 'lora_name' and 'lora_path' must be provided.")
    if name in server.registry.names and not body.load_inplace:
        return refusal(
            400,
            f"The lora adapter '{name}' has already been loaded. If you want to load the adapter "
            "in place, set 'load_inplace' to True.",
        )
    folder = Path(path).expanduser().resolve()
    if not any(folder.is_relative_to(root) for root in server.config.roots):
        return refusal(400, f"{path} is outside the folders this server may load from")
    if not folder.is_dir():
        return refusal(404, f"{path}: no such folder", "NotFoundError")
    try:
        await asyncio.to_thread(server.registry.load, name, folder, replace=body.load_inplace)
    except (ServingError, VariantError) as error:
        return refusal(400, str(error))
    return PlainTextResponse(f"Success: LoRA adapter '{name}' added successfully.")


@router.post(
    "/v1/unload_lora_adapter", openapi_extra=body_schema(UnloadRequest.model_json_schema())
)
async def unload_adapter(request: Request) -> Response:
    """Serve a variant no more; rows that still run on it finish."""
    body = await read_body(request, UnloadRequest.model_validate)
    server = server_of(request)
    require_local(request, server)
    name = body.lora_name
    if not name:
        return refusal(400, "'lora_name' must be provided.")
    try:
        await asyncio.to_thread(server.registry.unload, name)
    except UnknownModelError:
        return refusal(404, f"The lora adapter '{name}' cannot be found.", "NotFoundError")
    except ServingError as error:
        return refusal(400, str(error))
    return PlainTextResponse(f"Success: LoRA adapter '{name}' removed successfully.")


def require_local(request: Request, server: Server) -> None:
    """Without a key only this machine may change what is served."""
    host = request.client.host if request.client else ""
    if server.config.api_key is None and host not in ("127.0.0.1", "::1"):
        raise Problem(403, "forbidden", "Start the server with a key to load models from afar")


def refusal(status: int, message: str, kind: str = "InvalidUserInput") -> JSONResponse:
    """vLLM's error form of the two routes above."""
    error = {"message": message, "type": kind, "param": None, "code": status}
    return JSONResponse({"error": error}, status_code=status)


@router.get("/metrics")
async def metrics(request: Request) -> Response:
    """All series in Prometheus' text form."""
    server = server_of(request)
    await measure(server)
    text = server.metrics.render(gauges(server))
    return PlainTextResponse(text, media_type="text/plain; version=0.0.4; charset=utf-8")


async def measure(server: Server) -> None:
    """Measure the bandwidth of engines that have run steps, once each, between two steps."""
    for name, engine in server.registry.engines.items():
        if name not in server.bandwidths and engine.stats.steps:
            measured = server.registry.worker.call(partial(measure_bandwidth, engine))
            server.bandwidths[name] = await asyncio.wrap_future(measured)


def gauges(server: Server) -> dict[str, dict[Labels, float]]:
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
