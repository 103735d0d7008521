"""The config file of Ray Serve LLM; knows its words (`ray.serve.llm.LLMConfig`), starts nothing.

An application's models are one LLMConfig each; adapters are folders under one place in a store,
which Ray looks into at each request that names one.
"""

from __future__ import annotations

from typing import Any

import yaml

from serving.deploy.bundle import ADAPTERS, Bundle, folder_names, paths
from serving.deploy.placement import PlacedModel, Placement
from serving.deploy.scripts import deployed
from serving.deploy.vllm_words import rank_for
from serving.errors import ServingError

CONFIG = "serve_config.yaml"
STORES = ("s3://", "gs://", "abfss://", "azure://")
URL = "http://127.0.0.1:8000"


def ray_bundle(placement: Placement, uri: str | None) -> Bundle:
    """`serve_config.yaml`; `uri` is where this folder will lie, in a store Ray reads."""
    if uri is None or not uri.startswith(STORES):
        raise ServingError(
            f"--uri {uri!r}: Ray Serve loads models from a store; give where the folder of "
            f"--out will lie, beginning with {', '.join(STORES)}"
        )
    uri, labels, places = uri.rstrip("/"), folder_names(placement), paths(placement)
    configs = [
        _config(model, f"{uri}/{places[model.name]}")
        for model in (placement.base, *placement.checkpoints)
    ]
    if placement.adapters:
        count = len(placement.adapters)
        configs[0]["lora_config"] = {
            "dynamic_lora_loading_path": f"{uri}/{ADAPTERS}",
            "max_num_adapters_per_replica": count,
        }
        rank = rank_for(placement.max_rank)
        configs[0]["engine_kwargs"] |= {
            "enable_lora": True,
            "max_lora_rank": rank,
            "max_loras": count,
        }
    application = {
        "name": "arena",
        "route_prefix": "/",
        "import_path": "ray.serve.llm:build_openai_app",
        "args": {"llm_configs": configs},
    }
    base = placement.base.name
    models = [
        deployed(placement.base, URL, base),
        *(deployed(one, URL, f"{base}:{labels[one.name]}") for one in placement.adapters),
        *(deployed(one, URL, one.name) for one in placement.checkpoints),
    ]
    return Bundle(
        {CONFIG: yaml.safe_dump({"applications": [application]}, sort_keys=False)},
        f"serve deploy {CONFIG}",
        tuple(models),
        f"Needs pip install 'ray[llm]' on a running Ray cluster, and this folder at {uri}.",
    )


def _config(model: PlacedModel, source: str) -> dict[str, Any]:
    return {
        "model_loading_config": {"model_id": model.name, "model_source": {"bucket_uri": source}},
        "engine_kwargs": {"generation_config": "vllm"},
        "deployment_config": {"autoscaling_config": {"min_replicas": 1, "max_replicas": 2}},
    }
