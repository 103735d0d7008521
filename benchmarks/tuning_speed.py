"""How fast is LoRA tuning here, against the plain transformers Trainer and TRL's SFTTrainer?

Every contender trains the same random Llama on the same token ids with the same masks, LoRA
(r=8, all linear layers), batch, optimizer, steps and one thread, each repeat in a process of its
own, repeats interleaved. A run is `train()` and saving the adapter; time is CPU time, which other
load on the machine shifts least. The first losses must agree before anything is printed.

    python benchmarks/tuning_speed.py --shape small-wide --repeats 3 --out tuning_speed.json
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

SHAPES: dict[str, dict[str, int]] = {
    # vocabulary, hidden, layers, heads, key-value heads, feed-forward
    "small-wide": {"vocab": 16000, "hidden": 192, "layers": 4, "heads": 4, "kv": 4, "ffn": 512},
    "medium-wide": {"vocab": 16000, "hidden": 512, "layers": 8, "heads": 8, "kv": 8, "ffn": 1376},
    "medium-narrow": {"vocab": 4096, "hidden": 512, "layers": 8, "heads": 8, "kv": 8, "ffn": 1376},
    "smollm2-135m": {
        "vocab": 49152, "hidden": 576, "layers": 30, "heads": 9, "kv": 3, "ffn": 1536,
    },
}  # fmt: skip
CONTENDERS = ("ours", "transformers", "trl", "ours-bf16", "transformers-bf16")
ROWS, LENGTH, MASKED, BATCH = 4, 190, 120, 4


def build_model(shape: dict[str, int], attention: str) -> Any:
    """A random Llama of the shape with fresh LoRA adapters, the same for every contender."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=shape["vocab"],
        hidden_size=shape["hidden"],
        num_hidden_layers=shape["layers"],
        num_attention_heads=shape["heads"],
        num_key_value_heads=shape["kv"],
        intermediate_size=shape["ffn"],
        max_position_embeddings=1024,
        tie_word_embeddings=True,
    )
    config._attn_implementation = attention
    model = LlamaForCausalLM(config)
    lora = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
    return get_peft_model(model, lora)


def build_rows(shape: dict[str, int]) -> list[list[int]]:
    """The token ids of the batch that every step sees."""
    import torch

    generator = torch.Generator().manual_seed(1)
    return torch.randint(3, shape["vocab"], (ROWS, LENGTH), generator=generator).tolist()


def common_arguments(folder: Path, steps: int, bf16: bool) -> dict[str, Any]:
    """Arguments that all Trainers share."""
    return {
        "output_dir": str(folder),
        "per_device_train_batch_size": BATCH,
        "max_steps": steps,
        "learning_rate": 1e-4,
        "lr_scheduler_type": "constant",
        "optim": "adamw_torch_fused",
        "bf16": bf16,
        "use_cpu": True,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "seed": 0,
    }


def make_ours(shape: dict[str, int], folder: Path, steps: int, bf16: bool) -> Any:
    """Our trainer, as `arena tune` builds it."""
    import numpy as np
    from transformers import TrainerCallback, TrainingArguments

    from tuning.collate import Collator, PlannedRows, plan_run
    from tuning.encode import IGNORED, TokenRow
    from tuning.methods import pick_attention
    from tuning.trainer import SftTrainer

    class LogEachStep(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            control.should_log = True

    rows = []
    for index, ids in enumerate(build_rows(shape)):
        labels = np.array(ids, dtype=np.int32)
        labels[:MASKED] = IGNORED
        rows.append(TokenRow(np.array(ids, dtype=np.int32), labels, index))
    plan = plan_run(
        [LENGTH] * ROWS, range(ROWS), epochs=steps, max_steps=steps, batch=BATCH, seed=0
    )
    arguments = common_arguments(folder, steps, bf16)
    return SftTrainer(
        model=build_model(shape, pick_attention(LENGTH)),
        args=TrainingArguments(
            **arguments, remove_unused_columns=False, train_sampling_strategy="sequential"
        ),
        train_dataset=PlannedRows(rows, plan),
        data_collator=Collator(0),
        callbacks=[LogEachStep()],
        virtual_tokens=0,
        factor=lambda step: 1.0,
        name_rows=str,
        on_log=lambda record: None,
        on_batch=lambda count: None,
        checkpoints=None,
    )


def make_transformers(shape: dict[str, int], folder: Path, steps: int, bf16: bool) -> Any:
    """The plain Trainer on input ids and labels."""
    import torch
    from transformers import Trainer, TrainingArguments

    rows = [
        {
            "input_ids": torch.tensor(ids),
            "labels": torch.tensor([-100] * MASKED + ids[MASKED:]),
            "attention_mask": torch.ones(LENGTH, dtype=torch.long),
        }
        for ids in build_rows(shape)
    ]
    arguments = TrainingArguments(**common_arguments(folder, steps, bf16))
    return Trainer(
        model=build_model(shape, "sdpa"),
        args=arguments,
        train_dataset=rows,  # type: ignore[arg-type]
    )


def make_trl(shape: dict[str, int], folder: Path, steps: int, bf16: bool) -> Any:
    """TRL's SFTTrainer on the same tokenized rows, gradient checkpointing off."""
    from datasets import Dataset
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast
    from trl import SFTConfig, SFTTrainer

    words = {f"w{index}": index for index in range(shape["vocab"])}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="w0")),
        eos_token="w1",
        pad_token="w2",
    )
    data = Dataset.from_list(
        [
            {"input_ids": ids, "completion_mask": [0] * MASKED + [1] * (LENGTH - MASKED)}
            for ids in build_rows(shape)
        ]
    )
    arguments = SFTConfig(
        **common_arguments(folder, steps, bf16),
        gradient_checkpointing=False,
        completion_only_loss=True,
        max_length=LENGTH,
    )
    return SFTTrainer(
        model=build_model(shape, "sdpa"),
        args=arguments,
        train_dataset=data,
        processing_class=tokenizer,
    )


