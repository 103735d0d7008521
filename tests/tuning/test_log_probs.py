"""Log-probabilities of completions equal transformers' own, lean or not, shared prompts or not."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from tuned_models import VOCABULARY, make_batch, make_tuned

from tuning.data.preferences.pairs import Origin
from tuning.fused.loss import label_log_probs
from tuning.fused.model import Lean, make_lean
from tuning.models.scorer import score_ids
from tuning.preference.batches import collate_completions, completion_log_probs
from tuning.preference.reward import PairCollator, PairRow
from tuning.preference.shared_scores import can_fold, fold_pairs, folded_scores

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*fan_in_fan_out.*:UserWarning"),
]


def plain_log_probs(model: Any, batch: dict[str, torch.Tensor], temperature: float) -> torch.Tensor:
    """From the logits of every position, as a textbook would."""
    logits = model(input_ids=batch["input_ids"]).logits.float() / temperature
    logs = torch.log_softmax(logits[:, :-1], -1)
    targets = batch["labels"][:, 1:]
    picked = logs.gather(-1, targets.clamp(min=0)[..., None])[..., 0]
    return picked[targets != -100]


def gradients(model: Any, value: torch.Tensor) -> dict[str, torch.Tensor]:
    """Of every trained parameter, of a sum in which every log-probability has another weight."""
    model.zero_grad()
    (value * torch.linspace(-1, 2, len(value))).sum().backward()
    return {
        name: part.grad.clone()
        for name, part in model.named_parameters()
        if part.requires_grad and part.grad is not None
    }


def lean_of(model: Any, batch: dict[str, torch.Tensor]) -> Lean:
    lean = make_lean(model, lambda lean: -label_log_probs(model, batch, lean=lean).sum())
    assert lean is not None
    return lean


def assert_close(ours: dict[str, torch.Tensor], usual: dict[str, torch.Tensor]) -> None:
    assert ours.keys() == usual.keys()
    for name, wanted in usual.items():
        torch.testing.assert_close(ours[name], wanted, rtol=1e-4, atol=1e-4, msg=name)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize(
    ("kind", "method"), [("llama", "full"), ("llama", "lora"), ("qwen3", "lora"), ("gpt2", "lora")]
)
def test_log_probs_equal_those_of_whole_logits(kind: str, method: str, temperature: float) -> None:
    model, batch = make_tuned(kind, method).eval(), make_batch(packed=False)
    usual = plain_log_probs(model, batch, temperature)
    wanted = gradients(model, usual)
    for lean in (None, lean_of(model, batch)):
        found = label_log_probs(model, batch, lean=lean, temperature=temperature)
        torch.testing.assert_close(found, usual, rtol=1e-5, atol=1e-5)
        assert_close(gradients(model, found), wanted)


def groups_of_rows() -> list[tuple[list[int], list[list[int]]]]:
    """Prompts with two completions each, of unlike lengths; one prompt of a single token."""
    generator = torch.Generator().manual_seed(3)

    def ids(length: int) -> list[int]:
        return torch.randint(3, VOCABULARY, (length,), generator=generator).tolist()

    return [
        (ids(70), [ids(5), ids(80)]),
        (ids(1), [ids(9), ids(1)]),
        (ids(20), [ids(30), ids(30)]),
    ]


@pytest.mark.parametrize("kind", ["llama", "qwen3"])
@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_shared_prompt_is_computed_once_and_changes_nothing(kind: str, method: str) -> None:
    model, groups = make_tuned(kind, method).eval(), groups_of_rows()
    apart = collate_completions(groups, pad_id=0, shared=False)
    together = collate_completions(groups, pad_id=0, shared=True)
    assert together["input_ids"].numel() < apart["input_ids"].numel()
    usual = completion_log_probs(copy.deepcopy(model), apart)
    plain = copy.deepcopy(model)
    wanted = gradients(plain, completion_log_probs(plain, apart))
    lean = lean_of(model, apart)
    assert lean.keeps_branches(model)
    for batch in (apart, together):
        found = completion_log_probs(model, batch, lean=lean)
        torch.testing.assert_close(found, usual, rtol=1e-5, atol=1e-4)
        assert_close(gradients(model, found), wanted)


def test_completions_lie_behind_their_own_prompts_only() -> None:
    """Another second completion leaves the log-probability of the first as it was."""
    model, groups = make_tuned("llama", "lora").eval(), groups_of_rows()
    lean = lean_of(model, collate_completions(groups, pad_id=0, shared=False))
    before = completion_log_probs(model, collate_completions(groups, 0, shared=True), lean=lean)
    prompt, (first, second) = groups[0]
    groups[0] = (prompt, [first, second[::-1]])
    after = completion_log_probs(model, collate_completions(groups, 0, shared=True), lean=lean)
    torch.testing.assert_close(after[[0, 2, 3, 4, 5]], before[[0, 2, 3, 4, 5]])
    assert abs((after - before)[1].item()) > 1e-3


def test_layers_of_others_keep_no_branches() -> None:
    model, batch = make_tuned("gpt2", "lora").eval(), make_batch(packed=False)
    assert not lean_of(model, batch).keeps_branches(model)


@pytest.mark.parametrize("kind", ["llama", "qwen3"])
def test_scores_of_pairs_that_begin_alike_are_those_of_whole_rows(kind: str) -> None:
    """With the gradients; one pair shares all but the ends, one nothing, one is a row and more."""
    from transformers import AutoModelForSequenceClassification

    base = make_tuned(kind, "full")
    base.config.num_labels, base.config.pad_token_id = 1, 0
    torch.manual_seed(5)
    model = AutoModelForSequenceClassification.from_config(base.config, attn_implementation="eager")
    groups = groups_of_rows()
    rows = [
        (np.array([*prompt, *first]), np.array([*prompt, *second]))
        for prompt, (first, second) in groups
    ]
    rows += [(rows[0][0], rows[0][0][:-3]), (rows[1][1], rows[2][0])]
    apart = PairCollator(0)([[PairRow(*pair, Origin("x", 1), 0) for pair in rows]])["input_ids"]
    usual = score_ids(model, apart, 0)
    wanted = gradients(model, usual)
    lean = make_lean(model, lambda lean: score_ids(model, apart, 0, lean).sum())
    assert can_fold(model, lean, rows, apart, 0)
    assert lean is not None
    batch = fold_pairs(rows, 0)
    assert batch["input_ids"].numel() < apart.numel()
    found = folded_scores(model, batch, lean)
    torch.testing.assert_close(found, usual, rtol=1e-5, atol=1e-5)
    assert_close(gradients(model, found), wanted)
