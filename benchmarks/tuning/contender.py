"""One contender of `speed.py` in a process of its own, worked by lines on stdin.

`step` runs forward and backward of one batch, `run 64` a whole training on 64 rows with its data,
logging and saving; each answer is a JSON line with CPU seconds. Every contender has the same random
Llama, token ids, masks, LoRA (r=8, all linear layers), batch and optimizer.
"""

from __future__ import annotations

import gc
import json
import resource
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

SHAPES: dict[str, dict[str, int]] = {
    "small-wide": {"vocab": 16000, "hidden": 192, "layers": 4, "heads": 4, "kv": 4, "ffn": 512},
    "medium-wide": {"vocab": 16000, "hidden": 512, "layers": 8, "heads": 8, "kv": 8, "ffn": 1376},
    "medium-narrow": {"vocab": 4096, "hidden": 512, "layers": 8, "heads": 8, "kv": 8, "ffn": 1376},
    "smollm2-135m": {
        "vocab": 49152, "hidden": 576, "layers": 30, "heads": 9, "kv": 3, "ffn": 1536,
    },
}  # fmt: skip
BATCH, LENGTH, MASKED = 4, 190, 120
PACK_LENGTH = 512
Adapt = Callable[[Any], Any]
Row = tuple[list[int], int]
"""Token ids, and how many of them at the start are masked."""


def step_rows(shape: dict[str, int]) -> list[Row]:
    """The rows of the batch that every step sees."""
    import torch

    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(3, shape["vocab"], (BATCH, LENGTH), generator=generator)
    return [(row, MASKED) for row in ids.tolist()]


