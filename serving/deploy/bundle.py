"""What a deployment consists of, and the folder of models that it takes along.

The base goes along with the chat template and the ends of answers that its adapters need, since
the engines take both from the base. Knows files; does not know any engine's words.
"""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from serving.deploy.placement import PlacedModel, Placement
from serving.models.tokenizers import TEMPLATE_FILE
from tuning.variant import VARIANT_FILE

GENERATION_FILE = "generation_config.json"
CHECKPOINTS, ADAPTERS = "models", "adapters"


@dataclass(frozen=True)
class DeployedModel:
    """A model as the engine will answer for it: the page's name, an address, the engine's name."""

    name: str
    url: str
    model: str
    weights_sha256: str
    completes: bool = False
    """It has no chat template of its own and is asked by completion."""


@dataclass(frozen=True)
class Bundle:
    """Everything but the models' folders: text files by name, the one command, and what answers."""

    files: dict[str, str]
    command: str
    models: tuple[DeployedModel, ...]
    needs: str
    """What must be there before the command, in one sentence."""
    executable: frozenset[str] = field(default=frozenset())


def folder_names(placement: Placement) -> dict[str, str]:
    """A label for each model that any shell, store and cluster takes; all differ."""
    found: dict[str, str] = {}
    for model in placement.models:
        plain = re.sub(r"[^a-z0-9]+", "-", model.name.lower()).strip("-")[:40].strip("-")
        plain = plain if plain[:1].isalpha() else f"model-{plain}".strip("-")
        label, number = plain, 2
        while label in found.values():
            label, number = f"{plain}-{number}", number + 1
        found[model.name] = label
    return found


def paths(placement: Placement) -> dict[str, str]:
    """Where each model lies in the deployment's folder: adapters apart from whole checkpoints."""
    labels = folder_names(placement)
    return {
        one.name: f"{ADAPTERS if one.variant.is_adapter else CHECKPOINTS}/{labels[one.name]}"
        for one in placement.models
    }


def copy_models(placement: Placement, folder: Path) -> None:
    """Copy the models that are served into `folder`, each to its place of `paths`."""
    places = paths(placement)
    for model in placement.models:
        target = folder / places[model.name]
        target.mkdir(parents=True)
        for name in model.variant.files:
            shutil.copyfile(model.folder / name, target / name)
        if not (model.folder / VARIANT_FILE).is_file():
            _copy_rest(model, target)
    base = folder / places[placement.base.name]
    if placement.template is not None:
        (base / TEMPLATE_FILE).write_text(placement.template, encoding="utf-8")
    if set(placement.stop_ids) != set(placement.base.stop_ids):
        _add_stops(base / GENERATION_FILE, placement.stop_ids)


def _copy_rest(model: PlacedModel, target: Path) -> None:
    """The small files of a folder that another program made, which lists none."""
    for path in model.folder.iterdir():
        if path.is_file() and path.suffix in (".json", ".jinja", ".txt", ".model"):
            shutil.copyfile(path, target / path.name)


def _add_stops(path: Path, stop_ids: tuple[int, ...]) -> None:
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    known["eos_token_id"] = list(stop_ids)
    path.write_text(json.dumps(known, indent=2) + "\n", encoding="utf-8")
