"""Reads and checks variant folders: a base model or something tuned from one.

Knows files, hashes and `variant.json`; does not know how a folder is made (`manifest`), nor looks
into its tensors (`verify`), nor loads torch.
"""

from __future__ import annotations

import hashlib
import json
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tuning.errors import TuningError

VARIANT_FILE = "variant.json"
HISTORY_FILE = "history.jsonl"
FORMAT_VERSION = 1
KINDS = ("base", "full", "lora", "dora", "prefix", "prompt", "ia3", "reward")
ADAPTER_KINDS = frozenset({"lora", "dora", "prefix", "prompt", "ia3"})
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
PICKLE_SUFFIXES = frozenset({".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt"})
CHECKPOINT_NAME = re.compile(r"(?P<run>.+)@(?P<step>[0-9]{1,12})")
"""What the checkpoints of a run are called that are served while it goes on."""
# A person may rewrite the card without the variant being another one; nothing loads it.
UNSEALED_FILES = frozenset({VARIANT_FILE, "README.md"})
# A config, an index or a seal has kilobytes; more would only fill the memory.
MOST_JSON_BYTES = 100_000_000
# Unlisted files of these types could change what a loader makes of the folder.
LOADABLE_SUFFIXES = frozenset({".safetensors", ".json", ".jinja", ".model", ".txt", ".py"})


class VariantError(TuningError):
    """A variant folder that cannot be trusted or read; names folder, file and remedy."""


@dataclass(frozen=True)
class Base:
    """The checkpoint a variant was tuned from; `sha256` is the fingerprint of its weights."""

    id: str
    revision: str | None
    sha256: str


@dataclass(frozen=True)
class Variant:
    """What `variant.json` says, plus where the folder is and the fingerprint of its weights."""

    name: str
    kind: str
    base: Base | None
    files: dict[str, str]
    template: str | None
    run: dict[str, Any]
    metrics: dict[str, Any]
    parent: str | None
    format_version: int
    folder: Path
    weights_sha256: str = field(default="")

    @property
    def is_adapter(self) -> bool:
        """True when the weights are a PEFT adapter that needs its base; a reward model may be."""
        return self.kind in ADAPTER_KINDS or ADAPTER_WEIGHTS in self.files

    @property
    def checkpoint_of(self) -> str | None:
        """The run whose checkpoint this is, served while it goes on; None for any other variant."""
        noted = self.run.get("checkpoint")
        of = noted.get("of") if isinstance(noted, dict) else None
        return of if isinstance(of, str) else None

    def to_json(self) -> dict[str, Any]:
        """The content of `variant.json`; folder and fingerprint follow from where the files are."""
        base = None
        if self.base is not None:
            base = {
                "id": self.base.id,
                "revision": self.base.revision,
                "sha256": self.base.sha256,
            }
        return {
            "name": self.name,
            "kind": self.kind,
            "base": base,
            "files": self.files,
            "template": self.template,
            "run": self.run,
            "metrics": self.metrics,
            "parent": self.parent,
            "format_version": self.format_version,
        }


def file_sha256(path: Path) -> str:
    """Hex sha256 of one file, read in blocks."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def combine_weights(hashes: Mapping[str, str]) -> str:
    """Fingerprint from `{file name: sha256}`; only `*.safetensors` count.

    It is the sha256 of the sorted lines `<sha256>  <file name>`, each with its line feed, so
    `sha256sum *.safetensors | sort | sha256sum` prints the same.
    """
    lines = sorted(f"{sha}  {name}\n" for name, sha in hashes.items() if _is_weights(name))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def weights_sha256(folder: Path) -> str:
    """Fingerprint of all `*.safetensors` in `folder`; VariantError when there are none."""
    names = sorted(path.name for path in folder.glob("*.safetensors"))
    if not names:
        raise VariantError(
            f"{folder}: no *.safetensors weights; give a folder saved with safe serialization"
        )
    return combine_weights({name: file_sha256(folder / name) for name in names})


def read_variant(folder: Path, *, verify: bool = True) -> Variant:
    """Read a variant folder; a plain checkpoint or PEFT adapter is described instead.

    With `verify` every listed file is hashed again and unlisted loadable files are refused.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise VariantError(f"{folder}: no such folder; `arena models list` shows what there is")
    refuse_foreign_files(folder)
    path = folder / VARIANT_FILE
    if not path.is_file():
        return describe_foreign(folder, folder.name)
    variant = parse_variant(load_json(path), folder)
    if verify:
        _check_files(variant)
    return variant


