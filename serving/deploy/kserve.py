"""KServe's LLMInferenceService: one with the base and its adapters, one for each checkpoint.

Knows the resource's fields (serving.kserve.io/v1alpha2); knows no cluster. All adapters are
loaded at the start, and none later.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from serving.deploy.bundle import Bundle, folder_names, paths
from serving.deploy.placement import PlacedModel, Placement
from serving.deploy.scripts import deployed
from serving.deploy.vllm_words import rank_for
from serving.errors import ServingError

MANIFEST = "kserve.yaml"
SCHEMES = ("pvc://", "s3://", "hf://")
GATEWAY = "http://GATEWAY/default"
"""The cluster says what GATEWAY is: `kubectl get llminferenceservices`."""


def kserve_bundle(placement: Placement, uri: str | None) -> Bundle:
    """`kserve.yaml`; `uri` is where this folder will lie, as pvc://CLAIM/PATH."""
    if uri is None or not re.fullmatch(r"(pvc|s3|hf)://[^\s]+", uri):
        raise ServingError(
            f"--uri {uri!r}: KServe loads models from a volume or a store; give where the folder "
            f"of --out will lie, beginning with {', '.join(SCHEMES)}"
        )
    uri, labels, places = uri.rstrip("/"), folder_names(placement), paths(placement)
    services = []
    for model in (placement.base, *placement.checkpoints):
        service = _service(model, labels[model.name], f"{uri}/{places[model.name]}")
        if model is placement.base and placement.adapters:
            service["spec"]["model"]["lora"] = {
                "adapters": [
                    {"name": one.name, "uri": f"{uri}/{places[one.name]}"}
                    for one in placement.adapters
                ],
                "maxRank": rank_for(placement.max_rank),
            }
        services.append(service)
    first = f"{GATEWAY}/{labels[placement.base.name]}"
    models = [
        *(deployed(one, first, one.name) for one in (placement.base, *placement.adapters)),
        *(
            deployed(one, f"{GATEWAY}/{labels[one.name]}", one.name)
            for one in placement.checkpoints
        ),
    ]
    return Bundle(
        {MANIFEST: yaml.safe_dump_all(services, sort_keys=False)},
        f"kubectl apply -f {MANIFEST}",
        tuple(models),
        f"Needs a cluster with KServe's LLMInferenceService, and this folder at {uri}.",
    )


def _service(model: PlacedModel, label: str, uri: str) -> dict[str, Any]:
    container = {
        "name": "main",
        "env": [{"name": "VLLM_ADDITIONAL_ARGS", "value": "--generation-config vllm"}],
        "resources": {"limits": {"nvidia.com/gpu": "1"}},
    }
    return {
        "apiVersion": "serving.kserve.io/v1alpha2",
        "kind": "LLMInferenceService",
        "metadata": {"name": label},
        "spec": {
            "model": {"uri": uri, "name": model.name},
            "replicas": 1,
            "router": {"route": {}, "gateway": {}, "scheduler": {}},
            "template": {"containers": [container]},
        },
    }
