"""Losses and advantages equal those that TRL 1.16's own trainers compute on the same rows."""

from __future__ import annotations

import copy
import math
import re
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tuning_fixtures import make_model, make_tokenizer

from tuning.preference.batches import collate_completions, completion_log_probs
from tuning.preference.losses import (
    LABEL_LOSSES,
    PAIR_LOSSES,
    LossError,
    LossNumbers,
    PairLogProbs,
    check_pair_losses,
    label_losses,
    mismatched_kl,
    pair_losses,
)
from tuning.preference.policy_gradient import (
    grpo_advantages,
    grpo_losses,
    rloo_advantages,
    rloo_losses,
)

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
NUMBERS = LossNumbers(beta=0.3, label_smoothing=0.1, discopop_tau=0.2)
PROMPT = list(range(20, 32))
CHOSEN = [[40, 41, 42, 1], [50, 1], [60, 61, 62, 63, 64, 65, 1], [70, 71, 1]]
REJECTED = [[43, 1], [51, 52, 53, 54, 1], [66, 1], [72, 73, 74, 1]]
GROUPS = [
    (PROMPT[: 4 + at], [chosen, rejected])
    for at, (chosen, rejected) in enumerate(zip(CHOSEN, REJECTED, strict=True))
]


def moved(model: Any, seed: int) -> Any:
    """A copy whose weights are elsewhere."""
    other = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for part in other.parameters():
            part.add_(torch.randn(part.shape, generator=generator), alpha=0.2)
    return other


@pytest.fixture(scope="module")
def models() -> tuple[Any, Any]:
    """A policy and its reference, so far apart that every loss is far from its start."""
    model = make_model("llama", len(make_tokenizer()))
    return moved(model, 1), model


def trl_arguments(kind: Any, folder: Path, **settings: Any) -> Any:
    return kind(
        output_dir=str(folder),
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to="none",
        disable_tqdm=True,
        beta=NUMBERS.beta,
        per_device_train_batch_size=4,
        max_length=None,
        **settings,
    )


