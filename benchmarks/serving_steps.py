"""What does serving a tuned model beside its base cost, against the base alone and against PEFT?

Runs the engine in this process on random weights of a given shape and prints a table of ratios:
    python benchmarks/serving_steps.py --shape starter --dtype float32 --out steps.json
Load on the machine shifts times by several times: minima over repeats are compared, interleaved,
and the load average is written beside them.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import peft
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from serving.accounts import EngineLimits
from serving.adapters import Adapter, read_adapter
from serving.efficiency import measure_bandwidth, weight_bytes
from serving.engine import Engine
from serving.request import EngineRequest

SHAPES = {
    "starter": {
        "vocab_size": 1420, "hidden_size": 256, "intermediate_size": 688, "num_hidden_layers": 6,
        "num_attention_heads": 4, "num_key_value_heads": 4,
    },
    "smollm2-135m": {
        "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536,
        "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3,
    },
}  # fmt: skip
ALL_LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
PROMPT = list(range(5, 25))
RANK = 8
NUM_MANY = 16
NUM_VIRTUAL = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=SHAPES, default="starter")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--peft", action="store_true", help="also run PEFT's mixed-batch generate")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    config = LlamaConfig(
        **SHAPES[arguments.shape], max_position_embeddings=1024, tie_word_embeddings=True
    )
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        dtype = getattr(torch, arguments.dtype)
        AutoModelForCausalLM.from_config(config).to(dtype).save_pretrained(folder / "base")
        adapters = [save_lora(folder, f"all{i}", ALL_LINEAR, i) for i in range(NUM_MANY)]
        adapters.append(save_lora(folder, "qv", ["q_proj", "v_proj"], 99))
        result = measure_all(folder, adapters, arguments)
        if arguments.peft:
            result["W4 tokens/s over PEFT's mixed batch"] = against_peft(folder, arguments)
    show(result, arguments)


def save_lora(folder: Path, name: str, modules: list[str], seed: int) -> Path:
    """A random LoRA folder over the base in `folder`."""
    model = AutoModelForCausalLM.from_pretrained(folder / "base")
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT asks a deprecated property of transformers.
        tuned = peft.get_peft_model(
            model, peft.LoraConfig(r=RANK, target_modules=modules, task_type="CAUSAL_LM")
        )
        for key, value in tuned.named_parameters():
            if "lora_B" in key:
                value.data.normal_(std=0.02)
        tuned.save_pretrained(folder / name)
    return folder / name


def new_engine(folder: Path, adapters: Sequence[Adapter], dtype: torch.dtype) -> Engine:
    """An engine with its own copy of the base."""
    model = AutoModelForCausalLM.from_pretrained(folder / "base", dtype=dtype)
    engine = Engine(model, EngineLimits(max_total_tokens=512, max_rows=32))
    engine.install_adapters(adapters, engine.prepare_adapters(adapters))
    return engine


def step_seconds(engine: Engine, mix: Sequence[str | None], steps: int) -> float:
    """The fastest of `steps` decode steps of rows with these adapters."""
    for offset, adapter in enumerate(mix):
        prompt = [token + offset for token in PROMPT]
        engine.submit(EngineRequest(prompt, steps + 8, lambda _: None, adapter=adapter))
    while any(not row.is_decoding for row in engine.rows) or engine.waiting:
        engine.step()
    best = float("inf")
    for _ in range(steps):
        start = time.perf_counter()
        engine.step()
        best = min(best, time.perf_counter() - start)
    while engine.has_work:
        engine.step()
    return best


def ratio(top: Callable[[], float], bottom: Callable[[], float], repeats: int) -> dict[str, float]:
    """Interleaved minima of two timings and their ratio."""
    pairs = [(top(), bottom()) for _ in range(repeats)]
    best_top, best_bottom = min(t for t, _ in pairs), min(b for _, b in pairs)
    return {
        "ms": 1000 * best_top,
        "reference_ms": 1000 * best_bottom,
        "ratio": best_top / best_bottom,
    }


def measure_all(
    folder: Path, folders: Sequence[Path], arguments: argparse.Namespace
) -> dict[str, dict[str, float]]:
    dtype = getattr(torch, arguments.dtype)
    loras = [read_adapter(path, path.name) for path in folders]
    bare = new_engine(folder, [], dtype)
    width = sum(s.num_kv_heads * (s.key_size + s.value_size) for s in bare.pool.shapes)
    prefix = Adapter("prefix", "prefix", prefix=torch.randn(NUM_VIRTUAL, width) * 0.1)
    full = new_engine(folder, [*loras, prefix], dtype)

    def timed(engine: Engine, *mix: str | None) -> Callable[[], float]:
        return lambda: step_seconds(engine, mix, arguments.steps)

    repeats = arguments.repeats
    one = timed(bare, None)
    result = {
        "W1 base + LoRA (all linear, r=8) over base, base": ratio(
            timed(full, None, "all0"), timed(bare, None, None), repeats
        ),
        "W1 base + LoRA (q, v) over base, base": ratio(
            timed(full, None, "qv"), timed(bare, None, None), repeats
        ),
        "W1 base + prefix (20) over base, base": ratio(
            timed(full, None, "prefix"), timed(bare, None, None), repeats
        ),
        "W1 base + LoRA over the two one after the other": ratio(
            timed(full, None, "all0"), lambda: one() + timed(full, "all0")(), repeats
        ),
        "base alone, 17 adapters loaded, over none loaded": ratio(timed(full, None), one, repeats),
        "W3 16 rows, half LoRA, over 16 base rows": ratio(
            timed(full, *[None, "all0"] * 8), timed(bare, *[None] * 16), repeats
        ),
        "W4 16 adapters over 16 base rows": ratio(
            timed(full, *(f"all{i}" for i in range(NUM_MANY))), timed(bare, *[None] * 16), repeats
        ),
    }
    bandwidth = measure_bandwidth(bare)
    fastest = min(one() for _ in range(repeats))
    result["eta at one row"] = {
        "ms": 1000 * fastest,
        "reference_ms": 1000 * weight_bytes(bare) / bandwidth,
        "ratio": weight_bytes(bare) / bandwidth / fastest,
    }
    result["a LoRA loaded while 4 rows run: longest step over median"] = hot_load(bare, loras[0])
    return result


def hot_load(engine: Engine, adapter: Adapter) -> dict[str, float]:
    """The longest step around the swap of an adapter's stacks, over the median step."""
    for _ in range(4):
        engine.submit(EngineRequest(PROMPT, 100, lambda _: None))
    prepared = engine.prepare_adapters([adapter])
    times = []
    for number in range(80):
        start = time.perf_counter()
        if number == 40:
            engine.install_adapters([adapter], prepared)
        engine.step()
        times.append(time.perf_counter() - start)
    while engine.has_work:
        engine.step()
    swap, ordered = times[40], sorted(times[10:])
    median = ordered[len(ordered) // 2]
    return {"ms": 1000 * swap, "reference_ms": 1000 * median, "ratio": swap / median}


def against_peft(folder: Path, arguments: argparse.Namespace) -> dict[str, float]:
    """16 requests of 16 adapters: tokens per second of the engine over PEFT's generate."""
    dtype, count = getattr(torch, arguments.dtype), arguments.steps
    names = [f"all{i}" for i in range(NUM_MANY)]
    engine = new_engine(folder, [read_adapter(folder / n, n) for n in names], dtype)
    base = AutoModelForCausalLM.from_pretrained(folder / "base", dtype=dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = peft.PeftModel.from_pretrained(base, str(folder / names[0]), adapter_name=names[0])
        for name in names[1:]:
            model.load_adapter(str(folder / name), adapter_name=name)
    model.eval()
    ids = torch.tensor([[t + i for t in PROMPT] for i in range(NUM_MANY)])

    def run_peft() -> float:
        start = time.perf_counter()
        with warnings.catch_warnings(), torch.inference_mode():
            warnings.simplefilter("ignore")
            model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), adapter_names=names,
                max_new_tokens=count, min_new_tokens=count, do_sample=False,
            )  # fmt: skip
        return time.perf_counter() - start

    def run_engine() -> float:
        start = time.perf_counter()
        for offset, name in enumerate(names):
            prompt = [token + offset for token in PROMPT]
            engine.submit(EngineRequest(prompt, count, lambda _: None, adapter=name))
        while engine.has_work:
            engine.step()
        return time.perf_counter() - start

    found = ratio(run_peft, run_engine, max(2, arguments.repeats // 2))
    return {"ms": found["reference_ms"], "reference_ms": found["ms"], "ratio": found["ratio"]}


def show(result: dict[str, dict[str, float]], arguments: argparse.Namespace) -> None:
    """Print the table, and write it as JSON when asked."""
    about: dict[str, Any] = {
        "shape": arguments.shape, "dtype": arguments.dtype, "threads": arguments.threads,
        "torch": torch.__version__, "load_average": os.getloadavg()[0],
    }  # fmt: skip
    print("  ".join(f"{key}={value}" for key, value in about.items()))
    print(f"{'ratio':>7} {'ms':>9} {'against':>9}  question")
    for name, row in result.items():
        print(f"{row['ratio']:7.2f} {row['ms']:9.2f} {row['reference_ms']:9.2f}  {name}")
    if arguments.out:
        arguments.out.write_text(json.dumps({"about": about, "results": result}, indent=2) + "\n")


if __name__ == "__main__":
    main()
