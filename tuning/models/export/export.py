"""Takes a variant out: to a GGUF file, a folder for Ollama, a plain folder, or the hub.

Merges where the target has no adapters, checks what was written, and leaves nothing half there.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import torch

from tuning.models.export.errors import ModelExportError
from tuning.models.export.gguf_file import FILE_TYPES, check_architecture, write_gguf
from tuning.models.export.lora_gguf import write_lora_gguf
from tuning.models.export.ollama import modelfile
from tuning.models.export.parity import FileParity, check_parity
from tuning.models.loading import Loaded, find_base, load_variant
from tuning.models.merge import MERGEABLE, merge_loaded
from tuning.models.resolve import resolve_base
from tuning.models.tokenizers import WRITE_ERRORS, save_tokenizer
from tuning.quiet import known_warnings_hidden
from tuning.variant.checkpoint import one_line
from tuning.variant.folder import Variant, read_variant
from tuning.variant.manifest import sweep, whole_folder

ExportTarget = Literal["gguf", "ollama", "folder"]
TARGETS: tuple[ExportTarget, ...] = ("gguf", "ollama", "folder")


@dataclass(frozen=True)
class ExportedModel:
    """What was written, and how it compares with the variant."""

    name: str
    target: str
    path: Path
    files: tuple[str, ...]
    merged: bool
    parity: tuple[FileParity, ...] = field(default=())


def export_variant(
    name: str,
    home: Path,
    target: ExportTarget,
    out: Path,
    *,
    file_type: str = "f16",
    adapter: bool = False,
    base: str | None = None,
) -> ExportedModel:
    """Write the variant `name` to `out` for `target`; nothing is there when it cannot be done.

    `adapter` writes the adapter alone (a GGUF file for llama.cpp's --lora, or its folder).
    ModelExportError says what the target cannot take.
    """
    if file_type not in FILE_TYPES:
        raise ModelExportError(
            f"--type {file_type!r}: is unknown; known are {', '.join(FILE_TYPES)}"
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    with known_warnings_hidden(), _alone(out):
        folder = resolve_base(name, home, what="model")
        if read_variant(folder).kind == "reward":
            return _export_reward(read_variant(folder), target, out)
        loaded = load_variant(name, home, base)
        try:
            if adapter:
                return _export_adapter(loaded, home, target, out, base)
            if target == "folder":
                return _export_folder(loaded, out)
            return _export_gguf(loaded, target, out, file_type)
        except WRITE_ERRORS as error:
            raise ModelExportError(
                f"{out}: could not be written ({one_line(error)}); make room and repeat"
            ) from error


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Only one export writes `out`; what a killed one left beside it is removed.

    ModelExportError where something is there by then.
    """
    lock = out.with_name(f".{out.name}.lock")
    with lock.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        try:
            if os.path.lexists(out):
                raise ModelExportError(f"{out}: exists; choose another --out, or remove it first")
            sweep(out)
            yield
        finally:
            lock.unlink(missing_ok=True)


def _export_reward(variant: Variant, target: ExportTarget, out: Path) -> ExportedModel:
    """A reward model goes out as it is: head and adapter lie in its folder."""
    if target != "folder":
        raise ModelExportError(
            f"{variant.name}: is a reward model, which {target} has no form for; export it with "
            "--to folder or --to hub"
        )
    with whole_folder(out) as folder:
        _copy_files(variant.folder, folder, [*variant.files, "README.md"])
    names = tuple(sorted(path.name for path in out.iterdir()))
    return ExportedModel(variant.name, target, out, names, merged=False)


def _export_gguf(loaded: Loaded, target: ExportTarget, out: Path, file_type: str) -> ExportedModel:
    name = loaded.variant.name
    check_architecture(loaded.model.config)
    model = _merged(loaded, torch.float32)
    with TemporaryDirectory(prefix=f".{out.name}.", suffix=".tmp", dir=out.parent) as temporary:
        file = Path(temporary) / (out.name if target == "gguf" else f"{name}.gguf")
        write_gguf(file, model, loaded.tokenizer, name, file_type)
        parity = check_parity(file, model, loaded.tokenizer, file_type)
        if target == "gguf":
            file.replace(out)
            names: tuple[str, ...] = (out.name,)
        else:
            stops = [loaded.tokenizer.decode([token]) for token in loaded.stop_ids]
            text = modelfile(file.name, loaded.tokenizer, stops, model.generation_config)
            with whole_folder(out) as folder:
                file.replace(folder / file.name)
                (folder / "Modelfile").write_text(text, encoding="utf-8")
            names = (file.name, "Modelfile")
    return ExportedModel(name, target, out, names, loaded.variant.is_adapter, tuple(parity))


def _export_folder(loaded: Loaded, out: Path) -> ExportedModel:
    """A checkpoint that from_pretrained loads: merged, or the variant's own files."""
    variant = loaded.variant
    with whole_folder(out) as folder:
        if variant.is_adapter:
            from tuning.variant.checkpoint import read_model_config

            assert loaded.base_folder is not None
            dtype = read_model_config(loaded.base_folder).dtype
            model = _merged(loaded, dtype if isinstance(dtype, torch.dtype) else torch.float32)
            model.save_pretrained(folder)
            save_tokenizer(loaded.tokenizer, folder)
        else:
            _copy_files(variant.folder, folder, list(variant.files))
        _copy_files(variant.folder, folder, ["README.md"])
    names = tuple(sorted(path.name for path in out.iterdir()))
    return ExportedModel(variant.name, "folder", out, names, variant.is_adapter)


def _export_adapter(
    loaded: Loaded, home: Path, target: ExportTarget, out: Path, base: str | None
) -> ExportedModel:
    variant = loaded.variant
    if target == "folder" and variant.is_adapter:
        with whole_folder(out) as folder:
            _copy_files(variant.folder, folder, [*variant.files, "README.md"])
        names = tuple(sorted(path.name for path in out.iterdir()))
        return ExportedModel(variant.name, target, out, names, merged=False)
    if target != "gguf" or variant.kind != "lora":
        raise ModelExportError(
            f"{variant.name}: is of kind {variant.kind}; --adapter writes LoRA as gguf, and "
            "adapters as folder"
        )
    with TemporaryDirectory(prefix=f".{out.name}.", suffix=".tmp", dir=out.parent) as temporary:
        file = Path(temporary) / out.name
        write_lora_gguf(file, variant.folder, find_base(variant, home, base), variant.name)
        file.replace(out)
    return ExportedModel(variant.name, target, out, (out.name,), merged=False)


def _merged(loaded: Loaded, dtype: torch.dtype) -> Any:
    """The model with its adapter in its weights; an error for one that no weight can take."""
    kind = loaded.variant.kind
    if not loaded.variant.is_adapter:
        return loaded.model
    if kind not in MERGEABLE:
        raise ModelExportError(
            f"{loaded.variant.name}: is of kind {kind}, whose virtual tokens no weight can take "
            "up; export it with --to folder --adapter, for PEFT"
        )
    model, _ = merge_loaded(loaded, dtype)
    return model.eval()


def _copy_files(source: Path, target: Path, names: list[str]) -> None:
    for name in names:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)