@pytest.fixture(scope="module")
def trl_dpo(models: tuple[Any, Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """TRL's trainer and its own batch of the pairs."""
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    policy, reference = (copy.deepcopy(model) for model in models)
    rows = [{"prompt_ids": p, "chosen_ids": c, "rejected_ids": r} for p, (c, r) in GROUPS]
    folder = tmp_path_factory.mktemp("dpo")
    tokenizer = make_tokenizer()
    tokenizer.pad_token = tokenizer.eos_token
    trainer = DPOTrainer(
        policy,
        ref_model=reference,
        args=trl_arguments(
            DPOConfig,
            folder,
            label_smoothing=NUMBERS.label_smoothing,
            discopop_tau=NUMBERS.discopop_tau,
        ),
        train_dataset=Dataset.from_list([{"prompt": "a", "chosen": "b", "rejected": "c"}]),
        processing_class=tokenizer,
    )
    return trainer, trainer.data_collator(rows)


@torch.no_grad()
def ours(models: tuple[Any, Any]) -> PairLogProbs:
    batch = collate_completions(GROUPS, pad_id=1, shared=False)
    policy, reference = (completion_log_probs(model, batch) for model in models)
    lengths = batch["lengths"]
    return PairLogProbs(
        policy[::2], policy[1::2], reference[::2], reference[1::2], lengths[::2], lengths[1::2]
    )


@pytest.mark.parametrize(
    ("kinds", "weights"),
    [*(([kind], [1.0]) for kind in PAIR_LOSSES), (["sigmoid", "bco_pair", "sft"], [0.8, 0.2, 1.0])],
)
def test_dpo_losses_equal_trl(
    kinds: list[str], weights: list[float], models: tuple[Any, Any], trl_dpo: Any
) -> None:
    trainer, batch = trl_dpo
    trainer.loss_types, trainer.loss_weights = kinds, weights
    with torch.no_grad():
        wanted = trainer.compute_loss(trainer.model, batch)
    found = pair_losses(kinds, weights, ours(models), NUMBERS).mean()
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def test_a_kind_that_trl_does_not_know_is_none(trl_dpo: Any) -> None:
    """TRL's refusal lists its kinds; ours are the same."""
    trainer, batch = trl_dpo
    trainer.loss_types, trainer.loss_weights = ["none"], [1.0]
    with pytest.raises(ValueError, match="Unknown loss type") as refusal:
        trainer.compute_loss(trainer.model, batch)
    listed = str(refusal.value).partition("one of ")[2]
    assert set(re.findall(r"'(\w+)'", listed)) == set(PAIR_LOSSES)


# Each paper's formula at a ratio of 1 on both sides, with beta 0.1 and a smoothing of 0.1.
AT_START = {
    **dict.fromkeys(("sigmoid", "sigmoid_norm", "aot", "aot_unpaired", "robust"), math.log(2)),
    **dict.fromkeys(("nca_pair", "bco_pair"), 2 * math.log(2)),
    **dict.fromkeys(("hinge", "apo_zero", "apo_down"), 1.0),
    "ipo": 5.0**2,  # (0 - 1 / 2 beta)^2
    "sppo_hard": 2 * 5.0**2,
    "exo_pair": math.log(0.5) - (math.log(0.9) + math.log(0.1)) / 2,
    "discopop": 0.5 * math.log(2) + 0.5 * math.exp(0),
}


@pytest.mark.parametrize("kind", sorted(set(PAIR_LOSSES) - {"sft"}))
def test_a_policy_that_is_its_reference_has_the_loss_of_the_formula(kind: str) -> None:
    ones = torch.ones(3)
    pairs = PairLogProbs(-ones, -2 * ones, -ones, -2 * ones, ones, ones)
    found = pair_losses([kind], [1.0], pairs, LossNumbers(beta=0.1, label_smoothing=0.1))
    torch.testing.assert_close(found, torch.full((3,), AT_START[kind]))


def test_margins_ask_for_more() -> None:
    """With a margin of exactly the difference the loss is ln 2 again (ODPO)."""
    ones = torch.ones(2)
    pairs = PairLogProbs(3 * ones, -ones, 0 * ones, 0 * ones, ones, ones, margins=0.4 * ones)
    found = pair_losses(["sigmoid"], [1.0], pairs, LossNumbers(beta=0.1))
    torch.testing.assert_close(found, math.log(2) * ones)


@pytest.mark.parametrize(
    ("kinds", "smoothing", "says"),
    [
        (["simgoid"], 0.0, "unknown 'simgoid'"),
        (["exo_pair"], 0.0, "more than 0"),
        (["sigmoid", "robust"], 0.5, "less than 0.5"),
    ],
)
def test_numbers_that_leave_no_loss_are_refused(
    kinds: list[str], smoothing: float, says: str
) -> None:
    with pytest.raises(LossError, match=says):
        check_pair_losses(kinds, LossNumbers(label_smoothing=smoothing))


@pytest.mark.parametrize("kind", LABEL_LOSSES)
def test_kto_losses_equal_trl(kind: str, models: tuple[Any, Any], tmp_path: Path) -> None:
    from datasets import Dataset
    from trl import KTOConfig, KTOTrainer

    weights = {"desirable_weight": 1.2, "undesirable_weight": 0.7}
    answers = [*CHOSEN[:3], REJECTED[3]]
    labels = [True, True, True, False]
    rows = [
        {
            "prompt_ids": prompt,
            "completion_ids": answer,
            "KL_completion_ids": answers[at - 1],
            "label": labels[at],
        }
        for at, ((prompt, _), answer) in enumerate(zip(GROUPS, answers, strict=True))
    ]
    tokenizer = make_tokenizer()
    tokenizer.pad_token = tokenizer.eos_token
    policy, reference = (copy.deepcopy(model) for model in models)
    trainer = KTOTrainer(
        policy,
        ref_model=reference,
        args=trl_arguments(KTOConfig, tmp_path, loss_type=kind, **weights),
        train_dataset=Dataset.from_list([{"prompt": "a", "completion": "b", "label": True}]),
        processing_class=tokenizer,
    )
    batch = trainer.data_collator(rows)
    with torch.no_grad():
        wanted = trainer.compute_loss(trainer.model, batch)

    prompts = [prompt for prompt, _ in GROUPS]
    matched = [(p, [a]) for p, a in zip(prompts, answers, strict=True)]
    rotated = [(p, [a]) for p, a in zip(prompts, [answers[-1], *answers[:-1]], strict=True)]
    with torch.no_grad():
        found = [
            [
                completion_log_probs(model, collate_completions(groups, 1, shared=False))
                for model in models
            ]
            for groups in (matched, rotated)
        ]
    kl = mismatched_kl(*found[1])
    good = torch.tensor(labels)
    losses = label_losses(kind, found[0][0] - found[0][1], good, kl, NUMBERS.beta)
    ours = (losses * torch.where(good, 1.2, 0.7)).mean()
    torch.testing.assert_close(ours, wanted, rtol=1e-5, atol=1e-5)


def trl_self(kind: str, **own: Any) -> Any:
    """What TRL's loss reads of its trainer, with log-probabilities that are given."""
    accelerator = SimpleNamespace(
        gather=lambda x: x, reduce=lambda x, reduction: x, num_processes=1
    )
    return SimpleNamespace(
        accelerator=accelerator,
        model=SimpleNamespace(training=True),
        aux_loss_enabled=False,
        epsilon_low=0.2,
        epsilon_high=0.2,
        _metrics={"train": defaultdict(list)},
        _get_per_token_logps_and_entropies=lambda *args, **kwargs: (*2 * [own["logps"]], None),
        loss_type=kind,
        **own,
    )


def sampled() -> dict[str, torch.Tensor]:
    """Log-probabilities of four samples of up to five tokens under policy, old and reference."""
    generator = torch.Generator().manual_seed(5)
    made = {name: -torch.rand(4, 5, generator=generator) for name in ("policy", "old", "reference")}
    counted = torch.ones(4, 5)
    counted[1, 3:] = 0
    counted[3, 1:] = 0
    return {**made, "counted": counted, "advantages": torch.tensor([1.0, -0.5, 0.3, -0.8])}


def trl_inputs(made: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    ids = torch.zeros(4, 5, dtype=torch.long)
    return {
        "prompt_ids": ids,
        "prompt_mask": ids,
        "completion_ids": ids,
        "completion_mask": made["counted"],
        "advantages": made["advantages"],
    }


def test_rloo_loss_equals_trl() -> None:
    from trl import RLOOTrainer

    made = sampled()
    old = (made["old"] * made["counted"]).sum(1)
    trainer = trl_self("rloo", logps=made["policy"])
    wanted = RLOOTrainer._compute_loss(trainer, None, {**trl_inputs(made), "old_logps": old})
    policy = (made["policy"] * made["counted"]).sum(1)
    found = rloo_losses(policy, old, made["advantages"], 0.2).mean()
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)


def test_grpo_loss_equals_trl() -> None:
    from trl import GRPOTrainer

    made = sampled()
    trainer = trl_self(
        "grpo",
        logps=made["policy"],
        beta=0.05,
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        importance_sampling_level="token",
        use_vllm=False,
        _entropy_bonus_enabled=False,
        current_gradient_accumulation_steps=1,
        args=SimpleNamespace(use_bias_correction_kl=False, delta=None),
    )
    inputs = {
        **trl_inputs(made),
        "old_per_token_logps": made["old"],
        "ref_per_token_logps": made["reference"],
    }
    wanted = GRPOTrainer._compute_loss(trainer, None, inputs)
    found = grpo_losses(
        made["policy"],
        made["old"],
        made["reference"],
        made["advantages"],
        made["counted"],
        clip=0.2,
        beta=0.05,
    ).mean()
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)


def test_advantages_by_hand() -> None:
    """Of rewards 1, 2, 6: leave-one-out means 4, 3.5, 1.5; mean 3, deviation √7."""
    rewards = torch.tensor([1.0, 2.0, 6.0, 5.0, 5.0, 5.0])
    torch.testing.assert_close(
        rloo_advantages(rewards, 3), torch.tensor([-3.0, -1.5, 4.5, 0.0, 0.0, 0.0])
    )
    centred = torch.tensor([-2.0, -1.0, 3.0, 0.0, 0.0, 0.0])
    torch.testing.assert_close(grpo_advantages(rewards, 3, scale=False), centred)
    torch.testing.assert_close(
        grpo_advantages(rewards, 3), centred / math.sqrt(7), rtol=1e-4, atol=1e-6
    )