def run_rows(shape: dict[str, int], count: int, wide: bool) -> list[Row]:
    """Rows of a whole run, 63 % of their tokens masked: 30 to 190 tokens each, all lengths alike.

    `wide`: 16 to 512, short ones more often (the logarithms of the lengths are spread evenly).
    """
    import torch

    generator = torch.Generator().manual_seed(2)
    if wide:
        spread = torch.rand(count, generator=generator)
        lengths = (16 * (PACK_LENGTH / 16) ** spread).int().tolist()
    else:
        lengths = torch.randint(30, LENGTH + 1, (count,), generator=generator).tolist()
    rows = []
    for length in lengths:
        ids = torch.randint(3, shape["vocab"], (length,), generator=generator).tolist()
        rows.append((ids, length * MASKED // LENGTH))
    return rows


def build_base(shape: dict[str, int], attention: str = "sdpa") -> Any:
    """The random Llama, the same for every contender."""
    import torch
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
    return LlamaForCausalLM(config)


def with_lora(model: Any) -> Any:
    """Fresh adapters on all linear layers."""
    from peft import LoraConfig, get_peft_model

    lora = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
    return get_peft_model(model, lora)


def whole(model: Any) -> Any:
    """All weights, for full tuning."""
    return model


def common_arguments(
    folder: Path, steps: int, half: bool, pack: bool, device: str = "cpu"
) -> dict[str, Any]:
    """Arguments that all Trainers share."""
    return {
        "output_dir": str(folder),
        "per_device_train_batch_size": 1 if pack else BATCH,
        "max_steps": steps,
        "learning_rate": 1e-4,
        "lr_scheduler_type": "constant",
        "optim": "adamw_torch_fused",
        "bf16": half,
        "use_cpu": device == "cpu",
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "seed": 0,
    }


def make_ours(
    shape: dict[str, int], rows: list[Row], arguments: dict[str, Any], adapt: Adapt = with_lora
) -> Any:
    """Our trainer, as `arena tune` builds it."""
    import numpy as np
    from transformers import TrainingArguments

    from tuning.data.batching import Collator, PlannedRows, plan_run
    from tuning.data.encode import IGNORED, TokenRow
    from tuning.fused.loss import label_loss
    from tuning.fused.model import make_lean
    from tuning.hardware import pick_attention, pick_width_step
    from tuning.training.steps import Measured, Steps
    from tuning.training.trainer import RunTrainer

    encoded = []
    for index, (ids, masked) in enumerate(rows):
        labels = np.array(ids, dtype=np.int32)
        labels[:masked] = IGNORED
        encoded.append(TokenRow(np.array(ids, dtype=np.int32), labels, index))
    pack = arguments["per_device_train_batch_size"] == 1
    lengths = [len(row) for row in encoded]
    plan = plan_run(
        lengths,
        range(len(rows)),
        epochs=arguments["max_steps"],
        max_steps=arguments["max_steps"],
        batch=arguments["per_device_train_batch_size"],
        seed=0,
        pack_length=PACK_LENGTH if pack else None,
    )
    longest = PACK_LENGTH if pack else max(lengths)
    model = adapt(build_base(shape, pick_attention(longest)))
    batch = Collator(0)([[row] for row in encoded[:2]])
    step = pick_width_step("bf16" if arguments["bf16"] else "fp32")
    lean = make_lean(model, lambda lean: label_loss(model, batch, lean=lean)[0])

    def loss(model: Any, batch: Any) -> Measured:
        return Measured(*label_loss(model, batch, lean=lean))

    collate = Collator(0, pack, step, model.config.max_position_embeddings)
    return RunTrainer(
        model=model,
        args=TrainingArguments(
            **arguments, remove_unused_columns=False, train_sampling_strategy="sequential"
        ),
        train_dataset=PlannedRows(encoded, plan),
        steps=Steps(collate, loss, heldout=[], heldout_loss=loss),
        factor=lambda step: 1.0,
        name_rows=str,
        on_log=lambda record, measures: None,
        on_batch=lambda count: None,
        checkpoints=None,
    )


def make_transformers(
    shape: dict[str, int], rows: list[Row], arguments: dict[str, Any], adapt: Adapt = with_lora
) -> Any:
    """The plain Trainer on input ids and labels, padded by its own collator."""
    from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments

    data = [{"input_ids": ids, "labels": [-100] * masked + ids[masked:]} for ids, masked in rows]
    return Trainer(
        model=adapt(build_base(shape)),
        args=TrainingArguments(**arguments),
        train_dataset=data,  # type: ignore[arg-type]
        data_collator=DataCollatorForSeq2Seq(make_tokenizer(shape)),
    )


def make_tokenizer(shape: dict[str, int]) -> Any:
    """A word-level tokenizer with as many words as the model has embeddings."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = {f"w{index}": index for index in range(shape["vocab"])}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="w0")),
        eos_token="w1",
        pad_token="w2",
    )


def make_trl(
    shape: dict[str, int], rows: list[Row], arguments: dict[str, Any], adapt: Adapt = with_lora
) -> Any:
    """TRL's SFTTrainer on the same tokenized rows, gradient checkpointing off."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    masks = [[0] * masked + [1] * (len(ids) - masked) for ids, masked in rows]
    pairs = zip(rows, masks, strict=True)
    data = [{"input_ids": ids, "completion_mask": mask} for (ids, _), mask in pairs]
    pack = arguments["per_device_train_batch_size"] == 1
    return SFTTrainer(
        model=adapt(build_base(shape)),
        args=SFTConfig(
            **arguments,
            gradient_checkpointing=False,
            completion_only_loss=True,
            max_length=PACK_LENGTH,
            packing=pack,
        ),
        train_dataset=Dataset.from_list(data),
        processing_class=make_tokenizer(shape),
    )


MAKERS: dict[str, Callable[..., Any]] = {
    "ours": make_ours,
    "transformers": make_transformers,
    "trl": make_trl,
}


def trainer_steps(
    name: str,
    shape: dict[str, int],
    half: bool,
    device: str = "cpu",
    adapt: Adapt = with_lora,
) -> Callable[[], float]:
    """Forward and backward of one batch through the Trainer's own `training_step`."""
    folder = Path(tempfile.mkdtemp())
    arguments = common_arguments(folder, 1, half, False, device)
    trainer = MAKERS[name](shape, step_rows(shape), arguments, adapt)
    model = trainer.accelerator.prepare_model(trainer.model)
    batch = next(iter(trainer.get_train_dataloader()))
    count = (batch["labels"] != -100).sum()

    def step() -> float:
        loss = trainer.training_step(model, dict(batch), count)
        model.zero_grad()
        return float(loss)

    return step


def whole_run(
    name: str, shape: dict[str, int], rows: list[Row], half: bool, pack: bool
) -> dict[str, float]:
    """CPU seconds of a run from rows to saved adapter, and the real tokens it trained on."""
    import torch

    with tempfile.TemporaryDirectory() as scratch:
        began = time.process_time()
        tokens = sum(len(ids) for ids, _ in rows)
        steps = -(-tokens // PACK_LENGTH) if pack else len(rows) // BATCH
        trainer = MAKERS[name](shape, rows, common_arguments(Path(scratch), steps, half, pack))
        made = time.process_time()
        seen = 0
        forward = trainer.training_step

        def counting(model: Any, inputs: dict[str, Any], *rest: Any) -> Any:
            nonlocal seen
            ids = inputs["input_ids"]
            mask = inputs.get("attention_mask")
            pads = int((mask == 0).sum()) if mask is not None else int((ids == pad).sum())
            seen += ids.numel() - pads
            return forward(model, inputs, *rest)

        pad = 0 if name == "ours" else 2
        trainer.training_step = counting
        trainer.train()
        trained = time.process_time()
        torch.manual_seed(0)
        trainer.model.save_pretrained(Path(scratch) / "out", save_embedding_layers=False)
        saved = time.process_time()
    return {
        "seconds": saved - began,
        "building": made - began,
        "training": trained - made,
        "saving": saved - trained,
        "tokens": seen,
    }


def main() -> None:
    contender, shape_name, weights = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    import torch

    torch.set_num_threads(1)
    name, _, half = contender.partition("-")
    shape = SHAPES[shape_name]
    warnings.filterwarnings("ignore")
    if name == "litgpt":
        from litgpt_contender import litgpt_run, litgpt_steps
    else:
        import transformers

        transformers.utils.logging.set_verbosity_error()
    step = None
    answers = sys.stdout
    sys.stdout = sys.stderr
    for line in sys.stdin:
        part, count = line.split()
        rows = run_rows(shape, int(count), "wide" in part)
        if part == "step" and step is None:
            if name == "litgpt":
                step = litgpt_steps(shape, weights, step_rows(shape))
            else:
                step = trainer_steps(name, shape, bool(half))
        gc.collect()  # what the run before left is no part of this one
        began = time.process_time()
        if part == "step":
            assert step is not None
            loss = step()
            found: dict[str, float] = {"seconds": time.process_time() - began, "loss": loss}
        elif name == "litgpt":
            assert "packed" not in part, "litgpt packs no rows"
            found = litgpt_run(shape, rows, BATCH, len(rows) // BATCH)
        else:
            found = whole_run(name, shape, rows, bool(half), "packed" in part)
        found["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps(found), file=answers, flush=True)


if __name__ == "__main__":
    main()