def parse_variant(content: Any, folder: Path) -> Variant:
    """Turn the parsed JSON of `folder`'s `variant.json` into a Variant, checking every field."""
    where = folder / VARIANT_FILE
    if not isinstance(content, dict):
        raise VariantError(f"{where}: not a JSON object; restore the file or tune again")
    version = content.get("format_version")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise VariantError(f"{where}: format_version {version!r} is no version; restore the file")
    if version > FORMAT_VERSION:
        raise VariantError(
            f"{where}: format_version {version} is newer than {FORMAT_VERSION}, which this "
            "program reads; update instruct-arena"
        )
    kind = content.get("kind")
    if kind not in KINDS:
        raise VariantError(f"{where}: unknown kind {kind!r}; known are {', '.join(KINDS)}")
    files = _typed(content, "files", dict, where)
    for name, sha in files.items():
        if Path(name).name != name or not isinstance(sha, str):
            raise VariantError(f"{where}: files entry {name!r} is no plain file name with a hash")
    if not any(_is_weights(name) for name in files):
        raise VariantError(f"{where}: lists no *.safetensors weights; tune the variant again")
    return Variant(
        name=_typed(content, "name", str, where),
        kind=kind,
        base=_parse_base(content.get("base"), where),
        files=files,
        template=_optional_str(content, "template", where),
        run=_typed(content, "run", dict, where),
        metrics=_typed(content, "metrics", dict, where),
        parent=_optional_str(content, "parent", where),
        format_version=version,
        folder=folder,
        weights_sha256=combine_weights(files),
    )


def describe_foreign(folder: Path, name: str) -> Variant:
    """Describe a checkpoint or adapter made by another program; base and run stay unknown."""
    folder = Path(folder)
    kind = infer_kind(folder)
    hashes = {path.name: file_sha256(path) for path in sorted(folder.glob("*.safetensors"))}
    if not hashes:
        pickles = sorted(p.name for p in folder.iterdir() if p.suffix in PICKLE_SUFFIXES)
        found = f"only pickle weights ({pickles[0]})" if pickles else "no weights"
        raise VariantError(
            f"{folder}: {found}, and only *.safetensors are loaded; save the model with "
            "save_pretrained(..., safe_serialization=True)"
        )
    template = folder / "chat_template.jinja"
    return Variant(
        name=name,
        kind=kind,
        base=None,
        files=hashes,
        template=file_sha256(template) if template.is_file() else None,
        run={},
        metrics={},
        parent=None,
        format_version=FORMAT_VERSION,
        folder=folder,
        weights_sha256=combine_weights(hashes),
    )


def infer_kind(folder: Path) -> str:
    """Kind of a folder without `variant.json`, from its PEFT or transformers config."""
    if (folder / ADAPTER_CONFIG).is_file():
        config = load_json(folder / ADAPTER_CONFIG)
        peft_type = str(config.get("peft_type")) if isinstance(config, dict) else None
        kinds = {"LORA": "lora", "PREFIX_TUNING": "prefix", "PROMPT_TUNING": "prompt", "IA3": "ia3"}
        if peft_type not in kinds:
            raise VariantError(
                f"{folder / ADAPTER_CONFIG}: peft_type {peft_type!r} is not supported; "
                f"known are {', '.join(kinds)}"
            )
        if config.get("task_type") == "SEQ_CLS":
            return "reward"
        return "dora" if config.get("use_dora") else kinds[peft_type]
    if not (folder / "config.json").is_file():
        raise VariantError(
            f"{folder}: neither {VARIANT_FILE}, {ADAPTER_CONFIG} nor config.json; "
            "give a folder that from_pretrained or PEFT can load"
        )
    config = load_json(folder / "config.json")
    architectures = config.get("architectures") if isinstance(config, dict) else None
    if any("SequenceClassification" in str(item) for item in architectures or ()):
        return "reward"
    return "base"  # nobody here tuned it, whatever was done to it elsewhere


