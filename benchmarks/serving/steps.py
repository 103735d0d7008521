"""What does a tuned row cost beside base rows, and how near is a step to the machine's limit?

Runs engines in this process on random weights of a given shape and prints a table of ratios:

    python benchmarks/serving/steps.py --shape starter --dtype float32 --out steps.json

Other work on the machine shifts times several times over. So the two sides of a ratio take turns
step by step, and the ratio is of medians of the thread's own CPU time (with one thread; with more,
and on a GPU, of wall time). The limit beside each figure is what its extra bytes would cost.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import peft
import shapes
import torch
from transformers import AutoModelForCausalLM
from transformers.utils import logging as transformers_logging

from serving.adapters.peft_reader import Adapter, read_adapter
from serving.config import EngineLimits
from serving.engine.efficiency import measure_bandwidth
from serving.engine.engine import Engine
from serving.engine.request import EngineRequest
from serving.kernels.step import step

PROMPT = list(range(5, 25))
NUM_MANY = 16
NUM_VIRTUAL = 20


@dataclass(frozen=True)
class Side:
    """One side of a comparison: an engine and the adapters of its rows."""

    engine: Engine
    mix: tuple[str | None, ...]

    def start(self, num_new: int) -> None:
        """Put the rows in and read their prompts."""
        for offset, adapter in enumerate(self.mix):
            prompt = [token + offset for token in PROMPT]
            self.engine.submit(EngineRequest(prompt, num_new, lambda _: None, adapter=adapter))
        while self.engine.waiting or any(not row.is_decoding for row in self.engine.rows):
            self.engine.step()

    def stop(self) -> None:
        """Drop the rows."""
        for row in self.engine.rows:
            row.request.cancel()
        self.engine.step()


class Clock:
    """Seconds of a call: the thread's CPU time, or wall time where other threads work for it."""

    def __init__(self, threads: int, device: str) -> None:
        self.kind = "cpu" if threads == 1 and device == "cpu" else "wall"
        self._now = time.thread_time if self.kind == "cpu" else time.perf_counter
        self._cuda = device == "cuda"

    def __call__(self, work: Callable[[], Any]) -> float:
        """Time one call."""
        start = self._now()
        work()
        if self._cuda:
            torch.cuda.synchronize()
        return self._now() - start


