"""What a GPU makes of serving and tuning, in some ten minutes: tests, then tables, ratios first.

    python benchmarks/gpu/figures.py --out gpu.json
    python benchmarks/gpu/figures.py --dry-run        # the same on a CPU with a tiny model

It runs the tests that need CUDA; then, on a random Llama of 1.1 billion weights in bf16, decode
steps of 1, 8 and 32 rows against the time that reading their bytes takes, 64 rows on 1 to 64 LoRA
adapters against 64 base rows, and training steps, LoRA and full, against TRL's SFTTrainer, with
the share of the rate at which this device multiplies large bf16 matrices (MFU).
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path += [str(HERE.parent / "serving"), str(HERE.parent / "tuning")]

import contender  # noqa: E402
import shapes  # noqa: E402
import steps  # noqa: E402
import torch  # noqa: E402
from transformers.utils import logging as transformers_logging  # noqa: E402

from serving.adapters.peft_reader import read_adapter  # noqa: E402

ADAPTERS = (1, 4, 16, 64)
ROWS = (1, 8, 32)
SIDE = 8192  # of the square matrices that tell the device's rate
WARM_UP = 2


def in_seconds(work: Any, device: str) -> float:
    """Wall seconds of a call, until the device has done what it started."""
    if device == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def run_tests() -> str:
    """The last line that pytest says of the tests that need CUDA."""
    command = [sys.executable, "-m", "pytest", "-q", "-k", "cuda", "tests/serving/engine"]
    ended = subprocess.run(command, cwd=HERE.parents[1], capture_output=True, text=True)
    return (ended.stdout.strip().splitlines() or [ended.stderr.strip()[-200:]])[-1]


def decode(options: argparse.Namespace, folder: Path) -> dict[str, dict[str, float]]:
    """Decode steps: rows against the bytes they read, and rows on adapters against base rows."""
    base = shapes.save_base(options.shape, getattr(torch, options.dtype), folder / "base")
    clock = steps.Clock(options.threads, options.device)
    bare = steps.new_engine(base, [], options)
    found = {
        f"time of reading over a step's, {rows} rows": steps.limit_share(bare, rows, options, clock)
        for rows in ROWS
    }
    loras = [
        read_adapter(shapes.save_lora(base, folder / f"l{i}", i), f"l{i}")
        for i in range(max(options.adapters))
    ]
    rows = max(options.adapters)
    for count in options.adapters:
        tuned = steps.new_engine(base, loras[:count], options)
        mix = tuple(f"l{i % count}" for i in range(rows))
        sides = steps.Side(tuned, mix), [steps.Side(bare, (None,) * rows)]
        row = steps.compare(*sides, options.steps, clock)
        row["tokens_per_s"] = 1000 * rows / row["ms"]
        found[f"{rows} rows on {count} adapters, over {rows} base rows"] = row
        del tuned
    return found


def products_per_second(options: argparse.Namespace) -> float:
    """Multiplications with addition in a second, of two large square matrices."""
    side = 512 if options.dry_run else SIDE
    a, b = (torch.randn(side, side, device=options.device, dtype=torch.bfloat16) for _ in range(2))
    times = [in_seconds(lambda: a @ b, options.device) for _ in range(6)]
    return float(side**3 / min(times[1:]))


def train(options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Training steps: ours over TRL's, tokens a second, and MFU.

    A token costs a weight one product forward and one backward, and one more where the weight
    itself is tuned (Kaplan et al. 2020, appendix; attention's own products are left out).
    """
    llama = shapes.SHAPES[options.shape]
    shape = {
        "vocab": llama["vocab_size"], "hidden": llama["hidden_size"],
        "layers": llama["num_hidden_layers"], "heads": llama["num_attention_heads"],
        "kv": llama["num_key_value_heads"], "ffn": llama["intermediate_size"],
    }  # fmt: skip
    weights = sum(p.numel() for p in contender.build_base(shape).parameters())
    rate, tokens = products_per_second(options), contender.BATCH * contender.LENGTH
    found = {}
    for method, adapt, cost in (("lora", contender.with_lora, 2), ("full", contender.whole, 3)):
        median = {}
        for name in ("ours", "trl"):
            step = contender.trainer_steps(name, shape, True, options.device, adapt)
            taken = [in_seconds(step, options.device) for _ in range(WARM_UP + options.repeats)]
            median[name] = statistics.median(taken[WARM_UP:])
            del step
        found[f"{method}: TRL's step over ours"] = {
            "ratio": median["trl"] / median["ours"], "ms": 1000 * median["ours"],
            "against_ms": 1000 * median["trl"], "tokens_per_s": tokens / median["ours"],
            "mfu": cost * weights * tokens / (median["ours"] * rate),
            "mfu_trl": cost * weights * tokens / (median["trl"] * rate),
        }  # fmt: skip
    return found


def main() -> None:
    """Read the options, measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--dry-run", action="store_true", help="on a CPU, tiny: proves the script")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if not options.dry_run and not torch.cuda.is_available():
        raise SystemExit("no CUDA device here; --dry-run shows that the script works")
    tiny = options.dry_run
    vars(options).update(
        shape="starter" if tiny else "llama-1b", dtype="bfloat16", torch=True, threads=1,
        device="cpu" if tiny else "cuda", steps=5 if tiny else 40, repeats=1 if tiny else 10,
        adapters=ADAPTERS[:2] if tiny else ADAPTERS,
    )  # fmt: skip
    transformers_logging.disable_progress_bar()
    about = {
        "device": "cpu, a dry run: no figure" if tiny else torch.cuda.get_device_name(),
        "torch": torch.__version__, "shape": options.shape, "dtype": options.dtype,
        "tests": "left out" if tiny else run_tests(),
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:
        result = {**decode(options, Path(scratch)), **train(options)}
    for key, value in about.items():
        print(f"{key}: {value}")
    for name, row in result.items():
        more = "  ".join(f"{key}={row[key]:.3g}" for key in row if key not in ("ratio", "limit"))
        print(f"{row['ratio']:7.3f}  {name}: {more}")
    if options.out:
        options.out.write_text(json.dumps({"about": about, "results": result}, indent=2) + "\n")


if __name__ == "__main__":
    main()
