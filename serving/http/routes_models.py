"""What a server tells about itself: health, limits, models; and loading of models."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response

from serving.completion.checks import input_limit
from serving.errors import ServingError, UnknownModelError
from serving.http.body import body_schema, read_body
from serving.http.state import VERSION, ServerState, server_of
from serving.models.registry import ServedModel
from serving.protocol.problems import Problem
from serving.protocol.schema import LoadRequest, UnloadRequest
from tuning.variant import VariantError

PLACE = re.compile(r"(?<![\w./])/(?:[^/\s:'\"]+/)+")
"""The folders of an absolute path."""

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
    if server.outside is not None:
        # Who finds TGI's description asks by TGI's routes, which our own engine alone has.
        raise Problem(404, "not_found", "With an engine beside, ask by OpenAI's routes, /v1")
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
        "refused": {name: without_places(why) for name, why in registry.refused.items()},
    }


def without_places(text: str) -> str:
    """A text in which files and folders have their names only: where they lie is nobody's
    business here, and stands in the log.
    """
    return PLACE.sub("", text)


@router.get("/v1/models")
async def list_models(request: Request) -> dict[str, Any]:
    """All models, the base first, adapters with the base they run on."""
    registry = server_of(request).registry
    return {"object": "list", "data": [model_json(model) for model in registry]}


@router.get("/v1/models/{name:path}")
async def one_model(request: Request, name: str) -> dict[str, Any]:
    """One entry of the list."""
    return model_json(server_of(request).registry.resolve(name))


def model_json(model: ServedModel) -> dict[str, Any]:
    """One entry of the list, in vLLM's form and ours."""
    return {
        "id": model.name,
        "object": "model",
        "created": model.created,
        "owned_by": "instruct-arena",
        "root": model.folder.name,
        "parent": model.parent,
        "max_model_len": model.max_total_tokens,
        "permission": [],
        "kind": model.kind,
        "checkpoint_of": model.checkpoint_of,
        "weights_sha256": model.weights_sha256,
        "chat_template": model.has_chat_template,
    }


@router.post("/v1/load_lora_adapter", openapi_extra=body_schema(LoadRequest.model_json_schema()))
async def load_adapter(request: Request) -> Response:
    """Serve the variant in a folder from now on, in vLLM's form; streams that run go on."""
    body = await read_body(request, LoadRequest.model_validate, admit=False)
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
    try:
        folder = Path(path).expanduser().resolve()
    except (OSError, RuntimeError, ValueError) as error:
        return refusal(400, f"{path!r} is no path of a folder ({error})")
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
    body = await read_body(request, UnloadRequest.model_validate, admit=False)
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


def require_local(request: Request, server: ServerState) -> None:
    """Without a key only this machine may change what is served."""
    host = request.client.host if request.client else ""
    if server.config.api_key is None and host not in ("127.0.0.1", "::1"):
        raise Problem(403, "forbidden", "Start the server with a key to load models from afar")


def refusal(status: int, message: str, kind: str = "InvalidUserInput") -> JSONResponse:
    """vLLM's error form of the two routes above."""
    error = {"message": message, "type": kind, "param": None, "code": status}
    return JSONResponse({"error": error}, status_code=status)
