"""Holds the checkpoint that was made of a GGUF file against llama.cpp on that very file.

`python tools/llama_parity.py FILE.gguf --llama PYTHON` prints at how many positions of plain
English both find the same next token most likely. PYTHON is that of an environment with
llama-cpp-python, which is none of this project's needs. Exits with 1 below 99 %.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from arena.config.home import usual_home
from tuning.evaluation.evaluate import plain_documents
from tuning.models.gguf import gguf_in_home
from tuning.models.loading import load_model
from tuning.models.tokenizers import load_tokenizer

POSITIONS, LEAST = 500, 0.99
THEIRS = """
import json, sys
import llama_cpp
import numpy as np

path, rows, out, exact = sys.argv[1], json.load(sys.stdin), sys.argv[2], sys.argv[3] == "exact"
if exact:  # the same weights as numbers, so that no activation is rounded beside them
    settings = llama_cpp.llama_model_quantize_default_params()
    settings.ftype, settings.allow_requantize = llama_cpp.LLAMA_FTYPE_ALL_F32, True
    copy = out + ".gguf"
    assert not llama_cpp.llama_model_quantize(path.encode(), copy.encode(), settings)
    path = copy
engine = llama_cpp.Llama(path, logits_all=True, verbose=False, n_ctx=max(map(len, rows)) + 1)
found = []
for row in rows:
    engine.reset()
    engine.eval(row)
    found.append(np.array(engine.scores[: len(row)]))
np.save(out, np.concatenate(found))
"""


def compare(file: Path, home: Path, llama: str, *, exact: bool) -> dict[str, float]:
    """Positions, the share of them with the same most likely next token, and the differences of
    logits relative to the largest: mean and largest.

    With `exact` llama.cpp gets the file's weights unpacked; else it rounds activations to 8 bits.
    """
    with tempfile.TemporaryDirectory() as place:
        folder = gguf_in_home(file, home)
        model, tokenizer = load_model(folder, dtype=torch.float32).eval(), load_tokenizer(folder)
        rows: list[list[int]] = []
        for text in plain_documents(of_starter=False):
            if sum(map(len, rows)) < POSITIONS:
                rows.append(tokenizer(text)["input_ids"])
        with torch.no_grad():
            ours = torch.cat([model(input_ids=torch.tensor([row])).logits[0] for row in rows])
        out = Path(place) / "logits.npy"
        subprocess.run(
            [llama, "-c", THEIRS, str(file.resolve()), str(out), "exact" if exact else "as is"],
            input=json.dumps(rows), text=True, check=True,
        )  # fmt: skip
        theirs = torch.from_numpy(np.load(out))
    away = (ours - theirs).abs() / ours.abs().max()
    same = (ours.argmax(-1) == theirs.argmax(-1)).float().mean()
    return {
        "positions": len(ours),
        "same": float(same),
        "mean": float(away.mean()),
        "largest": float(away.max()),
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--llama", required=True, help="Python that has llama-cpp-python")
    parser.add_argument("--home", type=Path, default=usual_home(), help="holds the checkpoint")
    options = parser.parse_args()
    worst = 1.0
    for exact in (True, False):
        found = compare(options.file, options.home, options.llama, exact=exact)
        how = "weights unpacked" if exact else "as it runs the file"
        print(
            f"llama.cpp, {how}: the same next token at {found['same']:.1%} of "
            f"{found['positions']} positions; logits differ by {found['mean']:.2g} in the mean, "
            f"{found['largest']:.2g} at most (relative to the largest)"
        )
        worst = min(worst, found["same"]) if exact else worst
    sys.exit(worst < LEAST)


if __name__ == "__main__":
    main()
