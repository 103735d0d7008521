"""Lean layers give the loss and the gradients of the layers they stand in for."""

from __future__ import annotations

import copy
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from tiny_models import make_tiny
from tuned_models import VOCABULARY, make_batch, make_tuned
from tuning_fixtures import make_base, make_tokenizer, rows, write_rows

from tuning import TuningConfig, tune
from tuning.config import TrainingOptions
from tuning.fused.loss import label_loss
from tuning.fused.model import Lean, make_lean

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*fan_in_fan_out.*:UserWarning"),
]
CHANGED = {
    "llama": {"Linear", "LlamaDecoderLayer", "LlamaAttention", "LlamaRMSNorm", "LlamaMLP"},
    "qwen2": {"Linear", "Qwen2DecoderLayer", "Qwen2Attention", "Qwen2RMSNorm", "Qwen2MLP"},
    "qwen3": {"Linear", "Qwen3DecoderLayer", "Qwen3Attention", "Qwen3RMSNorm", "Qwen3MLP"},
    "gpt2": {"Linear", "GPT2MLP"},
}


def gradients(
    model: Any, batch: dict[str, torch.Tensor], lean: Lean | None, half: bool = False
) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss for each label and the gradient of every trained parameter."""
    model.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
        total, items = label_loss(model, batch, lean=lean)
    (total / items).backward()
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return float(total.detach() / items), {name: grad.clone() for name, grad in found.items()}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("method", ["full", "lora", "dora", "ia3", "prefix"])
@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3", "gpt2"])
def test_loss_and_gradients_are_the_same(kind: str, method: str, packed: bool) -> None:
    if packed and method == "prefix":
        pytest.skip("packing is refused for prefix")
    model, batch = make_tuned(kind, method).eval(), make_batch(packed)
    loss, wanted = gradients(model, batch, None)
    lean = make_lean(model, lambda lean: label_loss(model, batch, lean=lean)[0])
    assert lean is not None
    changed = {type(module).__name__ for module in lean.changed}
    assert changed >= CHANGED[kind]
    found_loss, found = gradients(model, batch, lean)
    assert found_loss == pytest.approx(loss, rel=1e-5)
    assert found.keys() == wanted.keys()
    for name, grad in wanted.items():
        largest = float(grad.abs().max())
        assert float((found[name] - grad).abs().max()) <= 1e-4 * largest + 1e-8, name
    lean.undo()
    assert gradients(model, batch, None)[0] == loss


@pytest.mark.parametrize("lean_layers", [False, True])
@pytest.mark.parametrize("method", ["full", "lora", "ia3"])
@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3", "gpt2"])
def test_no_token_of_a_pack_sees_another_row(kind: str, method: str, lean_layers: bool) -> None:
    """The loss of one row has no gradient at all at another row's tokens, and is its loss alone."""
    model, batch = make_tuned(kind, method).eval(), make_batch(True)
    lean = make_lean(model, lambda lean: label_loss(model, batch, lean=lean)[0])
    assert lean is not None
    if not lean_layers:
        lean.undo()
        lean = None
    seen: list[torch.Tensor] = []

    def keep(module: Any, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        seen.append(output.detach().requires_grad_())
        return seen[-1]

    model.get_input_embeddings().register_forward_hook(keep)
    rows = [slice(0, 90), slice(90, 150)]
    for own, other in (rows, reversed(rows)):
        one = {**batch, "labels": torch.full_like(batch["labels"], -100)}
        one["labels"][:, own] = batch["labels"][:, own]
        one["labels"][:, own.start] = -100  # in a pack, a first token has nothing before it
        total, items = label_loss(model, one, lean=lean)
        (grad,) = torch.autograd.grad(total, seen[-1])
        assert grad[:, own].any()
        assert not grad[:, other].any()
        alone = {name: part[:, own].contiguous() for name, part in one.items()}
        alone.pop("position_ids")
        again, count = label_loss(model, alone)
        assert int(items) == int(count)
        assert total.item() == pytest.approx(again.item(), rel=1e-5)


@pytest.mark.parametrize("lean_layers", [False, True])
def test_the_head_sees_label_positions_only(lean_layers: bool) -> None:
    model, batch = make_tuned("llama", "lora").eval(), make_batch(False)
    lean = make_lean(model, lambda lean: label_loss(model, batch, lean=lean)[0])
    assert lean is not None
    if not lean_layers:
        lean.undo()
        lean = None
    head, seen = model.get_output_embeddings(), []
    usual = head.forward
    head.forward = lambda states: seen.append(states.shape[:-1].numel()) or usual(states)
    _, items = label_loss(model, batch, lean=lean)
    assert seen == [int(items)]
    assert seen[0] < batch["labels"].numel() // 2


def test_weights_too_large_to_be_copied_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = make_tuned("llama", "lora").eval(), make_batch(False)
    loss, wanted = gradients(model, batch, None)
    monkeypatch.setattr("tuning.fused.layers.TURNED_BYTES", 0)
    lean = make_lean(model, lambda lean: label_loss(model, batch, lean=lean)[0])
    found_loss, found = gradients(model, batch, lean)
    assert not any("frozen_turned" in vars(module) for module in model.modules())
    assert found_loss == pytest.approx(loss, rel=1e-5)
    for name, grad in wanted.items():
        assert torch.allclose(found[name], grad, rtol=1e-3, atol=1e-4 * float(grad.abs().max()))


@pytest.mark.parametrize("kind", ["llama", "qwen3"])
def test_bf16_is_as_near_to_fp32_as_the_usual_layers_are(kind: str) -> None:
    model, batch = make_tuned(kind, "lora").eval(), make_batch(False)
    exact_loss, exact = gradients(model, batch, None)
    usual_loss, usual = gradients(model, batch, None, half=True)
    lean = make_lean(model, lambda lean: label_loss(model, batch, lean=lean)[0])
    lean_loss, ours = gradients(model, batch, lean, half=True)
    assert lean_loss == pytest.approx(exact_loss, rel=1e-2)
    assert usual_loss == pytest.approx(exact_loss, rel=1e-2)

    def error(found: dict[str, torch.Tensor]) -> float:
        parts = [float((found[name] - grad).norm() ** 2) for name, grad in exact.items()]
        return float(sum(parts)) ** 0.5

    assert error(ours) <= 1.2 * error(usual)


def test_an_evaluation_sees_the_weights_of_the_moment() -> None:
    """A cast that is kept must be of a frozen weight, never of one that is trained."""
    model, batch = make_tuned("llama", "full").eval(), make_batch(False)
    lean = make_lean(model, lambda lean: label_loss(model, batch, lean=lean)[0])
    losses = []
    for _ in range(2):
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
            ours, usual = (float(label_loss(model, batch, lean=which)[0]) for which in (lean, None))
            assert ours == pytest.approx(usual, rel=2e-3)
        losses.append(usual)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(1.5)
    assert abs(losses[1] - losses[0]) > 0.02 * losses[0]


def test_dropout_keeps_the_usual_lora_layers() -> None:
    model, batch = make_tuned("llama", "dropout").eval(), make_batch(False)
    lean = make_lean(model, lambda lean: label_loss(model, batch, lean=lean)[0])
    assert lean is not None
    assert not any(hasattr(module, "lora_A") for module in lean.changed)


def test_generation_is_not_changed() -> None:
    model = make_tuned("llama", "lora").eval()
    usual = copy.deepcopy(model)
    batch = make_batch(False)
    assert make_lean(model, lambda lean: label_loss(model, batch, lean=lean)[0]) is not None
    ids = batch["input_ids"][:, :9]
    options = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": 1}
    with torch.no_grad():
        assert torch.equal(
            model.generate(input_ids=ids, **options), usual.generate(input_ids=ids, **options)
        )


def test_a_model_that_scales_its_logits_keeps_its_layers() -> None:
    """A head whose output is changed after it cannot give the loss itself."""
    from transformers import Gemma2Config, Gemma2ForCausalLM

    torch.manual_seed(0)
    config = Gemma2Config(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        final_logit_softcapping=2.0,
        pad_token_id=0,
    )
    config._attn_implementation = "eager"
    model, batch = Gemma2ForCausalLM(config).eval(), make_batch(False)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
        before = label_loss(model, batch)[0]
        assert make_lean(model, lambda lean: label_loss(model, batch, lean=lean)[0]) is None
        assert label_loss(model, batch)[0] == before


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("phi", "output head gives is changed"),
        ("gptj", "output head gives is changed"),
        ("codegen", "output head gives is changed"),
        ("bloom", "TypeError"),
        ("deepseek_v4", "TypeError"),
        ("gpt_oss", "IndexError"),
        ("cohere", "the loss of two rows would be"),
        ("nanochat", "the loss of two rows would be"),
    ],
)
def test_other_architectures_keep_their_layers_and_say_why(kind: str, reason: str) -> None:
    model, batch, said = make_tiny(kind, VOCABULARY).eval(), make_batch(False), list[str]()
    loss, wanted = gradients(model, batch, None)
    assert (
        make_lean(model, lambda lean: label_loss(model, batch, lean=lean)[0], said.append) is None
    )
    assert len(said) == 1
    assert reason in said[0]
    assert "\n" not in said[0]
    assert not any("forward" in vars(module) for module in model.modules())
    again, found = gradients(model, batch, None)
    assert again == loss
    assert all(torch.equal(found[name], grad) for name, grad in wanted.items())


