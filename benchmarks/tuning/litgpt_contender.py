"""litgpt as a contender of `speed.py`: its model, its loss, its loop, its checkpoint.

Imports litgpt, so it runs in an environment of its own; knows nothing of the other contenders.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

Row = tuple[list[int], int]
"""Token ids, and how many of them at the start are masked."""


def build_model(shape: dict[str, int], weights: Path | None = None) -> Any:
    """The same Llama with LoRA r=8 on all linear layers; random where no weights are given."""
    import torch
    from litgpt.lora import GPT, Config, mark_only_lora_as_trainable
    from litgpt.scripts.convert_hf_checkpoint import copy_weights_hf_llama
    from safetensors.torch import load_file

    switches = ("query", "key", "value", "projection", "mlp")
    config = Config(
        name="random",
        block_size=1024,
        vocab_size=shape["vocab"],
        padded_vocab_size=shape["vocab"],
        n_layer=shape["layers"],
        n_head=shape["heads"],
        n_query_groups=shape["kv"],
        n_embd=shape["hidden"],
        intermediate_size=shape["ffn"],
        rotary_percentage=1.0,
        parallel_residual=False,
        bias=False,
        norm_class_name="RMSNorm",
        norm_eps=1e-6,
        mlp_class_name="LLaMAMLP",
        lora_r=8,
        lora_alpha=16,
        lora_dropout=0.0,
        **{f"lora_{name}": True for name in switches},
    )
    torch.manual_seed(0)
    model = GPT(config)
    model.lm_head.weight = model.transformer.wte.weight
    if weights is not None:
        stored = load_file(weights)
        stored["lm_head.weight"] = stored["model.embed_tokens.weight"]
        state: dict[str, torch.Tensor] = {}
        copy_weights_hf_llama(config, {}, state, stored)
        model.load_state_dict(state, strict=False)
    mark_only_lora_as_trainable(model)
    return model


def litgpt_steps(shape: dict[str, int], weights: Path, rows: Sequence[Row]) -> Callable[[], float]:
    """Forward and backward as `litgpt finetune_lora` does them, from the same weights."""
    import torch
    from litgpt.utils import chunked_cross_entropy

    model = build_model(shape, weights)
    ids = torch.tensor([row for row, _ in rows])
    targets = ids.clone()
    for target, (_, masked) in zip(targets, rows, strict=True):
        target[:masked] = -100

    def step() -> float:
        logits = model(ids, lm_head_chunk_size=128)
        logits[-1] = logits[-1][..., :-1, :]
        loss = chunked_cross_entropy(logits, targets[..., 1:])
        loss.backward()
        model.zero_grad()
        return float(loss.detach())

    return step


def litgpt_run(
    shape: dict[str, int], rows: Sequence[Row], batch: int, steps: int
) -> dict[str, float]:
    """CPU seconds of `litgpt finetune_lora`'s own loop, from rows to its saved LoRA checkpoint.

    Left out is what the others do not do: validation, of which its loop insists on one row (two
    tokens here), and merging at the end. Rows are tokenized already, as for all.
    """
    import lightning
    from litgpt.args import EvalArgs, TrainArgs
    from litgpt.finetune import lora
    from litgpt.utils import choose_logger

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_tokenizer(folder, shape["vocab"])
        began = time.process_time()
        train = TrainArgs(
            save_interval=None,
            global_batch_size=batch,
            micro_batch_size=batch,
            lr_warmup_steps=1,
            epochs=steps,
            max_steps=steps,
        )
        logger = choose_logger("csv", folder, name="run", log_interval=1)
        fabric = lightning.Fabric(accelerator="cpu", devices=1, precision="32-true", loggers=logger)
        loaders = fabric.setup_dataloaders(
            loader(rows, batch, shuffle=True), loader([([3, 4], 1)], 1, shuffle=False)
        )
        model = fabric.setup_module(build_model(shape))
        optimizer = fabric.setup_optimizers(
            lora.instantiate_torch_optimizer(
                {"class_path": "torch.optim.AdamW", "init_args": {"lr": 1e-4}}, model.parameters()
            )
        )
        made = time.process_time()
        counts = lora.fit(
            fabric=fabric,
            model=model,
            optimizer=optimizer,
            scheduler=lora.get_lr_scheduler(optimizer, warmup_steps=1, max_steps=steps),
            train_dataloader=loaders[0],
            val_dataloader=loaders[1],
            devices=1,
            checkpoint_dir=folder,
            out_dir=folder,
            train=train,
            eval=dataclasses.replace(EvalArgs(), interval=steps + 1, max_new_tokens=1),
            data=None,
        )
        trained = time.process_time()
        lora.save_lora_checkpoint(fabric, model, folder / "lit_model.pth.lora")
        saved = time.process_time()
    return {
        "seconds": saved - began,
        "building": made - began,
        "training": trained - made,
        "saving": saved - trained,
        "tokens": counts["raw_tokens"],
    }


def loader(rows: Sequence[Row], batch: int, *, shuffle: bool) -> Any:
    """litgpt's own loading of rows that are tokenized already."""
    import torch
    from litgpt.data.base import get_sft_collate_fn

    data = []
    for ids, masked in rows:
        labels = torch.tensor([-100] * masked + ids[masked:])
        count = torch.tensor(len(ids))
        counts = {"raw": count, "raw_plus_prompt_template": count}
        data.append({"input_ids": torch.tensor(ids), "labels": labels, "token_counts": counts})
    collate = get_sft_collate_fn(pad_id=0)
    return torch.utils.data.DataLoader(
        data,  # type: ignore[arg-type]
        batch_size=batch,
        shuffle=shuffle,
        collate_fn=collate,
    )


def write_tokenizer(folder: Path, vocabulary: int) -> None:
    """The tokenizer that its loop opens, and never uses here."""
    from tokenizers import Tokenizer, models

    words = {f"w{index}": index for index in range(vocabulary)}
    Tokenizer(models.WordLevel(words, unk_token="w0")).save(str(folder / "tokenizer.json"))
    content = {"eos_token": "w1", "tokenizer_class": "PreTrainedTokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps(content), encoding="utf-8")