def measure_once(contender: str, shape_name: str, steps: int) -> dict[str, float]:
    """One run in this process: CPU seconds of a warm run, first loss, peak memory in MiB."""
    import torch
    import transformers

    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", category=FutureWarning)
    transformers.utils.logging.set_verbosity_error()
    makers = {"ours": make_ours, "transformers": make_transformers, "trl": make_trl}
    name, _, half = contender.partition("-")
    with tempfile.TemporaryDirectory() as scratch:
        warm = makers[name](SHAPES[shape_name], Path(scratch), 1, bool(half))
        warm.train()
        trainer = makers[name](SHAPES[shape_name], Path(scratch), steps, bool(half))
        began = time.process_time()
        trainer.train()
        trainer.model.save_pretrained(Path(scratch) / "out", save_embedding_layers=False)
        seconds = time.process_time() - began
    losses = [item["loss"] for item in trainer.state.log_history if "loss" in item]
    return {
        "seconds": seconds,
        "first_loss": losses[0],
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def run_child(contender: str, shape: str, steps: int) -> dict[str, float]:
    """Measure in a process of its own."""
    command = [sys.executable, __file__, "--shape", shape, "--steps", str(steps), "--child"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [*command, contender], capture_output=True, text=True, check=False, env=environment
    )
    if done.returncode != 0:
        raise RuntimeError(f"{contender}: {done.stderr[-2000:]}")
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=SHAPES, default="small-wide")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=CONTENDERS)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--child", choices=CONTENDERS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(measure_once(arguments.child, arguments.shape, arguments.steps)))
        return
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in arguments.contenders}
    for _ in range(arguments.repeats):
        for name in arguments.contenders:
            runs[name].append(run_child(name, arguments.shape, arguments.steps))
    report(arguments, runs)


def report(arguments: argparse.Namespace, runs: dict[str, list[dict[str, float]]]) -> None:
    """Print a Markdown table and write the JSON; refuses to when first losses differ."""
    exact = [run["first_loss"] for name in runs if "bf16" not in name for run in runs[name]]
    assert max(exact) - min(exact) < 1e-3, f"the contenders compute different losses: {exact}"
    tokens = arguments.steps * BATCH * LENGTH
    rows = []
    for name, found in runs.items():
        rates = [tokens / run["seconds"] for run in found]
        rows.append(
            {
                "contender": name,
                "median": statistics.median(rates),
                "best": max(rates),
                "worst": min(rates),
                "peak_mib": statistics.median(run["peak_mib"] for run in found),
                "first_loss": found[0]["first_loss"],
            }
        )
    content = {
        "shape": {arguments.shape: SHAPES[arguments.shape]},
        "steps": arguments.steps,
        "repeats": arguments.repeats,
        "threads": 1,
        "load_average": os.getloadavg(),
        "versions": {name: version(name) for name in ("torch", "transformers", "peft", "trl")},
        "results": rows,
    }
    if arguments.out:
        arguments.out.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    ours = next((row["median"] for row in rows if row["contender"] == "ours"), None)
    print(f"{arguments.shape}, {arguments.steps} steps, tokens per CPU second, one thread")
    print("| contender | median | best | worst | ours / it | peak MiB |\n|---|--:|--:|--:|--:|--:|")
    for row in rows:
        ratio = f"{ours / row['median']:.2f}" if ours else ""
        print(
            f"| {row['contender']} | {row['median']:.0f} | {row['best']:.0f} | {row['worst']:.0f} "
            f"| {ratio} | {row['peak_mib']:.0f} |"
        )


if __name__ == "__main__":
    main()