def list_variants(home: Path) -> list[Path]:
    """Folders under `home/models`, by name; unfinished ones (leading dot) are left out."""
    models = Path(home) / "models"
    if not models.is_dir():
        return []
    return sorted(
        path
        for path in models.iterdir()
        if path.is_dir() and not path.name.startswith(".") and not path.name.endswith(".tmp")
    )


def _check_files(variant: Variant) -> None:
    folder = variant.folder
    remedy = f"restore it, or remove the folder and tune {variant.name!r} again"
    for name, expected in variant.files.items():
        path = folder / name
        if not path.is_file():
            raise VariantError(f"{path}: file is missing; {remedy}")
        if file_sha256(path) != expected:
            raise VariantError(
                f"{path}: content differs from its sha256 in {VARIANT_FILE}; {remedy}"
            )
    for path in sorted(folder.iterdir()):
        if path.name in variant.files or path.name in UNSEALED_FILES:
            continue
        if path.suffix in PICKLE_SUFFIXES:
            raise VariantError(
                f"{path}: pickle weights are refused; remove the file (*.safetensors only)"
            )
        if path.suffix in LOADABLE_SUFFIXES and not path.name.startswith("."):
            raise VariantError(f"{path}: not listed in {VARIANT_FILE}; remove the file")


def _parse_base(value: Any, where: Path) -> Base | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise VariantError(f"{where}: base {value!r} is no object with id, revision and sha256")
    return Base(
        id=_typed(value, "id", str, where),
        revision=_optional_str(value, "revision", where),
        sha256=_typed(value, "sha256", str, where),
    )


def _typed(content: dict[str, Any], key: str, kind: type, where: Path) -> Any:
    value = content.get(key)
    if not isinstance(value, kind):
        raise VariantError(f"{where}: {key} is {value!r}, not a {kind.__name__}; restore the file")
    return value


def _optional_str(content: dict[str, Any], key: str, where: Path) -> str | None:
    value = content.get(key)
    if value is not None and not isinstance(value, str):
        raise VariantError(f"{where}: {key} is {value!r}, not text or null; restore the file")
    return value


def _is_weights(name: str) -> bool:
    return name.endswith(".safetensors")


def refuse_foreign_files(folder: Path) -> None:
    """VariantError for what is no file of this folder: links that lead out, pipes, devices.

    A snapshot of the hub's cache may link to the blobs beside it.
    """
    root = folder.resolve()
    inside = [root, *([root.parents[1] / "blobs"] if root.parent.name == "snapshots" else [])]
    remedy = "remove it, or put the file itself there"
    for path in sorted(folder.iterdir()):
        try:
            target = path.resolve(strict=True)
            mode = target.stat().st_mode
        except (OSError, RuntimeError) as error:
            raise VariantError(f"{path}: is a link that leads nowhere; {remedy}") from error
        if not any(target.is_relative_to(place) for place in inside):
            raise VariantError(f"{path}: is a link that leaves the folder; {remedy}")
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise VariantError(f"{path}: is no regular file, but a pipe or a device; {remedy}")


def load_json(path: Path) -> Any:
    """Content of one JSON file; VariantError when it cannot be read."""
    try:
        if path.stat().st_size > MOST_JSON_BYTES:
            raise VariantError(f"{path}: is larger than {MOST_JSON_BYTES:,} bytes; restore it")
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, RecursionError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise VariantError(f"{path}: cannot be read as JSON ({error}); restore the file") from error