def compare(top: Side, bottoms: Sequence[Side], steps: int, clock: Clock) -> dict[str, float]:
    """Median step of `top` over the sum of the median steps of `bottoms`, taking turns.

    One engine may be on several sides: its rows of one side are put in for a block of steps.
    """
    sides = [top, *bottoms]
    times: list[list[float]] = [[] for _ in sides]
    shared = len({id(side.engine) for side in sides}) < len(sides)
    block = max(4, steps // 5) if shared else steps
    for _ in range(steps // block):
        if shared:
            for kept, side in zip(times, sides, strict=True):
                side.start(block + 4)
                kept += [clock(side.engine.step) for _ in range(block)]
                side.stop()
            continue
        for side in sides:
            side.start(block + 4)
        for number in range(block):
            order = range(len(sides)) if number % 2 else reversed(range(len(sides)))
            for i in order:
                times[i].append(clock(sides[i].engine.step))
        for side in sides:
            side.stop()
    above, *below = (statistics.median(kept) for kept in times)
    return {"ratio": above / sum(below), "ms": 1000 * above, "against_ms": 1000 * sum(below)}


def new_engine(base: Path, adapters: Sequence[Adapter], options: argparse.Namespace) -> Engine:
    """An engine with its own copy of the base."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=getattr(torch, options.dtype))
    limits = EngineLimits(max_total_tokens=512, max_rows=64, prefix_cache_tokens=0)
    engine = Engine(model.to(options.device), limits)
    engine.install_adapters(adapters, engine.prepare_adapters(adapters))
    if engine.compiled is not None and not options.torch:
        engine.compiled.compile(step)
        engine.compiled.start(step, options.threads)
    return engine


def measure_all(folder: Path, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """All questions about steps, each with the limit of its extra bytes."""
    base = shapes.save_base(options.shape, getattr(torch, options.dtype), folder / "base")
    loras = [
        read_adapter(shapes.save_lora(base, folder / f"all{i}", i), f"all{i}")
        for i in range(NUM_MANY)
    ]
    narrow = shapes.save_lora(base, folder / "qv", 99, ["q_proj", "v_proj"])
    bare = new_engine(base, [], options)
    width = sum(s.num_kv_heads * (s.key_size + s.value_size) for s in bare.pool.shapes)
    prefix = Adapter("prefix", prefix=torch.randn(NUM_VIRTUAL, width) * 0.1)
    pair = new_engine(base, [loras[0]], options)
    narrow_pair = new_engine(base, [read_adapter(narrow, "qv")], options)
    prefix_pair = new_engine(base, [prefix], options)
    many = new_engine(base, loras, options)
    clock = Clock(options.threads, options.device)

    def against_base(engine: Engine, *mix: str | None) -> dict[str, float]:
        plain = Side(bare, (None,) * len(mix))
        found = compare(Side(engine, mix), [plain], options.steps, clock)
        extra = sum(engine.stacks.num_bytes(name) for name in set(mix))
        length = len(PROMPT) + options.steps // 2
        extra += NUM_VIRTUAL * mix.count("prefix") * engine.pool.bytes_per_token
        moved = bare.weight_bytes + len(mix) * length * bare.pool.bytes_per_token
        return {**found, "limit": 1 + extra / moved}

    alone, tuned = Side(bare, (None,)), Side(pair, ("all0",))
    other = new_engine(base, [loras[0]], options)
    result = {
        "W1 step, base + LoRA all-linear r=8, over two base rows": against_base(pair, None, "all0"),
        "W1 step, base + LoRA q,v r=8, over two base rows": against_base(narrow_pair, None, "qv"),
        "W1 step, base + prefix of 20, over two base rows": against_base(
            prefix_pair, None, "prefix"
        ),
        "W1 pair's step over a base step and a LoRA step": {
            **compare(Side(other, (None, "all0")), [alone, tuned], options.steps, clock),
            "limit": 0.5,
        },
        "base row with 16 idle LoRAs, over none loaded": {
            **compare(Side(many, (None,)), [alone], options.steps, clock),
            "limit": 1.0,
        },
        "W3 16 rows, half on one LoRA, over 16 base rows": against_base(pair, *[None, "all0"] * 8),
        "W4 16 rows on 16 LoRAs, over 16 base rows": against_base(
            many, *(f"all{i}" for i in range(NUM_MANY))
        ),
    }
    for rows in options.rows:
        result[f"eta, {rows} base row{'s' * (rows > 1)}"] = limit_share(bare, rows, options, clock)
    result["step in which a LoRA's stacks are swapped, over the median"] = hot_load(
        prefix_pair, loras[0], prefix, clock
    )
    return result


def limit_share(
    engine: Engine, rows: int, options: argparse.Namespace, clock: Clock
) -> dict[str, float]:
    """Seconds that reading a step's bytes takes over the seconds of the step, taking turns."""
    side = Side(engine, (None,) * rows)
    side.start(options.steps + 4)
    steps, reads = [], []
    for _ in range(options.steps):
        steps.append(clock(engine.step))
        reads.append(1 / measure_bandwidth(engine, clock))
    length = sum(row.length for row in engine.rows) - rows * options.steps // 2
    moved = engine.weight_bytes + length * engine.pool.bytes_per_token
    side.stop()
    took, need = statistics.median(steps), moved * min(reads)
    return {
        "ratio": need / took, "ms": 1000 * took, "against_ms": 1000 * need, "limit": 1.0,
        "tokens_per_s": rows / took, "bandwidth_gb_s": 1e-9 / min(reads),
    }  # fmt: skip


def hot_load(engine: Engine, adapter: Adapter, kept: Adapter, clock: Clock) -> dict[str, float]:
    """The steps around the swap of an adapter's stacks, the swap included, over the median."""
    side = Side(engine, (None,) * 4)
    side.start(200)
    adapters = [kept, adapter]
    times, swaps = [], []
    for number in range(120):
        if number % 20 == 10:
            chosen = adapters if number % 40 == 10 else [kept]
            prepared = engine.prepare_adapters(chosen)
            swaps.append(
                clock(lambda c=chosen, p=prepared: (engine.install_adapters(c, p), engine.step()))
            )
        else:
            times.append(clock(engine.step))
    side.stop()
    worst, median = max(swaps), statistics.median(times)
    return {
        "ratio": worst / median, "ms": 1000 * worst, "against_ms": 1000 * median, "limit": 1.0,
    }  # fmt: skip


def against_peft(folder: Path, options: argparse.Namespace) -> dict[str, float]:
    """16 requests of 16 adapters: time of PEFT's mixed-batch generate over the engine's."""
    names = [f"all{i}" for i in range(NUM_MANY)]
    base = folder / "base"
    engine = new_engine(base, [read_adapter(folder / n, n) for n in names], options)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=getattr(torch, options.dtype))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = peft.PeftModel.from_pretrained(model, str(folder / names[0]), adapter_name=names[0])
        for name in names[1:]:
            model.load_adapter(str(folder / name), adapter_name=name)
    model.eval().to(options.device)
    ids = torch.tensor([[t + i for t in PROMPT] for i in range(NUM_MANY)], device=options.device)
    count = options.steps

    def run_peft() -> None:
        with warnings.catch_warnings(), torch.inference_mode():
            warnings.simplefilter("ignore")
            model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), adapter_names=names,
                max_new_tokens=count, min_new_tokens=count, do_sample=False,
            )  # fmt: skip

    def run_engine() -> None:
        for offset, name in enumerate(names):
            prompt = [token + offset for token in PROMPT]
            engine.submit(EngineRequest(prompt, count, lambda _: None, adapter=name))
        while engine.has_work:
            engine.step()

    clock = Clock(options.threads, options.device)
    pairs = [(clock(run_peft), clock(run_engine)) for _ in range(3)]
    theirs, ours = (statistics.median(side) for side in zip(*pairs, strict=True))
    return {
        "ratio": theirs / ours, "ms": 1000 * ours, "against_ms": 1000 * theirs,
        "tokens_per_s": NUM_MANY * count / ours,
    }  # fmt: skip


