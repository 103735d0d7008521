"""What a server tells about itself: health, limits, the list of its models."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from serving.context import VERSION, server_of
from serving.problems import Problem
from serving.registry import ServedModel
from serving.validation import input_limit

router = APIRouter(tags=["About the server"])


@router.get("/")
@router.get("/health")
@router.get("/ping")
async def health(request: Request) -> Response:
    """200 while the engine's thread runs."""
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
        "root": model.parent or model.folder.name,
        "parent": model.parent,
        "max_model_len": model.max_total_tokens,
        "permission": [],
        "kind": model.kind,
        "weights_sha256": model.weights_sha256,
        "chat_template": model.has_chat_template,
    }
