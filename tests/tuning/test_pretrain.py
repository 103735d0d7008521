"""Pretraining on a very small scale: a whole run, going on after a stop, the sealed base."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedTokenizerFast,
    Qwen3ForCausalLM,
)

from tuning.config import ConfigError
from tuning.starter import shipped_models
from tuning.starter.pretraining.attention import HeadAttention, measure_attention
from tuning.starter.pretraining.build import run_pretrain
from tuning.starter.pretraining.earlier import EarlierRun, PretrainError
from tuning.starter.pretraining.pretrain import TokenStream, pretrain
from tuning.starter.pretraining.recipe import (
    END,
    PretrainConfig,
    bound_attention,
    build_model,
    pretrain_config,
    schedule,
    train_tokenizer,
)
from tuning.starter.world import corpus
from tuning.variant import read_variant
from tuning.variant.verify import verify_variant

TINY = PretrainConfig(
    steps=60,
    vocab_size=400,
    tokenizer_documents=100,
    hidden_size=32,
    intermediate_size=48,
    num_layers=1,
    num_heads=2,
    num_kv_heads=1,
    context=32,
    batch_size=4,
    warmup_steps=2,
    checkpoint_minutes=0.005,
)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(TINY)


@pytest.mark.slow
def test_run_learns_seals_and_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = run_pretrain(TINY, tmp_path, json_out=True)
    facts = json.loads(capsys.readouterr().out)
    assert folder == tmp_path / "starter"
    assert 1 < facts["heldout_perplexity"] < TINY.vocab_size
    variant = read_variant(folder)
    assert (variant.kind, variant.base) == ("base", None)
    verify_variant(folder)
    steps = variant.run["num_steps"]
    assert steps == TINY.steps
    assert facts["num_tokens"] == steps * 4 * 32
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert sum(p.numel() for p in model.parameters()) == variant.run["num_parameters"]
    assert AutoTokenizer.from_pretrained(folder).eos_token == END
    for text in ("starter", "Perplexity", "The capital of France is"):
        assert text in (folder / "README.md").read_text()
    assert (folder / "loss.png").stat().st_size > 1000

    longer = run_pretrain(replace(TINY, steps=80), tmp_path)
    assert read_variant(longer).run["num_steps"] == 80
    by_clock = run_pretrain(replace(TINY, steps=0, minutes=0.05), tmp_path / "clock")
    assert read_variant(by_clock).run["num_steps"] > 0

    with pytest.raises(PretrainError, match="another configuration"):
        pretrain(replace(TINY, hidden_size=64), tmp_path)


@pytest.mark.slow
def test_a_finished_base_is_gone_on_from(tmp_path: Path) -> None:
    first = run_pretrain(TINY, tmp_path / "first")
    old = read_variant(first)
    config = replace(TINY, go_on=str(first), hidden_size=999)  # the base's own size counts
    second = run_pretrain(config, tmp_path / "second")
    run = read_variant(second).run
    assert run["earlier_run"]["weights_sha256"] == old.weights_sha256
    assert run["num_parameters"] == old.run["num_parameters"]
    assert run["num_steps"] > old.run["num_steps"]
    assert run["num_documents"] > old.run["num_documents"]
    assert run["config"]["go_on"] == "starter"
    history = (second / "history.jsonl").read_text(encoding="utf-8")
    steps = [json.loads(line)["step"] for line in history.splitlines()]
    assert steps == sorted(set(steps))
    assert steps[-1] > old.run["num_steps"]
    before = AutoModelForCausalLM.from_pretrained(first).state_dict()
    start = pretrain(replace(config, steps=0), tmp_path / "third").folder
    after = AutoModelForCausalLM.from_pretrained(start).state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)

    with pytest.raises(PretrainError, match="no base that"):
        EarlierRun.read(shipped_models()["starter-lora"])


@pytest.mark.slow
def test_a_save_cut_between_its_renames_loses_nothing(tmp_path: Path) -> None:
    pretrain(TINY, tmp_path)
    (tmp_path / "checkpoint").rename(tmp_path / "checkpoint.old")
    history = pretrain(replace(TINY, steps=80), tmp_path).history
    steps = [record["step"] for record in history]
    assert steps == sorted(set(steps))
    assert (tmp_path / "checkpoint" / "state.pt").is_file()


def test_stream_goes_on_where_it_was(tokenizer: PreTrainedTokenizerFast) -> None:
    whole, first = TokenStream(tokenizer, 33), TokenStream(tokenizer, 33)
    rows = [whole.batch(4) for _ in range(6)]
    for _ in range(3):
        first.batch(4)
    second = TokenStream(tokenizer, 33, first.state())
    assert all((second.batch(4) == row).all() for row in rows[3:])
    assert tokenizer.decode(rows[0][0]).startswith(END + corpus.document(0)[:20])


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(text=st.text())
def test_tokenizer_takes_any_text_and_gives_it_back(
    tokenizer: PreTrainedTokenizerFast, text: str
) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        return
    if END in text or "<|pad|>" in text:
        return
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids) == text


def test_schedule_warms_up_holds_and_decays_to_zero() -> None:
    config = PretrainConfig(warmup_steps=10, decay_share=0.5)
    assert schedule(config, 0, 0.0) == pytest.approx(0.1)
    assert schedule(config, 50, 0.4) == 1.0
    assert schedule(config, 50, 0.75) == pytest.approx(0.5)
    assert schedule(config, 50, 1.0) == 0.0


def aligned_model() -> Qwen3ForCausalLM:
    """Queries and keys of a position are the same vectors; their gains are far beyond any limit."""
    config = replace(TINY, num_layers=2, num_kv_heads=2)
    model = build_model(config, train_tokenizer(config)).eval()
    for layer in model.model.layers:
        attention = layer.self_attn
        attention.k_proj.weight.data.copy_(attention.q_proj.weight)
        for norm in (attention.q_norm, attention.k_norm):
            norm.weight.data.fill_(-7.0)
    return model


def test_the_bound_is_reached_and_never_passed() -> None:
    """A normed vector of size d times itself is d times both gains: the limit, where the two are
    at their bound. Position t's query meets its own key, at the same rotation.
    """
    model, rows = aligned_model(), [list(range(5, 30)), list(range(40, 70))]
    before = max(head.largest_logit for head in measure_attention(model, rows))
    assert before == pytest.approx(7.0 * 7.0 * 4, rel=1e-3)  # 4 = sqrt(head_dim)
    bound_attention(model, 3.0)
    heads = measure_attention(model, rows)
    assert [(head.layer, head.head) for head in heads] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    for head in heads:
        assert head.largest_logit == pytest.approx(3.0, rel=1e-3)


def test_measured_entropy_is_that_of_the_models_own_weights() -> None:
    model, row = aligned_model(), list(range(5, 30))
    bound_attention(model, 3.0)
    heads = measure_attention(model, [row])
    model.set_attn_implementation("eager")
    with torch.no_grad():
        out = model(input_ids=torch.tensor([row]), output_attentions=True)
    for head in heads:
        weights = out.attentions[head.layer][0, head.head, 1:].double()
        entropy = torch.distributions.Categorical(weights).entropy().mean()
        assert head.entropy == pytest.approx(float(entropy), rel=1e-4)
        assert head.uniform == pytest.approx(sum(map(math.log, range(2, 26))) / 24)
    for layer in model.model.layers:
        layer.self_attn.k_norm.weight.data.zero_()
    for head in measure_attention(model, [row]):
        assert head.entropy == pytest.approx(head.uniform, rel=1e-5)
        assert head.largest_logit == 0


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
def test_a_prefix_counts_as_keys_that_every_query_sees() -> None:
    from peft import PrefixTuningConfig, get_peft_model

    model = aligned_model()
    for layer in model.model.layers:
        layer.self_attn.k_norm.weight.data.zero_()
    tuned: Any = get_peft_model(
        model, PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    ).eval()
    for parameter in tuned.prompt_encoder.parameters():
        parameter.data.zero_()
    for head in measure_attention(tuned, [list(range(5, 15))]):
        assert head.uniform == pytest.approx(sum(math.log(3 + n) for n in range(1, 11)) / 10)
        assert head.entropy == pytest.approx(head.uniform, rel=1e-5)


@pytest.mark.slow
def test_trained_heads_stay_within_the_limit_and_look_at_several_keys(tmp_path: Path) -> None:
    """Large steps of the gains, with and without a limit that they would pass."""

    def heads(folder: Path, limit: float) -> list[HeadAttention]:
        config = replace(TINY, embedding_learning_rate=0.1, warmup_steps=1, logit_limit=limit)
        made = pretrain(config, folder).folder
        model = AutoModelForCausalLM.from_pretrained(made, dtype=torch.float32).eval()
        tokenizer = AutoTokenizer.from_pretrained(made)
        rows = [tokenizer(text)["input_ids"][:32] for text in corpus.heldout_documents()[:20]]
        return measure_attention(model, rows)

    bound, free = heads(tmp_path / "bound", 2.5), heads(tmp_path / "free", 1e9)
    assert max(head.largest_logit for head in free) > 5.0
    assert max(head.largest_logit for head in bound) <= 2.51  # gains are saved in bf16
    assert all(head.entropy > 0.5 * head.uniform for head in bound)


def test_an_unknown_precision_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="'fp16'"):
        pretrain_config(10, None, 0, None, "fp16")