def show(result: dict[str, dict[str, float]], options: argparse.Namespace) -> None:
    """Print the table, ratios first, and write it as JSON when asked."""
    about: dict[str, Any] = {
        "shape": options.shape, "dtype": options.dtype, "device": options.device,
        "threads": options.threads, "compiled": not options.torch,
        "clock": Clock(options.threads, options.device).kind,
        "torch": torch.__version__, "load_average": round(os.getloadavg()[0], 1),
    }  # fmt: skip
    print("  ".join(f"{key}={value}" for key, value in about.items()))
    print(f"{'ratio':>7} {'limit':>7} {'ms':>9} {'against':>9}  question")
    for name, row in result.items():
        limit = f"{row['limit']:7.3f}" if "limit" in row else " " * 7
        print(f"{row['ratio']:7.3f} {limit} {row['ms']:9.2f} {row['against_ms']:9.2f}  {name}")
    if options.out:
        options.out.write_text(json.dumps({"about": about, "results": result}, indent=2) + "\n")


def main() -> None:
    """Read the options, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=shapes.SHAPES, default="starter")
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], default="float32")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rows", type=int, nargs="*", default=[1, 8])
    parser.add_argument("--torch", action="store_true", help="leave all steps to torch")
    parser.add_argument("--peft", action="store_true", help="also run PEFT's mixed-batch generate")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    transformers_logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as scratch:
        result = measure_all(Path(scratch), options)
        if options.peft:
            result["W4 time of PEFT's mixed batch over the engine's"] = against_peft(
                Path(scratch), options
            )
    show(result, options)


if __name__ == "__main__":
    sys.exit(main())
