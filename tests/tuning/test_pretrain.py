"""Pretraining on a very small scale: a whole run, going on after a stop, the sealed base."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from tuning.starter import shipped_models
from tuning.starter.pretraining.build import run_pretrain
from tuning.starter.pretraining.earlier import EarlierRun, PretrainError
from tuning.starter.pretraining.pretrain import TokenStream, pretrain
from tuning.starter.pretraining.recipe import END, PretrainConfig, schedule, train_tokenizer
from tuning.starter.world import corpus
from tuning.variant import read_variant
from tuning.variant.verify import verify_variant

TINY = PretrainConfig(
    minutes=0.1,
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


def test_run_learns_seals_and_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = run_pretrain(TINY, tmp_path, json_out=True)
    facts = json.loads(capsys.readouterr().out)
    assert folder == tmp_path / "starter"
    assert 1 < facts["heldout_perplexity"] < TINY.vocab_size
    variant = read_variant(folder)
    assert (variant.kind, variant.base) == ("base", None)
    verify_variant(folder)
    steps = variant.run["num_steps"]
    assert facts["num_tokens"] == steps * 4 * 32
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert sum(p.numel() for p in model.parameters()) == variant.run["num_parameters"]
    assert AutoTokenizer.from_pretrained(folder).eos_token == END
    for text in ("starter", "Perplexity", "The capital of France is"):
        assert text in (folder / "README.md").read_text()
    assert (folder / "loss.png").stat().st_size > 1000

    longer = run_pretrain(replace(TINY, minutes=0.15), tmp_path)
    assert read_variant(longer).run["num_steps"] > steps

    with pytest.raises(PretrainError, match="another configuration"):
        pretrain(replace(TINY, hidden_size=64), tmp_path)


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
    start = pretrain(replace(config, minutes=0.0), tmp_path / "third").folder
    after = AutoModelForCausalLM.from_pretrained(start).state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)

    with pytest.raises(PretrainError, match="no base that"):
        EarlierRun.read(shipped_models()["starter-lora"])


def test_a_save_cut_between_its_renames_loses_nothing(tmp_path: Path) -> None:
    pretrain(TINY, tmp_path)
    (tmp_path / "checkpoint").rename(tmp_path / "checkpoint.old")
    history = pretrain(replace(TINY, minutes=0.12), tmp_path).history
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
