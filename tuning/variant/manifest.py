"""Seals a finished folder with its `variant.json`, and writes files so that none is half there.

Does not know what the weights mean; everything here is bytes, hashes and renames.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp
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
    """Hash the files of a finished folder and write its `variant.json`.

    safetensors makes files for their owner alone; all get the mode that this process gives files.
    """
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
    mode = stat.S_IMODE((folder / VARIANT_FILE).stat().st_mode)
    for name in files:
        (folder / name).chmod(mode)
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


@contextmanager
def whole_folder(target: Path, *, replace: bool = False) -> Iterator[Path]:
    """A folder to write into, which becomes `target` when the block ends well, else nothing.

    It lies beside `target` under a name of its own. VariantError as `publish`.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(mkdtemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent))
    temporary.chmod(0o755)
    try:
        yield temporary
        publish(temporary, target, replace=replace)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def sweep(target: Path) -> None:
    """Remove what processes left that were killed inside `whole_folder`; nothing else is called so.

    Only for whoever alone may write `target` now.
    """
    pattern = re.compile(rf"\.{re.escape(target.name)}\.[a-z0-9_]{{8}}\.tmp")
    for folder in target.parent.iterdir():
        if pattern.fullmatch(folder.name):
            shutil.rmtree(folder, ignore_errors=True)


def sweep_abandoned(models: Path) -> None:
    """Remove what conversions left in this folder that were killed; one that runs holds a lock.

    Folders of other work, which takes no lock, are left to who makes them anew.
    """
    for folder in models.glob(".*.tmp"):
        found = re.fullmatch(r"\.(.+)\.[a-z0-9_]{8}\.tmp", folder.name)
        lock = models / f".{found[1]}.lock" if found else None
        if lock is None or not lock.is_file() or folder.is_symlink():
            continue
        with contextlib.suppress(OSError), lock.open("rb") as handle:  # taken, or not ours
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)


def publish(temporary: Path, folder: Path, *, replace: bool = False) -> None:
    """Flush every file of `temporary` to the disk and rename it to `folder` (same disk).

    With `replace`, what is there is moved aside first and removed last; without, VariantError.
    """
    for path in temporary.rglob("*"):
        if path.is_file():
            with path.open("rb") as stream:
                os.fsync(stream.fileno())
        elif path.is_dir():
            flush_directory(path)
    flush_directory(temporary)
    aside = folder.with_name(f".{folder.name}.replaced.tmp")
    if replace and os.path.lexists(folder):
        shutil.rmtree(aside, ignore_errors=True)
        folder.rename(aside)
    try:
        temporary.rename(folder)
    except OSError as error:
        raise VariantError(
            f"{folder}: cannot be put in place ({error.strerror}); another run may have made it"
        ) from error
    flush_directory(folder.parent)
    if aside.is_symlink():
        aside.unlink()  # what it points to is not ours
    shutil.rmtree(aside, ignore_errors=True)


def remove_folder(folder: Path) -> None:
    """Remove a variant's folder, or the link to it. Raises OSError.

    Renamed first, so that a removal cut short leaves no half variant under its name.
    """
    if folder.is_symlink():
        folder.unlink()
        return
    doomed = folder.with_name(f".{folder.name}.removed.tmp")
    shutil.rmtree(doomed, ignore_errors=True)  # of a removal that was cut short
    folder.rename(doomed)
    shutil.rmtree(doomed)


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
