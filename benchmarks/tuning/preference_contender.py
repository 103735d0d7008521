"""One contender of `preferences.py` in a process of its own, worked by lines on stdin.

`step` runs forward and backward of one batch of pairs; each answer is a JSON line with CPU seconds.
Every contender has the same random Llama, token ids, LoRA (r=8, all linear layers, moved off its
start) and reference; TRL is set for a CPU: no bf16, no checkpointing, reference computed once.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from contender import BATCH, LENGTH, MASKED, SHAPES, build_base, with_lora

BETA, CENTER = 0.1, 0.01
TOKENS = 2 * BATCH * LENGTH
"""Of all rows: prompt and answer, for the chosen and for the rejected one."""
Step = Callable[[], Any]


def pairs_of(shape: dict[str, int]) -> list[tuple[list[int], list[int], list[int]]]:
    """Prompts of 120 tokens with two answers of 70, as in the other benchmarks of steps."""
    import torch

    generator = torch.Generator().manual_seed(1)

    def ids(length: int) -> list[int]:
        return torch.randint(3, shape["vocab"], (length,), generator=generator).tolist()

    return [(ids(MASKED), ids(LENGTH - MASKED), ids(LENGTH - MASKED)) for _ in range(BATCH)]


def move(model: Any) -> None:
    """Adapters off their start, the same in every contender, so that losses can be compared."""
    import torch

    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, part in model.named_parameters():
            if "lora_" in name:
                part.copy_(torch.randn(part.shape, generator=generator) * 0.02)


def ours_dpo(shape: dict[str, int], folder: Path) -> Step:
    """Pairs as `arena tune --objective dpo` lays them out."""
    import torch

    from tuning.config import TuningConfig
    from tuning.hardware import pick_attention
    from tuning.preference.losses import LossNumbers, PairLogProbs, pair_losses
    from tuning.preference.policy import Policy

    model = with_lora(build_base(shape, pick_attention(LENGTH) or "sdpa"))
    groups = [(prompt, [chosen, rejected]) for prompt, chosen, rejected in pairs_of(shape)]
    config = TuningConfig(base="b", data=("d",), name="n", objective="dpo")
    policy = Policy(config, model, groups, 0, "fp32", print)
    assert policy.shares_prompts
    reference = policy.at_start(model, groups).view(-1, 2)
    move(model)

    def step() -> Any:
        batch = policy.collate(groups)
        found, lengths = policy.log_probs(model, batch).view(-1, 2), batch["lengths"].view(-1, 2)
        pairs = PairLogProbs(*found.T, *reference.T, *lengths.T)
        loss = pair_losses(["sigmoid"], [1.0], pairs, LossNumbers(BETA)).mean()
        loss.backward()
        return loss

    torch.set_grad_enabled(True)
    return step


def trl_dpo(shape: dict[str, int], folder: Path) -> Step:
    """TRL's DPOTrainer on its own batch, the reference precomputed."""
    from datasets import Dataset
    from peft import LoraConfig
    from trl import DPOConfig, DPOTrainer

    tokenizer = words(folder, shape["vocab"])
    trainer = DPOTrainer(
        build_base(shape),
        peft_config=LoraConfig(
            r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM"
        ),
        args=DPOConfig(beta=BETA, max_length=None, **for_a_cpu(folder)),
        train_dataset=Dataset.from_list([{"prompt": "1", "chosen": "2", "rejected": "3"}]),
        processing_class=tokenizer,
    )
    rows = [
        {"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected}
        for prompt, chosen, rejected in pairs_of(shape)
    ]
    batch = trainer.data_collator(rows)
    chosen, rejected = trainer.compute_ref_log_probs(trainer.model, batch)
    batch |= {"ref_chosen_logps": chosen, "ref_rejected_logps": rejected}
    trainer.precompute_ref_logps = True
    move(trainer.model)
    trainer.current_gradient_accumulation_steps = 1  # its own loop sets it
    return lambda: trainer.training_step(trainer.model, batch)


def scoring(shape: dict[str, int], attention: str = "sdpa") -> Any:
    """The same Llama with a scalar head and LoRA."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaForSequenceClassification

    base = build_base(shape, attention)
    config = base.config
    config.num_labels, config.pad_token_id = 1, 0
    torch.manual_seed(4)
    model = LlamaForSequenceClassification(config)
    model.model.load_state_dict(base.model.state_dict())
    lora = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="SEQ_CLS")
    model = get_peft_model(model, lora)
    move(model)
    return model


def ours_reward(shape: dict[str, int], folder: Path) -> Step:
    """Pairs as `arena tune --objective reward` lays them out."""
    import numpy as np

    from tuning.config import TuningConfig
    from tuning.data.preferences.pairs import Origin
    from tuning.hardware import pick_attention
    from tuning.preference.reward import PairCollator, PairRow, _lean_of, measured
    from tuning.preference.shared_scores import can_fold, folded_scores

    model = scoring(shape, pick_attention(LENGTH) or "sdpa")
    rows = [
        PairRow(np.array(prompt + chosen), np.array(prompt + rejected), Origin("s", 1), at)
        for at, (prompt, chosen, rejected) in enumerate(pairs_of(shape))
    ]
    collate = PairCollator(0)
    config = TuningConfig(base="b", data=("d",), name="n", objective="reward")
    lean = _lean_of(config, model, collate([rows[:2]]), 0, print)
    few = [(row.chosen, row.rejected) for row in rows[:2]]
    assert can_fold(model, lean, few, collate([rows[:2]])["input_ids"], 0)
    folded = PairCollator(0, folded=True)

    def step() -> Any:
        assert lean is not None
        batch = folded([rows])
        chosen, rejected = folded_scores(model, batch, lean).chunk(2)
        loss = measured(chosen, rejected, batch, CENTER).total / len(rows)
        loss.backward()
        return loss

    return step


def trl_reward(shape: dict[str, int], folder: Path) -> Step:
    """TRL's RewardTrainer on its own batch."""
    from datasets import Dataset
    from trl import RewardConfig, RewardTrainer

    tokenizer = words(folder, shape["vocab"])
    trainer = RewardTrainer(
        scoring(shape),
        args=RewardConfig(center_rewards_coefficient=CENTER, max_length=None, **for_a_cpu(folder)),
        train_dataset=Dataset.from_list([{"chosen": "2", "rejected": "3"}]),
        processing_class=tokenizer,
    )
    rows = [
        {"chosen_ids": prompt + chosen, "rejected_ids": prompt + rejected}
        for prompt, chosen, rejected in pairs_of(shape)
    ]
    batch = trainer.data_collator(rows)
    trainer.current_gradient_accumulation_steps = 1  # its own loop sets it
    return lambda: trainer.training_step(trainer.model, batch)


def for_a_cpu(folder: Path) -> dict[str, Any]:
    """Settings under which TRL is not slowed down by what a CPU lacks."""
    return {
        "output_dir": str(folder),
        "per_device_train_batch_size": BATCH,
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "report_to": "none",
        "disable_tqdm": True,
    }


def words(folder: Path, size: int) -> Any:
    """A tokenizer with a word for each id; TRL asks for one and is given ids."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {"<pad>": 0, "</s>": 1, "<unk>": 2} | {str(at): at for at in range(3, size)}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )


MAKERS = {
    ("ours", "dpo"): ours_dpo,
    ("trl", "dpo"): trl_dpo,
    ("ours", "reward"): ours_reward,
    ("trl", "reward"): trl_reward,
}


def main() -> None:
    import torch

    warnings.simplefilter("ignore")
    # What libraries print must not stand between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    who, what, shape = sys.argv[1:4]
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        step = MAKERS[who, what](SHAPES[shape], Path(scratch))
        for _ in sys.stdin:
            began = time.process_time()
            loss = float(step().detach())
            found = {
                "seconds": time.process_time() - began,
                "loss": loss,
                "tokens": TOKENS,
                "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            }
            answers.write(json.dumps(found) + "\n")
            answers.flush()


if __name__ == "__main__":
    main()
