"""Loading beside running streams: throttled work, what is stacked already, tokenizers shared."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import llguidance.hf
import pytest
import serving_models as tiny
import torch
import transformers

from serving.adapters.peft_reader import read_adapter
from serving.adapters.stacking import Stack
from serving.completion.grammar import GrammarCompiler, translate
from serving.config import EngineLimits
from serving.engine.engine import Engine
from serving.errors import ModelLoadError
from serving.models import throttle
from serving.models.throttle import throttled
from serving.models.tokenizers import TokenizerCache
from serving.protocol.schema import Grammar

KINDS = ("lora", "dora", "ia3", "prefix")


class Clock:
    """Time that passes at each look at it: a tenth of a turn."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        self.now += throttle.WORK_SECONDS / 10
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.mark.parametrize("busy", [True, False])
def test_work_sleeps_after_each_turn_while_there_are_streams(
    monkeypatch: pytest.MonkeyPatch, busy: bool
) -> None:
    clock = Clock()
    monkeypatch.setattr(throttle, "time", clock)
    before = sys.getprofile()

    def work() -> None:
        with throttled(lambda: busy):
            for _ in range(100):
                json.dumps({})
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()
    assert sys.getprofile() is before
    worked = clock.now - sum(clock.slept)
    turns = int(worked / throttle.WORK_SECONDS)
    assert turns > 10
    if busy:
        assert turns * 0.8 <= len(clock.slept) <= turns
    else:
        assert clock.slept == []


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_stacks_copied_from_stacks_are_what_stacking_anew_gives(
    tmp_path: Path, architecture: str
) -> None:
    base = tiny.save_checkpoint(architecture, tmp_path / "base")
    settings = {"second": {"r": 2, "target_modules": tiny.ALL_LINEAR.get(
        architecture, tiny.LLAMA_LINEAR)[:1]}}  # fmt: skip
    found = {}
    for number, kind in enumerate((*KINDS, "second")):
        made = "lora" if kind == "second" else kind
        tiny.save_adapter(
            architecture, base, tmp_path / kind, made, seed=number, **settings.get(kind, {})
        )
        found[kind] = read_adapter(tmp_path / kind, kind)

    def engine() -> Engine:
        model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        return Engine(model, EngineLimits(max_total_tokens=64, prefix_cache_tokens=0))

    grown = engine()
    # Joins, a place in the middle that goes, another order, and one that comes back.
    for names in (
        ["lora"], ["lora", "ia3"], ["lora", "ia3", "prefix", "dora", "second"],
        ["second", "lora", "dora"], ["dora", "lora"], ["dora", "ia3", "lora"],
    ):  # fmt: skip
        adapters = [found[name] for name in names]
        prepared = grown.prepare_adapters(adapters)
        anew = engine().prepare_adapters(adapters)
        assert prepared.slots == anew.slots
        assert prepared.stacks.keys() == anew.stacks.keys()
        for place, stack in anew.stacks.items():
            assert_same(prepared.stacks[place], stack)
        grown.install_adapters(adapters, prepared)


def assert_same(one: Stack, other: Stack) -> None:
    for field in fields(Stack):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if isinstance(b, torch.Tensor):
            torch.testing.assert_close(a, b, rtol=0, atol=0)
        else:
            assert a == b, field.name


def test_folders_that_differ_in_the_template_share_a_tokenizer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.save_tokenizer(tmp_path / "base")
    tiny.save_tokenizer(tmp_path / "tuned", tiny.TEMPLATE)
    cache = TokenizerCache()
    base, tuned = cache.load(tmp_path / "base"), cache.load(tmp_path / "tuned")
    assert tuned.backend_tokenizer is base.backend_tokenizer
    assert base.chat_template is None
    del tuned  # Variants come and go; the base stays.
    tuned = cache.load(tmp_path / "tuned")
    assert tuned.backend_tokenizer is base.backend_tokenizer
    told = transformers.AutoTokenizer.from_pretrained(tmp_path / "tuned")
    messages = [{"role": "user", "content": "the ünï 漢字 🙂"}]
    for tokenize in (False, True):
        wanted = told.apply_chat_template(messages, tokenize=tokenize, add_generation_prompt=True)
        assert (
            tuned.apply_chat_template(messages, tokenize=tokenize, add_generation_prompt=True)
            == wanted
        )
    assert tuned.all_special_ids == told.all_special_ids
    made, make_table = [], llguidance.hf.from_tokenizer

    def count(tokenizer: Any, **settings: Any) -> Any:
        made.append(tokenizer)
        return make_table(tokenizer, **settings)

    monkeypatch.setattr(llguidance.hf, "from_tokenizer", count)
    compiler, digits = GrammarCompiler(), translate(Grammar(type="regex", value="[0-9]+"))
    for tokenizer in (base, tuned, told):
        scores = torch.zeros(tiny.VOCAB)
        compiler.compile(digits, tokenizer, tiny.VOCAB, frozenset({1})).mask(scores)
        allowed = [int(token) for token in scores.isfinite().nonzero()[:, 0]]
        assert allowed == [i for i in range(tiny.VOCAB) if told.decode([i]).isdecimal()]
    assert len(made) == 2


def test_folders_whose_tokens_differ_do_not(tmp_path: Path) -> None:
    tiny.save_tokenizer(tmp_path / "base")
    cache = TokenizerCache()
    base = cache.load(tmp_path / "base")
    for name, file, change in (
        ("words", "tokenizer.json", {"added_tokens": []}),
        ("end", "tokenizer_config.json", {"eos_token": "<s>"}),
        ("template", "tokenizer_config.json", {"chat_template": "x"}),
    ):
        shutil.copytree(tmp_path / "base", tmp_path / name)
        path = tmp_path / name / file
        path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
        other = cache.load(tmp_path / name)
        assert other.backend_tokenizer is not base.backend_tokenizer, name
    assert cache.load(tmp_path / "end").eos_token == "<s>"
    assert cache.load(tmp_path / "template").chat_template == "x"
    # A folder that was written anew is read anew.
    shutil.copy(tmp_path / "end" / "tokenizer_config.json", tmp_path / "base")
    assert cache.load(tmp_path / "base").eos_token == "<s>"
    with pytest.raises(ModelLoadError, match="no usable tokenizer"):
        cache.load(tmp_path / "nothing")
