"""Looks at a checkpoint folder before any of its weights are loaded: config, index, files.

Knows the files of transformers and safetensors; loads no model and runs no code of a checkpoint.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tuning.variant.folder import VariantError, load_json

CONFIG_FILE = "config.json"
INDEX_FILE = "model.safetensors.index.json"
WEIGHT_DTYPES = ("F64", "F32", "F16", "BF16")
LFS_HEAD = b"version https://git-lfs"
# A header of more bytes than this is none: safetensors itself refuses it.
MOST_HEADER = 100_000_000


class CheckpointFilesError(VariantError):
    """A checkpoint that cannot be loaded, told from its files; names file, value and remedy."""


def check_checkpoint(folder: Path) -> Any:
    """The config of the checkpoint in `folder`, once config and weight files are known to be whole.

    CheckpointFilesError for a checkpoint that is quantised, needs code of its own, is no causal
    language model, or whose files are missing, cut short or not what they are called.
    """
    config = read_model_config(folder)
    check_weight_files(folder)
    return config


def read_model_config(folder: Path) -> Any:
    """The transformers config of a causal language model; CheckpointFilesError names what bars it.

    Everything is judged from `config.json` alone.
    """
    from transformers import CONFIG_MAPPING, AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    path = folder / CONFIG_FILE
    if not path.is_file():
        raise CheckpointFilesError(
            f"{folder}: no {CONFIG_FILE}; give a folder that from_pretrained can load"
        )
    content = load_json(path)
    if not isinstance(content, dict):
        raise CheckpointFilesError(f"{path}: not a JSON object; restore the file")
    kind = content.get("model_type")
    if not isinstance(kind, str):
        raise CheckpointFilesError(
            f"{path}: model_type is {kind!r}, so its architecture is unknown; restore the file, or "
            "add the model_type of the architecture, such as 'llama'"
        )
    if kind not in CONFIG_MAPPING:
        own = ", which asks for code of its own (auto_map)," if "auto_map" in content else ""
        never = " and code from a checkpoint is never run" if own else ""
        raise CheckpointFilesError(
            f"{path}: model_type {kind!r}{own} is none that the installed transformers knows"
            f"{never}; give a base of a known architecture, or update transformers"
        )
    if kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise CheckpointFilesError(
            f"{path}: model_type {kind!r} is no causal language model; give one that continues text"
        )
    _refuse_quantised(path, content.get("quantization_config"))
    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # the classes that read a config raise whatever its values lead to
        raise CheckpointFilesError(
            f"{path}: does not describe a {kind} model ({one_line(error)}); restore the file"
        ) from error


def _refuse_quantised(path: Path, settings: Any) -> None:
    if settings is None:
        return
    method = settings.get("quant_method") if isinstance(settings, dict) else None
    raise CheckpointFilesError(
        f"{path}: the weights are quantised ({method or 'quantization_config is set'}), and "
        "adapters are trained, checked and merged on whole ones; give the checkpoint they were "
        "made from, which --method qlora quantises while it loads"
    )


def check_weight_files(folder: Path) -> None:
    """Refuse weight files that are missing, cut short or no safetensors; reads headers alone."""
    named = _shards(folder)
    for name in sorted(named - {path.name for path in folder.glob("*.safetensors")}):
        raise CheckpointFilesError(
            f"{folder / INDEX_FILE}: names {name}, which is not there; copy the whole checkpoint"
        )
    paths = sorted(folder.glob("*.safetensors"))
    if not paths:
        raise CheckpointFilesError(
            f"{folder}: no *.safetensors weights; give a folder saved with safe serialization"
        )
    for path in paths:
        for name, part in read_header(path).items():
            if part.get("dtype") not in (*WEIGHT_DTYPES, None):
                _refuse_dtype(path, name, part["dtype"])


def _refuse_dtype(path: Path, name: str, dtype: Any) -> None:
    """Whole numbers and 8 bits mean something with scales alone, which no layer here applies."""
    if name.rpartition(".")[2] == "weight":
        raise CheckpointFilesError(
            f"{path}: {name} is stored as {dtype}, which is no whole weight without the scales of "
            "a quantisation; give the checkpoint they were made from"
        )


def _shards(folder: Path) -> set[str]:
    """The weight files that the index names; none without an index."""
    path = folder / INDEX_FILE
    if not path.is_file():
        return set()
    content = load_json(path)
    table = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(table, dict) or not all(isinstance(name, str) for name in table.values()):
        raise CheckpointFilesError(f"{path}: weight_map is no table of files; restore the file")
    return set(table.values())


def positions_of(text_config: Any) -> int | None:
    """Positions that a text model's config has; None where it sets no limit, as by -1."""
    limit = getattr(text_config, "max_position_embeddings", None)
    return limit if isinstance(limit, int) and limit > 0 else None


def read_header(path: Path) -> dict[str, Any]:
    """The header of a safetensors file that is whole: tensor name to dtype, shape and offsets."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        head = stream.read(8)
        if LFS_HEAD.startswith(head) and len(head) == 8:
            raise CheckpointFilesError(
                f"{path}: is a Git LFS pointer and holds no weights; run `git lfs pull` there"
            )
        length = int.from_bytes(head, "little")
        if len(head) < 8 or length > min(MOST_HEADER, size - 8):
            raise _no_safetensors(path, f"{size:,} bytes hold no header")
        raw = stream.read(length)
    try:
        header = json.loads(raw)
        entries = {name: part for name, part in header.items() if name != "__metadata__"}
        end = max((part["data_offsets"][1] for part in entries.values()), default=0)
        whole = 8 + length + end
    except (ValueError, AttributeError, KeyError, IndexError, TypeError, RecursionError) as error:
        raise _no_safetensors(path, f"its header cannot be read: {one_line(error)}") from error
    if size != whole:
        raise _no_safetensors(path, f"it has {size:,} bytes of {whole:,}")
    return entries


def _no_safetensors(path: Path, reason: str) -> CheckpointFilesError:
    return CheckpointFilesError(
        f"{path}: is no whole safetensors file ({reason}); copy or download it again"
    )


def refuse_missing(folder: Path, loading: dict[str, Any]) -> None:
    """Refuse weights that do not fill a model exactly, by transformers' report of the loading.

    Tied heads, and the keys that an architecture says it may lack or leave, are not in the report.
    """
    for key, reason in (
        ("missing_keys", "lacks {names}, which would start from random numbers"),
        ("mismatched_keys", "holds {names} in another shape than config.json gives"),
        ("unexpected_keys", "holds {names}, for which the architecture of config.json has no use"),
    ):
        if names := sorted(_names(loading[key])):
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            said = reason.format(names=", ".join(names[:3]) + more)
            raise CheckpointFilesError(
                f"{folder}: {said}; give the whole checkpoint with the config.json it was saved "
                "with"
            )


def _names(keys: Iterable[Any]) -> set[str]:
    """Names of tensors; with another shape a key is (name, found, expected)."""
    return {
        key if isinstance(key, str) else f"{key[0]} {tuple(key[1])} for {tuple(key[2])}"
        for key in keys
    }


def one_line(error: BaseException) -> str:
    """What a library said, in one line that is not too long."""
    return " ".join(str(error).split())[:300] or type(error).__name__
