"""Seals a finished folder with its `variant.json`, and writes files so that none is half there.

Does not know what the weights mean; everything here is bytes, hashes and renames.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tuning.variant.folder import (
    FORMAT_VERSION,
    KINDS,
    UNSEALED_FILES,
    VARIANT_FILE,
    Base,
    Variant,
    VariantError,
    combine_weights,
    file_sha256,
    load_json,
    parse_variant,
)


def seal_variant(
    folder: Path,
    *,
    name: str,
    kind: str,
    base: Base | None = None,
    run: Mapping[str, Any] | None = None,
    metrics: Mapping[str, Any] | None = None,
    parent: str | None = None,
) -> Variant:
    """Hash the files of a finished folder and write its `variant.json`."""
    assert kind in KINDS, kind
    files = {
        path.name: file_sha256(path)
        for path in sorted(folder.iterdir())
        if path.is_file() and path.name not in UNSEALED_FILES
    }
    variant = Variant(
        name=name,
        kind=kind,
        base=base,
        files=files,
        template=files.get("chat_template.jinja"),
        run=dict(run or {}),
        metrics=dict(metrics or {}),
        parent=parent,
        format_version=FORMAT_VERSION,
        folder=folder,
        weights_sha256=combine_weights(files),
    )
    write_atomically(folder / VARIANT_FILE, dump_json(variant.to_json()))
    return variant


def store_metrics(folder: Path, metrics: Mapping[str, Any]) -> Variant:
    """Merge `metrics` into the folder's `variant.json`, atomically; needs a variant of ours."""
    path = folder / VARIANT_FILE
    content = load_json(path)
    variant = parse_variant(content, folder)
    content["metrics"] = {**variant.metrics, **metrics}
    write_atomically(path, dump_json(content))
    return parse_variant(content, folder)


def write_atomically(path: Path, text: str) -> None:
    """Write `text` to a temporary neighbour, flush it to the disk, rename it to `path`."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def publish(temporary: Path, folder: Path) -> None:
    """Flush every file of `temporary` to the disk and rename it to `folder` (same disk)."""
    for path in temporary.iterdir():
        if path.is_file():
            with path.open("rb") as stream:
                os.fsync(stream.fileno())
    flush_directory(temporary)
    try:
        temporary.rename(folder)
    except OSError as error:
        raise VariantError(
            f"{folder}: cannot be put in place ({error.strerror}); another run may have made it"
        ) from error
    flush_directory(folder.parent)


def flush_directory(folder: Path) -> None:
    """Flush the names in a folder to the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def dump_json(content: Any) -> str:
    """JSON text as all files of a variant carry it; refuses NaN, which JSON does not have."""
    return json.dumps(content, ensure_ascii=False, indent=2, allow_nan=False) + "\n"