@pytest.mark.parametrize("kind", ["falcon", "gemma", "granite", "mixtral", "olmo2", "stablelm"])
def test_architectures_that_are_lean_in_part_give_the_same(kind: str) -> None:
    model, batch = make_tiny(kind, VOCABULARY).eval(), make_batch(False)
    loss, wanted = gradients(model, batch, None)
    lean = make_lean(model, lambda lean: label_loss(model, batch, lean=lean)[0])
    assert lean is not None
    assert lean.changed
    found_loss, found = gradients(model, batch, lean)
    assert found_loss == pytest.approx(loss, rel=1e-5)
    for name, grad in wanted.items():
        assert float((found[name] - grad).abs().max()) <= 1e-3 * float(grad.abs().max()) + 1e-7


def test_layers_with_other_gradients_are_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same loss is not enough: what is trained follows the gradient."""
    from tuning.fused.functions import SwiGlu

    class Steeper(SwiGlu):
        @staticmethod
        def backward(ctx: Any, grad: torch.Tensor) -> Any:
            return tuple(1.2 * part for part in SwiGlu.backward(ctx, grad))

    monkeypatch.setattr("tuning.fused.model.SwiGlu", Steeper)
    model, batch, said = make_tuned("llama", "full").eval(), make_batch(False), list[str]()
    assert (
        make_lean(model, lambda lean: label_loss(model, batch, lean=lean)[0], said.append) is None
    )
    assert said == ["the gradients of two rows would differ"]


@pytest.mark.slow
def test_a_base_without_lean_layers_is_tuned_as_if_they_were_off(tmp_path: Path) -> None:
    """Once through `tune`: one line that says so, and the weights of plain layers."""
    base = make_base(tmp_path / "base")
    make_tiny("phi", len(make_tokenizer())).save_pretrained(base)
    data = write_rows(tmp_path / "rows.jsonl", rows())
    weights = []
    for is_lean in (True, False):
        out = StringIO()
        config = TuningConfig(
            base=str(base),
            data=(str(data),),
            name=f"v{is_lean}",
            home=tmp_path,
            training=TrainingOptions(max_steps=2, batch_size=8, lean=is_lean),
        )
        weights.append(tune(config, console=Console(file=out, width=400)).weights_sha256)
        said = [line for line in out.getvalue().splitlines() if "training.lean" in line]
        assert len(said) == is_lean
    assert weights[0] == weights[1]
