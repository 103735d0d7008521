"""Opens a written GGUF file again and compares it with the model: tokens, then logits.

The file is read by transformers, and by llama.cpp itself where llama-cpp-python is installed.
Neither shares code with the writer.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tuning.data.template import render_prompts, tokenize
from tuning.models.export.errors import ModelExportError
from tuning.models.gguf import load_gguf
from tuning.models.gguf_header import read_facts
from tuning.models.merge import PROBES

# Largest difference of logits, relative to the largest logit, that each number format may make.
TOLERANCE = {"f32": 1e-4, "f16": 5e-3, "bf16": 4e-2, "q8_0": 8e-2}
TEXTS = (
    "Hello, world! It's 3:45 on 12/11.",
    "  two  spaces\n\nand 1234567 lines\t",
    "naïve 你好 🙂",
)


@dataclass(frozen=True)
class FileParity:
    """How the file that was read again compares with the model it was written from.

    `logits` is the largest difference relative to the largest logit; `positions` were compared,
    and at `same_top` of them both choose the same next token. `reader` read the file.
    """

    reader: str
    logits: float
    same_top: int
    positions: int


def check_parity(path: Path, model: Any, tokenizer: Any, file_type: str) -> list[FileParity]:
    """Compare the GGUF file at `path` with `model`; ModelExportError when it answers otherwise."""
    with torch.no_grad():
        written, again = load_gguf(read_facts(path), dtype="float32")
        chats = [_asked(probe) for probe in PROBES]
        # A base without a template is asked as it is served: by the text alone.
        asked = render_prompts(tokenizer, chats) if tokenizer.chat_template else list(PROBES)
        prompts = [*TEXTS, *asked]
        for text in prompts:
            _check_tokens(path, text, tokenizer, again)
        ids = tokenize(tokenizer, prompts)
        wanted = [_logits(model, row) for row in ids]
        results = [_compare("transformers", wanted, [_logits(written, row) for row in ids])]
        if importlib.util.find_spec("llama_cpp"):
            results.append(_compare("llama.cpp", wanted, _llama_cpp_logits(path, ids)))
    for result in results[:1]:
        if not result.logits <= TOLERANCE[file_type]:
            raise ModelExportError(
                f"{path.name}: read by {result.reader} its logits differ by {result.logits:.2g} "
                f"(relative; {TOLERANCE[file_type]:g} is allowed for {file_type}); not written"
            )
    # llama.cpp rounds activations as well: its logits wander, its choices must not.
    for result in results[1:]:
        if result.same_top < 0.97 * result.positions:
            raise ModelExportError(
                f"{path.name}: llama.cpp chooses another token at "
                f"{result.positions - result.same_top} of {result.positions} positions; not written"
            )
    return results


def _asked(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def _check_tokens(path: Path, text: str, tokenizer: Any, again: Any) -> None:
    before = tokenizer(text, add_special_tokens=False).input_ids
    after = again(text, add_special_tokens=False).input_ids
    if before != after:
        raise ModelExportError(
            f"{path.name}: its tokenizer reads {text[:40]!r} as {after[:8]}…, and the model's as "
            f"{before[:8]}…; not written: export with --to folder"
        )


def _logits(model: Any, ids: Sequence[int]) -> torch.Tensor:
    logits: torch.Tensor = model(input_ids=torch.tensor([list(ids)])).logits[0].float()
    return logits


def _llama_cpp_logits(path: Path, ids: Sequence[Sequence[int]]) -> list[torch.Tensor]:
    llama_cpp = importlib.import_module("llama_cpp")  # not a dependency: used where it is
    engine = llama_cpp.Llama(
        str(path), logits_all=True, verbose=False, n_ctx=max(map(len, ids)) + 1
    )
    found = []
    for row in ids:
        engine.reset()
        engine.eval(list(row))
        found.append(torch.tensor(engine.scores[: len(row)]).float())
    return found


def _compare(
    reader: str, wanted: Sequence[torch.Tensor], found: Sequence[torch.Tensor]
) -> FileParity:
    largest = max(float(one.abs().max()) for one in wanted)
    pairs = list(zip(wanted, found, strict=True))
    return FileParity(
        reader=reader,
        logits=max(float((a - b).abs().max()) for a, b in pairs) / largest,
        same_top=sum(int((a.argmax(-1) == b.argmax(-1)).sum()) for a, b in pairs),
        positions=sum(len(a) for a in wanted),
    )
