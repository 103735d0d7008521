"""Brings a model of somebody else under home: a GGUF file, a folder, an adapter, a hub id.

What is brought is checked as a variant is, copied whole or not at all, and named. Knows folders;
does not know who will serve them.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

from tuning.config import check_folder_name
from tuning.errors import TuningError
from tuning.models.gguf import gguf_in_home
from tuning.models.loading import find_base
from tuning.models.packaged import packaged_models
from tuning.models.resolve import (
    HUB_FILES,
    SMOLLM2,
    BaseError,
    gguf_of,
    refuse_packaged,
    resolve_base,
)
from tuning.quiet import known_warnings_hidden
from tuning.variant.folder import VARIANT_FILE, Variant, read_variant
from tuning.variant.manifest import dump_json, sweep, whole_folder, write_atomically
from tuning.variant.verify import verify_variant


class AddError(TuningError):
    """A model that cannot be brought under home; names it and the remedy."""


def add_model(source: str, home: Path, name: str | None = None) -> Variant:
    """Bring the model `source` under `home` as `name` and read it from there.

    `source` is a GGUF file, `smollm2`, a checkpoint or adapter folder, or a hub id. The name's
    default is the source's last part. AddError, BaseError, GgufError or VariantError says why not.
    """
    file = gguf_of(source)
    if file is not None:
        name = SMOLLM2 if name is None and source == SMOLLM2 else name
        if name is not None:
            _check_name(name)
        return read_variant(gguf_in_home(file, home, name))
    name = (
        name
        if name is not None
        else re.sub(r"[^A-Za-z0-9._-]+", "-", source.rstrip("/").rpartition("/")[2])
    )
    _check_name(name)
    target = Path(home) / "models" / name
    if os.path.lexists(target):
        raise AddError(f"{target}: exists; choose another --as name, or remove it first")
    folder = resolve_base(source, home, what="model")
    if folder in packaged_models().values():
        raise AddError(f"{source}: is packaged and always there; nothing is to be added")
    with known_warnings_hidden():
        return _copy(folder, target, home)


def _check_name(name: str) -> None:
    check_folder_name(name)
    refuse_packaged(name)


def _copy(folder: Path, target: Path, home: Path) -> Variant:
    variant = read_variant(folder)
    sealed = (folder / VARIANT_FILE).is_file()
    names = sorted({*variant.files, *({VARIANT_FILE} if sealed else _loadable(folder))})
    if (folder / "README.md").is_file():
        names.append("README.md")
    size = sum((folder / name).stat().st_size for name in names)
    target.parent.mkdir(parents=True, exist_ok=True)
    sweep(target)
    free = shutil.disk_usage(target.parent).free
    if size > free:
        raise AddError(
            f"{folder}: takes {size / 2**30:.1f} GiB and {target.parent} has {free / 2**30:.1f} "
            "GiB free; make room"
        )
    verify_variant(folder, _base_of(variant, home))
    try:
        with whole_folder(target) as temporary:
            for name in names:
                shutil.copyfile(folder / name, temporary / name)  # what a link points to
            if sealed:
                content = {**variant.to_json(), "name": target.name}
                write_atomically(temporary / VARIANT_FILE, dump_json(content))
    except OSError as error:
        raise AddError(
            f"{target}: could not be written ({error.strerror}); make room and repeat"
        ) from error
    return read_variant(target)


def _base_of(variant: Variant, home: Path) -> Path | None:
    """Folder of the base an adapter belongs to, where it is here; None for what needs none."""
    if not variant.is_adapter:
        return None
    if variant.base is not None:
        return find_base(variant, home)
    config = json.loads((variant.folder / "adapter_config.json").read_text(encoding="utf-8"))
    named = str(config.get("base_model_name_or_path") or "")
    try:
        return resolve_base(named, home) if named else None
    except BaseError:
        return None  # served as soon as its base is; the server says what it needs


def _loadable(folder: Path) -> set[str]:
    return {path.name for pattern in HUB_FILES for path in folder.glob(pattern) if path.is_file()}
